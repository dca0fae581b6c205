"""Instruction vectors fitted together and searched in mixed batches, beside one prompt after the other. About 4 minutes on two cores."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.subjects import random_llama, random_texts
from benchmarks.timing import Report
from steerlab.data.ifeval import InstructedPrompt
from steerlab.generation import Settings, generate
from steerlab.instructions import QA, Application, Pairs, cells_of, fit_instructions, plan_trials
from steerlab.model import TracedModel
from steerlab.types import Site


@dataclass(frozen=True)
class Config:
    """`instructions` behind `queries` base queries each; `strengths` at the paper's candidate layers for two of the instructions."""

    layers: int = 12
    d_model: int = 128
    vocab: int = 4096
    instructions: int = 25
    queries: int = 8
    words: int = 8
    strengths: int = 3
    tried: int = 2
    new_tokens: int = 24
    repetitions: int = 3
    threads: int = 2


QUICK = {
    "layers": 3,
    "d_model": 64,
    "vocab": 64,
    "instructions": 3,
    "queries": 2,
    "strengths": 2,
    "tried": 1,
    "new_tokens": 4,
    "repetitions": 2,
}


def measure(config: Config) -> Report:
    """Fitting all vectors at all layers: one prompt at a time over one pass. Selection: one row at a time over mixed batches."""
    model = random_llama(config.layers, config.d_model, config.vocab)
    bases = random_texts(config.queries, config.words, config.words + 6, config.vocab)
    told = random_texts(config.instructions, 4, 6, config.vocab, seed=3)
    pairs = [
        Pairs(f"instruction {i}", tuple(f"{base} {text}" for base in bases), tuple(bases), tuple(bases))
        for i, text in enumerate(told)
    ]
    vectors = fit_instructions(model, pairs, form=QA, splits=0)
    apart = _one_by_one(model, pairs)
    cosines = [torch.cosine_similarity(vectors[name].direction.double(), d, dim=-1).min() for name, d in apart.items()]

    rows = [
        InstructedPrompt(
            f"{own.name} {n}", own.instructed[n], own.bare[n], own.groups[n], ("",), ({},), (own.name,), "valid"
        )
        for own in pairs[:2]
        for n in range(config.tried)
    ]
    cells = cells_of(model.n_layers, [1.0 + i for i in range(config.strengths)])
    requests = [a.request for a in plan_trials(vectors, rows, cells, Application(), form=QA)]
    settings = Settings(max_new_tokens=config.new_tokens, greedy=True, stop=())
    singles = [s.tokens for s in generate(model, requests, settings, batch_rows=1)]
    mixed = [s.tokens for s in generate(model, requests, settings, batch_rows=64)]

    one, together = "prompt by prompt", f"{config.instructions} vectors in one pass"
    alone, batches = f"{len(requests)} trials one by one", "mixed batches of 64"
    fitting = timing.interleaved(
        {one: lambda: _one_by_one(model, pairs), together: lambda: fit_instructions(model, pairs, form=QA, splits=0)},
        config.repetitions, warm=False,
    )  # fmt: skip
    search = timing.interleaved(
        {
            alone: lambda: generate(model, requests, settings, batch_rows=1),
            batches: lambda: generate(model, requests, settings, batch_rows=64),
        },
        config.repetitions, warm=False,
    )  # fmt: skip
    report = Report(
        f"How much faster are fitting and selection together ({config.layers} layers, width {config.d_model})?"
    )
    report.rows = [
        timing.compare(fitting, one, together, 10.0, "at least"),
        timing.compare(search, alone, batches, 5.0, "at least"),
    ]
    report.facts = {
        "prompts read one by one": 2 * config.instructions * config.queries,
        "different prompts": (config.instructions + 1) * config.queries,
        "lowest cosine of a vector fitted both ways": round(float(min(cosines)), 6),
        "rows whose tokens differ between the two": sum(a != b for a, b in zip(singles, mixed, strict=True)),
        "different answers among the rows": len(set(mixed)),
        "cells (layer x strength) and unsteered": len(cells),
    }
    return report


def _one_by_one(model: TracedModel, pairs: Sequence[Pairs]) -> dict[str, Tensor]:
    """The mean differences "l d" of every instruction, each prompt in a forward pass of its own, as the authors' code does."""
    sites = [Site(layer) for layer in range(model.n_layers)]

    def end(text: str) -> Tensor:
        read = model.forward(model.encode([QA.put(text)]), read=sites)
        return torch.stack([read[site][0, -1].double() for site in sites])

    return {
        own.name: torch.stack([end(a) - end(b) for a, b in zip(own.instructed, own.bare, strict=True)]).mean(0)
        for own in pairs
    }


if __name__ == "__main__":
    timing.main("instructions", Config(), QUICK, measure, sys.argv[1:])
