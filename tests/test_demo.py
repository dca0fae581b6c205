"""The demo's table: means over its two tasks, each within an interval made of both, or without one and with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steerlab import figures
from steerlab.commands import demo
from steerlab.evaluation.stats import Estimate
from steerlab.evaluation.table import metrics_table

SAME = "it is the same for every subset of the texts"
ESTIMATES = {
    "topic": Estimate(0.968, 0.959, 0.977, 140),
    "sentiment": Estimate(0.9, 0.8, 0.95, 40),
}


def _metrics(one: Estimate) -> Any:
    """Every row of a demo; `one`: the sentiment texts' distinct-2 in Amharic, unsteered."""
    rows = [
        {"language": code, "task": task, "condition": condition, "metric": metric, "estimate": estimate}
        for code in demo.LANGUAGES
        for condition in demo.NAMES
        for metric in (*demo.METRICS, "repetition_rate")
        for task, estimate in ESTIMATES.items()
    ]
    for row in rows:
        if [row[key] for key in ("language", "task", "condition", "metric")] == [
            "am",
            "sentiment",
            "unsteered",
            "distinct_2",
        ]:
            row["estimate"] = one
    return metrics_table(rows)


def test_a_mean_over_tasks_has_an_interval_of_both_or_none() -> None:
    figure, table = demo.draw(_metrics(Estimate.point(1.0, 40, SAME)))
    figures.plt.close(figure)
    assert len(table) == 3 * 6 * 3
    odd: Any = table[table["low"].isna()]
    assert len(odd) == 1 and odd["value"].iloc[0] == pytest.approx(0.984) and odd["high"].isna().all()
    assert odd["reason"].iloc[0] == f"no interval for sentiment ({SAME})"
    rest: Any = table.drop(odd.index)
    assert rest["value"].to_numpy(float) == pytest.approx(0.934)
    assert rest["low"].to_numpy(float) == pytest.approx(0.934 - np.hypot(0.009, 0.1) / 2)
    assert rest["high"].to_numpy(float) == pytest.approx(0.934 + np.hypot(0.009, 0.05) / 2)


def test_the_summary_is_the_mean_over_languages_and_tasks() -> None:
    rows = demo.summary(_metrics(Estimate(0.3, 0.2, 0.4, 40)))
    assert [row["condition"] for row in rows] == list(demo.NAMES.values())
    assert rows[0]["distinct_2"] == pytest.approx((2 * 0.934 + 0.634) / 3)
    assert rows[1]["distinct_2"] == pytest.approx(0.934)
