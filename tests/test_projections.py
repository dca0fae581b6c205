"""A vector's projections travel with it: through files, selections and turns, and no further."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from steerlab.choice import Choice
from steerlab.errors import SteerlabError
from steerlab.estimators import random_like
from steerlab.projections import Projections
from steerlab.vectors import SteeringVector
from tests.made import made_vector

OWN = Projections((3.0, 0.1, -2.5), (1.0, 0.2, -4.0), (0.9, math.nan, 0.5))


def made() -> SteeringVector:
    return replace(made_vector(0), projections=OWN)


def test_a_file_gives_them_back_with_their_bits(tmp_path: Path) -> None:
    vector = replace(made(), choice=Choice((2,), 1.0, "match", "raw", 3.0, cap=0.25, gate=(0.1, False)))
    vector.save(tmp_path / "v.safetensors")
    back = SteeringVector.load(tmp_path / "v.safetensors")
    assert back.projections is not None and repr(back.projections) == repr(OWN)
    assert back.choice == vector.choice
    json.dumps(OWN.to_json(), allow_nan=False)


def test_a_vector_without_them_keeps_its_old_record() -> None:
    assert "projections" not in made_vector(0)._record()
    assert set(Choice((2,), 1.0).to_json()) & {"cap", "gate"} == set()


def test_selection_keeps_the_rows_and_turning_changes_sides() -> None:
    kept = made().select([5, 0]).projections
    assert kept is not None and (kept.instructed, kept.bare, kept.reliability) == ((-2.5, 3.0), (-4.0, 1.0), (0.5, 0.9))
    turned = (-made()).projections
    assert turned is not None and (turned.instructed, turned.bare) == ((-1.0, -0.2, 4.0), (-3.0, -0.1, 2.5))
    twice = OWN.flipped().flipped()
    assert (twice.instructed, twice.bare) == (OWN.instructed, OWN.bare)
    assert (made() * 2).projections == OWN or repr((made() * 2).projections) == repr(OWN)


def test_another_direction_has_none() -> None:
    vector = made()
    assert (vector * -1).projections is None
    assert random_like(vector, 0).projections is None
    assert (vector + made_vector(1)).projections is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SteerlabError, match="has 3 layers, 2 projections"):
        replace(made_vector(0), projections=Projections((1.0, 2.0), (1.0, 2.0)))
    with pytest.raises(SteerlabError, match="one finite number per layer"):
        Projections((1.0,), (1.0, 2.0))
    with pytest.raises(SteerlabError, match="one finite number per layer"):
        Projections((math.inf,), (1.0,))
    with pytest.raises(SteerlabError, match="unknown or missing fields"):
        Projections.from_json({"bare": [1.0]})
    with pytest.raises(SteerlabError, match="wrong type"):
        Projections.from_json({"instructed": [[]], "bare": [1.0], "reliability": []})
