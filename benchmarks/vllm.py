"""What steering costs inside vLLM, and what vLLM saves beside the local engine. About 3 minutes on two cores.

Runs in the environment that `make test-vllm` builds: `.venv-vllm/bin/python -m benchmarks.vllm`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks import timing
from benchmarks.generate import GREEDY, requests
from benchmarks.subjects import random_llama, random_texts, random_vector
from benchmarks.timing import Report
from steerlab.generation import Request, Sample, generate
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Intervention


@dataclass(frozen=True)
class Config:
    """One call of `rows` prompts of `prompt` tokens, `new_tokens` written to each."""

    layers: int = 12
    d_model: int = 512
    vocab: int = 8192
    rows: int = 16
    prompt: int = 32
    new_tokens: int = 64
    repetitions: int = 5
    threads: int = 1


QUICK = {"layers": 3, "d_model": 64, "vocab": 64, "rows": 3, "prompt": 6, "new_tokens": 6, "repetitions": 2}


def asked(model: TracedModel, prompts: list[str]) -> dict[str, list[Request]]:
    """What is written: nothing steered, all rows at one layer, all at every layer, every row along a vector of its own."""
    vector, middle = random_vector(model), model.n_layers // 2
    own = [Intervention(vector, middle, strength=0.1 * (i + 1)) for i in range(len(prompts))]
    return {
        "unsteered": requests(prompts, ()),
        "one layer": requests(prompts, (Intervention(vector, middle),)),
        "all layers": requests(prompts, (Intervention(vector, vector.layers),)),
        "each its own": [Request(text, (i,), (own[i],), chat=False) for i, text in enumerate(prompts)],
    }


def same(one: Sequence[Sample], other: Sequence[Sample]) -> int:
    """How many rows have the same tokens."""
    return sum(a.tokens == b.tokens for a, b in zip(one, other, strict=True))


def measure(config: Config) -> Report:
    """Steered over unsteered generation inside vLLM, greedy: same prompts, same number of tokens; and both over the local engine."""
    report = Report("What does steering cost inside vLLM?")
    settings = replace(GREEDY, max_new_tokens=config.new_tokens)
    with tempfile.TemporaryDirectory() as folder:
        made = random_llama(config.layers, config.d_model, config.vocab)
        made.hf.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        local, engine = load(folder, device="cpu"), load(folder, engine="vllm", max_model_len=1024)
        prompts = random_texts(config.rows, config.prompt, config.prompt, config.vocab)
        rows = asked(local, prompts)

        def run(model: TracedModel, what: str) -> Callable[[], list[Sample]]:
            return lambda: generate(model, rows[what], settings, batch_rows=config.rows)

        found = {f"vllm, {what}": run(engine, what) for what in rows}
        found["local, unsteered"], found["local, one layer"] = run(local, "unsteered"), run(local, "one layer")
        seconds = timing.interleaved(found, config.repetitions)
        for what in ("one layer", "all layers", "each its own"):
            report.rows.append(timing.compare(seconds, f"vllm, {what}", "vllm, unsteered", 1 / 0.9))
        for what in ("unsteered", "one layer"):
            report.rows.append(timing.compare(seconds, f"vllm, {what}", f"local, {what}"))
        for what in rows:
            report.facts[f"rows with the local engine's tokens, {what}"] = same(run(engine, what)(), run(local, what)())
    return report


if __name__ == "__main__":
    timing.main("vllm", Config(), QUICK, measure, sys.argv[1:])
