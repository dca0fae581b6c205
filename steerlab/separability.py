"""How far the surface alone tells the two sides of pairs apart: length, word frequency and character n-grams, with intervals.

A direction fitted on pairs can be no better than what separates them: if the degraded side is shorter, a quality vector is a
length vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int

from steerlab import probes, scoring
from steerlab.data.contrast import ContrastPairs
from steerlab.data.surface import normalise_surface
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate, PairedTest, bootstrap, exact_sign_test, wilson
from steerlab.evaluation.words import words
from steerlab.records import plain

Surface = Literal["raw", "normalised"]
SURFACES: tuple[Surface, ...] = ("raw", "normalised")
NGRAMS, FREQUENCY = "character n-grams", "word frequency"
TELLS = 0.05  # an AUROC this far from 0.5 tells the sides apart
LOPSIDED = 0.1  # and so does a side that is the longer one in this much more than half of the pairs that differ


@dataclass(frozen=True)
class Cue:
    """How well one property ranks a human text above a degraded one (AUROC; 0.5 is not at all).

    A length (characters, words, tokens) is its own score: above 0.5 the human side is longer, below it shorter. Character
    n-grams and word frequency are fitted on other folds; `shuffled` is their AUROC when the labels are shuffled, NaN for lengths.
    """

    name: str
    surface: Surface
    auroc: Estimate
    shuffled: float

    @property
    def tells(self) -> bool:
        """The interval leaves out 0.5 and the value is at least `TELLS` away from it."""
        a = self.auroc
        return abs(a.value - 0.5) >= TELLS and not a.low <= 0.5 <= a.high


@dataclass(frozen=True)
class Within:
    """Lengths within pairs: the share in which the degraded side is longer, shorter, the mean difference (degraded minus human),
    and the sign test of the two shares.
    """

    unit: str
    surface: Surface
    longer: Estimate
    shorter: Estimate
    difference: Estimate
    test: PairedTest

    @property
    def lopsided(self) -> bool:
        """One side is the longer one in clearly more than half of the pairs that differ."""
        differ = self.test.wins + self.test.losses
        return self.test.p < 0.05 and abs(self.test.wins / differ - 0.5) >= LOPSIDED


@dataclass(frozen=True)
class Separability:
    """What the surface gives away, per form of it. `pairs`: pairs that differ there, by surface; `shared`: pairs that share a text
    with another pair and stay in its fold.
    """

    pairs: Mapping[str, int]
    shared: int
    cues: tuple[Cue, ...]
    within: tuple[Within, ...]

    def cue(self, name: str, surface: Surface = "normalised") -> Cue:
        """One cue. Raises `SteerlabError` when it was not measured."""
        for cue in self.cues:
            if (cue.name, cue.surface) == (name, surface):
                return cue
        there = ", ".join(f"{cue.name} ({cue.surface})" for cue in self.cues)
        raise SteerlabError(f"no cue {name!r} was measured on the {surface} surface: there are {there}.")

    @property
    def length_tells(self) -> bool:
        """A length separates the sides, over all texts or within pairs, on the surface a vector is fitted on (the last measured)."""
        last = self.cues[-1].surface
        lengths = [cue for cue in self.cues if cue.surface == last and cue.name not in (NGRAMS, FREQUENCY)]
        return any(cue.tells for cue in lengths) or any(w.lopsided for w in self.within if w.surface == last)

    @property
    def verdict(self) -> str:
        """Two sentences: what tells the sides apart, and what to do about it."""
        surface = self.cues[-1].surface
        grams = self.cue(NGRAMS, surface)
        own = {w.unit: (w, self.cue(w.unit, surface)) for w in self.within if w.surface == surface}
        within, length = max(own.values(), key=lambda pair: (pair[0].lopsided, abs(pair[1].auroc.value - 0.5)))
        value = f"AUROC of {within.unit} {length.auroc:.2f}"
        shares = f"the degraded side is longer in {within.longer.value:.0%} of pairs and shorter in {within.shorter.value:.0%}"
        if length.tells:
            told = f"Length tells the sides apart ({value}; {shares})"
        elif within.lopsided:
            told = f"Length tells the sides apart within pairs ({shares}), though hardly over all texts ({value})"
        else:
            told = f"Length hardly tells the sides apart ({value}; {shares})"
        do = "a vector fitted on these pairs is no length vector."
        if self.length_tells:
            do = "fit the length-matched variant, or the vector is partly a length vector."
        spelling = "do" if grams.tells else "do not"
        return f"{told}; {do} Character n-grams {spelling} (AUROC {grams.auroc:.2f})."

    def rows(self) -> list[dict[str, Any]]:
        """One row per cue and surface, for a table."""
        return [
            {
                "cue": cue.name,
                "surface": cue.surface,
                "pairs": cue.auroc.n,
                "auroc": cue.auroc.value,
                "low": cue.auroc.low,
                "high": cue.auroc.high,
                "shuffled": cue.shuffled,
            }
            for cue in self.cues
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, NaN as None."""
        within = [
            {
                "unit": w.unit,
                "surface": w.surface,
                "degraded_longer": w.longer.to_json(),
                "degraded_shorter": w.shorter.to_json(),
                "mean_difference": w.difference.to_json(),
                "sign_test_p": w.test.p,
            }
            for w in self.within
        ]
        pairs = dict(self.pairs)
        found = {"pairs": pairs, "shared": self.shared, "cues": self.rows(), "within": within, "verdict": self.verdict}
        return cast(dict[str, Any], plain(found))


