"""A probe at every layer, all with the same folds, shuffles and bootstrap resamples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.probes.comparison import Scorer, Trial, check_rows, evaluate, trial
from steerlab.probes.linear import Kind, LinearFit, check_kind, class_means, directions, fit
from steerlab.probes.result import ProbeResult


def cross_validated_probe(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, "m"],
    groups: Int[Tensor, "g"],
    kind: Kind = "logistic",
    folds: int = 5,
    seed: int = 0,
    *,
    c: float = 1.0,
    shuffles: int = 3,
    resamples: int = 1000,
) -> ProbeResult:
    """How well `y` is read from `x` by a linear probe (see `linear.fit`), on held-out groups.

    Whatever is fitted (means, scales, penalty) is fitted inside the fold. `c` is the inverse penalty of kind "logistic".
    """
    return layerwise(x[:, None], y, groups, kind, folds, seed, c=c, shuffles=shuffles, resamples=resamples)[0]


def layerwise(
    x: Float[Tensor, "n l d"],
    y: Int[Tensor, "m"],
    groups: Int[Tensor, "g"],
    kind: Kind = "logistic",
    folds: int = 5,
    seed: int = 0,
    *,
    c: float = 1.0,
    shuffles: int = 3,
    resamples: int = 1000,
) -> list[ProbeResult]:
    """`cross_validated_probe` for every layer, all with the same folds, shuffles and resamples."""
    check_kind(kind)
    shared = trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    check_rows(len(x), shared)
    return [probe(slice_of(x, row), shared, kind, c) for row in range(x.shape[1])]


def probe(data: Float[np.ndarray, "n d"], shared: Trial, kind: Kind, c: float = 1.0) -> ProbeResult:
    """One probe in a comparison that is laid out already, with the direction it finds on everything."""
    found = evaluate(kind, shared, probe_scorer(data, shared, kind, c))
    whole = fit(kind, data, shared.labels, shared.group, c=c, seed=shared.seed)
    unit, gap = directions(whole.weights, class_means(data, shared.labels))
    return replace(
        found,
        direction=torch.from_numpy(unit).float(),
        gap=torch.from_numpy(gap).float(),
        c=whole.c,
    )


def probe_scorer(data: Float[np.ndarray, "n d"], shared: Trial, kind: Kind, c: float = 1.0) -> Scorer:
    """The scorer of a probe: fitted on the training rows, its penalty chosen among their groups where the kind does so."""

    def score(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        found: LinearFit = fit(kind, data[train], labels, shared.group[train], c=c, seed=shared.seed)
        return found.scores(data[test])

    return score


def slice_of(x: Float[Tensor, "n l d"], row: int) -> Float[np.ndarray, "n d"]:
    """One layer as float64. Raises `SteerlabError` for values that are not finite."""
    data = x[:, row].detach().cpu().double().numpy()
    if not np.isfinite(data).all():
        raise SteerlabError(f"the activations in slice {row} hold NaN or infinity: capture them again.")
    return data
