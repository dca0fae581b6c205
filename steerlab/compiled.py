"""A plan as tensors, ready to edit activations: `CompiledPlan.edit(site, h, context)`.

Per site the plan is a list of groups applied in order. Consecutive `add`s of a row with the same positions and
no gate are one `Shift`: one broadcast addition, with -0.0 (the neutral element of float addition: h + -0.0 is
bitwise h) in rows that have none. Everything else is an `Act` on a subset of rows. Both compute a row from that
row alone, so a row of a mixed batch gets the same bits as the same row alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.operators import Operator, apply, capped
from steerlab.types import Positions, Site


class Part(NamedTuple):
    """One intervention of one row at one site: strength and target in activation units, fractions or radians."""

    operator: str | Operator
    positions: Positions
    gate: tuple[float, bool] | None
    v: Tensor
    strength: float
    target: float
    cap: float | int | None = None

    @property
    def kind(self) -> tuple[str | Operator, Positions, tuple[float, bool] | None, bool]:
        return self.operator, self.positions, self.gate, self.cap is not None


@dataclass(frozen=True)
class TokenContext:
    """What the positions of one chunk are. Made once per forward pass and shared by all its sites.

    `relative` "b s": position counted from the end of the row's own prompt (0 = first generated token). `ids`
    "b s": token ids. `real` "b s": False on padding. Masks are computed once per kind of positions and kept.
    """

    relative: Int[Tensor, "b s"]
    ids: Int[Tensor, "b s"]
    real: Bool[Tensor, "b s"]

    @cached_property
    def _masks(self) -> dict[Positions, tuple[Tensor, bool, bool]]:
        return {}

    def mask(self, positions: Positions) -> tuple[Bool[Tensor, "b s"], bool, bool]:
        """(mask, whether it holds everywhere, whether it holds anywhere)."""
        if positions not in self._masks:
            mask = positions.mask(self.relative, self.ids, self.real)
            everywhere, anywhere = torch.stack([mask.all(), mask.any()]).tolist()  # one wait for the device
            self._masks[positions] = (mask, everywhere, anywhere)
        return self._masks[positions]


@dataclass(frozen=True)
class Shift:
    """`h + delta` at some positions. `delta` "b 1 d" in the dtype of h, -0.0 in rows that are left alone."""

    positions: Positions
    delta: Tensor

    def apply(self, h: Tensor, context: TokenContext) -> Tensor:
        """`h` "b s d" with the delta added where the positions say; `h` itself where they say nowhere."""
        mask, everywhere, anywhere = context.mask(self.positions)
        if not anywhere:
            return h
        moved = h + self.delta
        return moved if everywhere else torch.where(mask[..., None], moved, h)

    def select(self, index: Tensor) -> Shift | None:
        """The part for these batch rows, or None when they add nothing."""
        delta = self.delta[index]
        return replace(self, delta=delta) if bool((delta != 0).any()) else None

    def scaled(self, factor: Float[Tensor, "b"]) -> Shift:
        """The part with what row i adds times `factor[i]`; 0 leaves a row bitwise alone."""
        times = factor[:, None, None].to(self.delta)
        return replace(
            self, delta=torch.where(times == 1, self.delta, torch.where(times == 0, -0.0, self.delta * times))
        )


@dataclass(frozen=True)
class Act:
    """An operator on the rows `rows` "m" of the batch, with `v` "m 1 d" and `strength`, `target` "m 1 1" in
    float32.
    """

    operator: str | Operator
    positions: Positions
    gate: tuple[float, bool] | None
    rows: Tensor
    whole: bool  # the rows are the whole batch in its order
    v: Tensor
    strength: Tensor
    target: Tensor
    cap: Tensor | None = None  # "m 1 1"

    def apply(self, h: Tensor, context: TokenContext) -> Tensor:
        """`h` "b s d" with the operator applied to its rows, where positions and gate say."""
        mask, everywhere, anywhere = context.mask(self.positions)
        if not anywhere:
            return h
        some = h if self.whole else h[self.rows]
        strength = self.strength
        if not everywhere:  # strength 0 is bitwise the identity, NaN in padding included
            chosen = (mask if self.whole else mask[self.rows])[..., None]
            strength = torch.where(chosen, strength, torch.zeros_like(strength))
        if self.gate is not None:
            strength = torch.where(_open(self.gate, some, self.v), strength, torch.zeros_like(strength))
        changed = apply(self.operator, some, self.v, strength, self.target)
        if self.cap is not None:
            changed = capped(some, changed, self.cap)
        return changed if self.whole else h.index_copy(0, self.rows, changed)

    def select(self, index: Tensor) -> Act | None:
        """The part for these batch rows, or None when it concerns none of them."""
        new, old = (index[:, None] == self.rows[None, :]).nonzero(as_tuple=True)
        if len(new) == 0:
            return None
        return replace(
            self,
            rows=new,
            whole=len(new) == len(index),
            v=self.v[old],
            strength=self.strength[old],
            target=self.target[old],
            cap=None if self.cap is None else self.cap[old],
        )

    def scaled(self, factor: Float[Tensor, "b"]) -> Act:
        """The part with the strength of batch row i times `factor[i]`."""
        return replace(self, strength=self.strength * factor[self.rows][:, None, None])


@dataclass(frozen=True)
class CompiledPlan:
    """Per site the groups that edit its activations. `n_rows` is the batch size it was built for."""

    groups: Mapping[Site, tuple[Shift | Act, ...]]
    n_rows: int

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that are edited; all others need no call."""
        return tuple(self.groups)

    def edit(self, site: Site, h: Float[Tensor, "b s d"], context: TokenContext) -> Float[Tensor, "b s d"]:
        """`h` after the interventions at `site`; `h` itself is not written to, and is returned where nothing
        applies.

        Padding and rows without an intervention are bitwise those of `h`. A site the plan does not have is left
        alone.
        """
        if len(h) != self.n_rows:
            raise SteerlabError(
                f"the plan has {self.n_rows} rows, but the batch has {len(h)}: give one row of the plan per row of the batch."
            )
        for group in self.groups.get(site, ()):
            h = group.apply(h, context)
        return h

    def select(self, index: Int[Tensor, "m"]) -> CompiledPlan:
        """The plan of these rows, in this order, as when finished rows leave the batch. Sites left without a
        group go.
        """
        kept = {site: [group.select(index) for group in groups] for site, groups in self.groups.items()}
        groups = {site: tuple(g for g in some if g is not None) for site, some in kept.items()}
        return CompiledPlan({site: some for site, some in groups.items() if some}, len(index))

    def scaled(self, factor: Float[Tensor, "b"]) -> CompiledPlan:
        """The plan with the strengths of row i times `factor[i]`: 1 is bitwise this plan, 0 leaves the row alone."""
        return replace(self, groups={site: tuple(g.scaled(factor) for g in own) for site, own in self.groups.items()})


