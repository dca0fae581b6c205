"""The control task is learnt by heart where types recur and not otherwise; learning curves and transfer leak no group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlab import probes
from steerlab.errors import SteerlabError
from steerlab.probes import Labelled, control_labels, learning_curve, probe_scorer, selectivity, transfer

D = 40


def _tokens(context: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """600 tokens of 30 types in 100 sentences: each type has an embedding of its own, and `context` of the label is added."""
    source = torch.Generator().manual_seed(seed)
    types = torch.randint(30, (600,), generator=source)
    y, groups = torch.randint(2, (600,), generator=source), torch.arange(600) // 6
    x = 3 * torch.randn(30, D, generator=source)[types] + 0.3 * torch.randn(600, D, generator=source)
    x[:, 0] += context * y
    return x, y, groups, types


def test_a_control_label_is_one_per_type_as_frequent_as_the_real_ones() -> None:
    labels, types = np.array([0, 1, 1, 1] * 500), np.arange(2000) // 2
    got = control_labels(labels, types, seed=3)
    assert (got[::2] == got[1::2]).all()
    assert got.mean() == pytest.approx(0.75, abs=0.05)
    assert (got == control_labels(labels, types, 3)).all() and (got != control_labels(labels, types, 4)).any()


def test_types_that_recur_are_learnt_by_heart_and_leave_no_selectivity() -> None:
    x, _, groups, types = _tokens(0.0)
    y = (types % 2).long()  # the label is a property of the type: nothing but the embedding is needed
    got = selectivity(x[:, None], y, groups, types, "ridge", shuffles=1, resamples=200)[0]
    assert got.real.accuracy.value > 0.95 and got.control.accuracy.value > 0.95
    assert got.selectivity.low <= 0.0 <= got.selectivity.high or abs(got.selectivity.value) < 0.03
    assert got.control.kind == "ridge, control task" and np.isnan(got.control.accuracy.shuffled)
    assert got.real.accuracy.shuffled < 0.65


def test_types_that_never_recur_can_not_be_learnt_by_heart() -> None:
    x, y, groups, _ = _tokens(6.0)
    got = selectivity(x[:, None], y, groups, torch.arange(600), "lda", shuffles=0, resamples=200)[0]
    assert got.real.accuracy.value > 0.9 and abs(got.control.accuracy.value - 0.5) < 0.08
    assert got.selectivity.value == pytest.approx(got.real.accuracy.value - got.control.accuracy.value)
    assert 0.3 < got.selectivity.low < got.selectivity.value < got.selectivity.high
    same = probes.cross_validated_probe(x, y, groups, "lda", shuffles=0, resamples=200)
    assert torch.equal(got.real.scores, same.scores) and torch.equal(got.control.fold, same.fold)


def test_a_control_task_needs_types() -> None:
    x, y, groups, types = _tokens(1.0)
    with pytest.raises(SteerlabError, match="599 types"):
        selectivity(x[:, None], y, groups, types[1:])
    with pytest.raises(SteerlabError, match="1 types were given: a control task with 2 labels"):
        selectivity(x[:, None], y, groups, torch.zeros(600, dtype=torch.long))


def _pairs(seed: int, v: Tensor, gap: float = 2.0, n: int = 150) -> Labelled:
    source = torch.Generator().manual_seed(seed)
    y, groups = torch.arange(2 * n) % 2, torch.arange(2 * n) // 2
    return Labelled(torch.randn(2 * n, D, generator=source) + gap * y[:, None] * v, y, groups)


V, W = torch.eye(D)[0], torch.eye(D)[1]


def test_a_learning_curve_rises_to_the_whole_trial() -> None:
    own = _pairs(0, V, 1.5)
    shared = probes.trial(own.y, own.groups, shuffles=0, resamples=200)
    score = probe_scorer(own.x.double().numpy(), shared, "lda")
    points = learning_curve(shared, score, (4, 30, 120), repeats=3)
    values = [point.measured.auroc.value for point in points]
    assert values[0] < values[1] < values[2] and values[2] - values[0] > 0.08
    assert [point.groups for point in points] == [4, 30, 120] and [point.rows for point in points] == [8, 60, 240]
    whole = probes.evaluate("lda", shared, score)
    # All 120 groups of every fold, in any order.
    got, want = points[2].measured.auroc, whole.auroc
    assert (got.value, got.low, got.high) == pytest.approx((want.value, want.low, want.high))
    assert all(point.measured.auroc.low < point.measured.auroc.value < point.measured.auroc.high for point in points)
    again = learning_curve(shared, score, (30,), repeats=3)[0]
    assert str(again.measured) == str(points[1].measured)  # a size does not depend on the others
    table = probes.learning_table(points, "lda")
    assert len(table) == 9 and set(table["metric"]) == {"accuracy", "macro_f1", "auroc"}
    for sizes in ((), (0,), (121,)):
        with pytest.raises(SteerlabError, match=r"sizes"):
            learning_curve(shared, score, sizes)


def test_subsets_grow_by_adding_groups_and_hold_every_class_first() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    shared = probes.trial(labels, torch.arange(100), shuffles=0, resamples=10)
    seen: list[tuple[int, set[int]]] = []

    def score(train: np.ndarray, own: np.ndarray, test: np.ndarray) -> np.ndarray:
        assert set(own) == {0, 1}
        seen.append((int(shared.fold[test[0]]), set(train.tolist())))
        assert not set(train.tolist()) & set(test.tolist())
        return np.zeros((len(test), 1))

    learning_curve(shared, score, (2, 10, 40), repeats=1)
    for fold in range(5):
        small, middle, large = (own for at, own in seen if at == fold)
        assert small < middle < large and (len(small), len(middle), len(large)) == (2, 10, 40)
    with pytest.raises(SteerlabError, match="1 groups do not hold all 2 classes"):
        learning_curve(shared, score, (1,))


def test_transfer_within_a_set_is_cross_validation_and_between_equal_sets_the_same() -> None:
    own = _pairs(0, V)
    got = transfer({"a": own, "b": own}, "lda", shuffles=1, resamples=100)
    cells = [got.cells[pair] for pair in (("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"))]
    assert len({cell.auroc for cell in cells}) == 1
    alone = transfer({"a": own}, "lda", shuffles=1, resamples=100).cells["a", "a"]
    plain = probes.cross_validated_probe(own.x, own.y, own.groups, "lda", shuffles=1, resamples=100)
    assert (alone.auroc.value, alone.auroc.low, alone.auroc.high) == (plain.value, plain.low, plain.high)
    assert abs(alone.auroc.shuffled - 0.5) < 0.12


def test_transfer_follows_the_planted_directions() -> None:
    near = 0.8 * V + 0.6 * W
    sets = {"v": _pairs(0, V), "near": _pairs(1, near), "w": _pairs(2, W), "-v": _pairs(3, -V)}
    got = transfer(sets, "diff_of_means", shuffles=0, resamples=50)
    frame = got.frame()
    assert list(frame.index) == list(frame.columns) == list(sets)
    assert (np.diag(frame.to_numpy()) > 0.85).all()
    assert abs(frame.loc["v", "w"] - 0.5) < 0.1 and abs(frame.loc["w", "v"] - 0.5) < 0.1
    assert frame.loc["v", "v"] > frame.loc["near", "v"] > frame.loc["w", "v"] + 0.2
    assert frame.loc["v", "-v"] < 0.15 and frame.loc["-v", "v"] < 0.15
    other = transfer(dict(reversed(sets.items())), "diff_of_means", shuffles=0, resamples=50).frame()
    assert abs(other.loc["v", "near"] - frame.loc["v", "near"]) < 0.05
    faint = {"v": sets["v"], "faint": _pairs(4, V, 0.8)}  # rows say where it was trained, columns where it was tested
    uneven = transfer(faint, "diff_of_means", shuffles=0, resamples=20).frame()
    assert uneven.loc["v", "faint"] < 0.8 < 0.85 < uneven.loc["faint", "v"]
    rows = got.table()
    assert len(rows) == 16 and list(rows.columns[:3]) == ["train", "test", "kind"]
    assert got.frame("accuracy").loc["v", "w"] == got.cells["v", "w"].accuracy.value


@pytest.mark.parametrize("kind", ["lda", "ridge"])
def test_transfer_never_trains_on_a_sentence_it_is_tested_on(kind: probes.Kind) -> None:
    source = torch.Generator().manual_seed(5)
    y = torch.randint(2, (30,), generator=source).repeat_interleave(4)
    groups = torch.arange(30).repeat_interleave(4)
    base = torch.randn(30, D, generator=source)[groups]  # translations of 30 sentences with a random label each
    first, second = (base + 0.01 * torch.randn(120, D, generator=source) for _ in range(2))
    got = transfer({"a": Labelled(first, y, groups), "b": Labelled(second, y, groups)}, kind, shuffles=0, resamples=20)
    assert got.frame().to_numpy().max() < 0.75
    apart = Labelled(second, y, groups + 100)  # what numbers of their own would have leaked
    assert (
        transfer({"a": Labelled(first, y, groups), "b": apart}, kind, shuffles=0, resamples=20).frame().loc["a", "b"]
        > 0.85
    )


def test_transfer_refuses_sets_that_do_not_compare() -> None:
    own = _pairs(0, V)
    with pytest.raises(SteerlabError, match="no sets"):
        transfer({})
    with pytest.raises(SteerlabError, match="different widths"):
        transfer({"a": own, "b": Labelled(own.x[:, 1:], own.y, own.groups)})
    with pytest.raises(SteerlabError, match="different labels"):
        transfer({"a": own, "b": Labelled(own.x, own.y + 1, own.groups)})
    with pytest.raises(SteerlabError, match="set 'b' lacks a class"):
        lonely = Labelled(own.x[:6], torch.tensor([0, 1, 1, 1, 1, 1]), torch.arange(6) + 900)
        transfer({"a": own, "b": lonely}, folds=2)
