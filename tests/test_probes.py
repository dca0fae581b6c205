"""Probes find what is planted, find nothing in shuffled labels, and never see a held-out group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.probes import (
    KINDS,
    Kind,
    ProbeResult,
    baselines,
    char_ngram_baseline,
    char_ngram_scorer,
    cross_validated_probe,
    evaluate,
    fit_linear,
    layerwise,
    length_baseline,
    trial,
)
from steerlab.probes.linear import check_kind

D = 10


def _pairs(n: int = 300, gap: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs that share their noise in part: x, y, groups and the planted unit direction."""
    source = torch.Generator().manual_seed(seed)
    v = torch.randn(D, generator=source)
    v = v / v.norm()
    y, groups = torch.arange(2 * n) % 2, torch.arange(2 * n) // 2
    x = torch.randn(n, D, generator=source)[groups] + torch.randn(2 * n, D, generator=source) + gap * y[:, None] * v
    return x, y, groups, v


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_direction_is_found_and_shuffled_labels_are_not(kind: Kind) -> None:
    x, y, groups, v = _pairs(gap=2.0)
    got = cross_validated_probe(x, y, groups, kind, resamples=200)
    assert got.metric == "auroc"
    assert got.value > 0.8
    assert got.low < got.value < got.high
    assert got.high - got.low < 0.1
    assert 0.4 < got.shuffled < 0.6
    assert got.accuracy.value > 0.7
    assert got.direction is not None
    assert float(got.direction[0] @ v) > 0.8
    assert float(got.direction[0].norm()) == pytest.approx(1)
    assert (got.n, got.classes, got.kind) == (600, (0, 1), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_where_nothing_is(kind: Kind) -> None:
    x, y, groups, _ = _pairs(gap=0.0)
    got = cross_validated_probe(x, y, groups, kind, resamples=300, shuffles=0)
    assert 0.4 < got.value < 0.6
    assert got.low < 0.5 < got.high
    assert np.isnan(got.shuffled)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_that_share_noise_do_not_leak_across_folds(kind: Kind) -> None:
    source = torch.Generator().manual_seed(3)
    y = (torch.arange(120) // 4) % 2
    groups = torch.arange(120) // 4  # 30 groups of 4 near copies, a random label each
    x = torch.randn(30, 40, generator=source)[groups] + 0.01 * torch.randn(120, 40, generator=source)
    honest = cross_validated_probe(x, y, groups, kind, shuffles=0, resamples=50)
    leaky = cross_validated_probe(x, y, torch.arange(120), kind, shuffles=0, resamples=50)
    assert honest.value < 0.7
    assert leaky.value > max(0.85, honest.value + 0.25)


def test_every_group_is_held_out_exactly_once_and_folds_are_balanced() -> None:
    _, y, groups, _ = _pairs(100)
    for seed in range(3):
        shared = trial(y, groups, seed=seed)
        assert (shared.fold[::2] == shared.fold[1::2]).all()
        assert sorted(np.bincount(shared.fold)) == [40] * 5
    assert (trial(y, groups, seed=0).fold != trial(y, groups, seed=1).fold).any()


def test_the_control_fits_and_scores_on_the_same_shuffled_labels() -> None:
    _, y, groups, _ = _pairs(40)
    shared = trial(y, groups, shuffles=2, resamples=10)
    seen: list[np.ndarray] = []

    def oracle(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        seen.append(labels)
        return np.random.default_rng(0).normal(size=(len(test), 1))

    evaluate("oracle", shared, oracle)
    assert len(seen) == 15
    for k in range(5):
        train = shared.fold != k
        np.testing.assert_array_equal(seen[k], shared.labels[train])
        for again in (seen[5 + k], seen[10 + k]):
            assert 0.2 < (again != seen[k]).mean() < 0.8
        assert (seen[5 + k] != seen[10 + k]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_scores_come_from_models_that_never_saw_the_row(kind: Kind) -> None:
    x, y, groups, _ = _pairs(40)
    got = cross_validated_probe(x, y, groups, kind, shuffles=0, resamples=20)
    for k in range(5):
        held = (got.fold == k).numpy()
        weights, offset = fit_linear(kind, x.double().numpy()[~held], y.numpy()[~held], 1.0, groups.numpy()[~held])
        np.testing.assert_allclose(
            got.scores.numpy()[held], x.double().numpy()[held] @ weights.T + offset, rtol=1e-6, atol=1e-8
        )


def test_several_classes_are_scored_by_macro_f1() -> None:
    source = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3 * 10 + 5  # labels need not count from 0
    centres = 2 * torch.randn(3, D, generator=source)
    x = centres[(y - 5) // 10] + torch.randn(300, D, generator=source)
    for kind in KINDS:
        got = cross_validated_probe(x, y, torch.arange(300), kind, resamples=100, shuffles=1)
        assert got.metric == "macro_f1"
        assert got.value > 0.9
        assert got.low <= got.value <= got.high
        assert got.shuffled < 0.5
        assert got.classes == (5, 15, 25)
        assert got.scores.shape == (300, 3)
        assert got.direction is not None
        assert got.direction.shape == (3, D)


def test_layerwise_is_one_probe_per_layer_on_the_same_folds() -> None:
    x, y, groups, _ = _pairs(100, gap=2.0)
    stacked = torch.stack(
        [torch.zeros_like(x) + torch.randn(200, D, generator=torch.Generator().manual_seed(9)), x], dim=1
    )
    results = layerwise(stacked, y, groups, resamples=50)
    single = cross_validated_probe(x, y, groups, resamples=50)
    assert len(results) == 2
    assert results[0].value < 0.65 < results[1].value
    _assert_same(results[1], single)
    assert torch.equal(results[0].fold, results[1].fold)


def _assert_same(a: ProbeResult, b: ProbeResult) -> None:
    assert torch.equal(a.scores, b.scores)
    assert (a.value, a.low, a.high, a.shuffled) == (b.value, b.low, b.high, b.shuffled)


def test_the_same_seed_gives_the_same_numbers_and_global_seeds_do_not_matter() -> None:
    x, y, groups, _ = _pairs(50)
    np.random.seed(1)  # noqa: NPY002  # the global state is what must not matter
    one = cross_validated_probe(x, y, groups, resamples=50)
    np.random.seed(2)  # noqa: NPY002
    _assert_same(one, cross_validated_probe(x, y, groups, resamples=50))
    assert cross_validated_probe(x, y, groups, resamples=50, seed=1).value != one.value


def test_the_logistic_probe_does_not_depend_on_the_scale_of_features_and_maps_back_to_raw_space() -> None:
    x, y, groups, _ = _pairs(100)
    scale = torch.logspace(-3, 3, D)
    plain = cross_validated_probe(x, y, groups, resamples=20, shuffles=0)
    scaled = cross_validated_probe(x * scale + 5, y, groups, resamples=20, shuffles=0)
    assert scaled.value == pytest.approx(plain.value, abs=5e-3)
    assert plain.direction is not None
    assert scaled.direction is not None
    back = scaled.direction[0] * scale
    torch.testing.assert_close(back / back.norm(), plain.direction[0], atol=0.02, rtol=0)


def test_the_interval_over_groups_is_wider_than_over_rows_when_rows_repeat() -> None:
    x, y, _, _ = _pairs(40, gap=0.7)
    again = torch.arange(80).repeat_interleave(10)
    by_group = cross_validated_probe(x[again], y[again], again, "diff_of_means", shuffles=0)
    by_row = cross_validated_probe(x[again], y[again], torch.arange(800), "diff_of_means", shuffles=0)
    assert by_group.high - by_group.low > 2 * (by_row.high - by_row.low)


TEXTS = [f"{'„' if i % 2 else ''}word {(i * 7919) % 97} and {(i * 31) % 89} more" for i in range(200)]
Y, GROUPS = torch.arange(200) % 2, torch.arange(200) // 2


def test_the_character_baseline_sees_a_quote_and_not_shuffled_labels() -> None:
    got = char_ngram_baseline(TEXTS, Y, GROUPS, resamples=100, shuffles=3)
    assert got.value > 0.99
    assert 0.3 < got.shuffled < 0.7
    assert got.kind == "char_ngrams"
    assert got.direction is None
    bare = [text.replace("„", "") for text in TEXTS]
    assert char_ngram_baseline(bare, Y, GROUPS, resamples=100).value < 0.75


def test_the_character_baseline_chooses_its_vocabulary_inside_the_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    original = baselines.TfidfTransformer.fit
    monkeypatch.setattr(
        baselines.TfidfTransformer,
        "fit",
        lambda self, counts: sizes.append(counts.shape[1]) or original(self, counts),
    )
    got = char_ngram_baseline(TEXTS, Y, GROUPS, resamples=10, shuffles=0)
    for k in range(5):
        training = [text for text, fold in zip(TEXTS, got.fold.tolist(), strict=True) if fold != k]
        own = CountVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2).fit(training)
        assert sizes[k] == len(own.vocabulary_)
    assert max(sizes) < len(CountVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2).fit(TEXTS).vocabulary_)


def test_the_length_baseline_sees_length_and_nothing_else() -> None:
    longer = [text + " and still more words" * (i % 2) for i, text in enumerate(TEXTS)]
    assert length_baseline(longer, Y, GROUPS, resamples=50).value > 0.99
    source = np.random.default_rng(0)
    same_length = ["".join(source.choice(list("ab" if i % 2 else "xy"), 20)) for i in range(200)]
    assert length_baseline(same_length, Y, GROUPS, resamples=50).value == 0.5
    assert char_ngram_baseline(same_length, Y, GROUPS, resamples=50).value == 1.0


def test_bad_input_is_refused_with_a_reason() -> None:
    x, y, groups, _ = _pairs(20)
    with pytest.raises(SteerlabError, match="at least two classes"):
        cross_validated_probe(x, torch.zeros_like(y), groups)
    with pytest.raises(SteerlabError, match="40 labels and 39 groups"):
        cross_validated_probe(x, y, groups[1:])
    with pytest.raises(SteerlabError, match="39 rows and 40 labels"):
        cross_validated_probe(x[1:], y, groups)
    with pytest.raises(SteerlabError, match="3 groups and 20 rows in the smallest class"):
        cross_validated_probe(x, y, groups % 3)
    with pytest.raises(SteerlabError, match="at least 2 are needed"):
        cross_validated_probe(x, y, groups, folds=1)
    with pytest.raises(SteerlabError, match="kind 'svm' is not known"):
        check_kind("svm")
    with pytest.raises(SteerlabError, match="give groups"):
        fit_linear("ridge", x.double().numpy(), y.numpy(), 1.0)
    with pytest.raises(SteerlabError, match="in two of the 3 texts"):
        char_ngram_scorer(["a", "b", "c"])
    x[3, 2] = float("nan")
    with pytest.raises(SteerlabError, match="slice 0 hold NaN"):
        cross_validated_probe(x, y, groups)
    lonely = torch.where(groups == 0, 0, 1)
    with pytest.raises(SteerlabError, match=r"smallest class|single fold"):
        cross_validated_probe(torch.nan_to_num(x), lonely, groups, folds=2)
    with pytest.raises(SteerlabError, match="199 rows and 200 labels"):
        char_ngram_baseline(TEXTS[1:], Y, GROUPS)
