"""Weighted moments from their definitions, over Python lists, in two passes."""

from __future__ import annotations

import math
from typing import NamedTuple


class Reference(NamedTuple):
    count: float
    mean: list[float]
    variance: list[float]
    norm: float
    covariance: list[list[float]]


def weighted_moments(x: list[list[float]], weight: list[float]) -> Reference:
    """Count, mean, population variance, mean norm and population covariance of the rows of `x`."""
    total, d = sum(weight), len(x[0])
    mean = [sum(w * row[j] for w, row in zip(weight, x, strict=True)) / total for j in range(d)]
    covariance = [
        [
            sum(w * (row[i] - mean[i]) * (row[j] - mean[j]) for w, row in zip(weight, x, strict=True)) / total
            for j in range(d)
        ]
        for i in range(d)
    ]
    norm = sum(w * math.sqrt(sum(v * v for v in row)) for w, row in zip(weight, x, strict=True)) / total
    return Reference(total, mean, [covariance[j][j] for j in range(d)], norm, covariance)
