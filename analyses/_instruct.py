"""What the scripts on instruction steering share: the instructions, their prompts and vectors, and how trials are kept as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from steerlab import data
from steerlab.bundled.corpus import LANGUAGES
from steerlab.data.ifeval import InstructedPrompt
from steerlab.following import Answer, Cell, Query, TrialTable, instruct, own_queries, split_queries
from steerlab.following.trials import Trial, trial_tables
from steerlab.generation import Settings
from steerlab.instructions import Pairs, build_pairs, pair_name

WORDS = ("house", "people")
FORMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("simple:lowercase", {}),
    ("simple:uppercase", {}),
    ("simple:quotes", {}),
    *(("simple:end_mark", {"mark": mark}) for mark in ("!", "?", ";")),
    ("simple:max_words", {"n": 5}),
    *(("simple:include_word", {"word": word}) for word in WORDS),
)
TONGUES: tuple[tuple[str, dict[str, Any]], ...] = tuple(("simple:language", {"language": c}) for c in LANGUAGES)
ASKED = (*FORMS, *TONGUES)  # 21 instructions, each with a vector of its own
SETTINGS = Settings(max_new_tokens=40, greedy=True)
ROWS = 256  # texts a batch


def queries(split: str, openers: int) -> list[Query]:
    """Base queries that name no language: every subject of the split, in `openers` of its four wordings, which take turns."""
    own = split_queries(own_queries())[split]  # type: ignore[index]
    groups = list(dict.fromkeys(query.group for query in own))
    chosen = []
    for place, group in enumerate(groups):
        mine = [query for query in own if query.group == group]
        chosen += [mine[(place + k) % len(mine)] for k in range(openers)]
    return chosen


def prompts(
    split: str, openers: int, asked: Sequence[tuple[str, dict[str, Any]]] = ASKED, seed: int = 0
) -> list[InstructedPrompt]:
    """Every query of the split with every instruction, its phrasing drawn from (seed, query, instruction)."""
    found = []
    for name, kwargs in asked:
        cell = pair_name(name, kwargs)
        for query in queries(split, openers):
            text = instruct(query.text, name, kwargs, seed, query.id)
            row = (f"{query.id}-{cell}", text, query.text, query.group, (name,), (kwargs,), (cell,), split)
            found.append(InstructedPrompt(*row))
    return found


def fitting_pairs(phrasings: int, seed: int) -> list[Pairs]:
    """What the vectors are fitted on: every training subject once, in so many phrasings of each instruction."""
    own = queries("train", 1)
    return [build_pairs(own, name, kwargs, phrasings=phrasings, seed=seed) for name, kwargs in ASKED]


def kind(cell: str) -> str:
    """What an instruction is called in pictures: "simple:end_mark_!" is "end mark"."""
    known = {name.split(":")[1] for name, _ in ASKED}
    body = cell.split(":")[-1]
    return max((name for name in known if body.startswith(name)), key=len).replace("_", " ")


def by_kind(answer: Answer) -> Answer:
    """The answer, its instruction called by kind: all languages together, all marks, all words."""
    return replace(answer, cells=tuple(kind(cell) for cell in answer.cells))


def short(cell: str) -> str:
    """The same with its argument: "end mark !"."""
    argument = cell.split(":")[-1].removeprefix(kind(cell).replace(" ", "_")).lstrip("_")
    return f"{kind(cell)} {argument}".strip()


def trial_rows(tables: Mapping[str, TrialTable], **facts: object) -> pd.DataFrame:
    """One row per trial: instruction, prompt, group, layer (-1: not steered), strength, followed, perplexity, and the facts."""
    rows = []
    for name, own in tables.items():
        for i, prompt in enumerate(own.prompts):
            for c, cell in enumerate(own.cells):
                where = (-1, 0.0) if cell is None else (cell.layer, cell.strength)
                rows.append((name, prompt, own.groups[i], *where, int(own.followed[i, c]), own.perplexity[i, c]))
    columns = ["instruction", "prompt", "group", "layer", "strength", "followed", "perplexity"]
    return pd.DataFrame(rows, columns=columns).assign(**facts)


def tables_from(rows: pd.DataFrame) -> dict[str, TrialTable]:
    """The trial tables `trial_rows` wrote."""
    trials = []
    for row in rows.itertuples(index=False):
        own: Any = row
        cell = None if own.layer < 0 else Cell(int(own.layer), float(own.strength))
        surprise = math.nan if np.isnan(own.perplexity) else float(own.perplexity)
        trials.append(Trial(own.instruction, own.prompt, own.group, cell, bool(own.followed), surprise))
    return trial_tables(trials)


def prompt_hashes(rows: Sequence[InstructedPrompt], pairs: Sequence[Pairs] = ()) -> dict[str, str]:
    """sha256 of the prompts by split, and of the pairs that vectors were fitted on."""
    found = {
        f"prompts {s}": data.texts_sha256([r.prompt for r in rows if r.split == s]) for s in {r.split for r in rows}
    }
    if pairs:
        found["fitting pairs"] = data.texts_sha256([text for own in pairs for text in own.instructed])
    return dict(sorted(found.items()))
