"""Intervals equal their definitions, cover what they claim to cover, and say why when they do not exist."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import (
    Estimate,
    bootstrap,
    exact_mcnemar,
    exact_sign_test,
    jackknife,
    nested,
    over_seeds,
    paired_bootstrap,
    wilson,
)

VALUES = np.random.default_rng(0).normal(size=50)


def test_an_estimate_prints_its_interval_in_the_asked_format() -> None:
    estimate = Estimate(0.834, 0.789, 0.871, 100)
    assert str(estimate) == "0.83 [0.79, 0.87]"
    assert f"{estimate:.1%}" == "83.4% [78.9%, 87.1%]"
    assert str(Estimate.point(0.5, 1, "one value")) == "0.50 [no interval: one value]"
    assert str(Estimate.missing("no texts")) == "missing (no texts)"


@pytest.mark.parametrize("estimate", [Estimate(0.1, 0.0, 0.3, 7, "a note"), Estimate.missing("why", 3)])
def test_an_estimate_survives_json_and_nan_is_null_there(estimate: Estimate) -> None:
    text = json.dumps(estimate.to_json(), allow_nan=False)
    back = Estimate.from_json(json.loads(text))
    assert back.to_json() == estimate.to_json()
    assert back.known == estimate.known
    assert ("null" in text) != estimate.known


def test_a_missing_number_needs_a_reason_and_none_is_infinite() -> None:
    with pytest.raises(SteerlabError, match="without a reason"):
        Estimate(math.nan, 0.0, 1.0, 3)
    with pytest.raises(SteerlabError, match="without a reason"):
        Estimate(0.5, math.nan, math.nan, 3)
    with pytest.raises(SteerlabError, match="finite"):
        Estimate(math.inf, 0.0, 1.0, 3, "why not")
    with pytest.raises(SteerlabError, match="is no estimate"):
        Estimate.from_json({"value": 1.0, "low": 0.0, "high": 2.0})


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (10, 10), (83, 100)])
def test_wilson_solves_its_equation(k: int, n: int) -> None:
    z = scipy_stats.norm.ppf(0.975)
    estimate = wilson(k, n)
    assert estimate.value == k / n
    for bound in (estimate.low, estimate.high):
        assert (k / n - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / n, abs=1e-9)
    assert estimate.high - estimate.low > 0.1


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_mirrors(case: tuple[int, int]) -> None:
    k, n = case
    estimate, mirrored = wilson(k, n), wilson(n - k, n)
    assert -1e-12 <= estimate.low <= k / n + 1e-12 and k / n - 1e-12 <= estimate.high <= 1 + 1e-12
    assert estimate.low == pytest.approx(1 - mirrored.high, abs=1e-9)


def test_wilson_refuses_impossible_counts_and_misses_without_trials() -> None:
    assert wilson(0, 0).reason and not wilson(0, 0).known
    for k, n in ((-1, 3), (4, 3)):
        with pytest.raises(SteerlabError, match="must lie between"):
            wilson(k, n)
    with pytest.raises(SteerlabError, match="confidence level"):
        wilson(1, 2, level=95.0)


def test_the_bootstrap_of_a_mean_agrees_with_scipy_and_with_a_loop_of_means() -> None:
    fast = bootstrap(VALUES, seed=1, resamples=20_000)
    theirs = scipy_stats.bootstrap(
        (VALUES,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert fast.value == pytest.approx(VALUES.mean())
    assert (fast.low, fast.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    slow = bootstrap(VALUES, lambda x: float(np.mean(x)), seed=1, resamples=500)
    same = bootstrap(VALUES, seed=1, resamples=500)
    assert (slow.low, slow.high) == pytest.approx((same.low, same.high))


def test_the_bootstrap_depends_on_its_seed_and_level_alone() -> None:
    assert bootstrap(VALUES, seed=3) == bootstrap(VALUES, seed=3) != bootstrap(VALUES, seed=4)
    wide, narrow = bootstrap(VALUES, level=0.99), bootstrap(VALUES, level=0.5)
    assert wide.high - wide.low > narrow.high - narrow.low > 0
    before = np.random.get_state()  # noqa: NPY002
    bootstrap(VALUES)
    assert repr(np.random.get_state()) == repr(before)  # noqa: NPY002


def test_the_bootstrap_of_a_mean_covers_it() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(150):
        estimate = bootstrap(rng.exponential(size=40), seed=trial, resamples=300)
        hits += estimate.low <= 1 <= estimate.high
    assert 0.87 <= hits / 150 <= 0.99


def test_repeated_rows_of_one_group_carry_no_more_evidence_than_one() -> None:
    repeated, group = np.repeat(VALUES, 10), [("text", i) for i in range(50) for _ in range(10)]
    single, clustered = bootstrap(VALUES, seed=2), bootstrap(repeated, groups=group, seed=2)
    assert (clustered.low, clustered.high) == pytest.approx((single.low, single.high))
    naive = bootstrap(repeated, seed=2)
    assert naive.high - naive.low < 0.5 * (single.high - single.low)


def test_the_mean_over_groups_of_unequal_size_weighs_every_value_alike() -> None:
    group = np.repeat([4, 2, 9, 1, 7], [1, 3, 10, 16, 20])
    fast, slow = (bootstrap(VALUES, statistic, group, seed=6) for statistic in (np.mean, lambda x: float(np.mean(x))))
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))


def test_groups_are_drawn_whole_for_any_statistic() -> None:
    values, group = np.array([0.0, 10.0, 10.0, 10.0]), np.array([1, 2, 2, 2])
    estimate = bootstrap(values, np.max, groups=group, resamples=200)
    assert (estimate.low, estimate.high) == (0, 10)
    sizes = bootstrap(values, lambda x: float(len(x)), groups=group, resamples=200)
    assert (sizes.low, sizes.high) == (2, 6)


def test_missing_values_are_left_out_and_told() -> None:
    holed = np.concatenate([VALUES, [np.nan, np.nan]])
    estimate = bootstrap(holed)
    assert estimate.value == pytest.approx(VALUES.mean()) and estimate.n == 50
    assert estimate.reason == "2 of 52 values are missing and left out"
    assert not bootstrap(np.full(3, np.nan)).known and not bootstrap(np.zeros(0)).known
    assert not bootstrap(np.array([1.0, np.inf])).known
    one = bootstrap(np.array([2.0]))
    assert one.value == 2 and math.isnan(one.low) and one.reason == "one value"
    assert bootstrap(VALUES, groups=["a"] * 50).reason == "one group"


def test_a_paired_difference_is_the_bootstrap_of_differences_and_ignores_what_is_shared() -> None:
    rng = np.random.default_rng(7)
    shared, effect = rng.normal(scale=5, size=80), rng.normal(0.3, 0.1, size=80)
    paired = paired_bootstrap(shared + effect, shared, seed=1)
    alone = bootstrap(effect, seed=1)
    assert (paired.value, paired.low, paired.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert paired.low > 0 > bootstrap(shared + effect).value - bootstrap(shared).high
    medians = paired_bootstrap(shared + 1, shared, statistic=np.median)
    assert (medians.value, medians.low, medians.high) == pytest.approx((1, 1, 1))
    same = paired_bootstrap(shared, shared)
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: paired_bootstrap(VALUES, VALUES[1:]), "as many on both sides"),
        (lambda: exact_sign_test(VALUES, VALUES[:1]), "50 and 1 values"),
        (lambda: exact_mcnemar(VALUES > 0, VALUES[:1] > 0), "50 and 1 values"),
        (lambda: bootstrap(VALUES, groups=[1, 2]), "one group per value"),
        (lambda: bootstrap(VALUES, resamples=0), "at least 1"),
        (lambda: bootstrap(VALUES, level=1.0), "confidence level"),
        (lambda: jackknife(9, lambda rows: 1.0, subsets=1), "at least 2"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(call: Callable[[], object], words: str) -> None:
    with pytest.raises(SteerlabError, match=words):
        call()


def test_the_jackknife_of_a_mean_has_the_standard_error_of_the_mean() -> None:
    estimate = jackknife(50, lambda rows: float(VALUES[rows].mean()), subsets=4000)
    reach = scipy_stats.t.ppf(0.975, 49) * VALUES.std(ddof=1) / math.sqrt(50)
    assert estimate.value == pytest.approx(VALUES.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(reach, rel=0.05)


def _kinds(rows: np.ndarray) -> float:
    return len(set(rows.tolist())) / len(rows)


def test_the_jackknife_covers_a_share_of_distinct_items_and_the_bootstrap_does_not() -> None:
    rng = np.random.default_rng(11)
    chance = 1 / np.arange(1, 301)
    chance /= chance.sum()
    truth = float((1 - (1 - chance) ** 100).sum() / 100)  # expected share of distinct items among 100
    hits = {"jackknife": 0, "bootstrap": 0}
    for trial in range(80):
        drawn = rng.choice(300, 100, p=chance)
        by_subsets = jackknife(
            100, lambda rows, drawn=drawn: _kinds(drawn[rows]), seed=trial, subsets=60, bounds=(0.0, 1.0)
        )
        by_resamples = bootstrap(drawn.astype(float), _kinds, seed=trial, resamples=100)
        hits["jackknife"] += by_subsets.low <= truth <= by_subsets.high
        hits["bootstrap"] += by_resamples.low <= truth <= by_resamples.high
    assert hits["jackknife"] >= 0.87 * 80
    assert hits["bootstrap"] < 0.1 * 80


def test_the_jackknife_keeps_to_its_bounds_and_says_when_it_has_no_interval() -> None:
    near_one = jackknife(6, lambda rows: 0.99 + 0.01 * (0 not in rows), bounds=(0.0, 1.0), reason="note")
    assert near_one.high == 1.0 and near_one.reason == "note"
    assert "same for every subset" in jackknife(20, lambda rows: 1.0).reason
    assert jackknife(4, lambda rows: float(len(rows))).reason == "fewer than 5 texts"
    gone = jackknife(8, lambda rows: 1.0 if len(rows) == 8 else math.nan)
    assert gone.value == 1 and "some subsets" in gone.reason
    assert not jackknife(0, lambda rows: 1.0).known
    assert not jackknife(8, lambda rows: math.nan).known


def test_over_seeds_is_students_interval() -> None:
    estimate = over_seeds([1.0, 2.0, 3.0])
    assert estimate.value == 2 and estimate.n == 3
    assert estimate.high - 2 == pytest.approx(4.302653 / math.sqrt(3))
    assert 2 - estimate.low == pytest.approx(4.302653 / math.sqrt(3))
    assert over_seeds([1.0]).reason == "one seed"
    assert not over_seeds([]).known
    assert over_seeds([1.0, 2.0, 3.0, math.nan]).reason.startswith("1 of 4")


def _two_ways(rng: np.random.Generator, g: int, s: int, generation: float, seed: float, rest: float) -> np.ndarray:
    sizes = ((generation, (g, 1)), (seed, (1, s)), (rest, (g, s)))
    return np.zeros((g, s)) + sum(rng.normal(scale=scale, size=size) for scale, size in sizes)


@pytest.mark.parametrize(
    ("g", "s", "scales", "naive"),
    [(3, 5, (1.0, 0.0, 1.0), 0.8), (3, 20, (0.5, 0.5, 1.0), 0.75), (5, 5, (0.0, 1.0, 0.3), 0.7)],
)
def test_nested_covers_generation_and_classifier_seeds_together(
    g: int, s: int, scales: tuple[float, float, float], naive: float
) -> None:
    rng = np.random.default_rng(8)
    hits = {"nested": 0, "flat": 0}
    for _ in range(400):
        values = _two_ways(rng, g, s, *scales)
        both, flat = nested(values), over_seeds(values.ravel().tolist())
        hits["nested"] += both.low <= 0 <= both.high
        hits["flat"] += flat.low <= 0 <= flat.high
    assert hits["nested"] >= 0.92 * 400
    assert hits["flat"] < naive * 400  # all values taken for independent


def test_nested_does_not_waste_width_where_only_generations_differ() -> None:
    rng = np.random.default_rng(9)
    widths = []
    for _ in range(200):
        values = _two_ways(rng, 6, 10, 1.0, 0.0, 0.5)
        both, means = nested(values), over_seeds(values.mean(axis=1).tolist())
        assert both.value == pytest.approx(means.value)
        widths.append((both.high - both.low) / (means.high - means.low))
    assert min(widths) >= 1 - 1e-12 and np.median(widths) < 1.05


def test_nested_is_never_narrower_than_the_classifier_seeds_alone() -> None:
    rng = np.random.default_rng(10)
    for trial in range(200):
        values = _two_ways(rng, 2 + trial % 4, 2 + trial % 7, 0.0, float(trial % 3), 1.0)
        both, alone = nested(values), over_seeds(values.mean(axis=0).tolist())
        assert both.high - both.low >= alone.high - alone.low - 1e-12
    one = nested(np.array([[0.1], [0.3], [0.2]]))
    assert (one.low, one.high) == pytest.approx((over_seeds([0.1, 0.3, 0.2]).low, over_seeds([0.1, 0.3, 0.2]).high))


def test_nested_says_when_it_has_no_interval_and_what_it_left_out() -> None:
    single = nested(np.array([[0.2, 0.4]]))
    assert single.value == pytest.approx(0.3) and math.isnan(single.low) and single.reason == "one generation seed"
    holed = nested(np.array([[0.2, 0.4], [0.3, 0.1], [math.nan, 0.9]]))
    assert holed.value == pytest.approx(0.25) and holed.n == 4 and holed.reason.startswith("1 of 3")
    assert not nested(np.full((2, 2), math.nan)).known and not nested(np.zeros((0, 3))).known


def test_the_sign_test_counts_pairs_and_leaves_ties_out() -> None:
    a = np.array([1.0] * 8 + [0.0] * 2 + [5.0, np.nan])
    b = np.array([0.0] * 8 + [1.0] * 2 + [5.0, 1.0])
    test = exact_sign_test(a, b)
    assert (test.wins, test.losses, test.ties) == (8, 2, 2)
    assert test.p == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert exact_sign_test(b, a).p == test.p
    assert exact_sign_test(a[:1] * 0, b[:1] * 0).p == 1


def test_mcnemar_looks_at_the_rows_where_one_is_right() -> None:
    a = np.array([True] * 9 + [False] * 1 + [True] * 50 + [False] * 40)
    b = np.array([False] * 9 + [True] * 1 + [True] * 50 + [False] * 40)
    test = exact_mcnemar(a, b)
    assert (test.wins, test.losses, test.ties) == (9, 1, 90)
    assert test.p == pytest.approx(2 * (1 + 10) / 1024)
    assert exact_mcnemar(a, a).p == 1
