"""Write the units of a study: each in its own run folder, shared out between processes by lock and between machines by shard."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from steerlab.disk import take_lock, told
from steerlab.errors import Busy, SteerlabError
from steerlab.loading import load
from steerlab.manifest import read_manifest
from steerlab.model import TracedModel
from steerlab.sharding import Shard
from steerlab.store import RunFolder, verify
from steerlab.studies.config import ModelPlan, StudyConfig
from steerlab.studies.directions import study_vectors
from steerlab.studies.memory import check_memory, load_options
from steerlab.studies.units import Arm, Unit, arms_of, cells_of, shots_of, unit_folder, unit_record
from steerlab.synthesis import Cell, check, synthesize
from steerlab.vectors import SteeringVector

UNITS, VECTORS = "units", "vectors"
T = TypeVar("T")
WAIT = 2.0  # seconds between looks at a unit another process is writing


@dataclass(frozen=True)
class Job:
    """A unit with what it takes to write it: its folder, the record its folder is named after, its arms and cells."""

    unit: Unit
    folder: Path
    record: dict[str, Any]
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]

    @property
    def slots(self) -> int:
        """Texts the unit is asked for."""
        return sum(len(cell.chosen_labels()) for cell in self.cells) * int(self.record["per_label"])

    @property
    def finished(self) -> bool:
        """True when the unit's samples are all there and vouched for by a manifest."""
        return (self.folder / "manifest.json").is_file()


def load_model(plan: ModelPlan, shard: Shard | None = None) -> TracedModel:
    """The plan's model, refused in one sentence where this machine cannot hold it; where several processes share a machine, on
    the GPU that is the shard's.
    """
    check_memory(plan)
    device = (shard or Shard()).device(plan.device or None)
    return load(
        plan.name, dtype=plan.dtype, device=device, revision=plan.revision or None, template=plan.template,
        **load_options(plan),
    )  # fmt: skip


def jobs_of(
    config: StudyConfig,
    plan: ModelPlan,
    model: TracedModel,
    units: Sequence[Unit],
    out: Path,
    root: Path | None,
    progress: bool,
) -> tuple[list[Job], dict[str, SteeringVector]]:
    """The jobs of one model's units, and its vectors, fitted first where the study asks for that (one process does, others wait)."""
    vectors = _alone(out / VECTORS, lambda: study_vectors(model, plan, config, root, out / VECTORS, progress))
    arms = arms_of(config, plan, model.n_layers)
    found = []
    for unit in units:
        shots = shots_of(config, unit.language, unit.task, root) if unit.mode == "few-shot" else {}
        cells = cells_of(unit, arms, vectors, shots)
        record = unit_record(unit, config, arms, cells, model)
        found.append(Job(unit, out / UNITS / unit_folder(unit, record), record, arms, tuple(cells)))
    return found, vectors


def write_units(config: StudyConfig, model: TracedModel, jobs: Sequence[Job], progress: bool = True) -> None:
    """Write every job that is not finished. Another process may work on the same folder: what it holds is left to it, and
    looked at again at the end in case it died.
    """
    for job in jobs:  # nothing is written before everything is known to fit
        check(
            model, job.cells, config.per_label[job.unit.task], config.settings(job.unit.seed), job.unit.plan.batch_rows,
            config.max_tries,
        )  # fmt: skip
    open_jobs = [job for job in jobs if not _sound(job)]
    done = sum(job.slots for job in jobs) - sum(job.slots for job in open_jobs)
    with tqdm(total=sum(job.slots for job in jobs), initial=done, unit="text", disable=not progress) as bar:
        while open_jobs:
            held = [job for job in open_jobs if not _written(config, model, job, bar)]
            open_jobs = [job for job in held if not job.finished]
            bar.update(sum(job.slots for job in held) - sum(job.slots for job in open_jobs))
            if open_jobs:
                bar.set_description("waiting for another process")
                time.sleep(WAIT)


def _sound(job: Job) -> bool:
    """Whether the unit is finished and all of it as it was then."""
    if not job.finished:
        return False
    try:
        verify(job.folder)
    except SteerlabError:
        return False
    return True


def _written(config: StudyConfig, model: TracedModel, job: Job, bar: Any) -> bool:
    """Write one unit; False when another process holds it."""
    bar.set_description(job.unit.name)
    before = bar.n
    try:
        run = RunFolder.open(job.folder, job.record)  # what is damaged in a finished one is put aside here
    except Busy:
        return False
    with run:
        if not run.finished:
            written = synthesize(
                model, job.cells, run, per_label=config.per_label[job.unit.task], settings=config.settings(job.unit.seed),
                batch_rows=job.unit.plan.batch_rows, max_tries=config.max_tries, near_duplicate=config.near_duplicate,
                progress=False, on_batch=lambda texts, tokens: bar.update(texts),
            )  # fmt: skip
            run.write_json("unfilled.json", {"unfilled": written.unfilled, "rejected": written.rejected})
            run.finish()
    bar.update(before + job.slots - bar.n)  # redraws are no new texts
    return True


def finished(out: Path) -> int:
    """How many units of a study folder are written."""
    return sum(1 for _ in (out / UNITS).glob("*/manifest.json"))


def _alone(folder: Path, work: Callable[[], T]) -> T:
    """`work()` while no other process does the same in that folder."""
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    waiting = False
    while True:
        try:
            lock = take_lock(folder / ".lock")
        except Busy:
            if not waiting:
                tqdm.write(f"another process is fitting the vectors in {folder}: waiting for it")
            waiting = True
            time.sleep(WAIT)
            continue
        try:
            return work()
        finally:
            os.close(lock)


def merge(out: Path, parts: Sequence[Path]) -> int:
    """Copy the finished units of other study folders into `out` by key; returns how many were new.

    Raises `SteerlabError` for a folder without units, for damaged ones, and where one key has two contents.
    """
    new = 0
    for part in parts:
        units = sorted(p for p in (part / UNITS).glob("*") if (p / "manifest.json").is_file())
        if not units:
            raise SteerlabError(f"{part} has no finished units: give the folder of a study (or of a shard of one).")
        for unit in units:
            verify(unit)
            there = out / UNITS / unit.name
            if (there / "manifest.json").is_file():
                if read_manifest(there) != read_manifest(unit):
                    raise SteerlabError(
                        f"{unit} and {there} have one key and different contents: the machines compute differently; keep them apart."
                    )
                continue
            staged = out / UNITS / f".{unit.name}.part"
            with told(out):
                shutil.rmtree(staged, ignore_errors=True)
                shutil.copytree(unit, staged, ignore=shutil.ignore_patterns(".*"))
                staged.rename(there)
            new += 1
        for fitted in sorted(p for p in (part / VECTORS).glob("*") if (p / "vectors.json").is_file()):
            if not (out / VECTORS / fitted.name).exists():
                with told(out):
                    shutil.copytree(fitted, out / VECTORS / fitted.name)
    return new
