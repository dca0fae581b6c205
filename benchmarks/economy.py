"""What an accepted text costs in seconds: a short prompt with a vector, beside a few-shot prompt without one.

About 5 minutes on two cores.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import timing
from benchmarks.timing import Report, Row
from steerlab.bundled.vectors import bundled_vectors
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.store import RunFolder
from steerlab.studies.config import ModelPlan, StudyConfig
from steerlab.studies.units import arms_of, cells_of, shots_of, units_of
from steerlab.synthesis import Cell, synthesize

ZERO, STEERED, FEW = "zero-shot, unsteered", "zero-shot, quality vector", "few-shot, unsteered"


@dataclass(frozen=True)
class Config:
    """One language and task of the low-resource study, `texts` accepted texts per label, rejected drafts drawn again and paid for."""

    language: str = "jv"
    strength: float = 0.3
    texts: int = 18
    batch_rows: int = 128
    new_tokens: int = 64
    repetitions: int = 3
    threads: int = 2


QUICK = {"texts": 1, "new_tokens": 4, "repetitions": 1}


def cells(config: Config, n_layers: int) -> dict[str, Cell]:
    """The three ways to ask, as the study asks them; its examples are those of the sample set, so that no data folder is needed."""
    plan = ModelPlan(strengths=(config.strength,), layers={"early": 1})
    study = StudyConfig(
        models=(plan,), languages=(config.language,), tasks=("topic",), kinds=("none", "quality"), source="sample"
    )
    arms = arms_of(study, plan, n_layers)
    found: dict[str, list[Cell]] = {}
    for unit in units_of(study)[:2]:
        shots = shots_of(study, config.language, "topic", None) if unit.mode == "few-shot" else {}
        found[unit.mode] = cells_of(unit, arms, bundled_vectors(), shots)
    return {ZERO: found["zero-shot"][0], STEERED: found["zero-shot"][1], FEW: found["few-shot"][0]}


def written(model: TracedModel, cell: Cell, config: Config) -> int:
    """Accepted texts of one cell, written from nothing in a run folder that is thrown away."""
    settings = Settings(max_new_tokens=config.new_tokens, temperature=0.8, top_p=0.9)
    with tempfile.TemporaryDirectory() as folder, RunFolder.open(Path(folder) / "run", {"cell": cell.name}) as run:
        done = synthesize(
            model, [cell], run, per_label=config.texts, settings=settings, batch_rows=config.batch_rows, progress=False
        )  # fmt: skip
    return len(done.samples)


def measure(config: Config) -> Report:
    """Seconds per accepted text, every way beside few-shot prompting without a vector."""
    torch.set_num_threads(config.threads)
    model = load()
    accepted: dict[str, int] = {}

    def case(name: str, cell: Cell) -> None:
        accepted[name] = written(model, cell, config)

    ways = {name: (lambda n=name, c=cell: case(n, c)) for name, cell in cells(config, model.n_layers).items()}
    seconds = timing.interleaved(ways, config.repetitions)
    each = {name: [s / max(accepted[name], 1) for s in seconds[name]] for name in ways}
    report = Report("What does an accepted text cost?")
    report.rows = [
        _per_text(each, STEERED, FEW, 1.0),
        _per_text(each, ZERO, FEW, None),
        _per_text(each, STEERED, ZERO, None),
    ]
    report.facts = {f"accepted texts, {name}": n for name, n in accepted.items()}
    return report


def _per_text(each: dict[str, list[float]], case: str, base: str, target: float | None) -> Row:
    return timing.compare(each, case, base, target, unit="s per accepted text")


if __name__ == "__main__":
    timing.main("economy", Config(), QUICK, measure, sys.argv[1:])
