"""What can be done to an activation `h` along a unit direction `v`: add, ablate, match, scale, rotate.

Every operator is out of place, broadcasts `v`, `strength` and `target` against `h`, computes half-precision
input in float32 and returns the dtype of `h`. Where `strength` is 0 the output is bitwise `h`, whatever `h`
holds (NaN and -0.0 too).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

# (h "... d", v "... d" of unit length, strength "... 1" or scalar, target "... 1" or scalar) -> "... d"
Operator = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# Below this share of |h| the part of h beside v is rounding noise and spans no plane with v.
_PARALLEL = 1e-6


def add(
    h: Float[Tensor, "*b d"],
    v: Float[Tensor, "*#b d"],
    strength: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
) -> Float[Tensor, "*b d"]:
    """`h + strength * v`. `strength` is a length in activation units; `target` is not used."""
    wide, v, strength, _ = _widen(h, v, strength, target)
    return _settle(h, strength, wide + strength * v)


def ablate(
    h: Float[Tensor, "*b d"],
    v: Float[Tensor, "*#b d"],
    strength: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
) -> Float[Tensor, "*b d"]:
    """`h - strength * (h.v) v`. At strength 1 the result is orthogonal to `v` and ablating again changes nothing.

    Source: directional ablation, Arditi et al. 2024 (arXiv 2406.11717), eq. 4.
    """
    wide, v, strength, _ = _widen(h, v, strength, target)
    return _settle(h, strength, wide - strength * _along(wide, v) * v)


def match(
    h: Float[Tensor, "*b d"],
    v: Float[Tensor, "*#b d"],
    strength: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
) -> Float[Tensor, "*b d"]:
    """`h + strength * (target - h.v) v`. At strength 1 the projection on `v` becomes `target`; what is
    orthogonal to `v` stays.
    """
    wide, v, strength, target = _widen(h, v, strength, target)
    return _settle(h, strength, wide + strength * (target - _along(wide, v)) * v)


def scale(
    h: Float[Tensor, "*b d"],
    v: Float[Tensor, "*#b d"],
    strength: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
) -> Float[Tensor, "*b d"]:
    """`h + strength * (h.v) v`: the projection on `v` times `1 + strength`. Strength -1 is `ablate` at strength
    1.
    """
    wide, v, strength, _ = _widen(h, v, strength, target)
    return _settle(h, strength, wide + strength * _along(wide, v) * v)


def rotate(
    h: Float[Tensor, "*b d"],
    v: Float[Tensor, "*#b d"],
    strength: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
) -> Float[Tensor, "*b d"]:
    """Turn `h` by `strength` radians toward `v` in the plane of the two; the norm of `h` stays.

    An angle larger than the one between `h` and `v` turns past `v`. Where `h` is parallel to `v` (or 0) no
    plane is defined and `h` is returned unchanged.
    """
    wide, v, strength, _ = _widen(h, v, strength, target)
    along = _along(wide, v)
    beside = wide - along * v
    # Twice: the first pass leaves rounding of size eps |h| along v.
    beside = beside - _along(beside, v) * v
    width = beside.norm(dim=-1, keepdim=True)
    flat = width <= _PARALLEL * wide.norm(dim=-1, keepdim=True)
    ratio = strength.cos() - along / torch.where(flat, torch.ones_like(width), width) * strength.sin()
    turned = (along * strength.cos() + width * strength.sin()) * v + ratio * beside
    return _settle(h, strength, torch.where(flat, wide, turned))


OPERATORS: dict[str, Operator] = {
    "add": add,
    "ablate": ablate,
    "match": match,
    "scale": scale,
    "rotate": rotate,
}


def _widen(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(h.dtype, torch.float32)
    return h.to(dtype), v.to(dtype), strength.to(dtype), target.to(dtype)


def _along(h: Tensor, v: Tensor) -> Tensor:
    # A product and a sum over the last axis, not a matmul: every row is reduced alone, so the value does not depend on the batch.
    return (h * v).sum(dim=-1, keepdim=True)


def _settle(h: Tensor, strength: Tensor, moved: Tensor) -> Tensor:
    return torch.where(strength == 0, h, moved.to(h.dtype))
