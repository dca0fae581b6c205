"""Common random numbers: a planted variance ratio is found, and texts that share noise differ less."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerlab.ablation import Arm
from steerlab.ablation.noise import MEASURES, noise_share, variance_ratio
from steerlab.errors import SteerlabError
from steerlab.generation import Settings
from steerlab.steering import Intervention
from tests.tiny import tiny, vector

PROMPTS = ("Tell me of the river.", "Say it again.", "Now the town.", "And what of the rain?")


def test_a_planted_ratio_is_found() -> None:
    """A difference of 1, noise 1 that the pairs share and noise 0.5 that they do not: (2 + 0.5) / 0.5 = 5."""
    rng = np.random.default_rng(0)

    def pairs(shared: bool) -> np.ndarray:
        noise = rng.standard_normal((2, 40, 30))
        own = rng.standard_normal((2, 40, 30)) * 0.5
        other = noise[0] if shared else noise[1]
        return (
            (1 + rng.normal(0, 9, (40, 1))) + noise[0] + own[0] - other - own[1] * 0
        )  # prompts differ much: no matter

    found = variance_ratio(pairs(True), pairs(False))
    assert found.low < (2 + 0.25) / 0.25 < found.high and found.n == 1200
    assert found.high / found.low < 1.6
    equal = variance_ratio(pairs(False), pairs(False))
    assert equal.low < 1 < equal.high


def test_differences_that_never_vary_have_no_ratio() -> None:
    noise = np.random.default_rng(0).standard_normal((5, 4))
    assert variance_ratio(np.ones((5, 4)), noise).reason == "with common noise every difference is the same"
    assert variance_ratio(noise[:1], noise[:1]).reason == "one prompt"
    with_gap = np.vstack([noise, np.full((1, 4), math.nan)])
    assert variance_ratio(with_gap, with_gap).value == pytest.approx(1)
    with pytest.raises(SteerlabError, match="needs at least 2"):
        variance_ratio(noise[:, :1], noise[:, :1])


def test_texts_of_one_key_differ_less_than_texts_of_two() -> None:
    def arm(strength: float) -> Arm:
        return Arm("v", (Intervention(vector(0), 1, strength=strength),), 1, strength)

    found = noise_share(
        tiny("llama"),
        [arm(0.0), arm(0.05), arm(20.0)],
        PROMPTS,
        4,
        Settings(max_new_tokens=6, stop=(), seed=1),
        targets={"v": "de"},
    )
    table = found.table.set_index(["strength", "measure"])
    assert set(found.table["measure"]) == set(MEASURES)
    still = table.loc[(0.0, "log_probability")]
    assert still["identical"] == 1 and still["common"] == 0 and still["difference"] == 0 and math.isnan(still["value"])
    weak, strong = (table.loc[(s, "log_probability")] for s in (0.05, 20.0))
    assert weak["identical"] > strong["identical"] and weak["value"] > max(2, strong["value"])
    assert weak["value"] == pytest.approx(weak["independent"] / weak["common"])
    assert len(found.texts) == 4 * 4 * (2 + 3) and "<table" in found._repr_html_()
    with pytest.raises(SteerlabError, match="needs at least 2"):
        noise_share(tiny("llama"), [arm(1.0)], PROMPTS, 1)
