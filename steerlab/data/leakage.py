"""Do two sets of texts share sentences? Vectors, training and evaluation must not; every run reports it.

Two texts are the same when they agree after `normalise` (exact), and near when they share 13 words in a row, or when the Jaccard
similarity of their character 8-gram sets is at least 0.6 (about one word in ten changed). Texts shorter than 20 normalised
characters are ignored: "thank you" in two corpora is not leakage. The similarity join is exact (prefix filtering), not sampled.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from steerlab.errors import SteerlabError

WORDS = 13
CHARACTERS = 8
JACCARD = 0.6
SHORTEST = 20
EXAMPLES = 3


@lru_cache(maxsize=65536)
def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PSCZ"


def normalise(text: str) -> str:
    """NFKC, case folded, punctuation, symbols and control characters to spaces, runs of white space to one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(" " if _is_mark(c) else c for c in folded).split())


@dataclass(frozen=True)
class Match:
    """Row `first` of one group and row `second` of the other; `similarity` is the Jaccard index of their character 8-grams."""

    first: int
    second: int
    kind: Literal["exact", "near"]
    similarity: float
    first_text: str
    second_text: str


@dataclass(frozen=True)
class Overlap:
    """What two groups share: numbers of matching rows of each, and the matches themselves."""

    first: str
    second: str
    exact: int
    near: int
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class LeakageReport:
    """Overlap of every pair of groups. `sizes` are the numbers of texts given, `ignored` those too short to judge."""

    sizes: dict[str, int]
    ignored: dict[str, int]
    overlaps: tuple[Overlap, ...]

    @property
    def clean(self) -> bool:
        return not any(overlap.matches for overlap in self.overlaps)

    def rows(self, group: str) -> tuple[int, ...]:
        """The rows of a group that match a row of any other group: what to leave out."""
        if group not in self.sizes:
            raise SteerlabError(f"group {group!r} was not compared: give one of {', '.join(self.sizes)}.")
        found: set[int] = set()
        for overlap in self.overlaps:
            found.update(match.first for match in overlap.matches if overlap.first == group)
            found.update(match.second for match in overlap.matches if overlap.second == group)
        return tuple(sorted(found))

    def assert_clean(self) -> None:
        """Raises `SteerlabError` naming the pairs of groups that share texts, the counts and one example."""
        dirty = [overlap for overlap in self.overlaps if overlap.matches]
        if dirty:
            told = "; ".join(f"{o.first} and {o.second} share {o.exact} exact and {o.near} near texts" for o in dirty)
            raise SteerlabError(
                f"{told}, for example {dirty[0].matches[0].second_text[:80]!r}: leave these texts out of one side."
            )

    def describe(self) -> str:
        """One line per pair of groups."""
        return "\n".join(f"{o.first} / {o.second}: {o.exact} exact, {o.near} near" for o in self.overlaps)

    def to_json(self) -> str:
        """Sizes, counts and at most three examples per pair, with the thresholds that were used."""
        pairs = [
            {"first": o.first, "second": o.second, "exact": o.exact, "near": o.near}
            | {"examples": [asdict(match) for match in o.matches[:EXAMPLES]]}
            for o in self.overlaps
        ]
        rules = {"words": WORDS, "characters": CHARACTERS, "jaccard": JACCARD, "shortest": SHORTEST}
        report = {
            "clean": self.clean,
            "sizes": self.sizes,
            "ignored": self.ignored,
            "rules": rules,
            "pairs": pairs,
        }
        return json.dumps(report, ensure_ascii=False, indent=2)


