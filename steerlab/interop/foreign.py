"""`Foreign`: a vector as another program wrote it, a raw row for each block, and its way to a `SteeringVector` and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steerlab.capture import capture_moments, provenance
from steerlab.choice import Choice
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.provenance import Provenance
from steerlab.types import Site, Stream
from steerlab.vectors import SteeringVector

SCALES = ("raw", "unit", "residual")


@dataclass(frozen=True, eq=False)
class Foreign:
    """One raw row "d" for each 0-based block, in activation units. `method` is how its program says it was found."""

    name: str
    rows: Mapping[int, Tensor]
    stream: Stream = "resid_post"
    method: str = ""
    choice: Choice | None = None

    def vector(self, source: str, digest: str) -> SteeringVector:
        """The `SteeringVector`, with the file it came from as its data and no model: see `placed`.

        A row of zeros is left out, for it steers nothing. Raises `SteerlabError` where no row is left, a row is no
        finite vector, or the rows differ in width.
        """
        kept = {layer: row.detach().float() for layer, row in sorted(self.rows.items()) if bool((row != 0).any())}
        shapes = sorted({tuple(row.shape) for row in kept.values()})
        if len(shapes) != 1 or len(shapes[0]) != 1:
            what = f"rows of shapes {', '.join(map(str, shapes))}" if shapes else "no row that is not all zeros"
            raise SteerlabError(
                f"{source} holds {what} for vector {self.name!r}: one vector of one width per layer is expected."
            )
        record = Provenance(data=((source, digest),), method=self.method)
        made = SteeringVector.from_raw(
            self.name, torch.stack(list(kept.values())), tuple(kept), stream=self.stream, provenance=record
        )
        return replace(made, choice=self.choice)


def placed(vector: SteeringVector, model: TracedModel, texts: Sequence[str] = ()) -> SteeringVector:
    """The vector as one of this model, whose name, revision and versions it then records.

    With `texts`, the mean norm of the model's stream over them is measured at its layers, so that strengths can be given
    as fractions of it. Raises `SteerlabError` where width or layers do not fit the model.
    """
    vector.check(model.name, model.revision, model.d_model, model.n_layers, allow=("model", "revision"))
    own = vector.provenance
    data = {"residual norm": texts} if texts else {}
    record = provenance(model, data, method=own.method)
    record = replace(record, data=(*own.data, *record.data))
    found = replace(vector, provenance=record)
    if not texts:
        return found
    sites = [Site(layer, vector.stream) for layer in vector.layers]
    moments = capture_moments(model, list(texts), sites, max_tokens=model.context_length)
    return replace(found, residual_norm=moments.norm.float())


def scaled(vector: SteeringVector, layers: Sequence[int], scale: str) -> dict[int, Tensor]:
    """The rows another program is to add with coefficient 1, float32 on the CPU.

    scale: "raw" is the estimate as it was fitted, "unit" length 1, "residual" the mean norm of the stream, so that the
    other program's coefficient is the strength given here as a fraction of it.

    Raises `SteerlabError` for another scale, a layer without a direction, and a norm that was not measured.
    """
    if scale not in SCALES:
        raise SteerlabError(f"scale {scale!r} is not known: give one of {', '.join(SCALES)}.")
    found = {}
    for layer in layers or vector.layers:
        unit = vector.at(layer)
        row = vector.raw(layer) if scale == "raw" else unit if scale == "unit" else unit * vector.norm_at(layer)
        found[layer] = row.detach().float().cpu().clone()
    return found
