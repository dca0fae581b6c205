"""Provenance reads back from JSON, and what is none is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.provenance import Provenance
from steerlab.types import Stream
from steerlab.vectors import SteeringVector

LAYERS = (0, 2, 5)
D = 8
PROVENANCE = Provenance(
    model="polyglot",
    revision="abc",
    tokenizer_hash="t",
    template_hash="u",
    dtype="float32",
    data=(("ntrex", "00ff"),),
    method="language_vectors",
    positions="all",
    weighting="token",
    seed=3,
    versions=(("torch", "2.13"),),
)


def _raw(seed: int = 0, n: int = 3) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) * 4


def _vector(
    seed: int = 0, name: str = "", stream: Stream = "resid_post", provenance: Provenance = PROVENANCE
) -> SteeringVector:
    return SteeringVector.from_raw(
        name or f"v{seed}",
        _raw(seed),
        LAYERS,
        residual_norm=torch.tensor([10.0, 20.0, 40.0]) + seed,
        counts=(100.0 + seed, 50.0),
        stream=stream,
        provenance=provenance,
    )


def _whole(vector: SteeringVector) -> Tensor:
    return torch.stack([vector.raw(layer) for layer in vector.layers])


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
