"""What synthetic texts are worth in human ones: macro-F1 against the number of human examples, with and without the synthetic set.

Every classifier is trained once on all its rows. A seed is a draw of human examples; the same seed's first 7 are among its first 14,
so that curves are paired point by point, and the two curves see the same human examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steerlab.errors import SteerlabError
from steerlab.evaluation.downstream import _draws, _estimate, _f1, _macro, _replicates, clean, regression
from steerlab.evaluation.pool import NgramPool, _unit
from steerlab.evaluation.splits import Labelled, balanced_order
from steerlab.evaluation.stats import Estimate

STEPS = (0, 1, 2, 5, 10, 20, 50)  # human examples per label, where no schedule is given
COLUMNS = ("series", "k", "value", "low", "high", "n", "reason")
HUMAN, MIXED, FLOOR, CEILING = "human only", "synthetic + human", "floor", "ceiling"


@dataclass(frozen=True, eq=False)
class Mixing:
    """`table`: one row per series ("human only", "synthetic + human", "floor", "ceiling") and number k of human examples.

    `worth`: the number of human examples that alone reach the macro-F1 of the synthetic set alone. `ceiling` stands at k = all human
    texts, `floor` at k = 0. Intervals are those of `downstream`: another draw of the human examples and of the test texts; they also
    cover another generation seed where several synthetic sets were given.
    """

    table: pd.DataFrame
    worth: Estimate


@dataclass(frozen=True, eq=False)
class _Bench:
    """All texts, their n-grams counted once, and the test: `row` of each text in the pool, `number` of each label."""

    pool: NgramPool
    row: dict[str, int]
    truth: Int[np.ndarray, "n"]
    number: dict[str, int]

    def answers(self, train: Labelled) -> Int[np.ndarray, "n"]:
        """What the classifier of `downstream`, trained on these texts, says of the test texts, as numbers."""
        texts, labels, _ = clean(*train, "training")
        own, weight = self.pool._weighted(np.array([self.row[text] for text in texts]))
        values, vectors = np.linalg.eigh((own @ own.T).toarray())
        keep = values > 1e-10 * values.max()
        basis = vectors[:, keep] / np.sqrt(
            values[keep]
        )  # regress in the space the training texts span, as `downstream` does
        test = (_unit(self.pool.test, weight) @ own.T).toarray() @ basis
        model = regression(basis * values[keep], np.array(labels, dtype=object), np.ones(len(labels)))
        return np.array([self.number[name] for name in model.predict(test)])

    def majority(self) -> Int[np.ndarray, "n"]:
        """The most frequent label of the test texts, always."""
        return np.full(len(self.truth), np.bincount(self.truth).argmax())


def schedule(labels: int, available: int) -> tuple[int, ...]:
    """Numbers of human examples: `STEPS` per label, as far as there are enough texts."""
    return tuple(step * labels for step in STEPS if step * labels <= available)


def mixing_curves(
    human: Labelled,
    synthetic: Sequence[Labelled],
    test: Labelled,
    ks: Sequence[int] = (),
    seeds: Sequence[int] = range(20),
) -> Mixing:
    """The two curves, floor and ceiling, and what the synthetic set is worth.

    `human`, `test`: texts and labels; `synthetic`: one such pair, or one per generation seed, of which seed number i takes number i
    modulo their count. `ks`: numbers of human examples, drawn as `balanced_order` has it (default: `schedule`). A point that cannot be
    had is NaN with a reason. Raises `SteerlabError` for lists of unequal length, no synthetic set, no seeds, negative or repeated `ks`,
    and labels that the test texts do not share.
    """
    human, test_texts, sets, tested = _checked(human, synthetic, test, seeds)
    names = sorted({*human[1], *tested, *(name for _, labels in sets for name in labels)})
    number = {name: i for i, name in enumerate(names)}
    ks = tuple(sorted(ks or schedule(len(set(human[1])), len(human[0]))))
    if ks[0] < 0 or len(set(ks)) != len(ks):
        raise SteerlabError(f"{list(ks)} human examples were asked for: give numbers from 0 up, each once.")
    texts = list(dict.fromkeys([*human[0], *(text for own, _ in sets for text in own)]))
    row = {text: i for i, text in enumerate(texts)}
    judge = _Bench(NgramPool(texts, test_texts, tested), row, np.array([number[name] for name in tested]), number)
    said: dict[tuple[str, int], Int[np.ndarray, "s n"]] = {}
    same = (len(seeds), 1)  # what no seed changes is computed once
    for k in sorted({0, *(k for k in ks if k <= len(human[0]))}):
        alone, mixed = [], []
        for place, seed in enumerate(seeds):
            rows: list[int] = balanced_order(human[1], seed)[:k].tolist()
            part = [human[0][i] for i in rows], [human[1][i] for i in rows]
            if len(set(part[1])) > 1:
                alone.append(judge.answers(part))
            if k or place < len(sets):
                own = sets[place % len(sets)]
                mixed.append(judge.answers(([*part[0], *own[0]], [*part[1], *own[1]])))
        if alone:
            said[HUMAN, k] = np.stack(alone)
        said[MIXED, k] = np.stack([mixed[i % len(mixed)] for i in range(len(seeds))])
    said[FLOOR, 0] = np.tile(judge.majority(), same)
    said[CEILING, len(human[0])] = np.tile(judge.answers(human), same)
    return Mixing(_table(said, ks, judge, seeds, len(sets), len(human[0])), _worth(said, judge, seeds))


def _checked(
    human: Labelled, synthetic: Sequence[Labelled], test: Labelled, seeds: Sequence[int]
) -> tuple[Labelled, tuple[str, ...], list[Labelled], tuple[str, ...]]:
    """(human, test texts, synthetic sets, test labels), cleaned."""
    texts, labels, _ = clean(*human, "human")
    test_texts, tested, _ = clean(*test, "test")
    sets: list[Labelled] = [clean(*one, "synthetic")[:2] for one in synthetic]
    if not sets or not all(len(one[0]) for one in sets):
        raise SteerlabError(
            f"{len(sets)} synthetic sets were given, and each needs a text: give at least one set of texts."
        )
    if not len(seeds):
        raise SteerlabError("no seeds were given: give at least one.")
    for what, own in (("human", labels), *(("synthetic", one[1]) for one in sets)):
        if not set(own) & set(tested):
            raise SteerlabError(
                f"the {what} labels {sorted(set(own))} and the test labels {sorted(set(tested))} have none in common: give both the"
                " same names."
            )
    return (texts, labels), test_texts, sets, tested


def _table(
    said: dict[tuple[str, int], Int[np.ndarray, "s n"]],
    ks: Sequence[int],
    judge: _Bench,
    seeds: Sequence[int],
    sets: int,
    available: int,
) -> pd.DataFrame:
    draws, once = _draws(seeds, len(judge.truth)), np.ones((1, len(judge.truth)))
    rows = []
    places = [(name, k) for name in (HUMAN, MIXED) for k in ks if (name, k) != (HUMAN, 0)]
    for place in (*places, (FLOOR, 0), (CEILING, available)):
        if place in said:
            by_seed = np.concatenate([_f1(row, judge.truth, len(judge.number), once) for row in said[place]])
            drawn = _macro(_replicates(said[place], judge.truth, len(judge.number), *draws))
            e = _estimate(_macro(by_seed), drawn, len(judge.truth))
            if place == (MIXED, 0) and sets == 1:
                e = Estimate(e.value, e.low, e.high, e.n, "one synthetic set: the interval covers the test texts only")
        else:
            few = f"there are {available} human texts" if place[1] > available else "they have fewer than two labels"
            e = Estimate.missing(few, len(judge.truth))
        rows.append((*place, e.value, e.low, e.high, e.n, e.reason))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"k": int, "value": float, "low": float, "high": float})


def _worth(said: dict[tuple[str, int], Int[np.ndarray, "s n"]], judge: _Bench, seeds: Sequence[int]) -> Estimate:
    """Where each seed's isotonic human-only curve, from the floor at 0 to the ceiling, meets its synthetic-only score."""
    points = {k: rows for (name, k), rows in said.items() if name in (FLOOR, HUMAN, CEILING)}
    ks = np.array(sorted(points), dtype=float)
    kinds, once = len(judge.number), np.ones((1, len(judge.truth)))
    draws = _draws(seeds, len(judge.truth))

    def by_seed(rows: Int[np.ndarray, "s n"]) -> Float[np.ndarray, "s"]:
        return np.concatenate([_macro(_f1(row, judge.truth, kinds, once)) for row in rows])

    def drawn(rows: Int[np.ndarray, "s n"]) -> Float[np.ndarray, "r"]:
        return _macro(_replicates(rows, judge.truth, kinds, *draws))

    found = []
    for scores in (by_seed, drawn):
        curve = isotonic(np.stack([scores(points[int(k)]) for k in ks], axis=1))
        found.append(_reached(ks, curve, scores(said[MIXED, 0])))
    value = float(np.quantile(found[0], 0.5, method="inverted_cdf"))
    low, high = (float(np.quantile(found[1], share, method="inverted_cdf")) for share in (0.025, 0.975))
    never = float(np.isinf(found[1]).mean())
    reason = ""
    if np.isinf([value, low, high]).any():
        reason = f"human texts alone do not reach it with all {ks[-1]:.0f} in {never:.0%} of the draws"
    value, low, high = (float("nan") if np.isinf(x) else x for x in (value, low, high))
    return Estimate(value, low, high, len(seeds), reason)


