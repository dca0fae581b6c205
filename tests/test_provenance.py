"""Provenance reads back from JSON, and what is none is refused."""

from __future__ import annotations

import json

import pytest

from steerlab.errors import SteerlabError
from steerlab.provenance import Provenance
from tests.made import PROVENANCE


def test_provenance_survives_json_and_refuses_what_is_not_one() -> None:
    record = json.loads(json.dumps(PROVENANCE.to_json()))
    assert Provenance.from_json(record) == PROVENANCE
    for wrong in (
        {**record, "extra": 1},
        {k: v for k, v in record.items() if k != "seed"},
        {**record, "model": 3},
    ):
        with pytest.raises(SteerlabError):
            Provenance.from_json(wrong)
    for wrong in ({**record, "data": "x"}, {**record, "versions": [["torch"]]}, {**record, "seed": "1"}):
        with pytest.raises(SteerlabError):
            Provenance.from_json(wrong)
