"""What reading the residual stream costs beside a plain forward pass over the very same batches. About 4 minutes on two cores."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from benchmarks import timing
from benchmarks.subjects import plain_twin, random_llama, random_texts
from benchmarks.timing import Report
from steerlab.batch import Batch, left_pad, plan_batches
from steerlab.capture import capture_moments
from steerlab.model import TracedModel
from steerlab.moments import MomentsAccumulator
from steerlab.types import Site


@dataclass(frozen=True)
class Config:
    """Size of the model and of the data; lengths of texts are uniform between `shortest` and `longest` tokens."""

    layers: int = 12
    d_model: int = 512
    vocab: int = 8192
    texts: int = 192
    shortest: int = 16
    longest: int = 64
    token_budget: int = 4096
    stop_layer: int = 6
    repetitions: int = 7
    threads: int = 2


QUICK = {"layers": 3, "d_model": 64, "vocab": 64, "texts": 12, "stop_layer": 1, "repetitions": 2}


def batches(model: TracedModel, texts: list[str], token_budget: int) -> list[Batch]:
    """The batches that `capture_moments` makes of these texts."""
    rows = model.token_rows(texts)
    plan = plan_batches([len(row) for row in rows], token_budget)
    return [left_pad([rows[i] for i in members], model.pad_id) for members in plan]


@torch.no_grad()
def plain_forward(hf: Any, ready: list[Batch]) -> None:
    """transformers alone; `hf` with its LM head gives the logits of every position, its `base_model` none."""
    for batch in ready:
        hf(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )


def share_of_moments(model: TracedModel, texts: list[str], config: Config) -> float:
    """The part of an all-layer capture that is spent in the statistics."""
    inside = 0.0
    update = MomentsAccumulator.update

    def timed(self: MomentsAccumulator, *args: object) -> None:
        nonlocal inside
        began = time.perf_counter()
        update(self, *args)  # type: ignore[arg-type]
        inside += time.perf_counter() - began

    with mock.patch.object(MomentsAccumulator, "update", timed):
        began = time.perf_counter()
        capture_moments(model, texts, token_budget=config.token_budget)
        return inside / (time.perf_counter() - began)


def measure(config: Config) -> Report:
    """Capture at all layers, and at one layer with early stop, over a plain forward pass."""
    model = random_llama(config.layers, config.d_model, config.vocab)
    texts = random_texts(config.texts, config.shortest, config.longest, config.vocab)
    ready = batches(model, texts, config.token_budget)
    one, twin = [Site(config.stop_layer)], plain_twin(model)
    everywhere, early = "moments at all layers", f"moments at layer {config.stop_layer}"
    plain, headless = "plain forward", "plain forward without LM head"
    seconds = timing.interleaved(
        {
            plain: lambda: plain_forward(twin, ready),
            headless: lambda: plain_forward(twin.base_model, ready),
            everywhere: lambda: capture_moments(model, texts, token_budget=config.token_budget),
            early: lambda: capture_moments(model, texts, one, token_budget=config.token_budget),
        },
        config.repetitions,
    )
    report = Report(f"What does capture cost ({config.layers} layers, width {config.d_model})?")
    report.rows = [
        timing.compare(seconds, everywhere, plain, 1.05),
        timing.compare(seconds, everywhere, headless),
        timing.compare(seconds, early, plain, 1.0),
    ]
    report.facts = {
        "share of all-layer capture spent in the statistics": round(share_of_moments(model, texts, config), 4),
        "tokens": sum(int(batch.real.sum()) for batch in ready),
        "batches": len(ready),
    }
    return report


if __name__ == "__main__":
    timing.main("capture", Config(), QUICK, measure, sys.argv[1:])
