"""`steerlab export`: a vector into the weights of a checkpoint of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlab.ablation import selection
from steerlab.commands.lens import find
from steerlab.commands.tokens import Ask, intervention
from steerlab.export import export
from steerlab.loading import load
from steerlab.steering import Intervention
from steerlab.vectors import SteeringVector


def run(which: str, out: Path, model: str, ask: Ask, dtype: str, device: str | None) -> dict[str, Any]:
    """Write the checkpoint; one row that says where, and how well it was seen to agree with the steered model."""
    vector = find(which, model)
    own = chosen(vector, ask, model)
    loaded = load(model, dtype=dtype, device=device)
    vector.check(loaded.name, loaded.revision, loaded.d_model, loaded.n_layers)
    found = export(loaded, [own], out)
    return {
        "folder": str(out),
        "architecture": found.architecture,
        "layers": list(own.at),
        "strength": own.strength,
        "unit": own.unit,
        "biases": list(found.biases),
        "difference": found.difference,
        "effect": found.effect,
    }


def chosen(vector: SteeringVector, ask: Ask, model: str) -> Intervention:
    """What was asked for, else what the vector's own file recommends, else what the package does."""
    if vector.choice is not None and (ask.layers, ask.strength, ask.unit) == ((), None, None):
        return selection.recommended(vector)
    return intervention(vector, ask, model)
