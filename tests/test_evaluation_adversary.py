"""The adversary: chance between halves of real text, certainty between different texts, and no recognition by heart."""

from __future__ import annotations

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.adversary import CLASSIFIERS, adversary, halves, logistic


def _texts(n: int, seed: int, first: int = 0) -> list[str]:
    """Texts of words from a vocabulary of 60 that begins at `first`."""
    rng = np.random.default_rng(seed)
    return [" ".join(f"{chr(97 + k % 26)}{k:02d}" for k in rng.integers(60, size=10) + first) for _ in range(n)]


def _rows(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)) + shift


@pytest.mark.slow
def test_halves_of_real_text_are_told_apart_by_nobody() -> None:
    values, held = [], []
    for seed in range(3):
        found = halves(_texts(160, seed), _rows(160, seed), seed=seed, resamples=300)
        assert set(found) == {f"real_auroc_{c}_{f}" for c in CLASSIFIERS for f in ("letters", "meaning")}
        assert {estimate.n for estimate in found.values()} == {160}
        values += [estimate.value for estimate in found.values()]
        held += [estimate.low < 0.5 < estimate.high for estimate in found.values()]
    assert abs(np.mean(values) - 0.5) < 0.08 and max(abs(v - 0.5) for v in values) < 0.2 and sum(held) >= 12


def test_different_texts_are_told_apart_by_everybody() -> None:
    rows = _rows(80, 3), _rows(80, 4, shift=2.0)
    for name, estimate in adversary(_texts(80, 3), _texts(80, 4, first=50), rows).items():
        assert estimate.value > 0.9, name


def test_what_only_one_kind_of_feature_shows_only_it_sees() -> None:
    found = adversary(_texts(80, 3), _texts(80, 4), (_rows(80, 3), _rows(80, 4, shift=2.0)))
    for name in CLASSIFIERS:
        assert found[f"auroc_{name}_meaning"].value > 0.9
        assert found[f"auroc_{name}_letters"].value < 0.7


def test_sides_are_cut_to_one_size() -> None:
    found = adversary(_texts(40, 1), _texts(300, 2))
    assert {estimate.n for estimate in found.values()} == {80}


def test_repeated_texts_are_not_recognised_by_heart() -> None:
    """Texts repeated eight times: where copies stand in training and test, they give their side away."""
    only = {"logistic": logistic}
    repeated = [text for text in _texts(12, 5) for _ in range(8)]
    fresh = _texts(96, 6)
    marked = [f"{text}{'!' * (i % 8)}" for i, text in enumerate(repeated)]  # no two equal, but all the same to the rule
    for texts in (repeated, marked):
        assert adversary(texts, fresh, classifiers=only)["auroc_logistic_letters"].value < 0.75
    apart = [f"{text} q{i % 8}" for i, text in enumerate(repeated)]  # different texts to the rule
    assert adversary(apart, fresh, classifiers=only)["auroc_logistic_letters"].value > 0.95


def test_copies_of_the_real_texts_are_not_told_apart() -> None:
    real = _texts(80, 7)
    for name, estimate in adversary(list(real), real).items():
        assert estimate.value == pytest.approx(0.5), name


def test_too_few_texts_are_missing_with_a_reason() -> None:
    assert "too few" in adversary(_texts(3, 1), _texts(30, 2))["auroc_logistic_letters"].reason
    assert not adversary([_texts(1, 1)[0]] * 30, _texts(30, 2))["auroc_logistic_letters"].known
    with pytest.raises(SteerlabError, match="one embedding per text"):
        adversary(_texts(5, 1), _texts(5, 2), (_rows(4, 1), _rows(5, 1)))
