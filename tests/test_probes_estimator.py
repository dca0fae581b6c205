"""The probes are scikit-learn estimators: they pass its own checks, work in its tools, and give the numbers of `probes.fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from steerlab.errors import SteerlabError
from steerlab.probes import KINDS, Kind, LinearProbe, cross_validated_probe, fit
from steerlab.probes.estimator import PROBABLE
from steerlab.probes.linear import CHOSEN


@parametrize_with_checks([LinearProbe(kind) for kind in KINDS])
def test_scikit_learns_own_checks_pass(estimator: LinearProbe, check: Callable[[LinearProbe], None]) -> None:
    check(estimator)


def test_scikit_learn_has_checks_for_it() -> None:
    """None of them is expected to fail, and what they looked at is a classifier of several classes."""
    seen = check_estimator(LinearProbe("lda"), on_fail=None, on_skip=None)
    ends = [one["status"] for one in seen]
    assert ends.count("passed") > 40 and "failed" not in ends and "xfail" not in ends, ends
    assert "check_classifiers_train" in {one["check_name"] for one in seen}


def _rows(k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows "n d", labels 0 to k-1, and groups of three rows."""
    x: Any
    y: Any
    x, y = make_classification(180, 12, n_informative=6, n_classes=k, class_sep=0.8, flip_y=0.2, random_state=seed)
    return x, y, np.arange(180) // 3


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_estimator_is_the_probe(kind: Kind, k: int) -> None:
    x, y, groups = _rows(k)
    found = LinearProbe(kind, c=0.03, seed=2).fit(x, y, groups)
    want = fit(kind, x, y, groups, c=0.03, seed=2)
    np.testing.assert_array_equal(found.coef_, want.weights)
    np.testing.assert_array_equal(found.intercept_, want.offset)
    np.testing.assert_equal(found.c_, want.c)
    scores = want.scores(x)
    np.testing.assert_array_equal(found.decision_function(x), scores[:, 0] if k == 2 else scores)
    how = {"c": 0.03, "shuffles": 0, "resamples": 20}
    scored = cross_validated_probe(
        torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(groups), kind, 4, 2, **how
    )
    for fold in range(4):
        held = (scored.fold == fold).numpy()
        fresh: Any = clone(found)
        own = fresh.fit(x[~held], y[~held], groups[~held]).decision_function(x[held])
        np.testing.assert_allclose(own.reshape(held.sum(), -1), scored.scores.numpy()[held], rtol=1e-9, atol=1e-9)
    assert scored.direction is not None
    np.testing.assert_allclose(found.direction_, scored.direction.numpy(), rtol=1e-5, atol=1e-6)
    for label in [None, 0, 1] if k == 2 else [0, 1, 2]:
        ours = found.vector(3, "own", label=label, residual_norm=7.0)
        theirs = scored.vector(3, "own", label=label, residual_norm=7.0)
        torch.testing.assert_close(ours.raw(3), theirs.raw(3))
        assert ours.counts == theirs.counts and ours.provenance == theirs.provenance and ours.norm_at(3) == 7.0


