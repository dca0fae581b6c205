"""The mean of several independent estimates, such as a metric over tasks, with an interval recovered from theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.evaluation.table import COLUMNS, KEYS, estimates


def mean_of(parts: Mapping[str, Estimate]) -> Estimate:
    """The mean of independent estimates of fixed parts, each part with the same weight; `n` is the sum.

    low = mean - sqrt(sum (value_i - low_i)^2) / k and high likewise: the variance recovered from each side of the parts' own intervals
    (Zou and Donner 2008), so that asymmetric intervals, such as Wilson's, stay so. For symmetric ones it is the square root of the sum
    of squared standard errors over k. The level is that of the parts.

    A part without a value leaves no mean, one without a bound leaves the mean no interval; the reason names the parts.
    """
    n = sum(part.n for part in parts.values())
    if not parts:
        return Estimate.missing("nothing to average")
    if gone := [_told(name, part) for name, part in parts.items() if not part.known]:
        return Estimate.missing("; ".join(gone), n)
    value = math.fsum(part.value for part in parts.values()) / len(parts)
    if open_ := [_told(name, p) for name, p in parts.items() if math.isnan(p.low) or math.isnan(p.high)]:
        return Estimate.point(value, n, "no interval for " + "; ".join(open_))
    below, above = (
        math.hypot(*(max(0.0, side(part)) for part in parts.values())) / len(parts)
        for side in (lambda part: part.value - part.low, lambda part: part.high - part.value)
    )
    notes = "; ".join(_told(name, part) for name, part in parts.items() if part.reason)
    return Estimate(value, value - below, value + above, n, notes)


def averaged(table: pd.DataFrame, over: str) -> pd.DataFrame:
    """A metrics table (`recipes.evaluate`) with the mean over one of its keys, "task" say, and without that key.

    Raises `SteerlabError` for what is no key.
    """
    if over not in KEYS:
        raise SteerlabError(f"{over!r} is no key of a metrics table: give one of {', '.join(KEYS)}.")
    found: dict[tuple[str, ...], dict[str, Estimate]] = {}
    at = KEYS.index(over)
    for key, estimate in estimates(table).items():
        found.setdefault((*key[:at], *key[at + 1 :]), {})[key[at]] = estimate
    rows = []
    for key, parts in found.items():
        one = mean_of(parts)
        rows.append((*key, one.value, one.low, one.high, one.n, one.reason))
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name != over])


def _told(name: str, part: Estimate) -> str:
    return f"{name} ({part.reason})"
