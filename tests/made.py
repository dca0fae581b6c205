"""Vectors made by hand, for tests that need no model."""

from __future__ import annotations

import torch
from torch import Tensor

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


def raw(seed: int = 0, n: int = 3) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) * 4


def made_vector(
    seed: int = 0, name: str = "", stream: Stream = "resid_post", provenance: Provenance = PROVENANCE
) -> SteeringVector:
    return SteeringVector.from_raw(
        name or f"v{seed}",
        raw(seed),
        LAYERS,
        residual_norm=torch.tensor([10.0, 20.0, 40.0]) + seed,
        counts=(100.0 + seed, 50.0),
        stream=stream,
        provenance=provenance,
    )


def whole(vector: SteeringVector) -> Tensor:
    return torch.stack([vector.raw(layer) for layer in vector.layers])
