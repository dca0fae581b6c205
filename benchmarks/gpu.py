"""Capture and steered decoding on the shapes of 8B to 27B models, beside transformers and beside what the hardware allows.

About 10 minutes on one GPU of 80 GB; without a GPU it runs with --quick only. The floors are measured here, not read from data
sheets: the rate of one large product of matrices, and of one large copy.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks import timing
from benchmarks.capture import batches, plain_forward
from benchmarks.generate import plain, requests
from benchmarks.peak import peak_mib
from benchmarks.shapes import SHAPES, block_parameters, build, cache_bytes
from benchmarks.subjects import random_texts, random_vector
from benchmarks.timing import Report, Row
from steerlab.capture import capture_moments
from steerlab.generation import Request, Settings, generate
from steerlab.model import TracedModel
from steerlab.steering import Intervention


@dataclass(frozen=True)
class Config:
    """Texts of `words` tokens are captured; `new_tokens` are written behind `words` tokens at each batch size.

    `alone`: cells of the sweep that are also run one by one; their time is put as if all had been. `tiny` 1: small shapes.
    """

    shapes: tuple[str, ...] = tuple(SHAPES)
    texts: int = 512
    words: int = 64
    token_budget: int = 16384
    batches: tuple[int, ...] = (1, 16, 64, 256)
    new_tokens: int = 64
    cells: int = 256
    alone: int = 4
    side: int = 8192
    repetitions: int = 3
    tiny: int = 0
    threads: int = 2


QUICK = {
    "texts": 6, "words": 5, "token_budget": 16, "batches": (1, 2), "new_tokens": 3, "cells": 4, "alone": 1, "side": 64,
    "repetitions": 2, "tiny": 1,
}  # fmt: skip
GREEDY = Settings(greedy=True, stop=())


@dataclass(frozen=True)
class Rates:
    """What the device does at best, as measured: multiply-adds counted twice and bytes moved, each a second."""

    flops: float
    bytes: float


def device_of() -> str:
    """The GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def settle(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def rates(device: str, side: int) -> Rates:
    """The best of five products of two bfloat16 matrices, and of five copies of one."""
    a = torch.ones(side, side, device=device, dtype=torch.bfloat16)
    b, c = torch.ones_like(a), torch.empty_like(a)

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(6):
            settle(device)
            began = time.perf_counter()
            work()
            settle(device)
            seconds.append(time.perf_counter() - began)
        return min(seconds[1:])

    product, copied = best(lambda: torch.matmul(a, b, out=c)), best(lambda: c.copy_(a))
    return Rates(2 * side**3 / product, 2 * a.numel() * a.element_size() / copied)


def peak_gib(device: str, work: Callable[[], object]) -> float:
    """Most memory held during the work: on the GPU what torch allocated; on a CPU what the process ever held."""
    if device != "cuda":
        work()
        return peak_mib() / 1024
    torch.cuda.reset_peak_memory_stats()
    work()
    settle(device)
    return torch.cuda.max_memory_allocated() / 2**30


def capture_part(model: TracedModel, hf: Any, best: Rates, config: Config, device: str) -> Report:
    """Moments of all layers over a plain forward pass, and over the least time its products or its weights can take."""
    texts = random_texts(config.texts, config.words, config.words, model.vocab_size)
    ready = [batch.to(device) for batch in batches(model, texts, config.token_budget)]
    tokens = sum(int(batch.real.sum()) for batch in ready)

    def captured() -> None:
        capture_moments(model, texts, token_budget=config.token_budget)
        settle(device)

    def forward(body: Any) -> Callable[[], None]:
        def run() -> None:
            plain_forward(body, ready)
            settle(device)

        return run

    names = f"{model.name}: moments of all layers", f"{model.name}: plain forward", f"{model.name}: without LM head"
    cases = {names[0]: captured, names[1]: forward(hf), names[2]: forward(hf.base_model)}
    seconds = timing.interleaved(cases, config.repetitions)
    weights = block_parameters(hf)
    floor = max(2 * weights * tokens / best.flops, len(ready) * 2 * weights / best.bytes)
    report = Report(model.name)
    report.rows = [
        timing.compare(seconds, names[0], names[1], 1 / 0.9),
        timing.compare(seconds, names[0], names[2]),
        over_floor(timing.compare(seconds, names[0], names[2]), floor, "compute or memory floor"),
    ]
    middle = report.rows[0]
    report.facts = {
        f"{model.name}: tokens/s captured / forward": [round(tokens / s) for s in (middle.value, middle.base_value)],
        f"{model.name}: GiB at the peak of capture": round(peak_gib(device, captured), 2),
    }
    return report


def over_floor(row: Row, floor: float, name: str) -> Row:
    """The row's case over a number of seconds."""
    scale = row.base_value / floor
    ratio = row.value / floor
    return replace(row, base=name, ratio=ratio, low=row.low * scale, high=row.high * scale, base_value=floor)


def decode_part(model: TracedModel, hf: Any, best: Rates, config: Config, device: str) -> Report:
    """Greedy decoding, unsteered and steered, over transformers' `generate` at every batch size."""
    report = Report(model.name)
    settings = replace(GREEDY, max_new_tokens=config.new_tokens)
    vector, middle = random_vector(model), model.n_layers // 2
    ways = {
        "unsteered": (), "one layer": (Intervention(vector, middle),), "all layers": (Intervention(vector, vector.layers),)
    }  # fmt: skip
    for rows in config.batches:
        prompts = random_texts(rows, config.words, config.words, model.vocab_size)

        def ours(
            own: tuple[Intervention, ...], prompts: list[str] = prompts, rows: int = rows
        ) -> Callable[[], list[Any]]:
            asked = requests(prompts, own)
            return lambda: generate(model, asked, settings, batch_rows=rows)

        base = f"{model.name}: generate, batch {rows}"
        theirs = lambda p=prompts: plain(model, hf, p, settings)  # noqa: E731
        cases: dict[str, Callable[[], Any]] = {
            base: theirs, **{f"{model.name}: {way}, batch {rows}": ours(own) for way, own in ways.items()}
        }  # fmt: skip
        seconds = timing.interleaved(cases, config.repetitions)
        promised = 1.02 if rows == 64 else None
        found = [timing.compare(seconds, case, base, promised) for case in cases if case != base]
        found[0] = replace(found[0], target=None)  # the promise is about steering
        floor = decode_floor(hf, best, rows, config)
        report.rows += [*found, over_floor(found[1], floor, "compute or memory floor")]
        report.facts[f"{model.name}: GiB at the peak, one layer, batch {rows}"] = round(
            peak_gib(device, cases[f"{model.name}: one layer, batch {rows}"]), 2
        )
    return report


def decode_floor(hf: Any, best: Rates, rows: int, config: Config) -> float:
    """The least seconds for prompt and new tokens: every step reads all weights and the cache so far, or multiplies with them."""
    weights = block_parameters(hf) + hf.lm_head.weight.numel()
    prefill = max(2 * weights * rows * config.words / best.flops, 2 * weights / best.bytes)
    total = prefill
    for step in range(1, config.new_tokens):
        cache = rows * (config.words + step) * cache_bytes(hf)
        total += max(2 * weights * rows / best.flops, (2 * weights + cache) / best.bytes)
    return total


def sweep_part(model: TracedModel, hf: Any, config: Config, device: str) -> Report:
    """A sweep of `cells` settings of one prompt as one batch, over as many unsteered rows of `generate`, and cell by cell over it."""
    settings = replace(GREEDY, max_new_tokens=config.new_tokens)
    (prompt,) = random_texts(1, config.words, config.words, model.vocab_size)
    vector = random_vector(model)
    asked = [
        Request(prompt, (i,), (Intervention(vector, i % model.n_layers, strength=1 + i // model.n_layers),), chat=False)
        for i in range(config.cells)
    ]
    names = (
        f"{model.name}: sweep of {config.cells} cells", f"{model.name}: {config.cells} unsteered rows of generate",
        f"{model.name}: the cells one by one",
    )  # fmt: skip
    together: Callable[[], Any] = lambda: generate(model, asked, settings, batch_rows=config.cells)  # noqa: E731
    some = asked[: config.alone]
    cases: dict[str, Callable[[], Any]] = {
        names[0]: together,
        names[1]: lambda: plain(model, hf, [prompt] * config.cells, settings),
        names[2]: lambda: generate(model, some, settings, batch_rows=1),
    }
    seconds = timing.interleaved(cases, config.repetitions)
    seconds[names[2]] = [s * config.cells / len(some) for s in seconds[names[2]]]
    report = Report(model.name)
    report.rows = [
        timing.compare(seconds, names[0], names[1]),
        timing.compare(seconds, names[2], names[0], 5.0, "at least"),
    ]
    report.facts[f"{model.name}: GiB at the peak of the sweep"] = round(peak_gib(device, together), 2)
    report.facts[f"{model.name}: cells run one by one, whose time is put for all"] = len(some)
    return report


def measure(config: Config) -> Report:
    """Every shape in turn: capture, decoding, a sweep; ratios to transformers and to the floors of this device."""
    device = device_of()
    best = rates(device, config.side)
    report = Report("What do capture and steering cost on large models?")
    report.facts["measured rates: TFLOP/s, GB/s"] = [round(best.flops / 1e12, 3), round(best.bytes / 1e9, 1)]
    for name in config.shapes:
        model, hf = build(name, device, bool(config.tiny))
        parts = (
            capture_part(model, hf, best, config, device), decode_part(model, hf, best, config, device),
            sweep_part(model, hf, config, device),
        )  # fmt: skip
        for part in parts:
            report.rows += part.rows
            report.facts |= part.facts
        del model, hf, parts
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    return report


if __name__ == "__main__":
    if device_of() == "cpu" and "--quick" not in sys.argv:
        print("benchmarks.gpu: no GPU is here, so nothing was measured; --quick shows on a CPU that it works.")
    else:
        timing.main("gpu", Config(), QUICK, measure, sys.argv[1:])
