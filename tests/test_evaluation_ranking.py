"""A score is compared with a sweep without flattery: chance, what is lost, and how far the sweep agrees with itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.ranking import agreement, measured_layers, noise_ceiling


def test_a_sweep_becomes_one_number_per_layer() -> None:
    rows = [("x", layer, s, 0.1 * layer + s / 10) for layer in (0, 1) for s in (0.5, 1.0)]
    sweep = pd.DataFrame(rows, columns=["arm", "layer", "strength", "value"])
    found = measured_layers(sweep)
    assert found["mean"].tolist() == pytest.approx([0.075, 0.175]) and found["best"].tolist() == pytest.approx(
        [0.1, 0.2]
    )
    with pytest.raises(SteerlabError, match="measured at different strengths"):
        measured_layers(sweep.iloc[:3])


def test_a_sweep_of_many_texts_repeats_itself_and_one_of_few_does_not() -> None:
    rng = np.random.default_rng(5)
    place = [(f"l{k}", layer, s) for k in range(4) for layer in range(6) for s in (0.5, 1.0)]
    sweep = pd.DataFrame(place, columns=["arm", "layer", "strength"]).assign(value=rng.uniform(0.2, 0.8, 48))
    ceilings = [noise_ceiling(sweep.sample(frac=1, random_state=0).assign(n=n)) for n in (4, 40, 4000)]
    assert 0.2 < ceilings[0] < ceilings[1] < ceilings[2] and ceilings[2] > 0.97
    flat = sweep.assign(value=0.5 + 1e-6 * rng.random(48), n=40)
    assert abs(noise_ceiling(flat, draws=1000)) < 0.1


def tables(told: np.ndarray, truth: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    place = [(f"l{k:02}", layer) for k in range(told.shape[0]) for layer in range(told.shape[1])]
    scores = pd.DataFrame(place, columns=["arm", "layer"]).assign(score=told.ravel())
    measured = pd.DataFrame(place, columns=["arm", "layer"]).assign(mean=truth.ravel())
    return scores, measured


def test_the_right_order_agrees_fully_the_reverse_not_at_all() -> None:
    truth = np.random.default_rng(0).random((8, 5))
    scores, measured = tables(truth**3, truth)
    right, wrong = (
        agreement(scores, measured, "score"),
        agreement(scores.assign(score=-scores["score"]), measured, "score"),
    )
    assert right.correlation.value == pytest.approx(1) and wrong.correlation.value == pytest.approx(-1)
    assert right.p == pytest.approx(1 / 120) and wrong.p == pytest.approx(1)
    assert right.lost.value == 0 < right.lost_at_random < wrong.lost.value
    assert wrong.lost.value == pytest.approx((truth.max(1) - truth.min(1)).mean())
    assert right.lost_at_random == pytest.approx((truth.max(1, keepdims=True) - truth).mean())
    shuffled = agreement(scores, measured.sample(frac=1, random_state=0), "score")
    assert shuffled.correlation.value == pytest.approx(1)


def test_languages_with_one_profile_are_not_counted_as_independent() -> None:
    """Twelve copies of a language are as good as one: chance stays where one language has it."""
    rng = np.random.default_rng(1)
    told, truth = rng.random(6), rng.random(6)
    one = agreement(*tables(told[None], truth[None]), "score")
    many = agreement(*tables(np.tile(told, (12, 1)), np.tile(truth, (12, 1))), "score")
    assert many.chance == pytest.approx(one.chance) and many.p == pytest.approx(one.p) and one.chance > 0.6
    free = agreement(*tables(rng.random((12, 6)), rng.random((12, 6))), "score")
    assert free.chance < 0.5


def test_random_scores_reach_p_below_5_percent_in_about_5_percent_of_cases() -> None:
    rng = np.random.default_rng(2)
    hits = [agreement(*tables(rng.random((3, 5)), rng.random((3, 5))), "score").p <= 0.05 for _ in range(150)]
    assert 0.005 < np.mean(hits) < 0.11


def test_a_flat_language_has_no_correlation_and_is_said_to_be_left_out() -> None:
    truth = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [2.0, 3.0, 9.0]])
    scores, measured = tables(np.tile([1.0, 2.0, 3.0], (3, 1)), truth)
    found = agreement(scores, measured, "score")
    assert math.isnan(found.each["l01"]) and found.correlation.n == 2 and "1 of 3 values" in found.correlation.reason
    assert found.correlation.value == pytest.approx(1) and found.lost.n == 3
    flat = agreement(*tables(np.ones((2, 3)), truth[:2]), "score")
    assert math.isnan(flat.correlation.value) and math.isnan(flat.p) and math.isnan(flat.chance)


def test_many_layers_are_permuted_at_random() -> None:
    told = np.random.default_rng(3).random((2, 12))
    assert agreement(*tables(told, told), "score").p == pytest.approx(1 / 10_001, rel=0.01)


def test_tables_that_do_not_match_are_refused() -> None:
    scores, measured = tables(np.random.default_rng(4).random((3, 4)), np.ones((3, 4)))
    other: Any
    for other in (measured[measured["arm"] != "l00"], measured[measured["layer"] != 2]):
        with pytest.raises(SteerlabError, match="both must cover the same languages and layers"):
            agreement(scores, other, "score")
