"""The workloads by name: what a peer does, and the plain thing it is measured against in the same process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.peers import subject as subjects
from benchmarks.peers.subject import Rows, Subject
from benchmarks.peers.ways import Ways

CAPTURE, SWEEP, ROWS = "capture, all layers", "sweep", "a vector per row"
LOOP, BATCH = "one run each", "one batch"


def steered(batch: int) -> str:
    """Name of steered generation at a batch size."""
    return f"steered, batch {batch}"


@dataclass(frozen=True)
class Load:
    """How large the workloads are. A sweep is `sweep_layers` x `sweep_strengths` cells of one prompt."""

    texts: int
    words: int
    capture_batch: int
    batches: tuple[int, ...]
    new_tokens: int
    sweep_layers: int
    sweep_strengths: int
    sweep_tokens: int
    vectors: int


@dataclass(frozen=True)
class Pair:
    """The peer's way and the plain thing."""

    peer: Callable[[], Any]
    plain: Callable[[], Any]


def pairs(subject: Subject, ways: Ways, load: Load) -> dict[str, Pair]:
    """Every workload the package has a way to do. Loops are left out of packages whose own way is the batch (steerlab)."""
    size, middle = subject.size, subject.size.layers // 2
    texts = subjects.texts(load.texts, load.words, size.vocab)
    vector = subjects.pushes(1, size)[0]
    found = {
        CAPTURE: Pair(
            lambda: ways.capture(texts, load.capture_batch), lambda: subject.forward(texts, load.capture_batch)
        )
    }
    for batch in load.batches:
        prompts = subjects.texts(batch, load.words, size.vocab, seed=batch)
        found[steered(batch)] = Pair(
            lambda p=prompts: ways.write(p, middle, vector, load.new_tokens),
            lambda p=prompts: subject.write(p, load.new_tokens),
        )
    for name, cells, new in grids(subject, load):
        prompts = [prompt for prompt, _, _ in cells]
        plain = lambda p=prompts, n=new: subject.write(p, n)  # noqa: E731
        found[f"{name}, {LOOP}"] = Pair(
            lambda c=cells, n=new: [row for p, at, v in c for row in ways.write([p], at, v, n)], plain
        )
        if ways.write_rows is not None:
            vectors, layers = torch.stack([v for _, _, v in cells]), [at for _, at, _ in cells]
            found[f"{name}, {BATCH}"] = Pair(
                lambda p=prompts, a=layers, v=vectors, n=new, w=ways.write_rows: w(p, a, v, n), plain
            )
    return found


def grids(subject: Subject, load: Load) -> list[tuple[str, list[Any], int]]:
    """The sweep and the rows with vectors of their own, as cells of prompt, layer and vector; and tokens to write."""
    size = subject.size
    (prompt,) = subjects.texts(1, load.words, size.vocab, seed=2)
    vector = subjects.pushes(1, size)[0]
    layers = [round(i * (size.layers - 1) / max(load.sweep_layers - 1, 1)) for i in range(load.sweep_layers)]
    sweep = [(prompt, at, vector * (s + 1)) for at in layers for s in range(load.sweep_strengths)]
    prompts = subjects.texts(load.vectors, load.words, size.vocab, seed=3)
    own = [(p, size.layers // 2, v) for p, v in zip(prompts, subjects.pushes(load.vectors, size), strict=True)]
    return [(SWEEP, sweep, load.sweep_tokens), (ROWS, own, load.sweep_tokens)]


def checks(subject: Subject, ways: Ways, reference: Ways, load: Load) -> Mapping[str, float | int]:
    """Does the package do what hooks do? Rows whose tokens differ, by workload, and how far its means are off, relative.

    The last layer is left out of means: what transformers calls its hidden state has passed the final norm.
    """
    texts = subjects.texts(load.texts, load.words, subject.size.vocab)
    if ways.last:
        texts = [text.split()[0] for text in texts]  # one token each: its last is all of it
    seen, wanted = (one.capture(texts, load.capture_batch)[:-1] for one in (ways, reference))
    found: dict[str, float | int] = {CAPTURE: float((seen - wanted).norm() / wanted.norm())}
    mine, theirs = pairs(subject, ways, load), pairs(subject, reference, load)
    for name in [name for name in mine if name != CAPTURE]:
        a: Rows = mine[name].peer()
        b: Rows = theirs[name].peer()
        found[name] = sum(x != y for x, y in zip(a, b, strict=True))
    return found
