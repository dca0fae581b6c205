"""A planted direction is found by every kind of probe, is gone once it is ablated, and is not found under shuffled labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor

from steerlab import probes
from steerlab.errors import SteerlabError
from steerlab.operators import ablate
from steerlab.probes import KINDS, PENALTIES, Kind, choose_c, cross_validated_probe, layerwise
from steerlab.probes.result import html_table
from steerlab.provenance import Provenance
from steerlab.similarity import cosine_curve

D, PAIRS = 16, 300
ANGLE = 20.0  # degrees; a random direction of 16 dimensions lies nearer than this one time in 10 million


def planted(gap: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs whose second member lies `gap` further along a unit direction: x "n d", y, groups, the direction."""
    source = torch.Generator().manual_seed(seed)
    v = torch.randn(D, generator=source)
    v = v / v.norm()
    y, groups = torch.arange(2 * PAIRS) % 2, torch.arange(2 * PAIRS) // 2
    return torch.randn(2 * PAIRS, D, generator=source) + 3 + gap * y[:, None] * v, y, groups, v


def degrees(a: Tensor, b: Tensor) -> float:
    return float(torch.rad2deg(torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))))


@pytest.mark.parametrize("kind", KINDS)
def test_the_planted_direction_is_found_and_lost_after_ablation(kind: Kind) -> None:
    x, y, groups, v = planted()
    found = cross_validated_probe(x, y, groups, kind, shuffles=1, resamples=200)
    assert found.direction is not None and found.gap is not None
    assert degrees(found.direction[0], v) < ANGLE
    assert found.auroc.low > 0.85 and found.accuracy.low > 0.75 and found.macro_f1.low > 0.75
    assert float(found.gap[0]) == pytest.approx(2.0, abs=0.25)
    left = ablate(x, v, torch.tensor(1.0), torch.tensor(0.0))
    lost = cross_validated_probe(left, y, groups, kind, shuffles=0, resamples=200)
    assert lost.auroc.low < 0.5 < lost.auroc.high
    assert abs(lost.accuracy.value - 0.5) < 0.06
    # Ablating another direction takes nothing away.
    w = torch.randn(D, generator=torch.Generator().manual_seed(9))
    other = ablate(x, (w - (w @ v) * v) / (w - (w @ v) * v).norm(), torch.tensor(1.0), torch.tensor(0.0))
    assert cross_validated_probe(other, y, groups, kind, shuffles=0, resamples=20).auroc.value > 0.85


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_labels_find_neither_score_nor_direction(kind: Kind) -> None:
    x, y, groups, v = planted()
    away = []
    for seed in range(3):
        mixed = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
        got = cross_validated_probe(x, mixed, groups, kind, shuffles=0, resamples=100)
        assert abs(got.auroc.value - 0.5) < 0.08
        assert got.direction is not None
        away.append(min(degrees(got.direction[0], v), degrees(got.direction[0], -v)))
    assert np.mean(away) > 45
    true = cross_validated_probe(x, y, groups, kind, shuffles=2, resamples=20)
    for own in (true.auroc, true.accuracy, true.macro_f1):
        assert abs(own.shuffled - 0.5) < 0.08 < own.value - own.shuffled


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_of_several_has_its_own_planted_direction(kind: Kind) -> None:
    source = torch.Generator().manual_seed(1)
    y = torch.arange(450) % 3
    centres = 2.5 * torch.linalg.qr(torch.randn(D, 3, generator=source))[0].T
    x = torch.randn(450, D, generator=source) + 5 + centres[y]
    got = layerwise(x[:, None], y, torch.arange(450), kind, shuffles=0, resamples=50)
    assert got[0].direction is not None
    for label in range(3):
        want = centres[label] - centres.mean(0)
        assert degrees(got[0].direction[label], want) < ANGLE
        vector = probes.steering_vector(got, name="v", label=label)
        assert degrees(vector.direction[0], want) < ANGLE
        assert vector.counts == (150.0, 300.0)
    with pytest.raises(SteerlabError, match="classes 0, 1, 2"):
        probes.steering_vector(got, name="v")


def test_scores_are_those_of_scikit_learn() -> None:
    source = torch.Generator().manual_seed(2)
    y = torch.arange(240) % 4
    x = torch.randn(240, D, generator=source) + torch.eye(4, D)[y] * 1.5
    for labels in (y, (y > 1).long()):
        got = cross_validated_probe(x, labels, torch.arange(240) // 2, "logistic", shuffles=0, resamples=100)
        scores, truth = got.scores.numpy(), labels.numpy()
        guess = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)
        assert got.accuracy.value == pytest.approx(accuracy_score(truth, guess))
        assert got.macro_f1.value == pytest.approx(f1_score(truth, guess, average="macro"))
        columns = range(4) if scores.shape[1] > 1 else (0,)
        right, pairs = [], []
        for c in columns:
            positive = truth == (c if scores.shape[1] > 1 else 1)
            each = [(positive[got.fold == k], scores[got.fold == k, c]) for k in range(5)]
            pairs.append([a.sum() * (~a).sum() for a, _ in each])
            right.append(np.average([roc_auc_score(a, b) for a, b in each], weights=pairs[-1]))
        assert got.auroc.value == pytest.approx(np.mean(right))
        for own in (got.accuracy, got.macro_f1, got.auroc):
            assert own.low < own.value < own.high


