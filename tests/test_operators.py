"""The theorems that say what each operator does, and that strength 0 does nothing at all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steerlab.operators import OPERATORS, ablate, add, capped, match, match_up, rotate, scale

ZERO = torch.tensor(0.0)
ONE = torch.tensor(1.0)


def _unit(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    v = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return v / v.norm(dim=-1, keepdim=True)


def _h(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _angle(h: Tensor, v: Tensor) -> Tensor:
    along = _dot(h, v)
    return torch.atan2((h - along * v).norm(dim=-1, keepdim=True), along)


def test_add_moves_by_strength_along_v_and_minus_strength_restores() -> None:
    h, v, strength = _h(3, 4, 8), _unit(3, 1, 8), torch.tensor([1.0, -2.0, 30.0]).view(3, 1, 1)
    moved = add(h, v, strength, ZERO)
    torch.testing.assert_close((moved - h).norm(dim=-1), strength.abs()[..., 0].double().expand(3, 4))
    torch.testing.assert_close(add(moved, v, -strength, ZERO), h)
    assert (moved - h).abs().min() > 0


def test_ablate_is_orthogonal_and_idempotent_and_keeps_the_rest() -> None:
    h, v, other = _h(5, 8), _unit(8), _unit(8, seed=9)
    other = other - _dot(other, v) * v
    once = ablate(h, v, ONE, ZERO)
    assert _dot(once, v).abs().max() < 1e-12 < _dot(h, v).abs().min()
    torch.testing.assert_close(ablate(once, v, ONE, ZERO), once)
    torch.testing.assert_close(_dot(once, other), _dot(h, other))


def test_ablate_by_half_halves_the_projection() -> None:
    h, v = _h(5, 8), _unit(8)
    torch.testing.assert_close(_dot(ablate(h, v, torch.tensor(0.5), ZERO), v), _dot(h, v) / 2)


def test_match_sets_the_projection_keeps_the_complement_and_is_idempotent() -> None:
    h, v, target = _h(5, 8), _unit(8), torch.tensor(3.25)
    once = match(h, v, ONE, target)
    torch.testing.assert_close(_dot(once, v), torch.full((5, 1), 3.25, dtype=torch.float64))
    torch.testing.assert_close(ablate(once, v, ONE, ZERO), ablate(h, v, ONE, ZERO))
    torch.testing.assert_close(match(once, v, ONE, target), once)
    torch.testing.assert_close(match(h, v, ONE, ZERO), ablate(h, v, ONE, ZERO))


def test_match_up_is_match_below_the_target_and_bitwise_nothing_above() -> None:
    h, v, target = _h(60, 8), _unit(8), torch.tensor(1.0)
    below = (_dot(h, v) < 1.0)[:, 0]
    assert 10 < below.sum() < 50
    once = match_up(h, v, ONE, target)
    assert torch.equal(once[~below], h[~below])
    torch.testing.assert_close(once[below], match(h, v, ONE, target)[below])
    torch.testing.assert_close(_dot(once, v), _dot(h, v).clamp(min=1.0))
    torch.testing.assert_close(match_up(once, v, ONE, target), once)
    torch.testing.assert_close(ablate(once, v, ONE, ZERO), ablate(h, v, ONE, ZERO))


def test_a_capped_change_is_no_longer_than_the_fraction_and_points_the_same_way() -> None:
    h, v = _h(40, 8), _unit(8)
    free = match(h, v, ONE, torch.tensor(4.0))
    limit = torch.tensor(0.3)
    held = capped(h, free, limit)
    size, most = (free - h).norm(dim=-1), 0.3 * h.norm(dim=-1)
    over = size > most
    assert 5 < over.sum() < 35
    assert torch.equal(held[~over], free[~over])
    torch.testing.assert_close((held - h).norm(dim=-1)[over], most[over])
    torch.testing.assert_close(torch.cosine_similarity(held - h, free - h)[over], torch.ones(int(over.sum())).double())
    assert torch.equal(capped(h, free, torch.tensor(math.inf)), free)


def test_a_cap_lets_what_did_not_change_through_bitwise() -> None:
    h = _h(3, 8, dtype=torch.float32)
    h[0, 0], h[1, 1], h[2] = float("nan"), float("inf"), -0.0
    same = capped(h, h.clone(), torch.tensor(0.0))
    assert torch.equal(same.view(torch.int32), h.view(torch.int32))


def test_scale_multiplies_the_projection_and_minus_one_is_ablation() -> None:
    h, v = _h(5, 8), _unit(8)
    torch.testing.assert_close(_dot(scale(h, v, torch.tensor(2.0), ZERO), v), 3 * _dot(h, v))
    torch.testing.assert_close(scale(h, v, -ONE, ZERO), ablate(h, v, ONE, ZERO))
    assert not torch.allclose(scale(h, v, ONE, ZERO), ablate(h, v, ONE, ZERO))


@pytest.mark.parametrize("angle", [-1.2, -0.01, 0.3, 1.0])
def test_rotate_keeps_the_norm_changes_the_angle_by_strength_and_stays_in_the_plane(angle: float) -> None:
    h, v = _h(40, 8), _unit(8)
    strength = torch.tensor(angle, dtype=torch.float64)
    before = _angle(h, v)
    inside = (before - angle > 0) & (before - angle < math.pi)  # an angle folds at 0 and at pi
    turned = rotate(h, v, strength, ZERO)
    torch.testing.assert_close(turned.norm(dim=-1), h.norm(dim=-1))
    assert inside.sum() > 10
    torch.testing.assert_close(_angle(turned, v)[inside], (before - strength)[inside])
    first = (h - _dot(h, v) * v) / (h - _dot(h, v) * v).norm(dim=-1, keepdim=True)
    off_plane = turned - _dot(turned, v) * v - _dot(turned, first) * first
    assert off_plane.abs().max() < 1e-12


def test_rotate_by_the_whole_angle_points_along_v_and_further_turns_past_it() -> None:
    h, v = _h(6, 8), _unit(8)
    angle = _angle(h, v)
    torch.testing.assert_close(rotate(h, v, angle, ZERO), h.norm(dim=-1, keepdim=True) * v)
    torch.testing.assert_close(_angle(rotate(h, v, angle + 0.2, ZERO), v), torch.full_like(angle, 0.2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rotate_leaves_h_alone_where_no_plane_is_defined(dtype: torch.dtype) -> None:
    v = _unit(8, dtype=torch.float64).to(torch.float32)
    h = torch.stack([3 * v, -3 * v, 0 * v])
    h = h.to(dtype) if dtype != torch.bfloat16 else torch.stack([torch.eye(8)[0], -torch.eye(8)[0], 0 * v]).to(dtype)
    v = v if dtype != torch.bfloat16 else torch.eye(8)[0]
    torch.testing.assert_close(rotate(h, v, ONE, ZERO), h)


def test_rotate_keeps_the_norm_when_h_is_almost_parallel_to_v_in_float32() -> None:
    v = _unit(64, dtype=torch.float64).float()
    h = 100 * v + 1e-2 * _h(10, 64, dtype=torch.float32) / 40
    turned = rotate(h, v, torch.tensor(0.7), ZERO)
    torch.testing.assert_close(turned.norm(dim=-1), h.norm(dim=-1), rtol=1e-5, atol=0)
    assert _angle(turned, v).min() > 0.6


@pytest.mark.parametrize("name", list(OPERATORS))
def test_strength_zero_is_bitwise_the_identity_even_for_nan_and_minus_zero(name: str) -> None:
    h = _h(3, 2, 8, dtype=torch.float32)
    h[0, 0, 0], h[1, 0, 1], h[2, 1, :] = float("nan"), float("inf"), -0.0
    strength = torch.tensor([0.0, -0.0, 0.0]).view(3, 1, 1)
    same = OPERATORS[name](h, _unit(3, 1, 8).float(), strength, ONE)
    assert torch.equal(same.view(torch.int32), h.view(torch.int32))
    clean = _h(3, 2, 8, dtype=torch.float32)
    assert not torch.equal(OPERATORS[name](clean, _unit(3, 1, 8).float(), strength + 0.5, ONE), clean)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_strength_zero_in_one_row_leaves_just_that_row(name: str) -> None:
    h = _h(2, 3, 8, dtype=torch.float32)
    out = OPERATORS[name](h, _unit(8).float(), torch.tensor([0.0, 0.7]).view(2, 1, 1), ZERO)
    assert torch.equal(out[0], h[0])
    assert (out[1] != h[1]).any()


@pytest.mark.parametrize("name", list(OPERATORS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_given_back_in_its_dtype(name: str, dtype: torch.dtype) -> None:
    h, v, strength, target = _h(4, 64, dtype=dtype), _unit(64).float(), torch.tensor(0.7), torch.tensor(2.0)
    out = OPERATORS[name](h, v, strength, target)
    assert out.dtype == dtype
    assert torch.equal(out, OPERATORS[name](h.float(), v, strength, target).to(dtype))


@pytest.mark.parametrize("name", list(OPERATORS))
def test_operators_write_to_none_of_their_arguments(name: str) -> None:
    args = [_h(2, 8), _unit(8), torch.tensor(0.5), torch.tensor(1.5)]
    before = [a.clone() for a in args]
    OPERATORS[name](*args)
    for now, then in zip(args, before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_a_row_gets_the_same_bits_alone_and_in_a_batch(name: str) -> None:
    h, v = _h(7, 5, 48, dtype=torch.float32), _unit(7, 1, 48).float()
    strength, target = torch.linspace(0.1, 1, 7).view(7, 1, 1), torch.linspace(-2, 2, 7).view(7, 1, 1)
    together = OPERATORS[name](h, v, strength, target)
    for row in range(7):
        for s in range(5):
            alone = OPERATORS[name](
                h[row : row + 1, s : s + 1], v[row : row + 1], strength[row : row + 1], target[row : row + 1]
            )
            assert torch.equal(alone[0, 0], together[row, s])
