"""How cost grows with texts, layers, rows, strengths and languages, each beside the plain thing. About 10 minutes on two cores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import timing
from benchmarks.capture import batches, plain_forward
from benchmarks.generate import GREEDY, plain, requests
from benchmarks.subjects import plain_twin, random_llama, random_texts, random_vector
from benchmarks.timing import Report
from steerlab.capture import capture_moments
from steerlab.generation import Request, generate
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.types import Site
from steerlab.vectors import SteeringVector

Run = Callable[[], object]


@dataclass(frozen=True)
class Config:
    """The sizes along every axis; what does not grow stays at `rows` rows, one layer and one vector."""

    layers: int = 12
    d_model: int = 512
    vocab: int = 8192
    words: int = 32
    new_tokens: int = 32
    rows: int = 16
    texts: tuple[int, ...] = (32, 96, 192, 384)
    captured: tuple[int, ...] = (1, 3, 6, 12)
    steered: tuple[int, ...] = (1, 3, 6, 12)
    batch: tuple[int, ...] = (1, 4, 16, 64)
    strengths: tuple[int, ...] = (1, 4, 16, 64)
    languages: tuple[int, ...] = (1, 4, 8, 16)
    repetitions: int = 5
    threads: int = 2


QUICK = {
    "layers": 3, "d_model": 64, "vocab": 64, "words": 4, "new_tokens": 3, "rows": 2, "texts": (2, 4), "captured": (1, 3), "steered": (1, 3),
    "batch": (1, 2), "strengths": (1, 2), "languages": (1, 2), "repetitions": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """One model, the same weights in transformers alone, and a vector that has every layer."""

    model: TracedModel
    twin: Any
    vector: SteeringVector
    config: Config

    def captures(self, n: int, sites: Sequence[Site]) -> tuple[Run, Run]:
        """Moments of `n` texts at `sites`, the last of which is the last layer; and a forward pass over the same batches."""
        texts = random_texts(n, self.config.words, self.config.words, self.config.vocab)
        ready = batches(self.model, texts, 4096)
        return lambda: capture_moments(self.model, texts, sites, token_budget=4096), lambda: plain_forward(
            self.twin, ready
        )

    def writes(self, asked: list[Request]) -> tuple[Run, Run]:
        """All requests as one batch; and `generate` on their prompts."""
        prompts = [str(request.prompt) for request in asked]
        settings = replace(GREEDY, max_new_tokens=self.config.new_tokens)
        return (
            lambda: generate(self.model, asked, settings, batch_rows=len(asked)),
            lambda: plain(self.model, self.twin, prompts, settings),
        )

    def prompts(self, n: int, different: bool = True) -> list[str]:
        """`n` prompts of equal length, or one `n` times."""
        found = random_texts(n if different else 1, self.config.words, self.config.words, self.config.vocab, seed=n)
        return found if different else found * n


def points(subject: Subject) -> Iterator[tuple[str, int, tuple[Run, Run]]]:
    """Every axis, size and pair of things to run: ours, and the plain thing of the same size."""
    config, middle, last = subject.config, subject.model.n_layers // 2, subject.model.n_layers - 1
    one = (Intervention(subject.vector, middle),)
    for n in config.texts:
        yield "texts captured", n, subject.captures(n, [Site(layer) for layer in range(last + 1)])
    for n in config.captured:
        sites = [Site(layer) for layer in range(last + 1 - n, last + 1)]
        yield "layers captured", n, subject.captures(sorted(config.texts)[1], sites)
    for n in config.steered:
        spread = Intervention(subject.vector, tuple(i * (last + 1) // n for i in range(n)))
        yield "layers steered", n, subject.writes(requests(subject.prompts(config.rows), (spread,)))
    for n in config.batch:
        yield "rows of a batch", n, subject.writes(requests(subject.prompts(n), one))
    for n in config.strengths:
        prompts = subject.prompts(n, different=False)
        cells = [Intervention(subject.vector, middle, strength=(i + 1) / n) for i in range(n)]
        asked = [Request(p, (i,), (cells[i],), chat=False) for i, p in enumerate(prompts)]
        yield "strengths of a sweep", n, subject.writes(asked)
    for n in config.languages:
        own = [Intervention(random_vector(subject.model, seed=i), middle) for i in range(n)]
        asked = [Request(p, (i,), (own[i % n],), chat=False) for i, p in enumerate(subject.prompts(config.rows))]
        yield "vectors of a batch", n, subject.writes(asked)


def measure(config: Config) -> Report:
    """Reading and writing at growing sizes, over transformers alone at the same size (a sweep: over as many rows of its prompt)."""
    model = random_llama(config.layers, config.d_model, config.vocab)
    subject = Subject(model, plain_twin(model), random_vector(model), config)
    report = Report(f"How does cost grow ({config.layers} layers, width {config.d_model})?")
    for axis, n, (ours, alone) in points(subject):
        case, base = f"{axis}: {n}", "plain transformers"
        seconds = timing.interleaved({case: ours, base: alone}, config.repetitions)
        report.rows.append(timing.compare(seconds, case, base, promise(axis, n, config)))
        print(f"{case}: {report.rows[-1].ratio:.3f}", flush=True)
    return report


def promise(axis: str, n: int, config: Config) -> float | None:
    """What the project promises: reading and steering at 1.05 of the plain thing, at the sizes where that is measured elsewhere."""
    full = {
        "texts captured": max(config.texts),
        "layers captured": max(config.captured),
        "layers steered": max(config.steered),
    }
    return 1.05 if n == full.get(axis) else None


if __name__ == "__main__":
    timing.main("growth", Config(), QUICK, measure, sys.argv[1:])
