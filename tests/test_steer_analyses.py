"""The scripts on gamma and eta and on a low-resource language: they wait for experts, and draw what their tables say."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyses._harness import NotThere, Result
from steerlab.comparison import REAL
from steerlab.guidance_sweep import AUTHORS, NAMES

maps: Any = import_module("analyses.19_steer_maps")
low: Any = import_module("analyses.20_steer_low_resource")
BOUNDS = ("value", "low", "high")


def around(value: float) -> dict[str, float | int | str]:
    return {"value": value, "low": value * 0.9, "high": value * 1.1, "n": 48, "reason": ""}


def curves() -> pd.DataFrame:
    """Surprise that rises with eta in the published form alone."""
    rows = []
    for task in ("hypotheses", "commonsense"):
        for metric in maps.SHOWN:
            rows += [{"task": task, "form": REAL, "eta": 0.0, "metric": metric, **around(0.3)}]
            for form in (*maps.FORMS, maps.OPEN, maps.HOT):
                for eta in (*AUTHORS, *maps.BEYOND):
                    if form != maps.HOT or eta < 1:
                        rises = eta if form == "published" else 0.0
                        rows.append({"task": task, "form": form, "eta": eta, "metric": metric, **around(0.2 + rises)})
    return pd.DataFrame(rows)


def grid() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"form": form, "gamma": gamma, "eta": eta, "metric": metric, **around(float(rng.uniform(0.1, 0.9)))}
        for form in maps.FORMS
        for gamma in AUTHORS
        for eta in AUTHORS
        for metric in NAMES
    )


def test_the_curves_are_told_from_the_table() -> None:
    drawn = maps.draw(Result({maps.NAME: grid(), maps.CURVES: curves()}, {"mapped": "hypotheses", "gamma": 0.2}))
    assert set(drawn) == {maps.NAME, maps.CURVES}
    panels = drawn[maps.CURVES].axes
    assert len(panels) == 2 * len(maps.SHOWN)
    assert panels[0].get_title(loc="left").replace("\n", " ") == (
        "hypotheses, eta 0.8: published 1.0, balanced 0.2, no mask 0.2, temperature 0.2, real 0.3"
    )
    assert "published 100, balanced 20" in panels[2].get_title(loc="left").replace("\n", " ")  # in per cent
    assert max(line.get_xdata().max() for line in panels[0].lines if len(line.get_xdata()) > 2) == 1


@pytest.mark.parametrize("script", [maps, low], ids=lambda s: s.NAME)
def test_it_waits_for_experts(script: Any, tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="steerlab expert train --task"):
        script.compute(replace(script.Config(), experts=str(tmp_path)))


def judged() -> pd.DataFrame:
    """Three seeds in which the vector adds 0.2 to every measure, whoever writes, and a random direction nothing."""
    rows = []
    for seed in range(3):
        for i, writer in enumerate(low.WRITERS):
            for push in low.PUSHES:
                value = 0.3 + 0.1 * i + (0.2 if push == "vector" else 0.0) + 0.01 * seed
                shown = low.SHOWN
                rows += [{"writer": writer, "push": push, "seed": seed, "metric": m, "value": value} for m in shown]
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed() -> None:
    every = judged()
    gaps = low._differences(every).query("metric == 'macro_f1'").set_index("what")
    expected = {
        "vector on base": 0.2,
        "random on guided": 0.0,
        "expert over base": 0.1,
        "guided, vector over base": 0.4,
    }
    for what, value in expected.items():
        assert np.allclose(gaps.loc[what, list(BOUNDS)].astype(float), value)  # what the seeds share cancels
    over = low._over(every).query("metric == 'macro_f1'").set_index(["writer", "push"])
    assert np.isclose(over.loc[("guided", "vector"), "value"], 0.71) and over.loc[("base", "none"), "n"] == 3
    human = {"language_share": 0.6, "faithfulness": 0.7, "macro_f1": 0.7}
    drawn = low.draw(Result({low.NAME: low._over(every), low.DIFFERENCES: low._differences(every)},
                            {"name": "Javanese", "human": human}))  # fmt: skip
    first = drawn[low.NAME].axes[3].get_title(loc="left")
    assert first == "Expert 0.41, guided 0.51,\nguided with vector 0.71"
    assert "7 of 10 intervals" in drawn[low.DIFFERENCES].axes[0].get_title(loc="left")
