"""One peer in one process: says what it is and whether it does what hooks do, then runs what it is asked, a JSON line each.

`python -m benchmarks.peers.worker JSON` with the fields of `Task`; started by `benchmarks.peers`, under each peer's interpreter.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.peak import peak_mib
from benchmarks.peers import subject as subjects
from benchmarks.peers import ways as all_ways
from benchmarks.peers.workloads import Load, checks, pairs

OURS = "steerlab"


@dataclass(frozen=True)
class Task:
    """What the parent asks for. `once`: a workload and side to run once in a fresh process, for its peak of memory."""

    peer: str
    folder: str
    load: Load
    threads: int
    once: tuple[str, str] | None = None

    @classmethod
    def parse(cls, text: str) -> Task:
        """From one line of JSON."""
        given = json.loads(text)
        load = Load(**{**given["load"], "batches": tuple(given["load"]["batches"])})
        return cls(given["peer"], given["folder"], load, given["threads"], given["once"] and tuple(given["once"]))


def main(task: Task, answers: TextIO) -> None:
    """Serve one peer until standard input ends."""
    torch.set_num_threads(task.threads)
    subject = subjects.load(Path(task.folder))
    ways = all_ways.load("ours" if task.peer == OURS else task.peer, subject)
    found = pairs(subject, ways, task.load)
    if task.once is not None:
        workload, side = task.once
        before = peak_mib()
        getattr(found[workload], side)()
        _say(answers, {"before": before, "peak": peak_mib()})
        return
    wrong = {} if task.peer == "hooks" else checks(subject, ways, all_ways.load("hooks", subject), task.load)
    _say(answers, {"workloads": list(found), "checks": wrong, "documented": ways.documented, "versions": _versions()})
    for line in sys.stdin:
        workload, side = json.loads(line)
        began = time.perf_counter()
        getattr(found[workload], side)()
        _say(answers, {"seconds": time.perf_counter() - began})


def _say(answers: TextIO, what: Any) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "steering-vectors", "repeng", "dialz", "pyvene", "transformer-lens", "nnsight")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of other packages; errors still end the process
    logging.disable(logging.WARNING)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints must not stand between the answers
    main(Task.parse(sys.argv[1]), out)