def isotonic(values: Float[np.ndarray, "r k"]) -> Float[np.ndarray, "r k"]:
    """The nearest rows, in squares, that do not fall: max over a <= i of min over b >= i of mean(values[a..b]) (Barlow et al. 1972)."""
    k = values.shape[1]
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(axis=1)], axis=1)
    found = np.full(values.shape, -np.inf)
    for a in range(k):
        means = (sums[:, a + 1 :] - sums[:, a, None]) / np.arange(1, k - a + 1)
        best = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]  # over every end from here on
        found[:, a:] = np.maximum(found[:, a:], best)
    return found


def _reached(
    ks: Float[np.ndarray, "k"], curves: Float[np.ndarray, "r k"], target: Float[np.ndarray, "r"]
) -> Float[np.ndarray, "r"]:
    """Where each rising curve meets its target, on the line between two points; infinity where it does not."""
    above = curves >= target[:, None]
    first = above.argmax(axis=1)
    row, before = np.arange(len(curves)), np.maximum(first - 1, 0)
    rise = curves[row, first] - curves[row, before]
    part = np.divide(target - curves[row, before], rise, out=np.zeros(len(curves)), where=rise > 0)
    met = ks[before] + np.clip(part, 0, 1) * (ks[first] - ks[before])
    return np.where(above.any(axis=1), np.where(first == 0, 0.0, met), np.inf)
