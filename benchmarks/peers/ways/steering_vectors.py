"""steering-vectors: `record_activations`, and a `SteeringVector` applied around `generate`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from steering_vectors import SteeringVector, record_activations
from torch import Tensor

from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways


def ways(subject: Subject) -> Ways:
    """One vector for the whole batch; a second one is a second run."""
    model = subject.twin()

    def capture(texts: Sequence[str], batch: int) -> Tensor:
        with record_activations(model) as recorded:
            subject.forward(texts, batch, model)
        return torch.stack([torch.cat([h.flatten(0, 1) for h in kept]).mean(0) for _, kept in sorted(recorded.items())])

    def write(prompts: Sequence[str], layer: int, vector: Tensor, new: int) -> Rows:
        with SteeringVector({layer: vector}).apply(model):
            return subject.write(prompts, new, model.generate)

    return Ways(capture, write)
