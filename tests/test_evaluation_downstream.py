"""The classifier equals scikit-learn's, its scores their definitions; data without signal score like it; bad data is told."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from steerlab import scoring
from steerlab.errors import SteerlabError
from steerlab.evaluation import downstream
from steerlab.evaluation.downstream import (
    TextClassifier,
    ceiling,
    clean,
    difference,
    floor,
    train_and_test,
)

LABELS = ("health", "politics", "sports")


def _made(n: int, seed: int, signal: float = 0.4, labels: tuple[str, ...] = LABELS) -> tuple[list[str], list[str]]:
    """`n` texts per label: words of the label with probability `signal`, else shared words."""
    rng = np.random.default_rng(seed)
    texts, given = [], []
    for k, label in enumerate(labels):
        for _ in range(n):
            own = rng.random(12) < signal
            word = np.where(own, 1000 * (k + 1), 0) + rng.integers(60, size=12)
            texts.append(" ".join(f"{w:04d}".translate(str.maketrans("0123456789", "abcdefghij")) for w in word))
            given.append(label)
    return texts, given


TRAIN, TEST = _made(20, 0, 0.15), _made(15, 1, 0.15)


@pytest.mark.parametrize("dense", [0, 1000])
def test_the_fit_equals_sklearn_on_repeated_rows(monkeypatch: pytest.MonkeyPatch, dense: int) -> None:
    """With and without the detour through the space the training rows span."""
    monkeypatch.setattr(downstream, "DENSE", dense)
    texts, labels = TRAIN[0][:47], TRAIN[1][:47]
    classifier = TextClassifier(texts, labels)
    assert (classifier.basis is None) == (dense == 0)
    weight = np.random.default_rng(3).integers(4, size=47).astype(float)
    rows = np.repeat(np.arange(47), weight.astype(int))
    features = classifier.vectoriser.transform(texts)
    theirs = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-8, max_iter=5000)
    # Balanced weights add up to the number of rows, repeated or not: the penalty must weigh the same.
    theirs.C *= 47 / len(rows)
    theirs.fit(features[rows], [labels[row] for row in rows])
    expected = theirs.decision_function(classifier.vectoriser.transform(TEST[0]))
    got = classifier.fit(weight).decision_function(classifier.transform(TEST[0]))
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert np.ptp(got) > 0.5


def test_scores_equal_their_definitions() -> None:
    result = train_and_test(*TRAIN, *TEST, seeds=range(4))
    truth = [result.labels[i] for i in result.truth]
    assert truth == TEST[1] and result.predicted.shape == (4, 45)
    once = np.ones((1, 45))
    for row, score in zip(result.predicted, result.per_seed, strict=True):
        said = [result.labels[i] for i in row]
        assert score == pytest.approx(f1_score(truth, said, average="macro"))
        assert score == pytest.approx(scoring.macro_f1(row, result.truth, 3, once)[0])
    assert result.macro_f1.value == pytest.approx(np.mean(result.per_seed))
    for i, label in enumerate(LABELS):
        each = [f1_score(result.truth == i, row == i) for row in result.predicted]
        assert result.per_class[label].value == pytest.approx(np.mean(each))
    again = TextClassifier(*TRAIN)
    said = again.fit().predict(again.transform(TEST[0]))
    assert result.full == pytest.approx(f1_score(truth, said, average="macro"))


def test_f1_under_weights_equals_the_packages_other_macro_f1() -> None:
    rng = np.random.default_rng(4)
    predicted, truth = rng.integers(4, size=50), rng.integers(4, size=50)
    weight = rng.integers(3, size=(6, 50)).astype(float)
    got = np.nanmean(downstream._f1(predicted, truth, 4, weight), axis=1)
    np.testing.assert_allclose(got, scoring.macro_f1(predicted, truth, 4, weight))


def test_separable_labels_are_learnt_and_shuffled_ones_are_not() -> None:
    texts, labels = _made(20, 5, 0.9)
    test = _made(30, 6, 0.9)
    assert train_and_test(texts, labels, *test, seeds=range(3)).macro_f1.value > 0.98
    shuffled = np.random.default_rng(7).permutation(labels).tolist()
    nothing = train_and_test(texts, shuffled, *test, seeds=range(3)).macro_f1
    assert nothing.value < 0.6


def test_the_interval_covers_training_and_test_draws_and_is_wider_than_over_seeds() -> None:
    result = train_and_test(*TRAIN, *TEST)
    both, seeds = result.macro_f1, result.seed_interval
    assert both.low < result.macro_f1.value < both.high
    assert seeds.value == pytest.approx(both.value)
    assert both.high - both.low > 2 * (seeds.high - seeds.low) > 0
    fresh = [train_and_test(*_made(20, s, 0.15), *_made(15, s + 100, 0.15), seeds=[0]) for s in range(10, 40)]
    inside = np.mean([both.low <= r.per_seed[0] <= both.high for r in fresh])
    assert inside > 0.8
    outside = np.mean([seeds.low <= r.per_seed[0] <= seeds.high for r in fresh])
    assert outside < 0.6


def test_a_seed_is_a_resample_and_decides_everything() -> None:
    first, again = (train_and_test(*TRAIN, *TEST, seeds=(3, 9)) for _ in range(2))
    assert first.macro_f1 == again.macro_f1 and (first.predicted == again.predicted).all()
    assert (first.predicted[0] != first.predicted[1]).any()
    swapped = train_and_test(*TRAIN, *TEST, seeds=(9, 3))
    assert (swapped.predicted == first.predicted[::-1]).all()


def test_a_resample_keeps_the_size_of_every_label_and_pairs_equal_layouts() -> None:
    labels = ["a"] * 5 + ["b"] * 20
    weight = downstream.resample(labels, 0)
    assert weight[:5].sum() == 5 and weight[5:].sum() == 20
    assert (weight == 0).any() and (weight > 1).any()
    backwards = downstream.resample(labels[::-1], 0)
    assert (backwards[20:] == weight[:5]).all() and (backwards[:20] == weight[5:]).all()


def test_the_floor_is_the_constant_answer() -> None:
    texts = [f"text {i}" for i in range(40)]
    labels = ["a"] * 30 + ["b"] * 10
    estimate = floor(texts, labels)
    assert estimate.value == pytest.approx((2 * 30 / 70) / 2)
    assert estimate.value == pytest.approx(f1_score(labels, ["a"] * 40, average="macro"))
    assert estimate.low < estimate.value < estimate.high and estimate.n == 40


def test_the_ceiling_is_the_same_procedure_on_human_training_texts() -> None:
    human = _made(40, 8, 0.5)
    top = ceiling(*human, *TEST, seeds=range(3))
    assert top.macro_f1 == train_and_test(*human, *TEST, seeds=range(3)).macro_f1
    assert top.train_size == 120
    assert top.macro_f1.value > train_and_test(*TRAIN, *TEST, seeds=range(3)).macro_f1.value


def test_a_difference_is_paired_by_seed_and_test_text() -> None:
    a, b = (train_and_test(*_made(20, 9, s), *TEST, seeds=range(6)) for s in (0.5, 0.12))
    estimate = difference(a, b)
    assert estimate.value == pytest.approx(np.mean(np.array(a.per_seed) - np.array(b.per_seed)))
    assert estimate.low < estimate.value < estimate.high
    same = difference(a, a)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    flipped = difference(b, a)
    assert (flipped.low, flipped.high) == pytest.approx((-estimate.high, -estimate.low))
    other = train_and_test(*TRAIN, *TEST, seeds=range(1, 7))
    for wrong in (other, train_and_test(*TRAIN, *_made(14, 1), seeds=range(6))):
        with pytest.raises(SteerlabError, match="the same of both"):
            difference(a, wrong)


def test_a_difference_of_unlike_label_sets_still_compares_the_same_tests() -> None:
    more = _made(20, 9, 0.5, (*LABELS, "travel"))
    a = train_and_test(*more, *TEST, seeds=range(3))
    b = train_and_test(*TRAIN, *TEST, seeds=range(3))
    assert len(a.labels) == 4 and difference(a, b).known


def test_a_label_without_training_texts_scores_zero_and_one_without_any_use_is_missing() -> None:
    texts, labels = _made(20, 0, 0.9)
    two = [(t, label) for t, label in zip(texts, labels, strict=True) if label != "sports"]
    result = train_and_test([t for t, _ in two], [label for _, label in two], *_made(9, 1, 0.9), seeds=[0, 1])
    assert result.per_class["sports"].value == 0 and result.macro_f1.value < 0.7
    test = [(t, label) for t, label in zip(*_made(9, 1, 0.9), strict=True) if label != "sports"]
    spare = train_and_test(texts, labels, [t for t, _ in test], [label for _, label in test], seeds=[0])
    assert math.isnan(spare.per_class["sports"].value) and "neither" in spare.per_class["sports"].reason
    assert spare.macro_f1.value > 0.95


def test_duplicates_and_empty_rows_are_dropped_and_counted() -> None:
    texts, labels, dropped = clean(["a b", " a b ", "", "c", "\n"], ["x", "y", "x", "y", "y"], "training")
    assert (texts, labels, dropped) == (("a b", "c"), ("x", "y"), 3)
    padded = ([*TRAIN[0], *TRAIN[0][:7], "  "], [*TRAIN[1], *TRAIN[1][:7], "health"])
    result, plain = (train_and_test(*rows, *TEST, seeds=[0, 1]) for rows in (padded, TRAIN))
    assert result.dropped == 8 and plain.dropped == 0
    assert result.macro_f1 == plain.macro_f1 and result.train_size == 60


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ((["a", "b"], ["health"] * 2), TEST, r"2 training texts with the labels \['health'\]"),
        (([], []), TEST, r"0 training texts with the labels \[\]"),
        ((["", " "], ["x", "y"]), TEST, "0 training texts"),
        ((["a"], ["x", "y"]), TEST, "1 training texts and 2 labels"),
        (TRAIN, (["a", "b"], ["x"]), "2 test texts and 1 labels"),
        (TRAIN, ([""], ["health"]), "no test texts"),
        (TRAIN, (["a", "b"], ["Health", "Sports"]), "none in common"),
    ],
)
def test_bad_data_is_told_in_one_sentence(
    train: tuple[list[str], list[str]], test: tuple[list[str], list[str]], words: str
) -> None:
    with pytest.raises(SteerlabError, match=words) as error:
        train_and_test(*train, *test, seeds=[0])
    assert "\n" not in str(error.value)


def test_seeds_and_test_texts_are_needed() -> None:
    with pytest.raises(SteerlabError, match="at least one"):
        train_and_test(*TRAIN, *TEST, seeds=[])
    with pytest.raises(SteerlabError, match="no test texts"):
        floor([], [])


def test_twenty_seeds_of_the_usual_size_take_seconds() -> None:
    labels = (*LABELS, "travel", "science", "geography", "entertainment")
    train, test = _made(20, 0, 0.3, labels), _made(29, 1, 0.3, labels)
    start = time.process_time()
    result = train_and_test(*train, *test, seeds=range(20))
    assert time.process_time() - start < 10
    assert len(result.per_seed) == 20 and result.train_size == 140 and len(result.truth) == 203
