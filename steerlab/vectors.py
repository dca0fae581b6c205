"""`SteeringVector`: one direction per layer with its norms, counts and provenance; algebra and files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from steerlab import tensorfile
from steerlab.choice import Choice, spans
from steerlab.errors import SteerlabError
from steerlab.projections import Projections
from steerlab.provenance import Provenance
from steerlab.types import STREAMS, Stream
from steerlab.vector_view import vector_html

_UNIT_TOLERANCE = 1e-4
_KIND, _SCHEMA = "vector", 1


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction in one stream of the model, for some of its layers. Compared and hashed by identity; see `equals`.

    `direction` "l d": unit rows, row i belongs to block `layers[i]`. `raw_norm` "l": length of the estimate
    before it was made unit. `residual_norm` "l": mean L2 norm of single activations there, NaN where it was not
    measured. `counts`: weight (tokens or texts) on the positive and on the negative side. `choice`: how it is best used,
    where that was found out (`steerlab.ablation.selection`); `projections`: where its two sides lie along it, for instruction
    vectors. A vector made from this one in another direction has neither.
    """

    name: str
    direction: Float32[Tensor, "l d"]
    raw_norm: Float32[Tensor, "l"]
    residual_norm: Float32[Tensor, "l"]
    counts: tuple[float, float]
    layers: tuple[int, ...]
    stream: Stream = "resid_post"
    provenance: Provenance = field(default_factory=Provenance)
    choice: Choice | None = None
    projections: Projections | None = None
    _repr_html_ = vector_html

    def __post_init__(self) -> None:
        if len(set(self.layers)) != len(self.layers) or any(layer < 0 for layer in self.layers):
            raise SteerlabError(
                f"vector {self.name!r} was given layers {self.layers}: each must be 0 or more and occur once."
            )
        if self.stream not in STREAMS:
            raise SteerlabError(
                f"vector {self.name!r} was given stream {self.stream!r}: choose one of {', '.join(STREAMS)}."
            )
        n = len(self.layers)
        shapes = self.direction.shape[:-1], self.raw_norm.shape, self.residual_norm.shape
        if n == 0 or any(shape != (n,) for shape in shapes):
            raise SteerlabError(
                f"vector {self.name!r} has {n} layers, a direction of shape {tuple(self.direction.shape)} and norms of shapes "
                f"{tuple(self.raw_norm.shape)} and {tuple(self.residual_norm.shape)}: at least one layer and one row per layer are needed."
            )
        lengths = self.direction.norm(dim=-1)
        bad = ~((lengths - 1).abs() <= _UNIT_TOLERANCE) | ~(self.raw_norm.isfinite() & (self.raw_norm > 0))
        if bool(bad.any()):
            layer = self.layers[int(bad.nonzero()[0, 0])]
            raise SteerlabError(
                f"vector {self.name!r} has no finite unit direction with a positive raw norm at layer {layer}: "
                "build it with SteeringVector.from_raw, which normalises and names the layer that can not be."
            )
        if self.choice is not None and not set(self.choice.layers) <= set(self.layers):
            raise SteerlabError(
                f"vector {self.name!r} has layers {spans(self.layers)}, and its choice names {spans(self.choice.layers)}: "
                "choose among the layers it has."
            )
        if self.projections is not None and len(self.projections) != n:
            raise SteerlabError(
                f"vector {self.name!r} has {n} layers, {len(self.projections)} projections: give one each."
            )

    @staticmethod
    def from_raw(
        name: str,
        raw: Float[Tensor, "l d"],
        layers: Sequence[int],
        *,
        residual_norm: Float[Tensor, "l"] | None = None,
        counts: tuple[float, float] = (0.0, 0.0),
        stream: Stream = "resid_post",
        provenance: Provenance | None = None,
    ) -> SteeringVector:
        """The vector whose raw rows are `raw`. Raises `SteerlabError` naming the first layer whose row is 0 or not finite."""
        wide = raw.detach().to(torch.float64)
        norm = wide.norm(dim=-1)
        # Relative to the stream when its norm is known: a difference of two equal means leaves rounding, not exactly 0.
        scale = torch.full_like(norm, float("nan")) if residual_norm is None else residual_norm.detach().to(norm)
        floor = scale.nan_to_num() * 1e-12
        for layer, length, least in zip(layers, norm.tolist(), floor.tolist(), strict=False):
            if not least < length < float("inf"):
                what = "no difference between its sides" if length <= least else "values that are not finite"
                raise SteerlabError(
                    f"vector {name!r} has {what} at layer {layer}: check that the two sets of texts differ, or leave the layer out."
                )
        return SteeringVector(
            name=name,
            direction=(wide / norm[:, None]).float(),
            raw_norm=norm.float(),
            residual_norm=scale.float(),
            counts=counts,
            layers=tuple(layers),
            stream=stream,
            provenance=Provenance() if provenance is None else provenance,
        )

    @property
    def d_model(self) -> int:
        return self.direction.shape[1]

    def row(self, layer: int) -> int:
        """The row of `layer`. Raises `SteerlabError` listing the layers there are."""
        if layer not in self.layers:
            raise SteerlabError(
                f"vector {self.name!r} has no direction at layer {layer}: it has layers {spans(self.layers)}."
            )
        return self.layers.index(layer)

    def at(self, layer: int) -> Float32[Tensor, "d"]:
        """The unit direction at `layer`."""
        return self.direction[self.row(layer)]

    def raw(self, layer: int) -> Float32[Tensor, "d"]:
        """The estimate at `layer` in activation units: unit direction times raw norm."""
        row = self.row(layer)
        return self.direction[row] * self.raw_norm[row]

    def norm_at(self, layer: int) -> float:
        """The mean residual norm at `layer`. Raises `SteerlabError` where it was not measured."""
        norm = float(self.residual_norm[self.row(layer)])
        if not 0 < norm < float("inf"):
            raise SteerlabError(
                f"vector {self.name!r} does not record the residual norm at layer {layer}: "
                "give the strength in raw units, or fit the vector from captured moments."
            )
        return norm

    # Algebra acts on the raw rows (direction times raw norm); `a.unit() + b.unit()` weighs two vectors equally.

    def __mul__(self, factor: float | int) -> SteeringVector:
        if not 0 < abs(factor) < float("inf"):
            raise SteerlabError(
                f"vector {self.name!r} was multiplied by {factor}: the factor must be finite and not 0, or no direction is left."
            )
        return replace(
            self,
            name=f"{factor:g}*{self.name}",
            direction=self.direction * (1.0 if factor > 0 else -1.0),
            raw_norm=self.raw_norm * abs(factor),
            **({} if factor > 0 else {"choice": None, "projections": None}),
        )

    __rmul__ = __mul__

    def __neg__(self) -> SteeringVector:
        """The opposite direction; the two sides of the contrast change places."""
        made = replace(self, name=f"-{self.name}", direction=-self.direction, counts=self.counts[::-1], choice=None)
        return made if self.projections is None else replace(made, projections=self.projections.flipped())

    def __add__(self, other: SteeringVector) -> SteeringVector:
        """The sum of the raw rows, for vectors of one model, stream, width and set of layers."""
        return self._combined(other, 1.0, f"({self.name} + {other.name})")

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self._combined(other, -1.0, f"({self.name} - {other.name})")

    def unit(self) -> SteeringVector:
        """The same directions with raw norm 1."""
        return replace(self, raw_norm=torch.ones_like(self.raw_norm))

    def project_out(self, other: SteeringVector) -> SteeringVector:
        """What is left of this vector orthogonal to `other`, per layer. Raises where the two are parallel."""
        self._comparable(other)
        mine, theirs = self._raw64(), other.select(self.layers).direction.double()
        theirs = theirs / theirs.norm(dim=-1, keepdim=True)  # a unit row of float32 is unit to 1e-7 only
        left = mine - (mine * theirs).sum(-1, keepdim=True) * theirs
        small = left.norm(dim=-1) <= 1e-6 * mine.norm(dim=-1)  # float32 directions know no better
        if bool(small.any()):
            layer = self.layers[int(small.nonzero()[0, 0])]
            raise SteerlabError(
                f"vector {self.name!r} is parallel to {other.name!r} at layer {layer}: nothing is left when that is projected out."
            )
        name = f"({self.name} without {other.name})"
        return self._from64(name, left, self.provenance.joined(other.provenance, name))

    def select(self, layers: Sequence[int]) -> SteeringVector:
        """The vector at these layers only, in this order; its choice goes where that names another layer."""
        rows = [self.row(layer) for layer in layers]
        kept = self.choice if self.choice and set(self.choice.layers) <= set(layers) else None
        there = None if self.projections is None else self.projections.rows(rows)
        tensors = {name: t[rows] for name, t in self._tensors().items()}
        return replace(self, layers=tuple(layers), choice=kept, projections=there, **tensors)

    def to(self, device: str | torch.device) -> SteeringVector:
        """A vector on `device`; this one stays where it is. Directions are always float32."""
        return replace(self, **{name: t.to(device) for name, t in self._tensors().items()})

    def equals(self, other: SteeringVector) -> bool:
        """Bitwise equal tensors and equal facts."""
        pairs = zip(self._tensors().values(), other._tensors().values(), strict=True)
        return self._record() == other._record() and all(
            a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in pairs
        )

    def check(self, model: str, revision: str, d_model: int, n_layers: int, *, allow: Collection[str] = ()) -> None:
        """Refuse a model this vector was not fitted on. `allow` may name "model" and "revision" to override those two.

        Raises `SteerlabError` with the first reason found. Width and layer count can not be overridden.
        """
        if self.d_model != d_model:
            raise SteerlabError(
                f"vector {self.name!r} has width {self.d_model}, but {model} has width {d_model}: fit a vector on this model."
            )
        if max(self.layers) >= n_layers:
            raise SteerlabError(
                f"vector {self.name!r} has a direction at layer {max(self.layers)}, but {model} has layers 0 to {n_layers - 1}: "
                "fit a vector on this model."
            )
        self.provenance.check(f"vector {self.name!r}", model, revision, allow)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with the facts as JSON in its header; whole or not at all."""
        tensorfile.write(path, _KIND, _SCHEMA, self._tensors(), self._record())

    @staticmethod
    def load(path: str | Path) -> SteeringVector:
        """Read a file `save` wrote. Raises `SteerlabError` when it is missing, damaged, changed or something else."""
        tensors, record = tensorfile.read(path, _KIND, _SCHEMA)
        try:
            facts = {**record, "counts": tuple(record["counts"]), "layers": tuple(record["layers"])}  # pyright: ignore
            facts["provenance"] = Provenance.from_json(record["provenance"])  # pyright: ignore[reportArgumentType]
            odd = [name for name, tensor in tensors.items() if tensor.dtype != torch.float32]
            numbers, kinds = [type(n) in (int, float) for n in facts["counts"]], {type(n) for n in facts["layers"]}
            if odd or numbers != [True, True] or kinds | {type(facts["name"])} != {int, str}:
                raise TypeError(f"{odd[0]} is not float32" if odd else "its name, counts or layers are of another kind")
            for name, kind in (("choice", Choice), ("projections", Projections)):
                if name in record:  # files without one are older, or nothing was chosen or measured
                    facts[name] = kind.from_json(record[name])
            return SteeringVector(**tensors, **facts)  # pyright: ignore[reportArgumentType]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SteerlabError(f"{path} does not hold a valid vector ({error}): fit and save it again.") from error

    def _tensors(self) -> dict[str, Tensor]:
        return {"direction": self.direction, "raw_norm": self.raw_norm, "residual_norm": self.residual_norm}

    def _record(self) -> dict[str, object]:
        record: dict[str, object] = {"name": self.name, "counts": list(self.counts), "stream": self.stream}
        record |= {"layers": list(self.layers), "provenance": self.provenance.to_json()}
        extras = {"choice": self.choice, "projections": self.projections}
        return record | {name: own.to_json() for name, own in extras.items() if own is not None}

    def _raw64(self) -> Tensor:
        return self.direction.double() * self.raw_norm.double()[:, None]

    def _from64(self, name: str, raw: Tensor, provenance: Provenance) -> SteeringVector:
        return SteeringVector.from_raw(
            name,
            raw,
            self.layers,
            residual_norm=self.residual_norm,
            counts=self.counts,
            stream=self.stream,
            provenance=provenance,
        )

    def _combined(self, other: SteeringVector, sign: float, name: str) -> SteeringVector:
        self._comparable(other)
        if set(self.layers) != set(other.layers):
            raise SteerlabError(
                f"vectors {self.name!r} and {other.name!r} have layers {spans(self.layers)} and {spans(other.layers)}: "
                "select the shared ones first."
            )
        other = other.select(self.layers)
        total = self._from64(
            name, self._raw64() + sign * other._raw64(), self.provenance.joined(other.provenance, name)
        )
        positive, negative = other.counts if sign > 0 else other.counts[::-1]
        return replace(
            total,
            residual_norm=(self.residual_norm + other.residual_norm) / 2,
            counts=(self.counts[0] + positive, self.counts[1] + negative),
        )

    def _comparable(self, other: SteeringVector) -> None:
        if (self.stream, self.d_model) != (other.stream, other.d_model):
            raise SteerlabError(
                f"vectors {self.name!r} ({self.stream}, width {self.d_model}) and {other.name!r} ({other.stream}, width {other.d_model}) "
                "live in different spaces: combine vectors of one stream and width."
            )
