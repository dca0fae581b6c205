"""Base queries of our own for small models, in groups by subject, and splits that keep a subject's queries together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from steerlab.data.languages import language as find_language
from steerlab.errors import SteerlabError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
SHARES: Mapping[Split, float] = {"train": 0.6, "valid": 0.2, "test": 0.2}
_LISTED = """
science/technology: batteries, telescopes, volcano research, computer chips, bees, robots, satellites, the brain, wind turbines, magnets
travel: night trains, a small island, mountain huts, a port city, a desert road, old inns, a cruise, lost luggage, a border town, tents
politics: an election, a new law, a peace treaty, city councils, a protest, a prime minister, taxes, a referendum, a court ruling, voters
sports: a football final, marathons, a swimmer, ice hockey, a chess champion, cycling, a young goalkeeper, the Olympics, rowing, tennis
health: sleep, vaccines, a hospital, back pain, healthy food, a flu season, walking, allergies, a new medicine, nurses
entertainment: a film festival, a singer, street theatre, a novel, a comedy show, dance music, a museum, a series, circuses, a painter
geography: a great lake, glaciers, a delta, the highest mountain, a rainforest, an island chain, deserts, a river valley, a coast, caves
"""
# The labels are those of the topic task, so that a text with the label can serve as an answer.
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    label: tuple(own.strip() for own in listed.split(","))
    for label, _, listed in (line.partition(":") for line in _LISTED.strip().splitlines())
}
OPENERS = (
    "Write a sentence about {subject}{in_language}.",
    "Tell me something about {subject}{in_language}.",
    "Give me a short text on {subject}{in_language}.",
    "Describe {subject}{in_language}.",
)


@dataclass(frozen=True)
class Query:
    """A request without an instruction. `group`: the subject, which all its wordings and languages share; `language`: the code of
    the language it names, None if none.
    """

    id: str
    text: str
    group: str
    label: str
    language: str | None = None


def own_queries(languages: Sequence[str | None] = (None,)) -> list[Query]:
    """70 subjects x 4 openers x the languages named (None names none), in a fixed order."""
    found = []
    for code in languages:
        name = None if code is None else find_language(code).name
        for label, subjects in SUBJECTS.items():
            for subject in subjects:
                for number, opener in enumerate(OPENERS):
                    text = opener.format(subject=subject, in_language=f" in {name}" if name else "")
                    key = f"{subject.replace(' ', '-')}-{number}" + (f"-{code}" if code else "")
                    found.append(Query(key, text, subject, label, code))
    return found


def split_queries(
    queries: Sequence[Query], seed: int = 0, shares: Mapping[Split, float] = SHARES
) -> dict[Split, tuple[Query, ...]]:
    """Queries by split, every group in one split only, every label divided by the shares as nearly as whole groups allow.

    Depends on the groups and the seed, not on the order of the queries. Raises `SteerlabError` for shares that do not sum to 1, and a
    split that would be empty.
    """
    if set(shares) != set(SPLITS) or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise SteerlabError(f"the shares {dict(shares)} were given: give train, valid and test shares that sum to 1.")
    by_label: dict[str, set[str]] = defaultdict(set)
    for query in queries:
        by_label[query.label].add(query.group)
    place: dict[str, Split] = {}
    for label in sorted(by_label):
        groups = sorted(by_label[label])
        random.Random(f"{seed}\x1f{label}").shuffle(groups)
        first, second = (round(len(groups) * s) for s in (shares["train"], shares["train"] + shares["valid"]))
        for number, group in enumerate(groups):
            mine: Split = "train" if number < first else "valid" if number < second else "test"
            if place.setdefault(group, mine) != mine:
                raise SteerlabError(f"the subject {group!r} stands under two labels: give every group one label.")
    found: dict[Split, tuple[Query, ...]] = {
        name: tuple(q for q in queries if place[q.group] == name) for name in SPLITS
    }
    empty = [name for name in SPLITS if not found[name]]
    if empty:
        raise SteerlabError(f"{len(place)} groups leave the split {empty[0]!r} empty: give more base queries.")
    return found
