"""Taking directions out of activations, and how many have to go before a linear probe knows nothing: mathematics only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab import probes
from steerlab.errors import SteerlabError

# (activations "n d" of training rows, their labels 0..k-1) -> orthonormal rows, those to go first first
Order = Callable[[np.ndarray, np.ndarray], np.ndarray]
_RANK = 1e-6  # singular values below this share of the largest are rounding
_NOTHING = 1e-6  # weights below this share of the first probe's: there was nothing left to find


def orthonormal(rows: Float[np.ndarray, "r d"]) -> Float[np.ndarray, "k d"]:
    """Orthonormal rows that span the given ones, those that carry most first (right singular vectors); k is their rank."""
    _, size, basis = np.linalg.svd(np.asarray(rows, dtype=np.float64), full_matrices=False)
    return basis[size > _RANK * max(float(size.max(initial=0.0)), 1e-300)]


def project_out(x: Float[np.ndarray, "*n d"], basis: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "*n d"]:
    """`x` without its part in the span of the orthonormal rows of `basis`; doing it twice changes nothing."""
    return x - (x @ basis.T) @ basis


def class_means(x: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "k d"]:
    """The span of the differences between class means, largest scatter first: at most classes - 1 directions.

    With all of them gone the class means are equal, and no linear probe fitted on these rows beats a constant
    (Belrose et al. 2023, arXiv 2306.03819, theorem 3.1).
    """
    means = np.stack([x[labels == label].mean(0) for label in np.unique(labels)])
    return orthonormal(means - means.mean(0))


def iterative(most: int, kind: probes.Kind = "logistic", c: float = 1.0) -> Order:
    """Iterative null-space projection: fit a probe, take its directions out, fit again on what is left, until `most`
    directions are found or a probe finds none (Ravfogel et al. 2020, arXiv 2004.07667).
    """

    def order(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        basis, first = np.zeros((0, x.shape[1])), 0.0
        while len(basis) < min(most, x.shape[1]):
            weights, _ = probes.fit_linear(kind, project_out(x, basis), labels, c)
            weights = project_out(weights, basis)
            first = first or float(np.linalg.norm(weights))
            if np.linalg.norm(weights) <= _NOTHING * first:
                break
            # Once more, since rows of unequal length are orthogonal to the basis up to the rounding of the longest only.
            new = orthonormal(project_out(orthonormal(weights), basis))
            basis = np.concatenate([basis, new])[:most]
        return basis

    return order


def random_subspace(d: int, k: int, seed: int = 0) -> Float[np.ndarray, "k d"]:
    """`k` orthonormal rows, uniformly random: the control of equal rank."""
    if not 0 <= k <= d:
        raise SteerlabError(f"{k} random directions of width {d} were asked for: there are at most {d}.")
    rows = np.random.default_rng(seed).standard_normal((k, d))
    return np.linalg.qr(rows.T)[0].T if k else rows


def fixed(basis: Float[np.ndarray, "k d"]) -> Order:
    """The same directions whatever the training rows: steering vectors fitted elsewhere, or random ones."""
    return lambda x, labels: basis


def removal_curve(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, "m"],
    groups: Int[Tensor, "g"],
    orders: Mapping[str, Order],
    ranks: Sequence[int],
    kind: probes.Kind = "lda",
    *,
    folds: int = 5,
    seed: int = 0,
    c: float = 1.0,
    shuffles: int = 1,
    resamples: int = 500,
) -> pd.DataFrame:
    """How well `y` is read from `x` without its first k directions, for every order and every k of `ranks` that it has.

    Directions are found on training rows only. Two probes: "fixed" was fitted before the removal and looks for what is
    gone; "refitted" is fitted on what is left. Columns: order, rank, probe, n and those of `probes.Scores.row`, AUROC as
    the value (for more than two classes the mean of each against the rest); `shuffled` of the refitted probe only.
    """
    data = x.detach().cpu().double().numpy()
    shared = probes.trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    alone = replace(shared, shuffles=0)
    first = np.flatnonzero(shared.fold != 0)  # the rank of an order is told by the first fold's
    rows: list[dict[str, Any]] = []
    for name, order in orders.items():
        find = _remembered(order)
        for rank in ranks:
            if rank > len(find(data[first], shared.labels[first])):
                continue

            def left(train: np.ndarray, labels: np.ndarray, rank: int = rank, find: Order = find) -> np.ndarray:
                return project_out(data, find(data[train], labels)[:rank]) if rank else data

            def refitted(train: np.ndarray, labels: np.ndarray, test: np.ndarray, left: Any = left) -> np.ndarray:
                own = left(train, labels)
                return _scores(kind, own[train], labels, shared.group[train], own[test], c)

            def kept(train: np.ndarray, labels: np.ndarray, test: np.ndarray, left: Any = left) -> np.ndarray:
                return _scores(kind, data[train], labels, shared.group[train], left(train, labels)[test], c)

            for probe, scorer, laid in (("refitted", refitted, shared), ("fixed", kept, alone)):
                rows.append(
                    {"order": name, "rank": rank, "probe": probe, **_facts(probes.evaluate(kind, laid, scorer))}
                )
    return pd.DataFrame(rows)


def probe_again(
    plain: Float[Tensor, "n d"],
    edited: Float[Tensor, "m d"],
    y: Int[Tensor, "k"],
    groups: Int[Tensor, "g"],
    kind: probes.Kind = "logistic",
    *,
    folds: int = 5,
    seed: int = 0,
    c: float = 1.0,
    shuffles: int = 1,
    resamples: int = 500,
) -> pd.DataFrame:
    """Three probes of the same texts, on held-out groups: "before" (fitted and scored on `plain`), "fixed" (fitted on
    `plain`, scored on `edited`) and "refitted" (fitted and scored on `edited`). Columns: probe, n and those of
    `probes.Scores.row`, AUROC as the value.
    """
    a, b = (side.detach().cpu().double().numpy() for side in (plain, edited))
    if a.shape != b.shape:
        raise SteerlabError(
            f"activations of shapes {a.shape} and {b.shape} were given: both must be of the same texts."
        )
    shared = probes.trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    rows = []
    for probe, fitted, read in (("before", a, a), ("fixed", a, b), ("refitted", b, b)):

        def scorer(
            train: np.ndarray, labels: np.ndarray, test: np.ndarray, fitted: Any = fitted, read: Any = read
        ) -> np.ndarray:
            return _scores(kind, fitted[train], labels, shared.group[train], read[test], c)

        rows.append({"probe": probe, **_facts(probes.evaluate(kind, shared, scorer))})
    return pd.DataFrame(rows)


def _scores(
    kind: probes.Kind, x: np.ndarray, labels: np.ndarray, groups: np.ndarray, test: np.ndarray, c: float
) -> np.ndarray:
    weights, offset = probes.fit_linear(kind, x, labels, c, groups)
    return test @ weights.T + offset


def _facts(found: probes.ProbeResult) -> dict[str, Any]:
    return {**found.measured.row("auroc"), "n": found.n}


def _remembered(order: Order) -> Order:
    """The order, computed once for each set of training rows and labels."""
    known: dict[bytes, np.ndarray] = {}

    def find(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        key = x[:, 0].tobytes() + labels.tobytes()
        if key not in known:
            known[key] = order(x, labels)
        return known[key]

    return find


def as_basis(directions: Sequence[Float[Tensor, "d"]]) -> Float[np.ndarray, "k d"]:
    """Orthonormal rows that span the directions of some vectors at one layer."""
    return orthonormal(torch.stack(list(directions)).double().cpu().numpy())
