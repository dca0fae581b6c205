"""Paired prompts, with an instruction and without it: what an instruction vector is fitted on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.following.phrasings import PHRASINGS, phrase
from steerlab.following.prompts import cell_name
from steerlab.following.queries import Query
from steerlab.records import encode_text


@dataclass(frozen=True)
class Pairs:
    """Prompts with one instruction, `instructed`, each beside the same prompt without it, `bare`.

    `name` is the instruction's, in tables and for its vector. `groups`: what pairs about one base query share, so that halves and
    folds keep them together. Raises `SteerlabError` unless there are as many of each, and at least one.
    """

    name: str
    instructed: tuple[str, ...]
    bare: tuple[str, ...]
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = [len(self.instructed), len(self.bare), len(self.groups)]
        if len(set(sizes)) != 1 or not sizes[0]:
            raise SteerlabError(
                f"{self.name}: {sizes[0]} prompts with the instruction, {sizes[1]} without and {sizes[2]} groups were given: "
                "give one of each per pair, and at least one pair."
            )

    def __len__(self) -> int:
        return len(self.bare)

    def flipped(self) -> Pairs:
        """The two sides in each other's place."""
        return Pairs(self.name, self.bare, self.instructed, self.groups)


def pairs_of(prompts: Sequence[InstructedPrompt]) -> list[Pairs]:
    """The prompts with exactly one instruction, by instruction (every language, mark, ... its own), in order of appearance."""
    by_name: dict[str, list[InstructedPrompt]] = defaultdict(list)
    for row in prompts:
        if len(row.cells) == 1:
            by_name[row.cells[0]].append(row)
    return [
        Pairs(name, tuple(r.prompt for r in own), tuple(r.base for r in own), tuple(r.group for r in own))
        for name, own in by_name.items()
    ]


def build_pairs(
    queries: Sequence[Query | str],
    instruction: str,
    kwargs: Mapping[str, Any] | None = None,
    *,
    phrasings: int = 1,
    seed: int = 0,
) -> Pairs:
    """Every base query behind which the instruction stands in `phrasings` different wordings, drawn from (seed, query) alone.

    There are as many wordings of a query as asked for, or as many as there are. Raises `SteerlabError` for an unknown instruction,
    wrong arguments, no queries, and fewer than one phrasing.
    """
    if phrasings < 1 or not queries:
        raise SteerlabError(f"{len(queries)} queries and {phrasings} phrasings were given: give at least one of each.")
    own, rows = dict(kwargs or {}), []
    phrase(instruction, own)  # refuses what has no phrasings before it is counted
    known = range(len(PHRASINGS[instruction]))
    for query in queries:
        text, group = (query, query) if isinstance(query, str) else (query.text, query.group)
        rng = random.Random(encode_text(f"{seed}\x1f{text}\x1f{instruction}"))
        for number in rng.sample(known, min(phrasings, len(known))):
            rows.append((f"{text} {phrase(instruction, own, number)}", text, group))
    instructed, bare, groups = zip(*rows, strict=True)
    return Pairs(pair_name(instruction, own), instructed, bare, groups)


def pair_name(instruction: str, kwargs: Mapping[str, Any]) -> str:
    """The name `cell_name` gives, and for words the word too: every word has a vector of its own."""
    words = kwargs.get("words") or ([kwargs["word"]] if "word" in kwargs else [])
    return f"{instruction}_{'+'.join(words)}" if words else cell_name(instruction, kwargs)
