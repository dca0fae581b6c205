"""Vectorised scores equal their definitions and scikit-learn; the bootstrap draws whole groups."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from steerlab import scoring
from tests.reference import scoring as reference


def _case(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(size=n), 1), rng.integers(2, size=n) == 1, rng.integers(3, size=n)


def test_auroc_equals_the_pair_count_with_ties_strata_and_weights() -> None:
    scores, positive, stratum = _case()
    weight = np.random.default_rng(1).integers(4, size=(5, 60)).astype(float)
    got = scoring.auroc(scores, positive, stratum, weight)
    for row in range(5):
        want = reference.auroc(scores.tolist(), positive.tolist(), stratum.tolist(), weight[row].tolist())
        assert got[row] == pytest.approx(want)
    assert len(np.unique(scores)) < 60


def test_auroc_in_one_stratum_equals_sklearn() -> None:
    scores, positive, stratum = _case(300)
    got = scoring.auroc(scores, positive, np.zeros_like(stratum), np.ones((1, 300)))
    assert got[0] == pytest.approx(roc_auc_score(positive, scores))


def test_auroc_does_not_compare_scores_across_strata() -> None:
    scores, positive, stratum = _case()
    plain = scoring.auroc(scores, positive, stratum, np.ones((1, 60)))
    moved = scoring.auroc(scores + 100 * stratum, positive, stratum, np.ones((1, 60)))
    assert plain[0] == pytest.approx(moved[0])
    assert scoring.auroc(scores, positive, np.arange(60), np.ones((1, 60)))[0] != plain[0]


def test_a_score_that_does_not_exist_is_nan() -> None:
    scores, positive, _ = _case()
    assert np.isnan(scoring.auroc(scores, positive, np.arange(60), np.ones((1, 60)))).all()
    assert np.isnan(scoring.macro_f1(np.zeros(3, int), np.zeros(3, int), 1, np.zeros((1, 3)))).all()


def test_macro_f1_equals_sklearn_and_a_repeated_row_counts_as_often_as_its_weight() -> None:
    rng = np.random.default_rng(2)
    truth, predicted = rng.integers(4, size=80), rng.integers(4, size=80)
    weight = rng.integers(3, size=(6, 80)).astype(float)
    got = scoring.macro_f1(predicted, truth, 4, weight)
    for row in range(6):
        again = np.repeat(np.arange(80), weight[row].astype(int))
        assert got[row] == pytest.approx(f1_score(truth[again], predicted[again], average="macro"))


def test_resamples_draw_whole_groups_with_replacement() -> None:
    groups = np.array([7, 7, 3, 3, 3, 9])
    weight = scoring.group_resamples(groups, 4000, 0)
    assert (weight[:, 0] == weight[:, 1]).all()
    assert (weight[:, 2] == weight[:, 4]).all()
    assert (weight[:, [0, 2, 5]].sum(1) == 3).all()
    np.testing.assert_allclose(weight.mean(0), 1, atol=0.06)
    np.testing.assert_array_equal(weight[:5], scoring.group_resamples(groups, 4000, 0)[:5])
    assert (weight != scoring.group_resamples(groups, 4000, 1)).any()


def test_the_interval_is_the_central_95_percent_and_missing_when_too_much_is() -> None:
    values = np.arange(1001) / 1000
    assert scoring.interval(values) == pytest.approx((0.025, 0.975))
    values[:50] = np.nan
    assert not np.isnan(scoring.interval(values)[0])
    values[:200] = np.nan
    assert np.isnan(scoring.interval(values)).all()
