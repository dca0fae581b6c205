"""Cosines, angles and norm ratios of vectors, and the null of random directions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.estimators import random_like
from steerlab.similarity import angle_norm, cosine_matrix, random_cosine_quantiles, shared_layers
from steerlab.vectors import SteeringVector


def _vector(seed: int, layers: tuple[int, ...] = (0, 2, 5), d: int = 16) -> SteeringVector:
    raw = torch.randn(len(layers), d, generator=torch.Generator().manual_seed(seed))
    return SteeringVector.from_raw(f"v{seed}", raw, layers)


def test_cosines_are_those_of_the_raw_rows_layer_by_layer() -> None:
    vectors = [_vector(1), _vector(2), _vector(3, (5, 0))]
    got = cosine_matrix(vectors)
    assert shared_layers(vectors) == (0, 5)
    assert got.shape == (2, 3, 3)
    for row, layer in enumerate((0, 5)):
        for i, a in enumerate(vectors):
            for j, b in enumerate(vectors):
                want = float(torch.nn.functional.cosine_similarity(a.raw(layer), b.raw(layer), dim=0))
                assert float(got[row, i, j]) == pytest.approx(want, abs=1e-6)
    torch.testing.assert_close(got, got.mT)
    torch.testing.assert_close(got.diagonal(dim1=1, dim2=2), torch.ones(2, 3, dtype=torch.float64))


def test_a_vector_and_its_opposite_have_cosine_minus_one_whatever_their_norm() -> None:
    a = _vector(1)
    torch.testing.assert_close(cosine_matrix([a, -3 * a])[:, 0, 1], torch.full((3,), -1.0, dtype=torch.float64))


def test_angles_are_exact_for_small_and_right_and_flat_ones() -> None:
    base = torch.eye(4, dtype=torch.float64)
    for angle in (0.0, 1e-4, 0.3, math.pi / 2, 3.0, math.pi):
        a = SteeringVector.from_raw("a", base[:1], (0,))
        b = SteeringVector.from_raw("b", (math.cos(angle) * base[:1] + math.sin(angle) * base[1:2]) * 2.5, (0,))
        got, ratio = angle_norm(a, b)
        assert float(got) == pytest.approx(angle, abs=2e-7)
        assert float(ratio) == pytest.approx(1 / 2.5)


def test_random_cosines_fall_into_the_quantiles_as_often_as_they_say() -> None:
    vector = _vector(1, (0,), d=24)
    low, middle, high = random_cosine_quantiles(24)
    draws = np.array([float(random_like(vector, seed).at(0) @ vector.at(0)) for seed in range(2000)])
    inside = ((draws > low) & (draws < high)).mean()
    assert inside == pytest.approx(0.95, abs=0.02)
    assert middle == pytest.approx(0, abs=1e-12)
    assert low == pytest.approx(-high)
    assert (np.abs(draws) > high).mean() > 0.02


def test_wider_spaces_have_smaller_random_cosines() -> None:
    assert random_cosine_quantiles(2, (0.75,))[0] == pytest.approx(math.cos(math.pi / 4))
    assert random_cosine_quantiles(4096, (0.975,))[0] == pytest.approx(1.96 / 64, rel=0.01)


def test_vectors_of_different_spaces_are_refused() -> None:
    with pytest.raises(SteerlabError, match=r"'v1' \(resid_post, width 16\), 'v2' \(resid_post, width 8\)"):
        cosine_matrix([_vector(1), _vector(2, d=8)])
    with pytest.raises(SteerlabError, match="different spaces"):
        cosine_matrix([_vector(1), replace(_vector(2), stream="mlp_out")])
    with pytest.raises(SteerlabError, match="share no layer"):
        angle_norm(_vector(1, (0,)), _vector(2, (1,)))
    with pytest.raises(SteerlabError, match="no vectors"):
        cosine_matrix([])
    with pytest.raises(SteerlabError, match="at least 2 dimensions"):
        random_cosine_quantiles(1)
