"""How near two embedded sets are: cosines of pairs and of centroids, and shares inside each other's neighbourhoods."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.neighbors import NearestNeighbors

from steerlab.evaluation.stats import Estimate, jackknife, wilson

Rows = Float[np.ndarray, "n d"]
NEIGHBOURS = 5


def pairwise_cosine(a: Rows, b: Float[np.ndarray, "m d"], seed: int = 0, subsets: int = 100) -> Estimate:
    """The mean cosine over all pairs of a row of `a` and a row of `b`, with a jackknife interval over the texts of both sets.

    What O'Neill et al. 2023 report (their flag `centroid=True`, which is named the wrong way round). A zero row has cosine 0.
    """
    return _two_sample(_unit(a), _unit(b), seed, subsets, unit=False)


def centroid_cosine(a: Rows, b: Float[np.ndarray, "m d"], seed: int = 0, subsets: int = 100) -> Estimate:
    """The cosine of the two sets' mean rows, with a jackknife interval over the texts of both sets: blind to spread, 1 where the means
    point the same way (O'Neill et al. 2023, their flag `centroid=False`).
    """
    return _two_sample(a, b, seed, subsets, unit=True)


def neighbourhoods(
    synthetic: Rows, real: Float[np.ndarray, "m d"], neighbours: int = NEIGHBOURS
) -> dict[str, Estimate]:
    """`knn_precision`: the share of synthetic texts that lie within some real text's distance to its k-th real neighbour, and
    `knn_recall`, the same with the sides exchanged (Kynkäänniemi et al. 2019, arXiv 1904.06991). Low precision is odd text, low
    recall a part of the real text that is never written. Wilson intervals; compare sets of one size.
    """
    if min(len(synthetic), len(real)) <= neighbours:
        why = f"{min(len(synthetic), len(real))} texts, and {neighbours} neighbours need more"
        return {name: Estimate.missing(why) for name in ("knn_precision", "knn_recall")}
    inside, covered = _inside(synthetic, real, neighbours), _inside(real, synthetic, neighbours)
    return {
        "knn_precision": wilson(int(inside.sum()), len(inside)),
        "knn_recall": wilson(int(covered.sum()), len(covered)),
    }


def _inside(points: Rows, others: Float[np.ndarray, "m d"], neighbours: int) -> Bool[np.ndarray, "n"]:
    """Which points lie in the ball of at least one of the others."""
    radius = (
        NearestNeighbors(n_neighbors=neighbours).fit(others).kneighbors()[0][:, -1]
    )  # a row is not its own neighbour
    found = np.zeros(len(points), dtype=bool)
    square = (others**2).sum(1)
    for first in range(0, len(points), 512):
        own = points[first : first + 512]
        distance = np.sqrt(np.maximum((own**2).sum(1)[:, None] + square - 2 * own @ others.T, 0))
        found[first : first + 512] = (distance <= radius + 1e-9 * (1 + radius)).any(axis=1)
    return found


def _two_sample(a: np.ndarray, b: np.ndarray, seed: int, subsets: int, unit: bool) -> Estimate:
    """The product of the sets' mean rows (at length 1 with `unit`). A bootstrap would do for means, but repeats bring noise to the length
    of a mean, and with it every resample's cosine would fall.
    """
    n = min(len(a), len(b))
    if n < 2:
        return Estimate.missing(f"{n} texts on one side, and a set needs at least 2", n)

    def product(kept: Int[np.ndarray, "m"]) -> float:
        mine, theirs = kept[kept < len(a)], kept[kept >= len(a)] - len(a)
        if not len(mine) or not len(theirs):
            return math.nan
        x, y = a[mine].mean(0), b[theirs].mean(0)
        length = float(np.linalg.norm(x) * np.linalg.norm(y)) if unit else 1.0
        return float(x @ y) / length if length else math.nan

    found = jackknife(len(a) + len(b), product, seed, subsets=subsets, bounds=(-1.0, 1.0), reason="")
    if not found.known:
        return Estimate.missing("a mean of zero has no direction", n)
    return Estimate(found.value, found.low, found.high, n, found.reason)


def _unit(rows: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1.0)
