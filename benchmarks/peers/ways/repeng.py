"""repeng: `batched_get_hiddens`, which keeps the last token of each text, and a `ControlModel` with a control set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from repeng import ControlModel, ControlVector
from repeng.extract import batched_get_hiddens
from torch import Tensor

from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways
from benchmarks.peers.ways.controls import hidden_means, raw_rows


def ways(subject: Subject) -> Ways:
    """All layers wrapped once, as its examples do; rows of their own are a raw control that happens to broadcast."""
    every = list(range(subject.size.layers))
    reader, model = subject.twin(), ControlModel(subject.twin(), every)

    def capture(texts: Sequence[str], batch: int) -> Tensor:
        return hidden_means(batched_get_hiddens(reader, subject.tokenizer, list(texts), every, batch))

    def write(prompts: Sequence[str], layer: int, vector: Tensor, new: int) -> Rows:
        zero = np.zeros(subject.size.d_model, dtype=np.float32)
        directions = {i: vector.numpy() if i == layer else zero for i in every}
        model.set_control(ControlVector(model_type="llama", directions=directions), 1.0)
        return subject.write(prompts, new, model.generate)

    return Ways(capture, write, raw_rows(subject, model), last=True, documented=False)
