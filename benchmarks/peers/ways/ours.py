"""steerlab: `capture_moments`, and requests that carry their interventions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways
from steerlab.capture import capture_moments
from steerlab.generation import Request, Settings, generate
from steerlab.loading import wrap
from steerlab.steering import Intervention
from steerlab.vectors import SteeringVector


def ways(subject: Subject) -> Ways:
    """Everything in one batch: a request has its own layer and vector."""
    model = wrap(subject.twin(), subject.tokenizer, name="subject")

    def capture(texts: Sequence[str], batch: int) -> Tensor:
        words = max(len(text.split()) for text in texts)
        return capture_moments(model, texts, token_budget=batch * words).mean.float()

    def write_rows(prompts: Sequence[str], layers: Sequence[int], vectors: Tensor, new: int) -> Rows:
        settings = Settings(max_new_tokens=new, greedy=True, stop=())
        asked = [
            Request(prompt, (i,), (push(vector, layer),), chat=False)
            for i, (prompt, layer, vector) in enumerate(zip(prompts, layers, vectors, strict=True))
        ]
        return [sample.tokens for sample in generate(model, asked, settings, batch_rows=len(asked))]

    def write(prompts: Sequence[str], layer: int, vector: Tensor, new: int) -> Rows:
        settings = Settings(max_new_tokens=new, greedy=True, stop=())
        own = (push(vector, layer),)
        asked = [Request(prompt, (i,), own, chat=False) for i, prompt in enumerate(prompts)]
        return [sample.tokens for sample in generate(model, asked, settings, batch_rows=len(asked))]

    return Ways(capture, write, write_rows)


def push(vector: Tensor, layer: int) -> Intervention:
    """The vector as it is, added at one layer."""
    length = float(torch.linalg.vector_norm(vector))
    return Intervention(SteeringVector.from_raw("push", vector[None], (layer,)), layer, strength=length, unit="raw")
