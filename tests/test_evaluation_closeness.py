"""Cosines of pairs and of centroids, and neighbourhoods, on planted points."""

from __future__ import annotations

import numpy as np
import pytest

from steerlab.evaluation.closeness import centroid_cosine, neighbourhoods, pairwise_cosine

EAST, NORTH = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])


def _cloud(n: int, seed: int, centre: float = 0.0, width: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3)) * width + centre


def test_pairs_and_centroids_are_what_their_names_say() -> None:
    a, b = np.concatenate([EAST, NORTH]), np.concatenate([EAST, EAST])
    assert pairwise_cosine(a, b).value == pytest.approx(0.5)
    assert centroid_cosine(a, b).value == pytest.approx(np.sqrt(0.5))
    spread = np.concatenate([EAST, NORTH, EAST, NORTH])
    assert centroid_cosine(spread, spread).value == pytest.approx(1)  # blind to spread, which pairs are not
    assert pairwise_cosine(spread, spread).value == pytest.approx(0.5)


def test_length_counts_in_a_centroid_and_not_in_a_pair() -> None:
    a = np.concatenate([9 * EAST, NORTH])
    assert pairwise_cosine(a, EAST.repeat(2, 0)).value == pytest.approx(0.5)
    assert centroid_cosine(a, EAST.repeat(2, 0)).value == pytest.approx(9 / np.sqrt(82))


def test_intervals_hold_the_value_of_many_more_texts() -> None:
    want = pairwise_cosine(_cloud(4000, 1, 1.0), _cloud(4000, 2, 1.0), subsets=2).value
    held = 0
    for seed in range(20):
        found = pairwise_cosine(_cloud(60, 10 + seed, 1.0), _cloud(60, 50 + seed, 1.0), seed=seed)
        held += found.low < want < found.high
    assert held >= 17


def test_a_zero_row_has_no_direction_and_is_not_refused() -> None:
    assert pairwise_cosine(np.concatenate([EAST, 0 * EAST]), EAST.repeat(2, 0)).value == pytest.approx(0.5)
    assert "no direction" in centroid_cosine(np.zeros((3, 2)), EAST.repeat(2, 0)).reason
    assert not pairwise_cosine(EAST, EAST).known


def test_neighbourhoods_see_odd_texts_and_missing_ones() -> None:
    real = np.concatenate([_cloud(100, 1), _cloud(100, 2, 50.0)])
    both = neighbourhoods(np.concatenate([_cloud(100, 3), _cloud(100, 4, 50.0)]), real)
    assert both["knn_precision"].value > 0.9 and both["knn_recall"].value > 0.9
    half = neighbourhoods(_cloud(200, 5), real)
    assert half["knn_precision"].value > 0.9 and half["knn_recall"].value == pytest.approx(0.5, abs=0.05)
    odd = neighbourhoods(np.concatenate([real[:100], _cloud(100, 6, -80.0)]), real)
    assert odd["knn_precision"].value == pytest.approx(0.5, abs=0.02)
    assert neighbourhoods(np.tile(real[:1], (200, 1)), real)["knn_recall"].value == pytest.approx(1 / 200, abs=1e-9)
    assert "neighbours need more" in neighbourhoods(real[:5], real)["knn_recall"].reason