def separability(
    pairs: ContrastPairs,
    *,
    tokens: Callable[[str], int] | None = None,
    surfaces: Sequence[Surface] = SURFACES,
    folds: int = 5,
    seed: int = 0,
    resamples: int = 1000,
) -> Separability:
    """Measure every cue on the texts as they are ("raw") and as `normalise_surface` leaves them ("normalised").

    Folds and bootstrap resamples never part a pair, nor pairs that share a text. Pairs that a surface makes equal are left out
    there. `tokens` counts the tokens of a text for a third length. Raises `SteerlabError` for too few pairs for the folds.
    """
    if not surfaces:
        raise SteerlabError("no surface was asked for: give 'raw', 'normalised' or both.")
    counts: dict[str, int] = {}
    cues: list[Cue] = []
    within: list[Within] = []
    group = same_text_groups(pairs)
    for surface in surfaces:
        form = normalise_surface if surface == "normalised" else str
        sides = [(form(pair.human), form(pair.degraded)) for pair in pairs]
        kept = [i for i, (human, degraded) in enumerate(sides) if human and degraded and human != degraded]
        if len(set(group[kept].tolist())) < folds:
            raise SteerlabError(
                f"{len(kept)} pairs that differ ({surface}) were given: {folds} folds need at least {folds} without a common text."
            )
        counts[surface] = len(kept)
        human, degraded = ([sides[i][side] for i in kept] for side in (0, 1))
        units = {"characters": len, "words": lambda text: len(words(text))} | ({"tokens": tokens} if tokens else {})
        lengths = {unit: _sizes(human, degraded, size) for unit, size in units.items()}
        cues += _cues(human, degraded, lengths, group[kept], surface, folds, seed, resamples)
        within += [_within(unit, surface, *sizes, group[kept], seed) for unit, sizes in lengths.items()]
    sizes = np.bincount(group)
    return Separability(counts, int(sizes[sizes > 1].sum()), tuple(cues), tuple(within))


def same_text_groups(pairs: ContrastPairs) -> Int[np.ndarray, "n"]:
    """A number per pair, equal for pairs that share a text on either side (in normalised form), directly or through others."""
    leader = list(range(len(pairs)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    first: dict[str, int] = {}
    for i, pair in enumerate(pairs):
        for text in (normalise_surface(pair.human), normalise_surface(pair.degraded)):
            leader[find(i)] = find(first.setdefault(text, i))
    return np.array([find(i) for i in range(len(pairs))], dtype=np.int64)


Lengths = tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]


def _sizes(human: Sequence[str], degraded: Sequence[str], size: Callable[[str], int]) -> Lengths:
    return np.array([float(size(text)) for text in human]), np.array([float(size(text)) for text in degraded])


def _cues(
    human: list[str],
    degraded: list[str],
    lengths: Mapping[str, Lengths],
    group: Int[np.ndarray, "n"],
    surface: Surface,
    folds: int,
    seed: int,
    resamples: int,
) -> list[Cue]:
    """Every cue on one surface: lengths as they are, the rest by probes that share their folds."""
    n = len(human)
    both, texts = np.concatenate([group, group]), [*human, *degraded]
    positive = np.arange(2 * n) < n
    weight = scoring.group_resamples(both, resamples, seed)
    found = []
    for unit, sizes in lengths.items():
        scores, one = np.concatenate(sizes), np.zeros(2 * n, dtype=np.int64)
        value = scoring.auroc(scores, positive, one, np.ones((1, 2 * n)))[0]
        low, high = scoring.interval(scoring.auroc(scores, positive, one, weight))
        found.append(Cue(unit, surface, _estimate(float(value), low, high, n), float("nan")))
    y, groups = torch.from_numpy(positive.astype(np.int64)), torch.from_numpy(both)
    trial = probes.trial(y, groups, folds=folds, seed=seed, shuffles=1, resamples=resamples)
    fitted = {
        FREQUENCY: probes.evaluate(FREQUENCY, trial, _frequency_scorer(texts)),
        NGRAMS: probes.char_ngram_baseline(texts, y, groups, folds, seed, resamples=resamples),
    }
    for name, result in fitted.items():
        found.append(Cue(name, surface, _estimate(result.value, result.low, result.high, n), result.shuffled))
    return found


def _estimate(value: float, low: float, high: float, n: int) -> Estimate:
    return Estimate(value, low, high, n, "" if low == low else "too few groups of texts for an interval")


def _frequency_scorer(texts: Sequence[str]) -> probes.Scorer:
    """Mean log frequency of a text's words, counted on the training rows of both sides; the training rows say which way it points."""
    vocabulary: dict[str, int] = {}
    tokens = [words(text) for text in texts]
    ids = np.array([vocabulary.setdefault(w, len(vocabulary)) for own in tokens for w in own], dtype=np.int64)
    owner = np.repeat(np.arange(len(texts)), [len(own) for own in tokens])
    sizes = np.maximum(np.bincount(owner, minlength=len(texts)), 1)

    def score(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        known = np.zeros(len(texts), dtype=bool)
        known[train] = True
        counts = np.bincount(ids[known[owner]], minlength=len(vocabulary))
        mean = np.bincount(owner, weights=np.log1p(counts)[ids], minlength=len(texts)) / sizes
        weights, offset = probes.fit_linear("diff_of_means", mean[train][:, None], labels, 1.0)
        return mean[test][:, None] @ weights.T + offset

    return score


def _within(
    unit: str,
    surface: Surface,
    human: Float[np.ndarray, "n"],
    degraded: Float[np.ndarray, "n"],
    group: Int[np.ndarray, "n"],
    seed: int,
) -> Within:
    test = exact_sign_test(degraded, human)
    n = len(human)
    difference = bootstrap(degraded - human, groups=group, seed=seed)
    return Within(unit, surface, wilson(test.wins, n), wilson(test.losses, n), difference, test)
