"""Vectors, activations and a plan with rows of every kind, for the tests of steering."""

from __future__ import annotations

import torch
from torch import Tensor

from steerlab.compiled import TokenContext
from steerlab.provenance import Provenance
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import GENERATED, LAST_PROMPT, PROMPT, WRITING, Positions, Site, Stream
from steerlab.vectors import SteeringVector
from tests.reference import steering as reference

D = 48
SITE = Site(1)
LENGTHS = [6, 1, 4, 3, 6, 5, 2, 6, 4, 3, 6, 6]


def vector(seed: int, layers: tuple[int, ...] = (0, 1, 3), stream: Stream = "resid_post") -> SteeringVector:
    """A vector with residual norms 1, 2, 3 at its layers."""
    raw = torch.randn(len(layers), D, generator=torch.Generator().manual_seed(seed))
    norm = torch.arange(1.0, len(layers) + 1)
    return SteeringVector.from_raw(
        f"v{seed}",
        raw,
        layers,
        residual_norm=norm,
        stream=stream,
        provenance=Provenance(model="m", method="test"),
    )


def states(b: int, s: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Activations "b s d"."""
    return 3 * torch.randn(b, s, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def context_of(lengths: list[int], steps: int = 2, width: int = 8) -> TokenContext:
    """Left-padded prompts of these lengths and `steps` generated tokens."""
    return TokenContext(*reference.context(lengths, steps, width))


A, B = vector(1), vector(2)


def everything() -> Plan:
    """Rows of every kind: nothing, one, several, all operators, positions, gates, units."""
    return Plan(
        (
            (),
            (Intervention(A, 1, strength=4.0),),
            (Intervention(A, 1, strength=4.0), Intervention(B, (0, 1), strength=-2.0)),
            (
                Intervention(A, 1, "ablate", positions=PROMPT),
                Intervention(B, 1, strength=2.0, positions=GENERATED),
            ),
            (Intervention(A, 1, "match", 0.8, "residual", target=1.5, positions=WRITING),),
            (Intervention(A, 1, "scale", 1.5, positions=Positions(skip_ids=(0, 3))),),
            (
                Intervention(A, 1, "rotate", 0.3, positions=Positions(-3, 1)),
                Intervention(A, 1, "ablate", 0.5),
            ),
            (
                Intervention(A, 1, strength=3.0, gate=Gate(0.05)),
                Intervention(B, 1, "ablate", gate=Gate(0.0, above=False)),
            ),
            (Intervention(A, 1, strength=0.0), Intervention(A, 1, "rotate", 0.0)),
            (Intervention(A, 1, strength=0.5, unit="residual", positions=LAST_PROMPT),),
            (Intervention(A, 3, strength=9.0), Intervention(vector(5, stream="mlp_out"), 1, strength=9.0)),
            (Intervention(A, 1, strength=1.0, positions=Positions(only_ids=(3, 5))),),
        )
    )
