"""The script on methods: it waits for experts, names every method, and draws from its table alone."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyses._harness import NotThere, Result
from steerlab.baselines import BASELINES
from steerlab.comparison import REAL
from steerlab.evaluation.distinguish import definition

script: Any = import_module("analyses.17_steer_methods")


def made_up() -> pd.DataFrame:
    """A table like `compare`'s, of random numbers, in which one value and one bound are missing."""
    rng = np.random.default_rng(0)
    rows = []
    for task in ("hypotheses", "commonsense"):
        for method in (REAL, *BASELINES):
            for metric in script.MEASURES:
                value = float(rng.uniform(0.2, 0.8)) * (6 if metric.startswith("surprise") else 1)
                rows.append((task, method, metric, value, value * 0.9, value * 1.1, 100, ""))
    table = pd.DataFrame(rows, columns=["task", "method", "metric", "value", "low", "high", "n", "reason"])
    table.loc[3, ["low", "high"]] = np.nan
    table.loc[20, ["value", "low", "high"]] = np.nan
    return table


def test_every_method_has_a_short_name_and_every_measure_a_definition() -> None:
    assert set(script.SHORT) == {REAL, *BASELINES} and len(set(script.SHORT.values())) == len(script.SHORT)
    assert all(definition(metric) for metric in script.MEASURES)


def test_the_titles_are_counted_from_the_table() -> None:
    table = made_up()
    table.loc[table["metric"] == "copied_nearly", "value"] = 0.9
    of_real, of_steer = (
        (table["metric"] == "copied_nearly") & (table["method"] == name) for name in (REAL, "STEER, gamma 0.2, eta 0.6")
    )
    table.loc[of_real, "value"], table.loc[of_steer, "value"] = 0.01, 0.04
    drawn = script.draw(Result({script.NAME: table, script.FRONTIER: script.frontier(table)}))
    assert set(drawn) == {script.NAME, script.FRONTIER}
    titles = [" ".join(axes.get_title(loc="left").split()) for axes in drawn[script.NAME].axes]
    assert "Nearest to real text (0.01): STEER (0.04)" in titles
    assert all("of 13 on the" in axes.get_title(loc="left") for axes in drawn[script.FRONTIER].axes)


def test_it_waits_for_experts(tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="steerlab expert train --task hypotheses"):
        script.compute(replace(script.Config(), experts=str(tmp_path)))


def test_the_frontier_table_has_every_method_and_marks_the_best() -> None:
    found = script.frontier(made_up())
    assert len(found) == 2 * (1 + len(BASELINES)) and not found.loc[found["method"] == REAL, "on_frontier"].any()
    for _, own in found[found["method"] != REAL].groupby("task"):
        best = own["on_frontier"]
        most = own["diversity_value"].idxmax()
        assert best[most] and 0 < best.sum() < len(own)


def test_the_frontier_is_what_nothing_beats_in_both() -> None:
    x, y = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": np.nan}), pd.Series({"a": 0.5, "b": 0.4, "c": 0.9, "d": 1.0})
    assert script._undominated(x, y) == ["a", "c"]
