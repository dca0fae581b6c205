"""How well a score ranks the layers of a measured sweep, and what a layer chosen by it loses.

Rank correlation, beside chance and beside how far the sweep would agree with itself.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate, bootstrap

_ALL_ORDERS = 7  # up to so many layers every permutation is tried


def measured_layers(sweep: pd.DataFrame) -> pd.DataFrame:
    """Per arm and layer of a sweep (columns arm, layer, strength, value) the mean value over strengths, and the best.

    The mean tells layers apart where the best strength of each reaches the ceiling. Raises `SteerlabError` where layers
    were measured at different strengths.
    """
    shape: Any = sweep.groupby(["arm", "layer"])["strength"].agg(lambda own: tuple(sorted(own)))
    if shape.nunique() != 1:
        raise SteerlabError("the layers of the sweep were measured at different strengths: measure a full grid.")
    found: Any = sweep.groupby(["arm", "layer"], sort=False)["value"].agg(["mean", "max"])
    return found.reset_index().rename(columns={"max": "best"})


def noise_ceiling(sweep: pd.DataFrame, draws: int = 200, seed: int = 0) -> float:
    """The rank correlation over layers of a sweep with one measured anew, the mean over languages, were its shares (column
    value, of n texts) the truth: a predictor that knows the truth reaches no more.
    """
    place: Any = sweep.sort_values(["arm", "layer", "strength"])
    shape = (sweep["arm"].nunique(), sweep["layer"].nunique(), -1)
    share, n = (place[name].to_numpy().reshape(shape) for name in ("value", "n"))
    anew = (np.random.default_rng(seed).binomial(n, share, size=(draws, *share.shape)) / n).mean(-1)
    again = _standard(anew.reshape(-1, shape[1])).reshape(anew.shape)
    return float(np.nanmean((again * _standard(share.mean(-1))).sum(-1)))


@dataclass(frozen=True)
class Agreement:
    """How well a score ranks the layers of a sweep.

    `correlation`: Spearman's over layers, the mean over languages with its interval; `each` the languages' own.
    `chance`: what 95 % of orders of the layers stay below, the same order in all languages, since their profiles over
    layers may be one and the same; `p` the share of orders that do as well. `lost`: what steering at the layer the
    score prefers costs against the best layer, `lost_at_random` at a random layer.
    """

    correlation: Estimate
    each: dict[str, float]
    chance: float
    p: float
    lost: Estimate
    lost_at_random: float


def agreement(scores: pd.DataFrame, measured: pd.DataFrame, predictor: str, seed: int = 0) -> Agreement:
    """Compare the column `predictor` of `scores` with the column "mean" of `measured`, language by language.

    A language whose layers all have one value has no correlation and is left out with a reason; it still counts in
    what is lost. Raises `SteerlabError` where the two tables differ in languages or layers.
    """
    both = [t.pivot(index="arm", columns="layer", values=v) for t, v in ((scores, predictor), (measured, "mean"))]
    if set(both[0].index) != set(both[1].index) or set(both[0].columns) != set(both[1].columns):
        raise SteerlabError(
            f"scores of {len(both[0])} languages x {both[0].shape[1]} layers and a sweep of {len(both[1])} x {both[1].shape[1]} "
            "were given: both must cover the same languages and layers."
        )
    codes, columns = sorted(both[0].index), sorted(both[0].columns)
    told, truth = (table.loc[codes, columns].to_numpy(float) for table in both)
    product = np.einsum("ki,kj->kij", _standard(told), _standard(truth))  # Spearman is its diagonal, summed
    each = np.trace(product, axis1=1, axis2=2)
    mean = np.nanmean(product, axis=0) if not np.isnan(each).all() else np.full(product.shape[1:], np.nan)
    orders = _orders(len(columns), seed)
    null = mean[orders, np.arange(len(columns))].sum(1)
    lost = truth.max(1) - truth[np.arange(len(codes)), told.argmax(1)]
    return Agreement(
        correlation=bootstrap(each, seed=seed),
        each=dict(zip(codes, each.tolist(), strict=True)),
        chance=float(np.quantile(null, 0.95)),
        p=float((null >= np.trace(mean) - 1e-12).mean()) if not np.isnan(mean).any() else math.nan,
        lost=bootstrap(lost, seed=seed),
        lost_at_random=float((truth.max(1, keepdims=True) - truth).mean()),
    )


def _standard(values: Float[np.ndarray, "k l"]) -> Float[np.ndarray, "k l"]:
    """Ranks over layers with mean 0 and norm 1; NaN where all are equal."""
    ranks = stats.rankdata(values, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    size = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, size, out=np.full_like(ranks, np.nan), where=size > 0)


def _orders(n: int, seed: int) -> Int[np.ndarray, "m n"]:
    """Every order of n layers, or 10,000 random ones and the given one where there are too many."""
    if n <= _ALL_ORDERS:
        return np.array(list(itertools.permutations(range(n))))
    drawn = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (10_000, 1)), axis=1)
    return np.vstack([np.arange(n), drawn])
