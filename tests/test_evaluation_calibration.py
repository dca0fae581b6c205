"""Calibration equals its definition, finds calibrated probabilities calibrated and others not; temperature puts right what it can."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.calibration import calibration, fit, label_confidence, rescale, temperature
from steerlab.evaluation.downstream import TextClassifier

LABELS = ("health", "politics", "sports")


def _honest(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([1.0] * 4, size=n)
    return p, np.minimum((rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1), 3)


def _made(n: int, seed: int, signal: float = 0.3) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    texts, given = [], []
    for k, label in enumerate(LABELS):
        for _ in range(n):
            word = np.where(rng.random(12) < signal, 1000 * (k + 1), 0) + rng.integers(60, size=12)
            texts.append(" ".join(f"{w:04d}".translate(str.maketrans("0123456789", "abcdefghij")) for w in word))
            given.append(label)
    return texts, given


def test_a_small_case_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.45, 0.55]])
    found = calibration(p, np.array([0, 1, 1, 1]), bins=2)
    assert found.table["count"].tolist() == [2, 2]
    assert found.table["confidence"].tolist() == pytest.approx([0.575, 0.85])
    assert found.table["accuracy"].tolist() == [1.0, 0.5]
    assert found.ece_plain == pytest.approx((0.425 + 0.35) / 2)
    assert found.brier.value == pytest.approx(2 * (0.1**2 + 0.8**2 + 0.4**2 + 0.45**2) / 4)
    low, high = (found.table[name].to_numpy() for name in ("low", "high"))
    assert (low < found.table["accuracy"].to_numpy() + 1e-9).all() and (high > 0.5).all()


def test_bins_hold_about_equal_counts_and_equal_confidences_stay_together() -> None:
    p, truth = _honest(205, 0)
    table: Any = calibration(p, truth).table
    assert len(table) == 10 and table["count"].sum() == 205 and table["count"].min() >= 20
    assert (np.diff(table["confidence"]) > 0).all()
    same = np.tile([0.7, 0.3], (30, 1))
    assert calibration(same, np.zeros(30, dtype=int)).table["count"].tolist() == [30]


def test_calibrated_probabilities_pass_and_overconfident_ones_do_not() -> None:
    inside = covered = 0
    plain, corrected = [], []
    for seed in range(40):
        p, truth = _honest(200, seed)
        found = calibration(p, truth)
        inside += found.if_calibrated.low <= found.ece_plain <= found.if_calibrated.high
        covered += found.ece.low == 0
        plain.append(found.ece_plain)
        corrected.append(found.ece.value)
    assert inside >= 35 and covered >= 35
    assert np.mean(corrected) < 0.75 * np.mean(plain)  # the truth is 0
    p, truth = _honest(200, 1)
    sure = calibration(rescale(p, 1 / 3), truth)
    assert (
        sure.ece_plain > sure.if_calibrated.high
        and sure.ece.low > 0.1
        and sure.ece.low < sure.ece.value < sure.ece.high
    )
    assert sure.brier.value > calibration(p, truth).brier.value


def test_brier_of_certainty_and_of_ignorance() -> None:
    truth = np.array([0, 1, 2, 1])
    right, wrong = np.eye(3)[truth], np.eye(3)[(truth + 1) % 3]
    assert calibration(right, truth).brier.value == 0 and calibration(wrong, truth).brier.value == 2
    assert calibration(np.full((4, 3), 1 / 3), truth).brier.value == pytest.approx(2 / 3)


def test_the_temperature_is_found_again() -> None:
    p, truth = _honest(4000, 2)
    for wanted in (0.5, 1.0, 2.5):
        assert temperature(rescale(p, 1 / wanted), truth) == pytest.approx(wanted, rel=0.1)
    fixed = rescale(rescale(p, 1 / 2.5), 2.5)
    np.testing.assert_allclose(fixed, p, atol=1e-6)


def test_rescaling_keeps_the_answers_and_changes_how_sure_they_are() -> None:
    p, _ = _honest(50, 3)
    soft, hard = rescale(p, 3.0), rescale(p, 0.3)
    assert (soft.argmax(1) == p.argmax(1)).all() and (hard.argmax(1) == p.argmax(1)).all()
    assert (soft.max(1) <= p.max(1)).all() and (hard.max(1) >= p.max(1)).all()
    np.testing.assert_allclose(soft.sum(1), 1)
    with pytest.raises(SteerlabError, match="above 0"):
        rescale(p, 0.0)


def test_the_model_is_downstreams_classifier_and_its_temperature_helps_on_other_texts() -> None:
    train, validation, test = _made(60, 0), _made(60, 1), _made(60, 2)
    model = fit(train, validation)
    same = TextClassifier(*train)
    np.testing.assert_allclose(model.raw(test[0]), same.fit().predict_proba(same.transform(test[0])))
    assert model.labels == LABELS and model.temperature < 0.9  # regression on few texts is too unsure
    truth = model.numbers(test[1])
    before, after = calibration(model.raw(test[0]), truth), model.calibration(*test)
    assert after.ece.value < 0.5 * before.ece.value and before.ece.low > 0
    assert after.brier.value < before.brier.value
    np.testing.assert_allclose(model.probabilities(test[0]), rescale(model.raw(test[0]), model.temperature))


def test_without_validation_a_seeded_share_of_the_training_texts_serves() -> None:
    train = _made(20, 0)
    one, again, other = (fit(train, seed=seed) for seed in (0, 0, 1))
    assert one.temperature == again.temperature != other.temperature
    assert len(one.classifier.labels) == 48


def test_a_judge_is_surer_of_right_labels_than_of_shuffled_ones() -> None:
    judge = fit(_made(40, 0), _made(30, 1))
    texts, labels = _made(20, 5)
    right = label_confidence(judge, texts, labels)
    shuffled = np.random.default_rng(0).permutation(labels).tolist()
    wrong = label_confidence(judge, texts, shuffled)
    assert right.mean.low > 0.6 > wrong.mean.high and wrong.below_chance.low > right.below_chance.high
    assert set(right.per_label) == set(LABELS) and all(e.n == 20 for e in right.per_label.values())
    assert right.mean.value == pytest.approx(np.mean([e.value for e in right.per_label.values()]))
    by_hand = judge.probabilities(texts[:1])[0, LABELS.index(labels[0])]
    assert right.per_text[0] == pytest.approx(by_hand)
    assert right.below_chance.value == pytest.approx((right.per_text < 1 / 3).mean())


def test_empty_texts_are_missing_and_not_zero() -> None:
    judge = fit(_made(10, 0), _made(10, 1))
    texts, labels = _made(3, 5)
    found = label_confidence(judge, ["  ", *texts], ["health", *labels])
    assert math.isnan(found.per_text[0]) and found.mean.n == 9 and "1 of 10" in found.mean.reason
    assert found.below_chance.n == 9
    nothing = label_confidence(judge, [], [])
    assert not nothing.mean.known and not nothing.below_chance.known and nothing.per_label == {}


P2 = np.array([[0.5, 0.5]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: calibration(np.zeros((0, 2)), np.zeros(0, dtype=int)), "0 texts and 0 labels"),
        (lambda: calibration(P2, np.array([0, 1])), "1 texts and 2 labels"),
        (lambda: calibration(P2 * 3, np.array([0])), "no probabilities"),
        (lambda: calibration(P2, np.array([2])), "for 2 columns"),
        (lambda: calibration(P2, np.array([0]), bins=0), "0 bins"),
        (lambda: fit(_made(5, 0), (["a"], ["Health"])), r"labels \['Health'\]"),
        (lambda: fit((["a", "b"], ["x", "y"])), "two texts of a label"),
        (lambda: label_confidence(fit(_made(5, 0)), ["a"], []), "1 texts and 0 labels"),
        (lambda: label_confidence(fit(_made(5, 0)), ["a"], ["travel"]), r"labels \['travel'\]"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call: Any, words: str) -> None:
    with pytest.raises(SteerlabError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
