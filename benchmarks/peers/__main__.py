"""steerlab, hooks by hand and five packages on the same workloads. About 25 minutes on two idle cores, 5 GB of memory.

Build the environments first: `python -m benchmarks.peers.environments --folder runs/peers`. What is missing is left out and named.
`python -m analyses.26_speed` draws what was found.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import timing
from benchmarks.peers import subject as subjects
from benchmarks.peers.environments import ABSENT, PEERS, missing
from benchmarks.peers.run import Times, Worker, measure, peaks, workloads_of
from benchmarks.peers.worker import OURS, Task
from benchmarks.peers.workloads import BATCH, CAPTURE, LOOP, Load, steered
from benchmarks.timing import Report, Row

PLAIN = "plain transformers"


@dataclass(frozen=True)
class Config:
    """Model, workloads, and where the environments are. `peers`: those to compare with."""

    layers: int = 12
    d_model: int = 512
    vocab: int = 8192
    texts: int = 96
    words: int = 32
    capture_batch: int = 32
    batches: tuple[int, ...] = (1, 16, 64)
    new_tokens: int = 32
    sweep_layers: int = 6
    sweep_strengths: int = 4
    sweep_tokens: int = 16
    vectors: int = 16
    repetitions: int = 5
    environments: str = "runs/peers"
    peers: tuple[str, ...] = PEERS
    memory: int = 1
    threads: int = 2


QUICK = {
    "layers": 3, "d_model": 64, "vocab": 64, "texts": 4, "words": 4, "capture_batch": 2, "batches": (1, 2), "new_tokens": 3,
    "sweep_layers": 2, "sweep_strengths": 2, "sweep_tokens": 3, "vectors": 2, "repetitions": 2,
}  # fmt: skip


def load_of(config: Config) -> Load:
    """The workloads' sizes."""
    return Load(**{name: getattr(config, name) for name in Load.__dataclass_fields__})


def rows_of(times: Times, documented: Mapping[str, bool]) -> list[Row]:
    """Every way over the plain thing, then every peer's over steerlab's: ratios of ratios, repetition by repetition."""
    ratios = {key: [peer / plain for peer, plain in took] for key, took in times.items()}
    found = []
    for (workload, peer), own in ratios.items():
        promise = 1.05 if peer == OURS and not workload.endswith((LOOP, BATCH)) else None
        ours, plain = (statistics.median(one) for one in zip(*times[workload, peer], strict=True))
        found.append(_row(f"{peer}: {workload}", PLAIN, own, (ours, plain), "s", promise, "at most"))
    for (workload, peer), own in ratios.items():
        same = workload.replace(LOOP, BATCH)
        if peer == OURS or (same, OURS) not in ratios:
            continue
        mine = ratios[same, OURS]
        looped = workload.endswith(LOOP)
        by = [a / b for a, b in zip(own, mine, strict=True)]
        medians = statistics.median(own), statistics.median(mine)
        hidden = " (not documented)" if workload.endswith(BATCH) and not documented[peer] else ""
        promise = 5.0 if looped else None if hidden else 1.0
        found.append(_row(f"{peer}: {workload}{hidden}", OURS, by, medians, "x plain", promise, "at least"))
    return found


def _row(
    case: str,
    base: str,
    ratios: Sequence[float],
    values: tuple[float, float],
    unit: str,
    target: float | None,
    sense: Any,
) -> Row:
    middle = statistics.median(ratios)
    return Row(case, base, middle, min(ratios), max(ratios), *values, unit, len(ratios), target, sense)  # fmt: skip


def memory_rows(tasks: Mapping[str, Task], config: Config) -> list[Row]:
    """Peak memory of a fresh process that captures once, and of one that writes the largest batch once, over the plain thing's."""
    found = []
    for workload in (CAPTURE, steered(max(config.batches))):
        for peer, task in tasks.items():
            peer_mib, plain = peaks(task, Path(config.environments), workload)
            ratio = peer_mib / plain
            found.append(_row(f"{peer}: memory, {workload}", PLAIN, [ratio], (peer_mib, plain), "MiB", None, "at most"))
    return found


def compare(config: Config) -> Report:
    """What every package costs over plain transformers in its own process, and over steerlab."""
    environments = Path(config.environments)
    reasons = {peer: missing(peer, environments) for peer in config.peers}
    size = subjects.Size(config.layers, config.d_model, config.vocab)
    report = Report(f"What do the packages cost ({config.layers} layers, width {config.d_model})?")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        subjects.save(Path(folder), size)
        there = [OURS, *(peer for peer in config.peers if not reasons[peer])]
        tasks = {peer: Task(peer, folder, load_of(config), config.threads) for peer in there}
        workers: dict[str, Worker] = {}
        said: dict[str, dict[str, Any]] = {}
        for peer, task in tasks.items():  # one after the other, so that nobody warms up against another
            worker = stack.enter_context(Worker(task, environments))
            try:
                said[peer] = worker.answer()
            except RuntimeError as error:
                reasons[peer] = str(error)
                continue
            workers[peer] = worker
            print(f"{peer}: ready", flush=True)
        named = {peer: workloads_of(peer, said[peer]["workloads"]) for peer in workers}
        times = measure(workers, named, config.repetitions)
        report.rows = rows_of(times, {peer: said[peer]["documented"] for peer in workers})
        if config.memory:
            report.rows += memory_rows({peer: tasks[peer] for peer in workers}, config)
    report.facts = {
        **{f"{peer} was left out": why for peer, why in {**reasons, **ABSENT}.items() if why},
        **{f"versions, {peer}": said[peer]["versions"] for peer in workers},
        **{f"off from hooks by hand, {peer}": said[peer]["checks"] for peer in workers if said[peer]["checks"]},
    }
    return report


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of peers.json as a table, with the peer and the workload of each."""
    table = pd.DataFrame(rows)
    table[["peer", "workload"]] = table["case"].str.split(": ", n=1, expand=True)
    return table


if __name__ == "__main__":
    timing.main("peers", Config(), QUICK, compare, sys.argv[1:])
