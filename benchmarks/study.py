"""A study's grid as mixed batches in one process, beside one process per cell. About 5 minutes on two cores."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace

import torch

from benchmarks import timing
from benchmarks.timing import Report
from steerlab.bundled.vectors import bundled_vectors
from steerlab.generation import Request, Sample, Settings, generate
from steerlab.loading import load
from steerlab.studies.config import ModelPlan, StudyConfig
from steerlab.studies.units import arms_of, interventions
from steerlab.tasks import TASKS, prompt

ONE, SAME, MIXED = (
    "one process per cell, one text at a time",
    "one process per cell, batched inside",
    "all cells in mixed batches",
)


@dataclass(frozen=True)
class Config:
    """A sub-grid of the low-resource study: one language and task, unsteered and quality-steered at three blocks."""

    language: str = "jv"
    strengths: int = 2
    texts: int = 2
    batch_rows: int = 128
    new_tokens: int = 64
    repetitions: int = 3
    threads: int = 2


QUICK = {"strengths": 1, "texts": 1, "new_tokens": 4, "repetitions": 1}


def requests(config: Config) -> list[list[Request]]:
    """The requests of every cell: the same prompts and keys, other interventions."""
    plan = ModelPlan(strengths=tuple(0.3 * (i + 1) for i in range(config.strengths)))
    study = StudyConfig(models=(plan,), kinds=("none", "quality"))
    vectors, topic = bundled_vectors(), TASKS["topic"]
    return [
        [
            Request(
                prompt(topic, label, config.language),
                (label, i),
                interventions(arm, config.language, vectors, plan.unit),
            )
            for label in topic.labels
            for i in range(config.texts)
        ]
        for arm in arms_of(study, plan, 6)
    ]


def write(cells: list[list[Request]], config: Config, rows: int) -> list[Sample]:
    """Load the bundled model and write the cells' texts."""
    settings = Settings(max_new_tokens=config.new_tokens)
    return generate(load(), [request for cell in cells for request in cell], settings, batch_rows=rows)


def child(config: Config, cell: int, rows: int) -> None:
    """One process: the texts of one cell, or of all of them (cell -1)."""
    torch.set_num_threads(config.threads)
    cells = requests(config)
    samples = write(cells if cell < 0 else [cells[cell]], config, rows)
    print(json.dumps([sample.tokens for sample in samples]))


def in_process(config: Config, cell: int, rows: int) -> list[list[int]]:
    """The tokens a fresh process writes."""
    words = [sys.executable, "-m", "benchmarks.study", "--child", json.dumps([asdict(config), cell, rows])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(config: Config) -> Report:
    """The same texts three ways, every way with its processes' start and model loading, as a user would wait for them."""
    n = len(requests(config))
    tokens: dict[str, list[list[int]]] = {}

    def each(name: str, rows: int) -> None:
        tokens[name] = [row for cell in range(n) for row in in_process(config, cell, rows)]

    def together() -> None:
        tokens[MIXED] = in_process(config, -1, config.batch_rows)

    cases = {ONE: lambda: each(ONE, 1), SAME: lambda: each(SAME, config.batch_rows), MIXED: together}
    seconds = timing.interleaved(cases, config.repetitions, warm=False)  # every process starts cold, as a user's does
    report = Report(f"How much faster is a study's grid of {n} cells as mixed batches?")
    report.rows = [
        timing.compare(seconds, ONE, MIXED, 5.0, "at least"),
        timing.compare(seconds, SAME, MIXED, 5.0, "at least"),
    ]
    total = len(tokens[MIXED])
    report.facts = {
        "cells": n,
        "texts": total,
        "texts that differ between one at a time and mixed": sum(
            a != b for a, b in zip(tokens[ONE], tokens[MIXED], strict=True)
        ),
    }
    return report


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        fields, which, size = json.loads(sys.argv[2])
        child(replace(Config(), **fields), which, size)
    else:
        timing.main("study", Config(), QUICK, measure, sys.argv[1:])