def build(
    rows: Mapping[Site, Sequence[Sequence[Part]]],
    n_rows: int,
    d_model: int,
    dtype: torch.dtype,
    device: torch.device,
) -> CompiledPlan:
    """Group the parts of every site; `rows[site][i]` are the parts of batch row i, in order. Strength 0 is
    dropped.
    """
    groups: dict[Site, tuple[Shift | Act, ...]] = {}
    for site, parts in rows.items():
        steps = [_merge(row) for row in parts]
        made: list[Shift | Act] = []
        for level in range(max(map(len, steps), default=0)):
            kinds: dict[object, dict[int, Part]] = {}
            for row, own in enumerate(steps):
                if level < len(own):
                    kinds.setdefault(own[level].kind, {})[row] = own[level]
            for members in kinds.values():
                made.append(_group(members, n_rows, d_model, dtype, device))
        if made:
            groups[site] = tuple(made)
    return CompiledPlan(groups, n_rows)


def _merge(parts: Sequence[Part]) -> list[Part]:
    """Fold neighbouring ungated adds over the same positions into one: its `v` is the summed delta, strength 1."""
    merged: list[Part] = []
    for part in parts:
        if part.strength == 0:
            continue
        if part.operator == "add" and part.gate is None and part.cap is None:
            delta = part.v.double() * part.strength
            if merged and merged[-1].kind == part.kind:
                delta = merged.pop().v + delta
            part = part._replace(v=delta, strength=1.0)
        merged.append(part)
    return merged


def _group(
    members: Mapping[int, Part], n_rows: int, d_model: int, dtype: torch.dtype, device: torch.device
) -> Shift | Act:
    operator, positions, gate, has_cap = next(iter(members.values())).kind
    if operator == "add" and gate is None and not has_cap:
        delta = torch.full((n_rows, 1, d_model), -0.0, dtype=dtype)
        for row, part in members.items():
            value = part.v.to("cpu", dtype)
            if not bool(value.isfinite().all()):
                raise SteerlabError(
                    f"the additions in row {row} overflow {dtype}: lower the strength or run the model in a wider dtype."
                )
            delta[row, 0] = value
        return Shift(positions, delta.to(device))
    columns = torch.tensor(
        [[part.strength, part.target, part.cap or 0.0] for part in members.values()], dtype=torch.float32, device=device
    )
    return Act(
        operator=operator,
        positions=positions,
        gate=gate,
        rows=torch.tensor(list(members), device=device),
        whole=len(members) == n_rows,
        v=torch.stack([part.v for part in members.values()]).to(device, torch.float32)[:, None],
        strength=columns[:, :1, None],
        target=columns[:, 1:2, None],
        cap=columns[:, 2:, None] if has_cap else None,
    )


def _open(gate: tuple[float, bool], h: Tensor, v: Tensor) -> Bool[Tensor, "m s 1"]:
    threshold, above = gate
    wide = h.float()
    along = (wide * v).sum(dim=-1, keepdim=True)
    norm = wide.norm(dim=-1, keepdim=True)
    # Products, not a quotient: h = 0 has no angle and stays out of both sides.
    return (along > threshold * norm) if above else (along < threshold * norm)
