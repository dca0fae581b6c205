"""dialz: repeng's design with a model class that loads half precision by itself; here it is put back to single."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
from dialz import SteeringModel, SteeringVector
from dialz.vector import batched_get_hiddens
from torch import Tensor

from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways
from benchmarks.peers.ways.controls import hidden_means, raw_rows


def ways(subject: Subject) -> Ways:
    """All layers wrapped once, as its examples do."""
    every = list(range(subject.size.layers))
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        model = SteeringModel(folder, every)
    model.model.float()
    model.model.generation_config = subject.model.generation_config
    reader = subject.twin()

    def capture(texts: Sequence[str], batch: int) -> Tensor:
        return hidden_means(batched_get_hiddens(reader, subject.tokenizer, list(texts), every, batch))

    def write(prompts: Sequence[str], layer: int, vector: Tensor, new: int) -> Rows:
        zero = np.zeros(subject.size.d_model, dtype=np.float32)
        directions = {i: vector.numpy() if i == layer else zero for i in every}
        model.set_control(SteeringVector(model_type="llama", directions=directions), 1.0)
        return subject.write(prompts, new, model.generate)

    return Ways(capture, write, raw_rows(subject, model), last=True, documented=False)
