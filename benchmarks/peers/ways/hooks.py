"""PyTorch hooks written by hand for each workload: the floor under every package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways


def ways(subject: Subject) -> Ways:
    """Hooks on the decoder blocks of a twin."""
    model: Any = subject.twin()
    blocks = list(model.model.layers)

    def capture(texts: Sequence[str], batch: int) -> Tensor:
        sums, tokens = torch.zeros(len(blocks), subject.size.d_model, dtype=torch.float64), 0

        def keep(layer: int) -> Any:
            def hook(_module: Any, _given: Any, out: Any) -> None:
                sums[layer] += bare(out).sum((0, 1), dtype=torch.float64)

            return hook

        with ExitStack() as stack:
            for layer, block in enumerate(blocks):
                stack.callback(block.register_forward_hook(keep(layer)).remove)
            for start in range(0, len(texts), batch):
                part = texts[start : start + batch]
                subject.forward(part, batch, model)
                tokens += int(subject.encode(part)["attention_mask"].sum())
        return (sums / tokens).float()

    def write_rows(prompts: Sequence[str], layers: Sequence[int], vectors: Tensor, new: int) -> Rows:
        with ExitStack() as stack:
            for layer in set(layers):
                own = torch.tensor([one == layer for one in layers])[:, None]
                delta = torch.where(own, vectors, torch.zeros(()))[:, None]
                stack.callback(blocks[layer].register_forward_hook(adder(delta)).remove)
            return subject.write(prompts, new, model.generate)

    def write(prompts: Sequence[str], layer: int, vector: Tensor, new: int) -> Rows:
        with ExitStack() as stack:
            stack.callback(blocks[layer].register_forward_hook(adder(vector)).remove)
            return subject.write(prompts, new, model.generate)

    return Ways(capture, write, write_rows)


def adder(delta: Tensor) -> Any:
    """A hook that adds `delta` to a block's output."""

    def hook(_module: Any, _given: Any, out: Any) -> Any:
        return out + delta if isinstance(out, Tensor) else (out[0] + delta, *out[1:])

    return hook


def bare(out: Any) -> Tensor:
    """The hidden states in a block's output: transformers 4 gives a tuple."""
    return out if isinstance(out, Tensor) else out[0]
