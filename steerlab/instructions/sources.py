"""Prompts to fit, choose and test on: our own base queries, IFEval's, or a file of yours, with no base query in two splits."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steerlab.data.ifeval import InstructedPrompt, load_instructions
from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.following.phrasings import PHRASINGS, instruct
from steerlab.following.prompts import MARKS, cell_name, simple_prompts, together
from steerlab.following.queries import SPLITS, Split, own_queries, split_queries
from steerlab.following.registry import SIMPLE, arguments
from steerlab.store import read_rows

SOURCES = ("own", "ifeval")
# Instructions each value of which has a vector of its own.
VALUES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "simple:language": tuple({"language": code} for code in LANGUAGES),
    "simple:end_mark": tuple({"mark": mark} for mark in MARKS),
}
IFEVAL_SHARE = 0.6  # of IFEval's base queries that no test shares: to fit on; the rest chooses


def prompt_source(
    source: str,
    part: Split,
    instructions: Sequence[str] = (),
    n: int = 20,
    *,
    seed: int = 0,
    root: Path | None = None,
) -> list[InstructedPrompt]:
    """At most `n` prompts per instruction for one part, drawn from (seed, source) alone, the instructions in the order given.

    "own": the simple instructions behind our base queries, subjects divided. "ifeval": to fit ("train") and to choose ("valid") the
    instructions of its 163 single ones behind base queries that no test prompt shares, in our wordings, with arguments IFEval gives
    them; to test the 163 prompts themselves. Else a .jsonl file of rows with `base`, `instructions`, `kwargs`, and perhaps
    `prompt` (made from the phrasings unless given), `group`, `id` and `split` (rows without one are used for every part).

    `instructions`: names of instructions, or of cells such as "simple:end_mark_!"; none means all. Raises `SteerlabError` for a part,
    source or instruction that is not there.
    """
    if part not in SPLITS or n < 1:
        raise SteerlabError(
            f"part {part!r} and {n} prompts were asked for: give one of {', '.join(SPLITS)} and at least 1."
        )
    if source == "own":
        wanted = tuple(name for name in SIMPLE if _among(name, instructions)) or SIMPLE
        rows = _own(part, wanted, seed)
    elif source == "ifeval":
        rows = _ifeval(part, seed, root)
    elif source.endswith(".jsonl"):
        rows = _file(Path(source), part, seed)
    else:
        raise SteerlabError(f"source {source!r} is not known: give own, ifeval, or a file that ends in .jsonl.")
    return _drawn(rows, instructions, n, seed, source)


def _among(name: str, wanted: Sequence[str]) -> bool:
    """Is the instruction, or a cell of it, asked for?"""
    return any(own == name or own.startswith(f"{name}_") for own in wanted)


def _drawn(
    rows: Sequence[InstructedPrompt], instructions: Sequence[str], n: int, seed: int, source: str
) -> list[InstructedPrompt]:
    """At most n of every cell; a random draw that keeps to different groups as long as it can."""
    by_cell: dict[str, list[InstructedPrompt]] = defaultdict(list)
    for row in rows:
        wanted = not instructions or all(
            cell in instructions or name in instructions for cell, name in zip(row.cells, row.instructions, strict=True)
        )
        if wanted:
            by_cell["+".join(row.cells)].append(row)
    # One order of the base queries for all instructions, so that they share those they are fitted on.
    bases = list(dict.fromkeys((row.group, row.base) for row in rows))
    random.Random(f"{seed}\x1f{source}").shuffle(bases)
    seen: dict[str, int] = defaultdict(int)
    turn = {}
    for place, (group, base) in enumerate(bases):
        turn[base] = (seen[group], place)  # every group once before any twice
        seen[group] += 1
    found = [row for own in by_cell.values() for row in sorted(own, key=lambda row: turn[row.base])[:n]]
    there = {name for row in found for name in (*row.cells, *row.instructions)}
    lacking = [name for name in instructions if name not in there]
    if lacking or not found:
        known = ", ".join(dict.fromkeys(cell for row in rows for cell in row.cells))
        raise SteerlabError(
            f"{source} has no prompt for {', '.join(lacking) or 'any instruction'} in this part: it has {known}."
        )
    return found


def _own(part: Split, wanted: Sequence[str], seed: int) -> list[InstructedPrompt]:
    """Every base query with every instruction, and with every language and mark, which are instructions of their own."""
    queries = split_queries(own_queries())[part]
    found: list[InstructedPrompt] = []
    for name in wanted:
        if name not in VALUES:
            found += simple_prompts(queries, [name], seed, part)
        for kwargs in VALUES.get(name, ()):
            cell = cell_name(name, kwargs)
            for query in queries:
                prompt = instruct(query.text, name, kwargs, seed, query.id)
                row = (f"{query.id}-{cell}", prompt, query.text, query.group, (name,), (kwargs,), (cell,), part)
                found.append(InstructedPrompt(*row))
    return found


def _ifeval(part: Split, seed: int, root: Path | None) -> list[InstructedPrompt]:
    tests = load_instructions("format", root).prompts
    if part == "test":
        return list(tests)
    pool = load_instructions("fit", root).prompts
    bases = list({row.group: row.base for row in pool}.items())
    random.Random(f"{seed}\x1fifeval").shuffle(bases)
    cut = round(IFEVAL_SHARE * len(bases))
    chosen = bases[:cut] if part == "train" else bases[cut:]
    # Arguments as IFEval draws them: of prompts that are not tested on, of tested ones for the instructions only those have.
    given: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for several in (pool, tests):
        known = set(given)
        for row in several:
            for cell, name, kwargs in zip(row.cells, row.instructions, row.kwargs, strict=True):
                if cell not in known:
                    given[cell].append((name, kwargs))
    cells = [cell for cell in dict.fromkeys(row.cells[0] for row in tests) if given[cell][0][0] in PHRASINGS]
    found = []
    for cell in cells:
        for group, base in chosen:
            rng = random.Random(f"{seed}\x1f{cell}\x1f{group}")
            name, kwargs = rng.choice(given[cell])
            prompt = instruct(base, name, kwargs, seed)
            found.append(InstructedPrompt(f"{group}-{cell}", prompt, base, group, (name,), (kwargs,), (cell,), part))
    return found


def _file(path: Path, part: Split, seed: int) -> list[InstructedPrompt]:
    found = []
    for number, row in enumerate(read_rows(path), 1):
        if row.get("split", part) != part:
            continue
        try:
            names = (row["instructions"],) if isinstance(row["instructions"], str) else tuple(row["instructions"])
            given = row.get("kwargs", [{}] * len(names))
            kwargs = tuple(dict(own) for own in ([given] if isinstance(given, Mapping) else given))
            base = str(row["base"])
        except (KeyError, TypeError, ValueError) as error:
            raise SteerlabError(
                f"line {number} of {path} lacks {error} or holds it in another form: see `prompt_source`."
            ) from error
        if len(names) != len(kwargs) or not names:
            raise SteerlabError(
                f"line {number} of {path} has {len(names)} instructions and {len(kwargs)} kwargs: give one each."
            )
        prompt = base
        for name, own in zip(names, kwargs, strict=True):
            arguments(name, own)
            prompt = instruct(prompt, name, own, seed, base) if "prompt" not in row else prompt
        cells = tuple(map(cell_name, names, kwargs))
        row_id = str(row.get("id", f"{path.stem}-{number}"))
        found.append(
            InstructedPrompt(
                row_id, str(row.get("prompt", prompt)), base, str(row.get("group", base)), names, kwargs, cells, part
            )
        )
    if not found:
        raise SteerlabError(f"{path} has no prompt of the part {part!r}: give rows with it, or without a split.")
    return found


def joined(rows: Sequence[InstructedPrompt], cells: Sequence[str]) -> list[InstructedPrompt]:
    """Prompts with all the instructions at once, one for every base query that has a prompt with each of them alone, in that order;
    behind it stand the instructions' own sentences.

    Raises `SteerlabError` for instructions no answer can follow together, and where no base query has them all.
    """
    by_base: dict[str, dict[str, InstructedPrompt]] = defaultdict(dict)
    for row in rows:
        if len(row.cells) == 1 and row.prompt.startswith(row.base):
            by_base[row.base].setdefault(row.cells[0], row)
    found = []
    for base, own in by_base.items():
        if set(cells) <= set(own):
            parts = [own[cell] for cell in cells]
            names = together([part.instructions[0] for part in parts])
            prompt = base + "".join(part.prompt.removeprefix(base) for part in parts)
            kwargs, first = tuple(part.kwargs[0] for part in parts), parts[0]
            name = "+".join(part.id for part in parts)
            found.append(InstructedPrompt(name, prompt, base, first.group, names, kwargs, tuple(cells), first.split))
    if not found:
        raise SteerlabError(f"no base query has prompts with each of {', '.join(cells)}: give more prompts, or others.")
    return found


def prompt_digest(rows: Sequence[InstructedPrompt]) -> list[str]:
    """One line per prompt that says what it is, for a run's configuration."""
    return [json.dumps([row.id, row.prompt, row.base, row.cells], ensure_ascii=False) for row in rows]
