"""How alike vectors are: cosines per layer, angles and norm ratios, and what random directions would show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.vectors import SteeringVector


def shared_layers(vectors: Sequence[SteeringVector]) -> tuple[int, ...]:
    """The layers all vectors have, ascending. Raises `SteerlabError` when there are none or widths or streams
    differ.
    """
    if not vectors:
        raise SteerlabError("no vectors were given: give at least one.")
    if len({(v.d_model, v.stream) for v in vectors}) > 1:
        seen = ", ".join(f"{v.name!r} ({v.stream}, width {v.d_model})" for v in vectors)
        raise SteerlabError(f"vectors of different spaces can not be compared: {seen}.")
    shared = set(vectors[0].layers).intersection(*(v.layers for v in vectors[1:]))
    if not shared:
        raise SteerlabError(f"the {len(vectors)} vectors share no layer: fit them at the same layers.")
    return tuple(sorted(shared))


def cosine_matrix(vectors: Sequence[SteeringVector]) -> Float[Tensor, "l k k"]:
    """Cosines between all vectors at each of their shared layers (`shared_layers`), float64, diagonal 1."""
    layers = list(shared_layers(vectors))
    unit = torch.stack([v.select(layers).direction.double().cpu() for v in vectors], dim=1)
    unit = unit / unit.norm(dim=-1, keepdim=True)
    return (unit @ unit.mT).clamp(-1, 1)


def angle_norm(a: SteeringVector, b: SteeringVector) -> tuple[Float[Tensor, "l"], Float[Tensor, "l"]]:
    """Per shared layer the angle between the two in radians, and the raw norm of `a` over that of `b`."""
    layers = list(shared_layers([a, b]))
    p, q = (v.select(layers).direction.double().cpu() for v in (a, b))
    # Not the arc cosine, which loses half the digits of a small angle (Kahan, "How futile are mindless assessments", 2006).
    angle = 2 * torch.atan2((p - q).norm(dim=-1), (p + q).norm(dim=-1))
    ratio = a.select(layers).raw_norm.double().cpu() / b.select(layers).raw_norm.double().cpu()
    return angle, ratio


def random_cosine_quantiles(d_model: int, quantiles: Sequence[float] = (0.025, 0.5, 0.975)) -> list[float]:
    """Quantiles of the cosine between a fixed and a uniformly random direction: (1 + cos) / 2 is Beta((d-1)/2,
    (d-1)/2).
    """
    if d_model < 2:
        raise SteerlabError(f"width {d_model} was given: directions need at least 2 dimensions.")
    half = (d_model - 1) / 2
    return [float(2 * stats.beta.ppf(q, half, half) - 1) for q in quantiles]
