"""MAUVE: how far two distributions of texts are apart, from the divergence frontier of their clusters (Pillutla et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate, jackknife

Backend = Literal["own", "mauve-text"]
SCALE, POINTS, VARIANCE = 5.0, 25, 0.9
LEAST = 20  # texts of either side


@dataclass(frozen=True, eq=False)
class Clusters:
    """The cluster of every text of two sets (p: real, q: synthetic), and how many clusters there are."""

    p: Int[np.ndarray, "n"]
    q: Int[np.ndarray, "m"]
    k: int


def quantise(
    p: Float[np.ndarray, "n d"],
    q: Float[np.ndarray, "m d"],
    clusters: int | None = None,
    seed: int = 0,
    restarts: int = 5,
) -> Clusters:
    """k-means over both sets as the authors' program does it: rows to length 1, principal components that hold 90 % of the variance,
    rows to length 1 again, and as many clusters as a tenth of the smaller set (at least two).
    """
    both = _unit(np.concatenate([p, q]).astype(float))
    if not both.std(axis=0).any():  # one text over and over
        return Clusters(np.zeros(len(p), dtype=np.int64), np.zeros(len(q), dtype=np.int64), 1)
    values = np.cumsum(PCA(random_state=seed).fit(both).explained_variance_ratio_)
    size = int(np.searchsorted(values, VARIANCE)) + 1
    reduced = _unit(PCA(min(size, *both.shape), random_state=seed).fit_transform(both))
    k = clusters or max(2, round(min(len(p), len(q)) / 10))
    k = min(k, len(np.unique(reduced.round(12), axis=0)))
    often: Any = restarts  # the type that scikit-learn's stub knows is str
    label = KMeans(k, n_init=often, max_iter=500, random_state=seed).fit_predict(reduced).astype(np.int64)
    return Clusters(label[: len(p)], label[len(p) :], k)


def divergence_area(
    p: Float[np.ndarray, "k"], q: Float[np.ndarray, "k"], scale: float = SCALE, points: int = POINTS
) -> float:
    """The area under the curve (exp(-c KL(q|r)), exp(-c KL(p|r))) over mixtures r = w p + (1 - w) q: 1 for equal distributions, 0
    for disjoint ones as c grows.
    """
    x, y = [1.0], [0.0]  # a curve that falls: more of p in the mixture is nearer to p and farther from q
    for w in np.linspace(1e-6, 1 - 1e-6, points):
        r = w * p + (1 - w) * q
        x.append(math.exp(-scale * _kl(q, r)))
        y.append(math.exp(-scale * _kl(p, r)))
    return float(np.trapezoid([1.0, *reversed(y)], [0.0, *reversed(x)]))


def mauve(
    synthetic: Float[np.ndarray, "m d"],
    real: Float[np.ndarray, "n d"],
    *,
    clusters: int | None = None,
    smoothing: float = 0.0,
    seed: int = 0,
    subsets: int = 100,
    backend: Backend = "own",
) -> Estimate:
    """MAUVE of the rows of two embedded sets (arXiv 2102.01454), 1 = the same distribution; fewer rows give smaller values.

    smoothing: what is added to every cluster's count; 0.5 is the estimator of Krichevsky and Trofimov that Pillutla et al. 2023 (arXiv
    2212.14578) recommend for small samples. The interval is a jackknife over the texts of both sets at fixed clusters. With backend
    "mauve-text" the value is that package's and there is no interval. Raises `SteerlabError` where that is not installed.
    """
    n = min(len(synthetic), len(real))
    if n < LEAST:
        return Estimate.missing(f"{n} texts, and clusters need at least {LEAST} on either side", n)
    if backend == "mauve-text":
        return Estimate.point(_package(real, synthetic, clusters, seed), n, "the package mauve-text gives no interval")
    found = quantise(real, synthetic, clusters, seed)
    rows = len(found.p) + len(found.q)

    def area(kept: Int[np.ndarray, "m"]) -> float:
        p, q = found.p[kept[kept < len(found.p)]], found.q[kept[kept >= len(found.p)] - len(found.p)]
        if not len(p) or not len(q):
            return math.nan
        return divergence_area(_histogram(p, found.k, smoothing), _histogram(q, found.k, smoothing))

    estimate = jackknife(rows, area, seed, subsets=subsets, bounds=(0.0, 1.0))
    return Estimate(estimate.value, estimate.low, estimate.high, n, estimate.reason)


def _package(p: np.ndarray, q: np.ndarray, clusters: int | None, seed: int) -> float:
    if find_spec("mauve") is None:
        raise SteerlabError("the package mauve-text is not installed: install it, or take backend='own'.")
    out = import_module("mauve").compute_mauve(
        p_features=p, q_features=q, num_buckets=clusters or "auto", seed=seed, verbose=False, mauve_scaling_factor=SCALE
    )
    return float(out.mauve)


def _histogram(labels: Int[np.ndarray, "n"], k: int, smoothing: float) -> Float[np.ndarray, "k"]:
    counts = np.bincount(labels, minlength=k) + smoothing
    return counts / counts.sum()


def _kl(p: Float[np.ndarray, "k"], q: Float[np.ndarray, "k"]) -> float:
    there = p > 0
    return max(0.0, float((p[there] * np.log(p[there] / q[there])).sum()))


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1.0)
