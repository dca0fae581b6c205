"""What can be done to an activation `h` along a unit direction `v`: six operators, or a function of your own.

Built in are add, ablate, match, match_up, scale and rotate.

Every operator is out of place, broadcasts `v`, `strength` and `target` against `h`, computes half-precision
input in float32 and returns the dtype of `h`. Where `strength` is 0 the output is bitwise `h`, whatever `h`
holds (NaN and -0.0 too).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.errors import SteerlabError

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


def match_up(
    h: Float[Tensor, "*b d"],
    v: Float[Tensor, "*#b d"],
    strength: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
) -> Float[Tensor, "*b d"]:
    """`h + strength * max(target - h.v, 0) v`: `match` where the projection lies below `target`, `h` bitwise where it does
    not, so that nothing is ever pushed down.
    """
    wide, v, strength, target = _widen(h, v, strength, target)
    gap = target - _along(wide, v)
    return _settle(h, torch.where(gap > 0, strength, torch.zeros_like(gap)), wide + strength * gap * v)


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
    "match_up": match_up,
    "scale": scale,
    "rotate": rotate,
}


def apply(
    operator: str | Operator,
    h: Float[Tensor, "*b d"],
    v: Float[Tensor, "*#b d"],
    strength: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
) -> Float[Tensor, "*b d"]:
    """An operator by its name in `OPERATORS`, or a function of your own, which is given everything in float32 (or wider) and
    whose result is used where `strength` is not 0.
    """
    if isinstance(operator, str):
        return OPERATORS[operator](h, v, strength, target)
    return _settle(h, strength, operator(*_widen(h, v, strength, target)))


def capped(
    h: Float[Tensor, "*b d"], changed: Float[Tensor, "*b d"], cap: Float[Tensor, "..."]
) -> Float[Tensor, "*b d"]:
    """`changed`, drawn back to a distance of `cap * |h|` from `h` where it lies further off; bitwise `changed` elsewhere, and
    where `cap` is infinite.
    """
    dtype = torch.promote_types(h.dtype, torch.float32)
    wide, moved = h.to(dtype), changed.to(dtype) - h.to(dtype)
    far, most = moved.norm(dim=-1, keepdim=True), cap.to(dtype) * wide.norm(dim=-1, keepdim=True)
    over = far > most
    share = most / torch.where(over, far, torch.ones_like(far))
    return torch.where(over, (wide + share.nan_to_num() * moved).to(h.dtype), changed)


def name_of(operator: str | Operator) -> str:
    """How an operator stands in a record: its name, a function of your own as module.name@hash of its instructions."""
    if isinstance(operator, str):
        return operator
    own: Any = operator
    name = f"{getattr(own, '__module__', '')}.{getattr(own, '__qualname__', type(own).__qualname__)}"
    code = getattr(own, "__code__", None)
    if code is None:
        return name
    constants = [one for one in code.co_consts if not hasattr(one, "co_code")]  # inner functions have no stable words
    return f"{name}@{hashlib.sha256(code.co_code + repr(constants).encode()).hexdigest()[:8]}"


@cache
def check(operator: Operator) -> None:
    """Refuse a function that is no operator, after trying it on a few random activations "2 3 d".

    Raises `SteerlabError` where the result has another shape or is not finite, where strength 0 changes anything, where
    `h` is written to, and where a token's result depends on the other tokens or rows (a batch must equal its singles, and
    a step under a KV cache the whole text).
    """
    source = torch.Generator().manual_seed(0)
    h, v = (torch.randn(shape, generator=source) for shape in ((2, 3, 8), (2, 1, 8)))
    v = v / v.norm(dim=-1, keepdim=True)
    strength, target = torch.full((2, 1, 1), 0.5), torch.full((2, 1, 1), 0.25)
    before = h.clone()
    whole, still = operator(h, v, strength, target), operator(h, v, torch.zeros_like(strength), target)
    wrong = ""
    if not isinstance(whole, Tensor) or whole.shape != h.shape or not bool(whole.isfinite().all()):
        what = f"a tensor of shape {tuple(whole.shape)}" if isinstance(whole, Tensor) else f"a {type(whole).__name__}"
        wrong = (
            f"returned {what} for finite activations of shape {tuple(h.shape)}: return finite ones of the same shape"
        )
    elif not torch.equal(h, before):
        wrong = "writes to the activations it is given: return a new tensor"
    elif not torch.allclose(still, h, atol=1e-5):
        wrong = "changes activations at strength 0: let the strength scale what it does, and put other numbers into the target"
    else:
        parts = [(slice(i, i + 1), slice(j, j + 1)) for i in range(2) for j in range(3)]
        alone = [operator(h[i, j], v[i], strength[i], target[i]) for i, j in parts]
        if not all(torch.allclose(one, whole[at], atol=1e-5) for one, at in zip(alone, parts, strict=True)):
            wrong = "gives a token another result beside other tokens than alone: compute every token from itself only"
    if wrong:
        raise SteerlabError(f"operator {name_of(operator)} {wrong}.")


def gate_open(gate: tuple[float, bool], h: Float[Tensor, "*b d"], v: Float[Tensor, "*#b d"]) -> Bool[Tensor, "*b 1"]:
    """Where cos(h, v) is above the gate's threshold, or below it for (threshold, False); nowhere for h = 0, which has no angle."""
    threshold, above = gate
    wide = h.float()
    along = (wide * v).sum(dim=-1, keepdim=True)
    norm = wide.norm(dim=-1, keepdim=True)
    # Products, not a quotient: h = 0 has no angle and stays out of both sides.
    return (along > threshold * norm) if above else (along < threshold * norm)


def _widen(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(h.dtype, torch.float32)
    return h.to(dtype), v.to(dtype), strength.to(dtype), target.to(dtype)


def _along(h: Tensor, v: Tensor) -> Tensor:
    # A product and a sum over the last axis, not a matmul: every row is reduced alone, so the value does not depend on the batch.
    return (h * v).sum(dim=-1, keepdim=True)


def _settle(h: Tensor, strength: Tensor, moved: Tensor) -> Tensor:
    return torch.where(strength == 0, h, moved.to(h.dtype))
