"""MAUVE on planted distributions: 1 for the same, 0 for disjoint ones, in between for mixtures."""

from __future__ import annotations

import sys
import types
from itertools import pairwise

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.mauve import divergence_area, mauve, quantise

CENTRES = np.random.default_rng(9).normal(size=(2, 8, 16)) * 4


def _rows(n: int, seed: int, side: float = 0.0) -> np.ndarray:
    """Points around eight centres; a share `side` of them around eight others."""
    rng = np.random.default_rng(seed)
    world = (np.arange(n) < round(side * n)).astype(int)
    return CENTRES[world, rng.integers(8, size=n)] + rng.normal(size=(n, 16)) * 0.5


def test_the_area_at_its_ends() -> None:
    p = np.array([0.2, 0.3, 0.5])
    assert divergence_area(p, p) == pytest.approx(1)
    # disjoint: (1 - w)^5 against w^5, whose area is 5 B(6, 5)
    disjoint = divergence_area(np.array([1.0, 0.0]), np.array([0.0, 1.0]), points=2001)
    assert disjoint == pytest.approx(5 * 120 * 24 / 3628800, rel=1e-2)
    p, q = np.array([0.5, 0.4, 0.1]), np.array([0.1, 0.3, 0.6])
    assert 0.01 < divergence_area(p, q) < 0.95
    assert divergence_area(p, q) == pytest.approx(divergence_area(q, p))


def test_the_area_is_the_formula_written_out() -> None:
    p, q = np.array([0.7, 0.3]), np.array([0.4, 0.6])
    curve = [(0.0, 1.0), (1.0, 0.0)]
    for w in np.linspace(1e-6, 1 - 1e-6, 25):
        r = w * p + (1 - w) * q
        curve.append((np.exp(-5 * (q * np.log(q / r)).sum()), np.exp(-5 * (p * np.log(p / r)).sum())))
    curve.sort()
    want = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))
    assert divergence_area(p, q) == pytest.approx(want, rel=1e-6)


def test_one_distribution_is_near_one_and_disjoint_ones_near_zero() -> None:
    same, apart = mauve(_rows(300, 1), _rows(300, 2)), mauve(_rows(300, 1), _rows(300, 2, side=1.0))
    assert same.value > 0.9 and apart.value < 0.02
    assert 0.8 < same.low < same.value <= same.high <= 1 and "every subset" in apart.reason
    near = mauve(_rows(300, 1), _rows(300, 2, side=0.3))
    assert 0.02 < near.low < near.value < near.high < same.low + 0.1
    assert same.n == 300


def test_it_falls_as_the_distributions_part() -> None:
    found = [mauve(_rows(300, 3, side), _rows(300, 4), subsets=2).value for side in (0, 0.25, 0.5, 0.75, 1)]
    assert all(a > b + 0.02 for a, b in pairwise(found))


def test_a_mode_that_is_missing_is_seen() -> None:
    real, few = _rows(300, 5), np.tile(_rows(10, 6), (30, 1))
    assert mauve(few, real, subsets=2).value < mauve(_rows(300, 6), real, subsets=2).value - 0.2


def test_smoothing_helps_small_samples() -> None:
    plain, smooth = (mauve(_rows(60, 7), _rows(60, 8), smoothing=s, subsets=2).value for s in (0.0, 0.5))
    assert plain < smooth <= 1


def test_clusters_are_a_tenth_of_the_smaller_set() -> None:
    assert quantise(_rows(100, 1), _rows(300, 2)).k == 10
    found = quantise(np.ones((30, 4)), np.ones((30, 4)))
    assert found.k == 1 and divergence_area(np.array([1.0]), np.array([1.0])) == pytest.approx(1)


def test_too_few_texts_are_missing() -> None:
    assert "19 texts" in mauve(_rows(19, 1), _rows(100, 2)).reason


def test_the_package_is_asked_with_real_text_as_p(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SteerlabError, match="not installed"):
        mauve(_rows(30, 1), _rows(30, 2), backend="mauve-text")
    asked: dict[str, object] = {}

    def compute_mauve(**options: object) -> object:
        asked.update(options)
        return types.SimpleNamespace(mauve=0.25)

    fake = types.ModuleType("mauve")
    fake.compute_mauve = compute_mauve  # type: ignore[attr-defined]
    fake.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec("mauve", None)
    monkeypatch.setitem(sys.modules, "mauve", fake)
    q, p = _rows(30, 1), _rows(30, 2)
    found = mauve(q, p, backend="mauve-text")
    assert found.value == 0.25 and asked["p_features"] is p and asked["q_features"] is q