def _character_grams(text: str) -> np.ndarray:
    """Sorted distinct 64-bit hashes of the text's character 8-grams (of the whole text when it is shorter)."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    width = min(CHARACTERS, len(codes))
    hashed = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for offset in range(width):
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + len(hashed)]
    return np.unique(hashed)


def _word_grams(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}


def _prefixes(grams: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """(text, gram) for each text's rarest grams: texts at least `JACCARD` similar share one of them.

    With n grams, n - ceil(JACCARD n) + 1 of them suffice (Chaudhuri et al. 2006; Bayardo et al. 2007).
    """
    flat = np.concatenate(grams)
    values, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(values))
    ranks = np.split(rank[inverse], np.cumsum([len(g) for g in grams])[:-1])
    for text, own in enumerate(ranks):
        keep = len(own) - math.ceil(JACCARD * len(own)) + 1
        for gram in np.partition(own, keep - 1)[:keep].tolist():
            yield text, gram


def _candidates(
    texts: Sequence[str], owners: Sequence[frozenset[str]], grams: Sequence[np.ndarray]
) -> dict[tuple[int, int], bool]:
    """Pairs (lower, higher) of distinct texts from different groups that may be near; True where they share 13 words in a row."""
    pairs: dict[tuple[int, int], bool] = {}

    def cross(postings: Mapping[object, list[int]], certain: bool) -> None:
        for posting in postings.values():
            for i, a in enumerate(posting):
                for b in posting[i + 1 :]:
                    if len(owners[a] | owners[b]) > 1:
                        pair = (a, b) if a < b else (b, a)
                        pairs[pair] = pairs.get(pair, False) or certain

    shared: dict[object, list[int]] = defaultdict(list)
    for text, gram in _prefixes(grams):
        shared[gram].append(text)
    cross(shared, certain=False)
    runs: dict[object, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        for run in _word_grams(text):
            runs[run].append(number)
    cross(runs, certain=True)
    return pairs


def _near(texts: Sequence[str], owners: Sequence[frozenset[str]]) -> Iterator[tuple[int, int, float]]:
    """Near pairs of distinct normalised texts and their Jaccard similarity."""
    if not texts:
        return
    grams = [_character_grams(text) for text in texts]
    for (a, b), certain in _candidates(texts, owners, grams).items():
        small, large = sorted((len(grams[a]), len(grams[b])))
        if not certain and small < JACCARD * large:
            continue
        common = len(np.intersect1d(grams[a], grams[b], assume_unique=True))
        similarity = common / (small + large - common)
        if certain or similarity >= JACCARD:
            yield a, b, float(similarity)


def overlap_report(groups: Mapping[str, Sequence[str]]) -> LeakageReport:
    """Compare every pair of named groups of texts; repeats within a group are not leakage and are not reported.

    20,000 sentences take seconds on one core. Raises `SteerlabError` on fewer than two groups.
    """
    if len(groups) < 2:
        raise SteerlabError(f"{len(groups)} group of texts was given: a leakage check compares at least two.")
    rows: dict[str, dict[str, list[int]]] = {}
    ignored: dict[str, int] = {}
    for name, texts in groups.items():
        mine: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(texts):
            mine[normalise(text)].append(number)
        ignored[name] = sum(len(numbers) for text, numbers in mine.items() if len(text) < SHORTEST)
        rows[name] = {text: numbers for text, numbers in mine.items() if len(text) >= SHORTEST}
    distinct = list(dict.fromkeys(text for mine in rows.values() for text in mine))
    owners = [frozenset(name for name, mine in rows.items() if text in mine) for text in distinct]
    links = [(text, text, 1.0) for text in distinct]
    for a, b, similarity in _near(distinct, owners):
        links += [(distinct[a], distinct[b], similarity), (distinct[b], distinct[a], similarity)]
    names = list(groups)
    overlaps = [_overlap(groups, rows, links, a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return LeakageReport({name: len(texts) for name, texts in groups.items()}, ignored, tuple(overlaps))


def _overlap(
    groups: Mapping[str, Sequence[str]],
    rows: Mapping[str, Mapping[str, list[int]]],
    links: Sequence[tuple[str, str, float]],
    first: str,
    second: str,
) -> Overlap:
    """The matches of one pair of groups: distinct texts linked as equal or near, each by its first row in either group."""
    matches = []
    for a, b, similarity in links:
        if a in rows[first] and b in rows[second]:
            kind: Literal["exact", "near"] = "exact" if a == b else "near"
            for i in rows[first][a]:
                for j in rows[second][b]:
                    matches.append(Match(i, j, kind, similarity, groups[first][i], groups[second][j]))
    matches.sort(key=lambda match: (match.kind, -match.similarity, match.first, match.second))
    counts = {kind: len({m.second for m in matches if m.kind == kind}) for kind in ("exact", "near")}
    return Overlap(first, second, counts["exact"], counts["near"], tuple(matches))
