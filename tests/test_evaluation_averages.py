"""The mean of estimates has an interval of its own: recovered from the parts', covering, and absent where a part's is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.averages import averaged, mean_of
from steerlab.evaluation.stats import Estimate, wilson
from steerlab.evaluation.table import metrics_table


def test_the_mean_of_one_part_is_that_part() -> None:
    part = Estimate(0.5, 0.3, 0.6, 20, "a note")
    found = mean_of({"topic": part})
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.5, 0.3, 0.6, 20))
    assert found.reason == "topic (a note)"


@pytest.mark.parametrize("k", [2, 3, 9])
def test_symmetric_intervals_combine_as_standard_errors(k: int) -> None:
    """Of k parts with half-widths w_i: sqrt(sum w_i^2) / k."""
    widths = np.linspace(0.05, 0.4, k)
    found = mean_of({str(i): Estimate(float(i), i - w, i + w, 10) for i, w in enumerate(widths)})
    reach = math.sqrt(float((widths**2).sum())) / k
    assert found.value == pytest.approx((k - 1) / 2) and found.n == 10 * k
    assert (found.value - found.low, found.high - found.value) == pytest.approx((reach, reach))


def test_the_mean_lies_within_its_interval_and_that_within_the_mean_of_the_parts_bounds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        k = int(rng.integers(1, 6))
        value, below, above = rng.normal(size=k), rng.exponential(size=k), rng.exponential(size=k)
        parts = {
            str(i): Estimate(v, v - b, v + a, 5) for i, (v, b, a) in enumerate(zip(value, below, above, strict=True))
        }
        found = mean_of(parts)
        assert found.low <= found.value <= found.high
        assert found.low >= (value - below).mean() - 1e-12 and found.high <= (value + above).mean() + 1e-12


def test_a_part_outside_its_own_interval_narrows_no_side_below_zero() -> None:
    """Percentile intervals need not hold their value; the mean's does."""
    found = mean_of({"a": Estimate(0.9, 0.92, 0.99, 5), "b": Estimate(0.5, 0.4, 0.6, 5)})
    assert found.low == pytest.approx(0.65) and found.low <= found.value <= found.high


@pytest.mark.parametrize(("shares", "n"), [((0.95, 0.6), 140), ((0.5, 0.5), 40), ((0.98, 0.9), 60)])
def test_the_interval_covers_the_mean_of_two_shares(shares: tuple[float, float], n: int) -> None:
    """Of two independent samples with Wilson's intervals, skewed ones among them: about 95 of 100 intervals hold the true mean."""
    known = [wilson(k, n) for k in range(n + 1)]
    draws = np.random.default_rng(1).binomial(n, shares, size=(2000, 2))
    truth, hits = sum(shares) / 2, 0
    for a, b in draws:
        found = mean_of({"a": known[a], "b": known[b]})
        hits += found.low <= truth <= found.high
    assert 0.93 < hits / len(draws) < 0.975


def test_what_is_missing_of_a_part_is_missing_of_the_mean_and_said() -> None:
    """A value of 1.0 without bounds beside a bounded one: averaging what is left would put the mean outside its interval."""
    whole, part = (
        Estimate.point(1.0, 140, "it is the same for every subset of the texts"),
        Estimate(0.968, 0.959, 0.977, 40),
    )
    found = mean_of({"topic": whole, "sentiment": part})
    assert found.value == pytest.approx(0.984) and math.isnan(found.low) and math.isnan(found.high)
    assert found.reason == "no interval for topic (it is the same for every subset of the texts)"
    gone = mean_of({"topic": Estimate.missing("no texts"), "sentiment": part})
    assert not gone.known and gone.reason == "topic (no texts)" and mean_of({}).reason == "nothing to average"


def test_a_table_is_averaged_over_one_key() -> None:
    parts = {"topic": Estimate(0.5, 0.4, 0.6, 10), "sentiment": Estimate(0.7, 0.6, 0.8, 20)}
    rows: list[dict[str, Any]] = [
        {"language": code, "task": task, "condition": "plain", "metric": "f1", "estimate": part}
        for code in ("jv", "su")
        for task, part in parts.items()
    ]
    found = averaged(metrics_table(rows), "task")
    assert list(found.columns) == ["language", "condition", "metric", "value", "low", "high", "n", "reason"]
    want = mean_of(parts)
    assert found["language"].tolist() == ["jv", "su"] and found["n"].tolist() == [30, 30]
    assert found[["value", "low", "high"]].to_numpy() == pytest.approx(
        np.array([[want.value, want.low, want.high]] * 2)
    )
    assert averaged(metrics_table(rows), "language")["task"].tolist() == ["topic", "sentiment"]
    with pytest.raises(SteerlabError, match="is no key of a metrics table: give one of language, task"):
        averaged(metrics_table(rows), "model")
