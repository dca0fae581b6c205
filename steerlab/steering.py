"""What to do to the residual stream while a model runs: `Intervention`, and `Plan`, which gives every batch row
its own.

A plan is compiled once per batch into a `CompiledPlan` (steerlab.compiled), which edits activations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from steerlab.compiled import CompiledPlan, Part, TokenContext, build
from steerlab.errors import SteerlabError
from steerlab.operators import OPERATORS, Operator, check, name_of
from steerlab.records import understood
from steerlab.types import ALL, Positions, Site
from steerlab.vectors import SteeringVector

__all__ = ["CompiledPlan", "Gate", "Intervention", "Plan", "TokenContext"]

Unit = Literal["raw", "residual"]
OperatorName = Literal["add", "ablate", "match", "match_up", "scale", "rotate"]
# The number that is a length in activation units; the strengths of ablate, match, scale are fractions, that of rotate radians.
_LENGTH: dict[str, str] = {"add": "strength", "match": "target", "match_up": "target"}


@dataclass(frozen=True)
class Gate:
    """Act only where cos(h, v) is above (or below) `threshold`, `h` being the stream the intervention is about
    to change.
    """

    threshold: float | int
    above: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", float(self.threshold))
        if not -1.0 <= self.threshold <= 1.0:
            raise SteerlabError(f"gate threshold {self.threshold} was given: a cosine lies between -1 and 1.")


@dataclass(frozen=True)
class Intervention:
    """One vector at one or more layers of its stream.

    `unit` says in what lengths are given: "raw" is activation units (the papers' alpha on the unit vector),
    "residual" is the vector's mean residual norm at each layer, so that 0.1 means a tenth of the stream there.
    A length is the strength of `add` and the target of `match`; the other strengths are fractions (ablate,
    match, scale) or radians (rotate) and take "raw" only. `positions` are counted from the end of the prompt,
    see `Positions`. `cap`: the longest change, as a fraction of the norm of the activation it is made to; None is no limit.

    An operator of your own is a function like those in `steerlab.operators`: (h, v, strength, target) -> h, all float32; its
    result is used where the strength is not 0. Its strength and target are raw.

    Raises `SteerlabError` on an unknown operator, on a function that is none (see `operators.check`), on numbers that are
    not finite, on a unit without meaning for the operator, and on layers the vector has no direction for.
    """

    vector: SteeringVector
    layers: tuple[int, ...] | int
    operator: OperatorName | Operator = "add"
    strength: float | int = 1.0
    unit: Unit = "raw"
    target: float | int = 0.0
    positions: Positions = ALL
    gate: Gate | None = None
    cap: float | int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", self.at)
        object.__setattr__(self, "strength", float(self.strength))  # 25 and 25.0 are one description in run records
        object.__setattr__(self, "target", float(self.target))
        if callable(self.operator):
            check(self.operator)
        elif self.operator not in OPERATORS:
            raise SteerlabError(
                f"operator {self.operator!r} is not known: choose one of {', '.join(OPERATORS)}, or give a function."
            )
        if not (math.isfinite(self.strength) and math.isfinite(self.target)):
            raise SteerlabError(
                f"strength {self.strength} and target {self.target} were given: both must be finite numbers."
            )
        if self.unit not in ("raw", "residual"):
            raise SteerlabError(f"unit {self.unit!r} is not known: choose 'raw' or 'residual'.")
        name = name_of(self.operator)
        if self.target != 0.0 and isinstance(self.operator, str) and _LENGTH.get(name) != "target":
            raise SteerlabError(
                f"target {self.target} was given for {name!r}: only 'match' and 'match_up' have a target."
            )
        if self.cap is not None and not 0 < self.cap < math.inf:
            raise SteerlabError(f"cap {self.cap} was given: give a fraction of the activation's norm above 0, or None.")
        if self.unit == "residual" and name not in _LENGTH:
            raise SteerlabError(
                f"unit 'residual' was given for {name!r}, "
                "whose strength is a fraction or an angle and not a length: use unit 'raw'."
            )
        if not self.at or len(set(self.at)) != len(self.at):
            raise SteerlabError(f"layers {self.at} were given: name at least one layer, each once.")
        for layer in self.at:
            self.vector.row(layer)
            if self.unit == "residual":
                self.vector.norm_at(layer)

    @property
    def at(self) -> tuple[int, ...]:
        """The layers as a tuple."""
        return (self.layers,) if isinstance(self.layers, int) else tuple(self.layers)

    def numbers(self, layer: int) -> tuple[float, float]:
        """(strength, target) at `layer`, lengths in activation units."""
        length = self.vector.norm_at(layer) if self.unit == "residual" else 1.0
        which = _LENGTH.get(name_of(self.operator))
        return self.strength * (length if which == "strength" else 1.0), self.target * (
            length if which == "target" else 1.0
        )

    def to_json(self) -> dict[str, object]:
        """A description for run records; the vector by name, method and model."""
        return {
            "vector": self.vector.name,
            "method": self.vector.provenance.method,
            "model": self.vector.provenance.model,
            "stream": self.vector.stream,
            "layers": list(self.at),
            "operator": name_of(self.operator),
            "strength": self.strength,
            "unit": self.unit,
            "target": self.target,
            "positions": str(self.positions),
            "gate": None if self.gate is None else {"threshold": self.gate.threshold, "above": self.gate.above},
            **({} if self.cap is None else {"cap": float(self.cap)}),
        }

    @staticmethod
    def from_json(record: Any, vector: SteeringVector) -> Intervention:
        """The intervention `to_json` described, with the vector itself, which a description only names.

        Raises `SteerlabError` for another vector than the one described, for positions by token id, and for an operator that
        is a function.
        """
        with understood("the record of an intervention"):
            facts = {**record, "positions": Positions.parse(str(record["positions"]))}
            named, stream = facts.pop("vector"), facts.pop("stream")
            if (named, stream) != (vector.name, vector.stream):
                raise SteerlabError(
                    f"an intervention along {named!r} ({stream}) was described and vector {vector.name!r} ({vector.stream}) given: "
                    "give the vector it was made with."
                )
            if facts["operator"] not in OPERATORS:
                raise SteerlabError(
                    f"the operator {facts['operator']} is a function, which no record can hold: make the intervention in Python."
                )
            del facts["method"], facts["model"]
            gate = facts.pop("gate")
            layers = tuple(facts.pop("layers"))
            if not all(type(layer) is int for layer in layers):
                raise TypeError(f"layers {layers!r} are no numbers")
            return Intervention(vector, layers, gate=None if gate is None else Gate(**gate), **facts)


@dataclass(frozen=True)
class Plan:
    """Row i of the batch gets the interventions `rows[i]`, in that order; an empty tuple leaves the row bitwise
    untouched.
    """

    rows: tuple[tuple[Intervention, ...], ...]

    @staticmethod
    def uniform(interventions: Sequence[Intervention], n: int) -> Plan:
        """The same interventions in all `n` rows."""
        return Plan((tuple(interventions),) * n)

    @staticmethod
    def none(n: int) -> Plan:
        """`n` rows, nothing done to any."""
        return Plan(((),) * n)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Sequence[int]) -> Plan:
        """The plan of these rows, in this order."""
        return Plan(tuple(self.rows[row] for row in rows))

    def repeat(self, times: int) -> Plan:
        """Every row `times` times, neighbours together: rows a b become a a b b."""
        return Plan(tuple(row for row in self.rows for _ in range(times)))

    def __add__(self, other: Plan) -> Plan:
        """The rows of this plan and then those of the other."""
        return Plan(self.rows + other.rows)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the plan acts, each site once, by layer and then in the order of a block."""
        order = {"resid_pre": 0, "attn_out": 1, "mlp_out": 2, "resid_post": 3}
        found = {Site(layer, i.vector.stream) for row in self.rows for i in row for layer in i.at}
        return tuple(sorted(found, key=lambda site: (site.layer, order[site.stream])))

    def check(self, d_model: int, n_layers: int | None = None) -> None:
        """Raise `SteerlabError` for a vector of another width or a layer the model does not have."""
        for row, interventions in enumerate(self.rows):
            for i in interventions:
                if i.vector.d_model != d_model:
                    raise SteerlabError(
                        f"vector {i.vector.name!r} in row {row} has width {i.vector.d_model}, "
                        f"but the model has width {d_model}: fit a vector on this model."
                    )
                if n_layers is not None and max(i.at) >= n_layers:
                    raise SteerlabError(
                        f"layer {max(i.at)} was given for vector {i.vector.name!r} in row {row}, "
                        f"but the model has layers 0 to {n_layers - 1}."
                    )

    def compile(
        self,
        d_model: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        n_layers: int | None = None,
    ) -> CompiledPlan:
        """The plan as per-site tensors for activations of `dtype` on `device`. Checks first, as `check` does."""
        self.check(d_model, n_layers)
        rows: dict[Site, list[list[Part]]] = {site: [[] for _ in self.rows] for site in self.sites}
        for row, interventions in enumerate(self.rows):
            for i in interventions:
                for layer in i.at:
                    strength, target = i.numbers(layer)
                    gate = None if i.gate is None else (i.gate.threshold, i.gate.above)
                    part = Part(i.operator, i.positions, gate, i.vector.at(layer), strength, target, i.cap)
                    rows[Site(layer, i.vector.stream)][row].append(part)
        return build(rows, len(self.rows), d_model, dtype, torch.device(device))

    def to_json(self) -> list[list[dict[str, object]]]:
        """For each row the descriptions of its interventions."""
        return [[i.to_json() for i in row] for row in self.rows]
