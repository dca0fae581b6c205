"""Scores of held-out predictions with intervals: AUROC within folds, macro-F1, and the bootstrap over groups."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

_ROWS = 128  # resamples scored at a time, which bounds the memory


def auroc(
    scores: Float[np.ndarray, "n"],
    positive: Bool[np.ndarray, "n"],
    stratum: Int[np.ndarray, "n"],
    weight: Float[np.ndarray, "r n"],
) -> Float[np.ndarray, "r"]:
    """For each row of weights, the share of (positive, negative) pairs of one stratum that the scores order
    rightly; ties half.

    Strata are cross-validation folds: scores of different models are not compared. NaN where no stratum has
    both classes.
    """
    right, pairs = np.zeros(len(weight)), np.zeros(len(weight))
    for fold in np.unique(stratum):
        members = np.flatnonzero(stratum == fold)
        members = members[np.argsort(scores[members], kind="stable")]
        _, starts = np.unique(scores[members], return_index=True)
        for first in range(0, len(weight), _ROWS):
            part = slice(first, first + _ROWS)
            own = weight[part][:, members]
            up = np.add.reduceat(own * positive[members], starts, axis=1)
            down = np.add.reduceat(own * ~positive[members], starts, axis=1)
            right[part] += (up * (np.cumsum(down, axis=1) - down / 2)).sum(1)
            pairs[part] += up.sum(1) * down.sum(1)
    return np.divide(right, pairs, out=np.full(len(weight), np.nan), where=pairs > 0)


def macro_f1(
    predicted: Int[np.ndarray, "n"], truth: Int[np.ndarray, "n"], k: int, weight: Float[np.ndarray, "r n"]
) -> Float[np.ndarray, "r"]:
    """For each row of weights, the plain mean over the `k` classes of F1; a class neither present nor predicted
    is left out.
    """
    score, seen = np.zeros(len(weight)), np.zeros(len(weight))
    for label in range(k):
        hits = weight @ ((predicted == label) & (truth == label)).astype(float)
        both = weight @ ((predicted == label).astype(float) + (truth == label))
        score += np.divide(2 * hits, both, out=np.zeros(len(weight)), where=both > 0)
        seen += both > 0
    return np.divide(score, seen, out=np.full(len(weight), np.nan), where=seen > 0)


def group_resamples(groups: Int[np.ndarray, "n"], resamples: int, seed: int) -> Float[np.ndarray, "r n"]:
    """Weights of bootstrap resamples in which whole groups are drawn with replacement."""
    _, group = np.unique(groups, return_inverse=True)
    n = int(group.max()) + 1
    draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
    counts = np.stack([np.bincount(row, minlength=n) for row in draws])
    return counts[:, group].astype(float)


def interval(values: Float[np.ndarray, "r"]) -> tuple[float, float]:
    """The central 95 % of resampled values; (NaN, NaN) when more than a tenth are missing."""
    known = values[~np.isnan(values)]
    if len(known) < 0.9 * len(values) or len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)
