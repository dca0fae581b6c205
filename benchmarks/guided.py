"""What guided decoding with three cached streams costs beside plain decoding, and beside the way its authors do it.

The authors of STEER write one sample at a time, with prompt and answer read anew at every token. About 10 minutes on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.generate import plain
from benchmarks.subjects import plain_twin, random_llama, random_texts
from benchmarks.timing import Report
from steerlab.generation import Request, Sample, Settings, generate
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.model import TracedModel
from tests.reference.authors import authors


@dataclass(frozen=True)
class Config:
    """One batch of `rows` prompts of `prompt` tokens, `new_tokens` written to each, moving away from `negative` tokens of its own.

    75 is what the authors write of comments and questions. Their way writes `slow_rows` rows; its time is put as if it had written all.
    """

    layers: int = 12
    d_model: int = 512
    vocab: int = 8192
    rows: int = 16
    prompt: int = 32
    negative: int = 128
    new_tokens: int = 75
    slow_rows: int = 2
    repetitions: int = 5
    threads: int = 2


QUICK = {
    "layers": 3, "d_model": 64, "vocab": 64, "rows": 4, "prompt": 6, "negative": 12, "new_tokens": 6, "slow_rows": 2,
    "repetitions": 2,
}  # fmt: skip
GUIDE = Guide(0.2, 0.6)


def ids_of(model: TracedModel, texts: Sequence[str]) -> list[Tensor]:
    """Token rows of the texts."""
    return [torch.tensor(row) for row in model.token_rows(texts)]


def measure(config: Config) -> Report:
    """Guided decoding over plain, and the authors' procedure over it: same prompts, greedy, equally many tokens, two models."""
    report = Report("What does guided decoding cost?")
    expert = random_llama(config.layers, config.d_model, config.vocab)
    base = random_llama(config.layers, config.d_model, config.vocab)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(1)
        for weight in base.hf.parameters():  # another model, so that the contrast is one
            weight.add_(0.1 * weight.std() * torch.randn_like(weight)) if weight.ndim == 2 else None
    twins = plain_twin(expert), plain_twin(base)
    prompts = random_texts(config.rows, config.prompt, config.prompt, config.vocab)
    away = random_texts(config.rows, config.negative, config.negative, config.vocab, seed=2)
    settings = Settings(greedy=True, stop=(), max_new_tokens=config.new_tokens)
    some = slice(0, min(config.slow_rows, config.rows))
    slow_ids = ids_of(expert, prompts[some]), ids_of(expert, away[some])

    def ours(guided: Sequence[Guided | None]) -> Callable[[], list[Sample]]:
        asked = [Request(text, (i,), chat=False, guided=guided[i]) for i, text in enumerate(prompts)]
        return lambda: generate(expert, asked, settings, batch_rows=config.rows, base=base)

    three, two = ([Guided(guide, text) for text in away] for guide in (GUIDE, Guide(0.2, 0.0)))

    def apart(run: Callable[[], list[Sample]]) -> list[Sample]:
        with patch("steerlab.decoding.together", list):  # every stream in forwards of its own
            return run()

    cases: dict[str, Callable[[], object]] = {
        "generate": lambda: plain(expert, twins[0], prompts, settings),
        "unguided": ours([None] * config.rows),
        "expert and base": ours(two),
        "three streams": ours(three),
        "three streams, kept apart": partial(apart, ours(three)),
        "the authors' way": lambda: authors(*twins, *slow_ids, GUIDE, config.new_tokens),
    }
    mine: Any = cases["three streams"]()
    if any(len(sample.tokens) != config.new_tokens for sample in mine):
        raise RuntimeError("a row ended early, so the sides would not write equally much")
    slow: Any = cases["the authors' way"]()
    report.facts["guided rows whose tokens differ from the authors' way"] = sum(
        sample.tokens != row for sample, row in zip(mine[some], slow, strict=True)
    )
    seconds = timing.interleaved(cases, config.repetitions)
    seconds["the authors' way"] = [s * config.rows / len(slow) for s in seconds["the authors' way"]]
    report.rows = [
        timing.compare(seconds, "unguided", "generate"),
        timing.compare(seconds, "expert and base", "generate"),
        timing.compare(seconds, "three streams", "generate", 3.3),
        timing.compare(seconds, "three streams", "unguided"),
        timing.compare(seconds, "three streams, kept apart", "three streams"),
        timing.compare(seconds, "the authors' way", "three streams", 8.0, "at least"),
    ]
    report.facts["rows written the authors' way, whose time is put for all"] = len(slow)
    report.facts["tokens of negatives a row"] = config.negative
    return report


if __name__ == "__main__":
    timing.main("guided", Config(), QUICK, measure, sys.argv[1:])
