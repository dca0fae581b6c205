"""Every estimator equals its definition, finds a planted direction, and refuses what has none."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.covariance import oas
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.estimators import (
    difference_of_means,
    language_vectors,
    logistic_direction,
    oas_shrinkage,
    paired_pca,
    quality_vector,
    random_like,
    shrinkage_lda,
)
from steerlab.moments import Moments, MomentsAccumulator
from steerlab.provenance import Provenance
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.reference import estimators as reference

LAYERS = (1, 4)
D = 12


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _planted() -> Tensor:
    v = _random(2, D, seed=77)
    return v / v.norm(dim=-1, keepdim=True)


def _moments(
    x: Tensor, weight: Tensor | None = None, covariance: bool = False, layers: tuple[int, ...] = LAYERS
) -> Moments:
    """Moments of activations "n l d"."""
    sums = MomentsAccumulator([Site(layer) for layer in layers], x.shape[2], covariance)
    sums.update_many(x.transpose(0, 1), weight)
    return sums.result()


def _two_sides(n: int = 400, gap: float = 1.5, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    """Two classes whose means differ by `gap` along the planted direction, in noise with one strong nuisance direction."""
    nuisance = _random(1, 2, D, seed=5)
    nuisance = spread * nuisance / nuisance.norm(dim=-1, keepdim=True)
    sides = []
    for sign, seed in ((1, 1), (-1, 2)):
        noise = 0.5 * _random(n, 2, D, seed=seed) + _random(n, 1, 1, seed=seed + 10) * nuisance
        sides.append(noise + sign * gap / 2 * _planted() + 2.0)
    return sides[0], sides[1]


def _cosine(vector: SteeringVector, truth: Tensor) -> Tensor:
    return (vector.direction * truth).sum(-1)


def test_difference_of_means_equals_its_definition() -> None:
    a, b = _random(9, 2, D), _random(7, 2, D, seed=1) + 1
    got = difference_of_means(_moments(a), _moments(b), name="v", provenance=Provenance(model="m"))
    for row, layer in enumerate(LAYERS):
        want = reference.difference(a[:, row].tolist(), b[:, row].tolist())
        assert got.raw(layer).tolist() == pytest.approx(want, rel=1e-5)
        assert got.at(layer).tolist() == pytest.approx(reference.unit(want), rel=1e-5)
        both = [sum(v * v for v in r) ** 0.5 for r in [*a[:, row].tolist(), *b[:, row].tolist()]]
        assert float(got.residual_norm[row]) == pytest.approx(sum(both) / 16, rel=1e-6)
    assert got.counts == (9.0, 7.0)
    assert (got.layers, got.stream) == (LAYERS, "resid_post")
    assert (got.provenance.model, got.provenance.method) == ("m", "difference_of_means")


def test_difference_of_means_uses_the_weights_of_the_tokens() -> None:
    a, b = _random(5, 2, D), _random(5, 2, D, seed=1)
    weight = torch.tensor([4.0, 1.0, 1.0, 1.0, 0.5])
    got = difference_of_means(_moments(a, weight), _moments(b), name="v")
    want = [
        p - q
        for p, q in zip(
            reference.mean(a[:, 0].tolist(), weight.tolist()), reference.mean(b[:, 0].tolist()), strict=True
        )
    ]
    assert got.raw(1).tolist() == pytest.approx(want, rel=1e-4, abs=1e-6)
    unweighted = difference_of_means(_moments(a), _moments(b), name="v")
    assert not torch.allclose(got.direction, unweighted.direction, atol=0.05)
    assert got.counts == (7.5, 5.0)


def test_difference_of_means_is_antisymmetric_and_ignores_a_common_shift() -> None:
    a, b = _random(9, 2, D), _random(7, 2, D, seed=1)
    forward = difference_of_means(_moments(a), _moments(b), name="v")
    back = difference_of_means(_moments(b), _moments(a), name="v")
    shifted = difference_of_means(_moments(a + 50), _moments(b + 50), name="v")
    torch.testing.assert_close(forward.direction, -back.direction)
    torch.testing.assert_close(forward.direction, shifted.direction, atol=1e-5, rtol=0)


def test_equal_means_are_an_error_that_names_the_layer() -> None:
    a, b = _random(9, 2, D), _random(9, 2, D)
    b[:, 0] += 1
    with pytest.raises(SteerlabError, match="'v' has no difference between its sides at layer 4"):
        difference_of_means(_moments(a), _moments(b), name="v")
    with pytest.raises(SteerlabError, match="at layer 4"):  # equal but for rounding
        difference_of_means(_moments(a), _moments(torch.cat([b.flip(0), b.flip(0)])), name="v")


def test_quality_vector_points_from_degraded_to_human() -> None:
    human, degraded = _two_sides()
    got = quality_vector(_moments(human), _moments(degraded))
    assert (_cosine(got, _planted()) > 0.8).all()
    assert (got.name, got.provenance.method) == ("quality", "quality_vector")


def test_language_vectors_equal_their_definition() -> None:
    data = {code: _random(n, 2, D, seed=n) + n for code, n in (("cs", 4), ("da", 9), ("he", 30))}
    got = language_vectors({code: _moments(x) for code, x in data.items()}, provenance=Provenance(model="m"))
    assert list(got) == ["cs", "da", "he"]
    for row, layer in enumerate(LAYERS):
        means = {code: reference.mean(x[:, row].tolist()) for code, x in data.items()}
        norms = [np.mean([sum(v * v for v in r) ** 0.5 for r in x[:, row].tolist()]) for x in data.values()]
        for code in data:
            assert got[code].raw(layer).tolist() == pytest.approx(
                reference.one_against_the_others(means, code), rel=1e-4
            )
            assert float(got[code].residual_norm[row]) == pytest.approx(np.mean(norms), rel=1e-5)
    assert got["da"].counts == (9.0, 34.0)
    assert got["da"].provenance == Provenance(model="m", method="language_vectors")


def test_with_two_languages_the_vectors_are_opposite_and_with_more_they_sum_to_zero() -> None:
    moments = {str(n): _moments(_random(n, 2, D, seed=n)) for n in (4, 9, 30)}
    total = sum(v.direction * v.raw_norm[:, None] for v in language_vectors(moments).values())
    torch.testing.assert_close(total, torch.zeros(2, D), atol=1e-5, rtol=0)
    del moments["30"]
    one, other = language_vectors(moments).values()
    torch.testing.assert_close(one.direction, -other.direction)


def test_one_language_is_not_enough() -> None:
    with pytest.raises(SteerlabError, match="1 languages were given"):
        language_vectors({"cs": _moments(_random(3, 2, D))})


def test_paired_pca_equals_power_iteration_with_the_sign_of_the_mean() -> None:
    a, b = _two_sides(30)
    for n in (30, 8):  # more pairs than features, and fewer
        got = paired_pca(a[:n], b[:n], LAYERS, name="v")
        for row in range(2):
            x = (a - b)[:n, row].double().numpy()
            want = reference.first_component(x)
            want = want * np.sign(want @ x.mean(0))
            np.testing.assert_allclose(got.direction[row].numpy(), want, atol=1e-4)
            assert float(got.raw_norm[row]) == pytest.approx(abs(want @ x.mean(0)), rel=1e-4)
    assert got.counts == (8.0, 8.0)


def test_paired_pca_finds_the_planted_direction_and_turns_with_the_sides() -> None:
    base = 5 * _random(200, 2, D, seed=3)  # what both texts of a pair share
    a = base + 0.3 * _random(200, 2, D, seed=1) + _planted()
    b = base + 0.3 * _random(200, 2, D, seed=2)
    got = paired_pca(a, b, LAYERS, name="v")
    assert (_cosine(got, _planted()) > 0.98).all()
    torch.testing.assert_close(paired_pca(b, a, LAYERS, name="v").direction, -got.direction)
    broken = paired_pca(a, b[torch.randperm(200, generator=torch.Generator().manual_seed(0))], LAYERS, name="v")
    assert (_cosine(broken, _planted()) < 0.9).all()


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0, "oas"])
def test_shrinkage_lda_equals_its_definition(shrinkage: Literal["oas"] | float) -> None:
    a, b = _two_sides(60)
    got = shrinkage_lda(_moments(a, covariance=True), _moments(b, covariance=True), name="v", shrinkage=shrinkage)
    for row in range(2):
        p, q = a[:, row].double().numpy(), b[:, row].double().numpy()
        centred = np.concatenate([p - p.mean(0), q - q.mean(0)])
        rho = oas(centred, assume_centered=True)[1] if isinstance(shrinkage, str) else shrinkage
        want = reference.fisher(p, q, rho)
        np.testing.assert_allclose(got.direction[row].numpy(), want / np.linalg.norm(want), atol=2e-5)
    if shrinkage == 1.0:
        plain = difference_of_means(_moments(a), _moments(b), name="v")
        torch.testing.assert_close(got.direction, plain.direction, atol=1e-5, rtol=0)


def test_oas_equals_sklearn() -> None:
    for n, d in ((10, 4), (200, 6), (5, 30)):
        x = np.random.default_rng(n).normal(size=(n, d)) * np.arange(1, d + 1)
        want = oas(x, assume_centered=True)[1]
        assert oas_shrinkage(torch.from_numpy(x.T @ x / n), float(n)) == pytest.approx(want)
    assert oas_shrinkage(torch.eye(3, dtype=torch.float64), 10.0) == 1.0


def test_lda_and_logistic_regression_see_past_a_nuisance_that_misleads_the_means() -> None:
    a, b = _two_sides(40, spread=10.0)
    means = difference_of_means(_moments(a), _moments(b), name="v")
    lda = shrinkage_lda(_moments(a, covariance=True), _moments(b, covariance=True), name="v")
    logistic = logistic_direction(a, b, LAYERS, name="v")
    test_a, test_b = _two_sides(4000, spread=10.0)
    gaps = {}
    for key, vector in (("means", means), ("lda", lda), ("logistic", logistic)):
        p, q = (test_a * vector.direction).sum(-1), (test_b * vector.direction).sum(-1)
        gaps[key] = (p.mean(0) - q.mean(0)) / torch.cat([p - p.mean(0), q - q.mean(0)]).std(0)
    assert (gaps["lda"] > 1.2 * gaps["means"]).all()
    assert (gaps["logistic"] > 1.2 * gaps["means"]).all()


def test_logistic_direction_is_in_raw_space_and_points_to_the_positive_side() -> None:
    generator = np.random.default_rng(0)
    scale = torch.logspace(-2, 2, D)
    a = torch.from_numpy(generator.normal(size=(300, 1, D))).float()
    b = torch.from_numpy(generator.normal(size=(300, 1, D))).float()
    a[:, 0, 3] += 3
    got = logistic_direction(a * scale, b * scale, (0,), name="v", c=0.1)
    weights = got.direction[0] * scale  # weights per standardised feature
    assert int(weights.abs().argmax()) == 3
    assert weights[3] > 0
    rescaled = logistic_direction(a, b, (0,), name="v", c=0.1)
    torch.testing.assert_close(weights / weights.norm(), rescaled.direction[0], atol=1e-2, rtol=0)


def test_logistic_direction_is_antisymmetric_and_ignores_constant_features() -> None:
    a, b = _two_sides(50)
    a[..., 0] = b[..., 0] = 7.0
    one, other = logistic_direction(a, b, LAYERS, name="v"), logistic_direction(b, a, LAYERS, name="v")
    torch.testing.assert_close(one.direction, -other.direction, atol=1e-4, rtol=0)
    assert (one.direction[:, 0] == 0).all()


def test_random_like_keeps_the_norms_and_depends_on_seed_and_layer_alone() -> None:
    vector = difference_of_means(_moments(_random(9, 2, D)), _moments(_random(7, 2, D, seed=1)), name="v")
    one, again, other = random_like(vector, 1), random_like(vector, 1), random_like(vector, 2)
    assert torch.equal(one.direction, again.direction)
    assert not torch.allclose(one.direction, other.direction)
    assert torch.equal(one.raw_norm, vector.raw_norm)
    assert torch.equal(random_like(vector.select([4]), 1).at(4), one.at(4))
    torch.testing.assert_close(one.direction.norm(dim=-1), torch.ones(2))


def test_random_directions_are_uniform_on_the_sphere() -> None:
    vector = SteeringVector.from_raw("v", torch.ones(1, 3), (0,))
    draws = torch.stack([random_like(vector, seed).at(0) for seed in range(600)])
    assert draws.mean(0).norm() < 4.5 / 600**0.5
    torch.testing.assert_close(draws.T @ draws / 600, torch.eye(3) / 3, atol=0.06, rtol=0)


def test_sides_of_different_layers_or_width_are_refused() -> None:
    a, b = _moments(_random(9, 2, D)), _moments(_random(9, 2, D, seed=1), layers=(1, 5))
    with pytest.raises(SteerlabError, match=r"layers \(1, 4\) and \(1, 5\)"):
        difference_of_means(a, b, name="v")
    with pytest.raises(SteerlabError, match="'da' was given moments of layers"):
        language_vectors({"cs": a, "da": b})
    with pytest.raises(SteerlabError, match="one slice per layer"):
        paired_pca(_random(4, 2, D), _random(4, 2, D, seed=1), (1,), name="v")
    with pytest.raises(SteerlabError, match="pairs are needed"):
        paired_pca(_random(4, 2, D), _random(5, 2, D), LAYERS, name="v")


def test_lda_and_logistic_refuse_what_they_can_not_use() -> None:
    a, b = _two_sides(5)
    with pytest.raises(SteerlabError, match="covariance=True"):
        shrinkage_lda(_moments(a), _moments(b), name="v")
    with pytest.raises(SteerlabError, match="number from 0 to 1"):
        shrinkage_lda(_moments(a, covariance=True), _moments(b, covariance=True), name="v", shrinkage=2.0)
    a[..., 0] = b[..., 0] = 7.0
    with pytest.raises(SteerlabError, match="singular covariance at layer 1"):
        shrinkage_lda(_moments(a, covariance=True), _moments(b, covariance=True), name="v", shrinkage=0.0)
    with pytest.raises(SteerlabError, match="above 0"):
        logistic_direction(a, b, LAYERS, name="v", c=0.0)
    a[3, 1, 2] = float("nan")
    with pytest.raises(SteerlabError, match="NaN or infinite activations at layer 4"):
        logistic_direction(a, b, LAYERS, name="v")
    with pytest.raises(SteerlabError, match="at layer 4"):
        paired_pca(a, b, LAYERS, name="v")
