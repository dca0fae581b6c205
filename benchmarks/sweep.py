"""A sweep over layers and strengths as one mixed batch, beside one run per setting. About 2 minutes on two cores."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from benchmarks import timing
from benchmarks.subjects import random_llama, random_texts, random_vector
from benchmarks.timing import Report
from steerlab.capture import capture_moments
from steerlab.generation import Request, Settings, generate
from steerlab.steering import Intervention


@dataclass(frozen=True)
class Config:
    """`layers` x `strengths` settings (fractions of the residual norm, evenly spaced up to `strongest`) of one prompt."""

    layers: int = 6
    d_model: int = 256
    vocab: int = 8192
    strengths: int = 8
    strongest: float = 0.8
    prompt: int = 24
    new_tokens: int = 48
    repetitions: int = 5
    threads: int = 2


QUICK = {
    "layers": 2,
    "d_model": 64,
    "vocab": 64,
    "strengths": 2,
    "prompt": 5,
    "new_tokens": 5,
    "repetitions": 2,
}


def measure(config: Config) -> Report:
    """Every (layer, strength) alone over all of them as the rows of one batch; the tokens are compared, not assumed."""
    model = random_llama(config.layers, config.d_model, config.vocab)
    (prompt,) = random_texts(1, config.prompt, config.prompt, config.vocab)
    norms = capture_moments(model, random_texts(16, 16, 16, config.vocab, seed=2)).norm
    vector = random_vector(model, norms.tolist())
    steps = [config.strongest * (i + 1) / config.strengths for i in range(config.strengths)]
    asked = [
        Request(prompt, (layer, i), (Intervention(vector, layer, strength=s, unit="residual"),), chat=False)
        for layer in range(config.layers)
        for i, s in enumerate(steps)
    ]
    settings = Settings(max_new_tokens=config.new_tokens, greedy=True, stop=())
    alone = f"{len(asked)} runs of one row"
    together = f"one batch of {len(asked)} rows"
    singles = [s.tokens for s in generate(model, asked, settings, batch_rows=1)]
    mixed = [s.tokens for s in generate(model, asked, settings, batch_rows=len(asked))]
    seconds = timing.interleaved(
        {
            alone: lambda: generate(model, asked, settings, batch_rows=1),
            together: lambda: generate(model, asked, settings, batch_rows=len(asked)),
        },
        config.repetitions,
    )
    report = Report(f"How much faster is a sweep as one batch ({config.layers} layers, width {config.d_model})?")
    report.rows = [timing.compare(seconds, alone, together, 5.0, "at least")]
    report.facts = {
        "rows whose tokens differ between the two": sum(a != b for a, b in zip(singles, mixed, strict=True)),
        "different answers among the rows": len(set(mixed)),
        "tokens per row": config.new_tokens,
    }
    return report


if __name__ == "__main__":
    timing.main("sweep", Config(), QUICK, measure, sys.argv[1:])
