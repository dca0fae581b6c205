"""Cosines, angles and norm ratios of vectors, and the null of random directions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.estimators import random_like
from steerlab.similarity import (
    angle_norm,
    angle_norm_parts,
    centred_cosine,
    cosine_curve,
    cosine_matrix,
    layer_cosines,
    noise_ceiling,
    principal_angles,
    random_cosine_quantiles,
    random_overlap,
    shared_layers,
    spearman_brown,
    subspace_overlap,
)
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
    with pytest.raises(SteerlabError, match="widths 16 and 8"):
        layer_cosines(_vector(1), _vector(2, d=8))
    with pytest.raises(SteerlabError, match="widths 16 and 8"):
        principal_angles(torch.ones(2, 16), torch.ones(2, 8))
    with pytest.raises(SteerlabError, match="no row that is not 0"):
        principal_angles(torch.zeros(2, 16), torch.ones(2, 16))
    with pytest.raises(SteerlabError, match="at least two"):
        centred_cosine(1)


def test_curves_and_cosines_between_layers_are_entries_of_the_same_cosines() -> None:
    a, b = _vector(1), _vector(2, (5, 2))
    between = layer_cosines(a, b)
    assert between.shape == (3, 2)
    want = float(torch.nn.functional.cosine_similarity(a.raw(0), b.raw(5), dim=0))
    assert float(between[0, 0]) == pytest.approx(want, abs=1e-6)
    torch.testing.assert_close(cosine_curve(a, b), torch.stack([between[1, 1], between[2, 0]]))
    torch.testing.assert_close(layer_cosines(a, a).diagonal(), torch.ones(3, dtype=torch.float64))
    other = replace(_vector(2), stream="mlp_out")  # another stream or model is no obstacle where only widths must agree
    assert layer_cosines(a, other).shape == (3, 3)


def test_angle_and_norm_parts_sum_to_the_squared_distance_and_each_vanishes_alone() -> None:
    a, b = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    angle, norm = angle_norm_parts(a, b)
    torch.testing.assert_close(angle + norm, (a - b).square().sum(-1))
    assert float(angle.min()) > 0 and float(norm.min()) > 0
    angle, norm = angle_norm_parts(a, 3 * a)
    assert float(angle.max()) < 1e-12
    torch.testing.assert_close(norm, 4 * a.square().sum(-1))
    turned = torch.cat([-a[:, 8:], a[:, :8]], dim=1)
    angle, norm = angle_norm_parts(a, turned)
    assert float(norm.max()) < 1e-12
    tiny = a + 1e-9 * turned  # 1 - cosine would have no digit left
    assert float((angle_norm_parts(a, tiny)[0] / (a - tiny).square().sum(-1)).min()) > 0.9


def test_principal_angles_of_planted_subspaces_are_the_planted_ones() -> None:
    basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
    planted = torch.tensor([1e-7, 0.4, math.pi / 2], dtype=torch.float64)
    a = basis[:3]
    b = planted.cos()[:, None] * basis[:3] + planted.sin()[:, None] * basis[3:6]
    mix = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    got = principal_angles(a, mix @ b)  # four rows that span three dimensions, no longer orthogonal
    torch.testing.assert_close(got, planted, atol=1e-8, rtol=1e-6)
    assert subspace_overlap(a, mix @ b) == pytest.approx(float(planted.cos().square().mean()))
    assert subspace_overlap(basis[:2], basis[:5]) == pytest.approx(1)
    assert subspace_overlap(basis[:2], basis[5:7]) == pytest.approx(0, abs=1e-12)


def test_random_subspaces_overlap_as_much_as_their_dimensions_say() -> None:
    generator = torch.Generator().manual_seed(6)
    pairs = [[torch.randn(n, 40, generator=generator) for n in (3, 8)] for _ in range(300)]
    assert np.mean([subspace_overlap(a, b) for a, b in pairs]) == pytest.approx(random_overlap(3, 8, 40), rel=0.05)


def _centred(k: int, d: int, draws: int) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((draws, k, d))
    x -= (x.sum(1, keepdims=True) - x) / (k - 1)
    return (x[:, 0] * x[:, 1]).sum(-1) / np.linalg.norm(x[:, 0], axis=-1) / np.linalg.norm(x[:, 1], axis=-1)


@pytest.mark.parametrize(("k", "d"), [(3, 16), (12, 24), (36, 48)])
def test_centred_random_vectors_fall_into_their_quantiles_and_not_around_zero(k: int, d: int) -> None:
    drawn = _centred(k, d, 3000)
    low, middle, high = random_cosine_quantiles(d, centred=k)
    assert ((drawn > low) & (drawn < high)).mean() == pytest.approx(0.95, abs=0.015)
    assert drawn.mean() == pytest.approx(centred_cosine(k), abs=0.02)
    np.testing.assert_allclose(np.quantile(drawn, (0.025, 0.5, 0.975)), (low, middle, high), atol=0.03)
    assert middle < random_cosine_quantiles(d)[1] - 0.5 / (k - 1)


def test_two_centred_vectors_are_opposite_and_equally_long_ones_sum_to_their_mean_cosine() -> None:
    assert random_cosine_quantiles(64, centred=2) == [-1.0, -1.0, -1.0]
    simplex = np.eye(5) - 1 / 5  # equally long, summing to zero
    unit = simplex / np.linalg.norm(simplex, axis=1, keepdims=True)
    assert (unit @ unit.T)[np.triu_indices(5, 1)].mean() == pytest.approx(centred_cosine(5))


def test_spearman_brown_foretells_the_reliability_of_everything_from_its_halves() -> None:
    rng, d, sigma = np.random.default_rng(1), 4000, 1.5
    truth = rng.standard_normal(d)
    halves = [truth + sigma * math.sqrt(2) * rng.standard_normal((50, d)) for _ in range(2)]

    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)

    got = spearman_brown(torch.from_numpy(cosine(*halves)))
    assert float(got.mean()) == pytest.approx(1 / (1 + sigma**2), abs=0.01)
    whole = (halves[0] + halves[1]) / 2  # its cosine with the truth is the root of its reliability
    assert float(got.mean().sqrt()) == pytest.approx(float(cosine(whole, truth).mean()), abs=0.01)
    assert spearman_brown(torch.tensor([1.0, 0.0, -1.0, 0.5])).tolist() == [1.0, 0.0, -1.0, pytest.approx(2 / 3)]


def test_noise_ceilings_are_roots_of_products_and_missing_without_signal() -> None:
    got = noise_ceiling(torch.tensor([[0.81, 0.25, -0.1]], dtype=torch.float64))
    assert got.shape == (1, 3, 3)
    assert float(got[0, 0, 1]) == pytest.approx(0.45) and float(got[0, 1, 0]) == pytest.approx(0.45)
    assert got[0].diagonal().tolist() == [1.0, 1.0, 1.0]
    assert bool(got[0, 2, :2].isnan().all()) and bool(got[0, :2, 2].isnan().all())