def test_inner_folds_choose_a_strong_penalty_on_noise_and_a_weak_one_on_signal() -> None:
    rng = np.random.default_rng(0)
    labels, groups = np.arange(200) % 2, np.arange(200) // 2
    noise = rng.normal(size=(200, 100))
    signal = noise + 2.0 * np.outer(labels, np.ones(100) / 10)
    clear = noise[:, :5] + 9 * labels[:, None]
    for kind in ("logistic_cv", "ridge"):
        assert choose_c(kind, noise, labels, groups) == PENALTIES[0]
        assert PENALTIES[0] < choose_c(kind, signal, labels, groups)
        assert choose_c(kind, clear, labels, groups) >= 1e-1
    y, sets = torch.from_numpy(labels), torch.from_numpy(groups)
    chosen = cross_validated_probe(torch.from_numpy(signal), y, sets, "logistic_cv", shuffles=0, resamples=10)
    fixed = cross_validated_probe(torch.from_numpy(signal), y, sets, "logistic", shuffles=0, resamples=10, c=100.0)
    assert chosen.c == choose_c("logistic_cv", signal, labels, groups) and fixed.c == 100.0
    assert chosen.auroc.value > fixed.auroc.value + 0.02


def test_inner_folds_keep_groups_together() -> None:
    rng = np.random.default_rng(1)
    labels, groups = rng.permutation(np.arange(40) % 2).repeat(6), np.arange(40).repeat(6)
    x = rng.normal(size=(40, 60))[groups] + 0.01 * rng.normal(size=(240, 60))  # near copies, a random label each
    for kind in ("logistic_cv", "ridge"):
        assert choose_c(kind, x, labels, groups) <= 1e-3
        assert choose_c(kind, x, labels, np.arange(240)) >= 1e-1  # what split copies would have chosen
    with pytest.raises(SteerlabError, match="in too few of them"):
        choose_c("ridge", x[:12], labels[:12], groups[:12])


def test_no_fold_splits_a_group_whatever_their_sizes() -> None:
    rng = np.random.default_rng(2)
    groups = torch.from_numpy(rng.choice(40, size=500, p=rng.dirichlet(np.ones(40))))
    y = torch.from_numpy(rng.integers(3, size=500))
    for seed in range(4):
        shared = probes.trial(y, groups, seed=seed, resamples=20)
        for group in groups.unique().tolist():
            assert len(set(shared.fold[groups.numpy() == group])) == 1
            own = shared.weight[:, groups.numpy() == group]  # and none splits in the bootstrap
            assert (own == own[:, :1]).all()


def test_directions_of_layers_are_a_steering_vector() -> None:
    x, y, groups, v = planted()
    stacked = torch.stack([x, 2 * x + 1], dim=1)
    found = layerwise(stacked, y, groups, "diff_of_means", shuffles=0, resamples=10)
    norm = stacked.norm(dim=-1).mean(0)
    vector = probes.steering_vector(
        found, (3, 7), name="quality", residual_norm=norm, provenance=Provenance(model="m", seed=4)
    )
    means = stacked[y == 1].mean(0) - stacked[y == 0].mean(0)
    torch.testing.assert_close(torch.stack([vector.raw(3), vector.raw(7)]), means, rtol=1e-4, atol=1e-5)
    assert vector.layers == (3, 7) and vector.counts == (300.0, 300.0)
    assert (vector.provenance.method, vector.provenance.model) == ("probe(diff_of_means)", "m")
    assert vector.norm_at(7) == pytest.approx(float(norm[1]))
    assert degrees(vector.at(3), v) < ANGLE
    back = probes.steering_vector(found, (3, 7), name="worse", label=0)
    torch.testing.assert_close(cosine_curve(vector, back), torch.full((2,), -1.0, dtype=torch.float64))
    one = found[1].vector(7, "quality", residual_norm=5.0)
    assert torch.equal(one.at(7), vector.at(7)) and one.norm_at(7) == 5.0
    with pytest.raises(SteerlabError, match="reads no activations"):
        length = probes.length_baseline(["a b", "c"] * PAIRS, y, groups, shuffles=0, resamples=10)
        length.vector(0, "length")
    with pytest.raises(SteerlabError, match="2 results and 1 layers"):
        probes.steering_vector(found, (3,), name="v")
    with pytest.raises(SteerlabError, match="label 5 is not among"):
        found[0].vector(3, "v", label=5)


def test_results_are_a_table_and_html_with_nothing_left_unescaped() -> None:
    x, y, groups, _ = planted()
    found = layerwise(torch.stack([x, x], dim=1), y, groups, "lda", shuffles=1, resamples=20)
    rows: Any = probes.table(found, (4, 9))
    assert list(rows["layer"]) == [4, 9] and list(rows["kind"]) == ["lda", "lda"]
    assert rows["value"][0] == found[0].auroc.value == rows["auroc"][0]
    assert rows["accuracy_low"][1] == found[1].accuracy.low and rows["shuffled"][0] == found[0].auroc.shuffled
    assert list(probes.table(found)["layer"]) == [0, 1]
    with pytest.raises(SteerlabError, match="one layer each"):
        probes.table(found, (4,))
    shared = probes.trial(y, groups, shuffles=0, resamples=20)
    html = probes.evaluate("<b>&", shared, lambda train, labels, test: x[test, :1].double().numpy())._repr_html_()
    assert "&lt;b&gt;&amp;" in html and "<b>" not in html and html.count("<tr>") == 4 and "nan" not in html
    assert "&lt;i&gt;" in html_table("", [("<i>",)])
