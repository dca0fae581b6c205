"""A plan applied the obvious way: one row, one token, one intervention at a time, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steerlab.steering import Intervention, Plan
from steerlab.types import Positions, Site


def edit(plan: Plan, site: Site, h: Tensor, relative: Tensor, ids: Tensor, real: Tensor) -> Tensor:
    """`h` "b s d" after the plan's interventions at `site`."""
    out = h.double().clone()
    for row, interventions in enumerate(plan.rows):
        for i in interventions:
            if i.vector.stream != site.stream or site.layer not in i.at:
                continue
            for s in range(h.shape[1]):
                if real[row, s] and _meant(i.positions, int(relative[row, s]), int(ids[row, s])):
                    out[row, s] = _apply(i, site.layer, out[row, s])
    return out


def _meant(positions: Positions, relative: int, token: int) -> bool:
    late_enough = positions.start is None or relative >= positions.start
    early_enough = positions.stop is None or relative < positions.stop
    return (
        late_enough
        and early_enough
        and (not positions.only_ids or token in positions.only_ids)
        and token not in positions.skip_ids
    )


def _apply(i: Intervention, layer: int, h: Tensor) -> Tensor:
    v = i.vector.direction[i.vector.layers.index(layer)].double()
    length = float(i.vector.residual_norm[i.vector.layers.index(layer)]) if i.unit == "residual" else 1.0
    p = float(h @ v)
    if i.gate is not None:
        cosine = p / float(h.norm())
        if not (cosine > i.gate.threshold if i.gate.above else cosine < i.gate.threshold):
            return h
    moved = _moved(i, length, h, v, p)
    most = math.inf if i.cap is None else i.cap * float(h.norm())
    far = float((moved - h).norm())
    return moved if far <= most else h + (most / far) * (moved - h)


def _moved(i: Intervention, length: float, h: Tensor, v: Tensor, p: float) -> Tensor:
    if i.operator == "add":
        return h + i.strength * length * v
    if i.operator == "ablate":
        return h - i.strength * p * v
    if i.operator == "match":
        return h + i.strength * (i.target * length - p) * v
    if i.operator == "match_up":
        return h + i.strength * max(i.target * length - p, 0.0) * v
    if i.operator == "scale":
        return h + i.strength * p * v
    beside = h - p * v
    angle = math.atan2(float(beside.norm()), p) - i.strength
    return h.norm() * (math.cos(angle) * v + math.sin(angle) * beside / beside.norm())


def context(lengths: list[int], steps: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """relative, ids, real "b s" of left-padded prompts of these lengths followed by `steps` generated tokens."""
    b = len(lengths)
    relative = torch.arange(width).expand(b, width) - (width - steps)
    real = relative >= -torch.tensor(lengths)[:, None]
    ids = torch.where(real, (relative * 7 + torch.arange(b)[:, None] * 3) % 11, torch.zeros_like(relative))
    return relative, ids, real
