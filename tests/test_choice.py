"""The choice in a vector's header: a plain record that comes back as it was, and that files without one do not miss."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from steerlab import tensorfile
from steerlab.choice import Choice
from steerlab.errors import SteerlabError
from steerlab.estimators import random_like
from steerlab.vectors import SteeringVector
from tests.tiny import LAYERS, vector

CHOICE = Choice((2,), 0.6, rule="by hand", evidence=(("in_target", 0.9, 0.8, 1.0), ("kl", 1.5, math.nan, math.nan)))
SCHEMA = {"layers", "strength", "operator", "unit", "target", "positions", "rule", "evidence"}


def _record(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})["steerlab"])


def test_a_choice_travels_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    chosen = replace(vector(0), choice=CHOICE)
    chosen.save(path)
    loaded = SteeringVector.load(path)
    assert loaded.equals(chosen) and not loaded.equals(vector(0))
    assert loaded.choice is not None and loaded.choice.to_json() == CHOICE.to_json()
    assert math.isnan(loaded.choice.evidence[1][2])
    header = _record(path)
    assert set(header["record"]["choice"]) == SCHEMA
    assert header["record"]["choice"]["evidence"][1] == ["kl", 1.5, None, None]


def test_a_file_from_before_there_were_choices_loads(tmp_path: Path) -> None:
    """Written as the layout was then: the same kind and schema, and no "choice" in the record."""
    old, path = vector(0), tmp_path / "old.safetensors"
    facts = {"name": old.name, "counts": list(old.counts), "stream": old.stream, "layers": list(old.layers)}
    tensors = {"direction": old.direction, "raw_norm": old.raw_norm, "residual_norm": old.residual_norm}
    tensorfile.write(path, "vector", 1, tensors, {**facts, "provenance": old.provenance.to_json()})
    loaded = SteeringVector.load(path)
    assert loaded.choice is None and loaded.equals(old)
    old.save(tmp_path / "new.safetensors")
    assert (tmp_path / "new.safetensors").read_bytes() == path.read_bytes()  # and without a choice nothing is added


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extra": 1}, "unknown or missing fields"),
        ({"strength": "strong"}, "wrong type"),
        ({"strength": True}, "wrong type"),
        ({"layers": ["2"]}, "wrong type"),
        ({"layers": []}, "at least one layer"),
        ({"operator": 3}, "wrong type"),
        ({"evidence": [["kl", 1.0]]}, "wrong type"),
        ({"positions": "somewhere"}, "are not known"),
    ],
)
def test_an_edited_record_is_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    record = {**CHOICE.to_json(), **change}
    with pytest.raises(SteerlabError, match=reason):
        Choice.from_json(record)
    whole = {**vector(0)._record(), "choice": record}
    tensorfile.write(tmp_path / "v.safetensors", "vector", 1, vector(0)._tensors(), whole)
    with pytest.raises(SteerlabError, match="does not hold a valid vector"):
        SteeringVector.load(tmp_path / "v.safetensors")


def test_a_record_that_is_no_mapping_or_lacks_a_field_is_refused() -> None:
    for record in (None, [1], {k: v for k, v in CHOICE.to_json().items() if k != "rule"}):
        with pytest.raises(SteerlabError, match="unknown or missing fields"):
            Choice.from_json(record)


def test_a_choice_names_layers_the_vector_has_and_finite_numbers() -> None:
    with pytest.raises(SteerlabError, match="choose among the layers it has"):
        replace(vector(0), choice=Choice((LAYERS,), 0.5))
    for strength in (math.inf, math.nan):
        with pytest.raises(SteerlabError, match="finite numbers"):
            Choice((0,), strength)


def test_a_vector_in_another_direction_has_no_choice() -> None:
    chosen = replace(vector(0), choice=CHOICE)
    other = replace(vector(1), choice=CHOICE)
    assert (2.0 * chosen).choice == CHOICE and chosen.unit().choice == CHOICE and chosen.to("cpu").choice == CHOICE
    for made in (-chosen, -0.5 * chosen, chosen + other, chosen.project_out(other), random_like(chosen, 0)):
        assert made.choice is None
    assert chosen.select([2, 3]).choice == CHOICE and chosen.select([0, 1]).choice is None
