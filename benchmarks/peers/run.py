"""Measure: one process per peer, all alive, asked in turn; every answer beside the plain thing in the same process."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import python_of
from benchmarks.peers.worker import OURS, Task
from benchmarks.peers.workloads import LOOP

ROOT = Path(__file__).resolve().parents[2]
Times = dict[
    tuple[str, str], list[tuple[float, float]]
]  # (workload, peer) -> (peer, plain) seconds of every repetition


class Worker:
    """A peer's process. A context manager; a process that dies is an error with the last of what it said."""

    def __init__(self, task: Task, environments: Path) -> None:
        self.peer = task.peer
        python = python_of("hooks" if task.peer == OURS else task.peer, environments)
        words = [str(python), "-m", "benchmarks.peers.worker", json.dumps(asdict(task))]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  a pipe would fill up with progress bars
        self.process: Any = subprocess.Popen(
            words, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True
        )

    def answer(self) -> dict[str, Any]:
        """The next line of the process. Raises `RuntimeError` where there is none."""
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.said.seek(0)
            said = self.said.read().strip().splitlines()
            raise RuntimeError(f"{self.peer} ended early: {said[-1] if said else 'it said nothing'}")
        return json.loads(line)

    def seconds(self, workload: str, side: str) -> float:
        """Run one side of a workload once."""
        self.process.stdin.write(json.dumps([workload, side]) + "\n")
        self.process.stdin.flush()
        return self.answer()["seconds"]

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.said.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def workloads_of(peer: str, named: Sequence[str]) -> list[str]:
    """Those that are timed: who writes a batch of different rows by its own means is not asked to loop."""
    return [name for name in named if not (peer in (OURS, "hooks") and name.endswith(LOOP))]


def measure(workers: Mapping[str, Worker], named: Mapping[str, Sequence[str]], repetitions: int) -> Times:
    """Every workload: in each repetition all peers in turn, every second time in reverse, peer and plain thing one after the other.

    The checks that each worker made before it said what it is have warmed everything up.
    """
    found: Times = {}
    every = list(dict.fromkeys(name for own in named.values() for name in own))
    for workload in every:
        peers = [peer for peer in workers if workload in named[peer]]
        for repetition in range(repetitions):
            order, sides = (peers, ("peer", "plain")) if repetition % 2 == 0 else (peers[::-1], ("plain", "peer"))
            for peer in order:
                took = {side: workers[peer].seconds(workload, side) for side in sides}
                found.setdefault((workload, peer), []).append((took["peer"], took["plain"]))
        print(f"measured: {workload}", flush=True)
    return found


def peaks(task: Task, environments: Path, workload: str) -> tuple[float, float]:
    """MiB that a workload needs above what the process held when it began: the peer's way, and the plain thing."""
    found = []
    for side in ("peer", "plain"):
        once = Task(task.peer, task.folder, task.load, task.threads, (workload, side))
        with Worker(once, environments) as worker:
            said = worker.answer()
        found.append(said["peak"])
    return found[0], found[1]
