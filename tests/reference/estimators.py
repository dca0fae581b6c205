"""Estimators from their definitions, over Python lists and numpy's general solvers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = list[list[float]]
Array = NDArray[np.float64]


def mean(rows: Rows, weight: list[float] | None = None) -> list[float]:
    """The weighted mean of the rows."""
    weight = [1.0] * len(rows) if weight is None else weight
    return [sum(w * row[j] for w, row in zip(weight, rows, strict=True)) / sum(weight) for j in range(len(rows[0]))]


def unit(row: list[float]) -> list[float]:
    """The row divided by its length."""
    length = sum(v * v for v in row) ** 0.5
    return [v / length for v in row]


def difference(a: Rows, b: Rows) -> list[float]:
    """Mean of `a` minus mean of `b`."""
    return [p - q for p, q in zip(mean(a), mean(b), strict=True)]


def one_against_the_others(means: dict[str, list[float]], language: str) -> list[float]:
    """The language's mean minus the mean of the others' means."""
    others = [row for name, row in means.items() if name != language]
    return [p - q for p, q in zip(means[language], mean(others), strict=True)]


def first_component(x: Array) -> Array:
    """The unit vector along which the uncentred rows spread most, by power iteration."""
    v = np.ones(x.shape[1]) / x.shape[1] ** 0.5
    for _ in range(5000):
        v = x.T @ (x @ v)
        v /= np.linalg.norm(v)
    return v


def fisher(a: Array, b: Array, rho: float) -> Array:
    """S^-1 (mean a - mean b), S the pooled population covariance drawn toward its mean variance by `rho`."""
    centred = np.concatenate([a - a.mean(0), b - b.mean(0)])
    s = centred.T @ centred / len(centred)
    s = (1 - rho) * s + rho * np.trace(s) / len(s) * np.eye(len(s))
    return np.linalg.inv(s) @ (a.mean(0) - b.mean(0))