def test_labels_of_any_kind_and_their_directions() -> None:
    x, y, _ = _rows(3)
    named = np.array(["neg", "neutral", "pos"])[y]
    found = LinearProbe("diff_of_means").fit(x, named)
    assert set(found.predict(x)) == set(named) and found.score(x, named) > 0.5
    means = np.stack([x[y == label].mean(0) for label in range(3)])
    away = means[2] - means[:2].mean(0)
    toward = found.vector(1, "positive", label="pos").at(1).numpy()
    np.testing.assert_allclose(toward, away / np.linalg.norm(away), atol=1e-5)
    with pytest.raises(SteerlabError, match="label 'happy' is not among|label happy is not among"):
        found.vector(1, "x", label="happy")
    with pytest.raises(SteerlabError, match="say which one"):
        found.vector(1, "x")
    with pytest.raises(SteerlabError, match="kind 'svm' is not known"):
        LinearProbe("svm").fit(x, y)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SteerlabError, match="1 class"):
        LinearProbe().fit(x, np.zeros(180))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LinearProbe().fit(x, y, np.arange(179))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_where_scores_are_log_odds(kind: Kind, k: int) -> None:
    x, y, _ = _rows(k)
    found = LinearProbe(kind).fit(x, y)
    assert hasattr(found, "predict_proba") == (kind in PROBABLE)
    if kind not in PROBABLE:
        return
    share = found.predict_proba(x)
    np.testing.assert_allclose(share.sum(1), 1)
    scores = found.decision_function(x)
    first = scores if k == 2 else scores[:, 1] - scores[:, 0]
    np.testing.assert_allclose(np.log(share[:, 1] / share[:, 0]), first, rtol=1e-6, atol=1e-9)
    assert (-np.log(share[np.arange(180), y])).mean() < np.log(k)  # better than chance


def _copies() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thirty groups of four near copies, a random label each: what is read across copies says nothing of other groups."""
    rng = np.random.default_rng(3)
    groups = np.arange(120) // 4
    return rng.normal(size=(30, 40))[groups] + 0.01 * rng.normal(size=(120, 40)), groups % 2, groups


@pytest.mark.parametrize("kind", CHOSEN)
def test_the_penalty_is_chosen_on_groups(kind: Kind) -> None:
    x, y, groups = _copies()
    assert LinearProbe(kind).fit(x, y, groups).c_ < LinearProbe(kind).fit(x, y).c_
    named = np.array([f"text {group:02d}" for group in groups])  # groups of any kind
    assert LinearProbe(kind).fit(x, y, named).c_ == fit(kind, x, y, groups).c


def test_it_works_in_a_pipeline_with_groups() -> None:
    x, y, groups = _copies()
    pipe: Any = make_pipeline(StandardScaler(), LinearProbe("logistic_cv"))
    folds = GroupKFold(3)
    fitted: Any = pipe.fit(x, y, linearprobe__groups=groups)
    alone: Any = make_pipeline(StandardScaler(), LinearProbe("logistic_cv")).fit(x, y)
    assert fitted[-1].c_ < alone[-1].c_
    honest = cross_val_score(pipe, x, y, groups=groups, cv=folds, params={"linearprobe__groups": groups})
    leaky = cross_val_score(LinearProbe("ridge"), x, y, cv=4)
    want = []
    for train, test in folds.split(x, y, groups):
        scaled = StandardScaler().fit(x[train])
        own = LinearProbe("logistic_cv").fit(scaled.transform(x[train]), y[train], groups[train])
        want.append(own.score(scaled.transform(x[test]), y[test]))
    np.testing.assert_array_equal(honest, want)
    assert honest.mean() < 0.75 and len(leaky) == 4


def test_it_works_in_a_grid_search_with_groups() -> None:
    x, y, groups = _rows()
    grid: Any = {"kind": list(KINDS), "c": [1e-3, 1.0]}
    search = GridSearchCV(LinearProbe(), grid, cv=GroupKFold(3)).fit(x, y, groups=groups)
    assert len(search.cv_results_["params"]) == 10 and not np.isnan(search.cv_results_["mean_test_score"]).any()
    assert search.best_estimator_.vector(0, "best").d_model == 12
    x, y, groups = _copies()
    with config_context(enable_metadata_routing=True):  # groups go to the folds and to the probe
        probe = LinearProbe("logistic_cv").set_fit_request(groups=True)  # pyright: ignore[reportAttributeAccessIssue]
        search = GridSearchCV(probe, {"seed": [0, 1]}, cv=GroupKFold(3)).fit(x, y, groups=groups)
    assert search.best_estimator_.c_ == fit("logistic_cv", x, y, groups, seed=search.best_params_["seed"]).c
