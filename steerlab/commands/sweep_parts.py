"""The batches of a sweep as parts that several processes write: claimed, kept by number, and gathered in order.

So the run folder gets the bytes one process would have written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from steerlab.ablation.dose import distinct_arms
from steerlab.ablation.sweeps import plan_sweep
from steerlab.commands.sweep_inputs import Asked, Inputs, read, record
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Sample, generate_batches, plan_requests
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.records import config_key
from steerlab.sharding import Parts, Shard
from steerlab.store import MANIFEST, RunFolder, read_config
from steerlab.workers import check_exclusive, start

FOLDER, SAMPLES = ".shards", "samples.jsonl"


@dataclass(frozen=True)
class Spread:
    """Who writes: this process a shard of it, `workers` processes or tasks of the cluster `ray`, or `gather`: who wrote already."""

    shard: Shard = field(default_factory=Shard)
    workers: int = 0
    ray: str = ""
    gather: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        check_exclusive(self.shard, self.workers, self.ray)

    @property
    def alone(self) -> bool:
        """True when one process does everything."""
        return self.shard.whole and not (self.workers or self.ray or self.gather)


@dataclass(frozen=True)
class Job:
    """A sweep's requests in their batches, and the row of each."""

    model: TracedModel
    asked: Asked
    inputs: Inputs
    config: dict[str, Any]
    requests: list[Request]
    row: Callable[[int, Sample], dict[str, Any]]
    batches: list[list[int]]
    parts: Parts

    @classmethod
    def plan(cls, model: TracedModel, asked: Asked, inputs: Inputs, root: Path | None, out: Path) -> Job:
        """The job; its parts lie in `out`, in a hidden folder named after the configuration."""
        config = record(asked, inputs, model, root)
        requests, row = plan_sweep(distinct_arms(inputs.design.places())[0], inputs.prompts, asked.samples)
        _, batches = plan_requests(model, requests, asked.batch_rows)
        parts = Parts(out / FOLDER / config_key(config)[:12], len(batches))
        return cls(model, asked, inputs, config, requests, row, batches, parts)

    def rows(self, members: Sequence[int], samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """The rows of one batch."""
        return [{"number": i, **self.row(i, s)} for i, s in zip(members, samples, strict=True)]


def write_parts(job: Job, shard: Shard, out: Path, progress: bool = False) -> None:
    """Write every part that is the shard's and not there; nothing where the run in `out` is finished."""
    if (out / MANIFEST).is_file() and config_key(read_config(out)) == config_key(job.config):
        return
    batches = generate_batches(
        job.model, job.requests, job.inputs.settings, batch_rows=job.asked.batch_rows, order=job.parts.claim(shard), progress=progress
    )  # fmt: skip
    for number, members, samples in batches:
        job.parts.write(number, job.rows(members, samples))


def worker(asked: Asked, root: Path | None, out: Path, dtype: str, device: str | None, shard: Shard) -> None:
    """The whole life of a worker: read, load, write parts."""
    inputs = read(asked)
    model = load(asked.model, dtype=dtype, device=shard.device(device))
    write_parts(Job.plan(model, asked, inputs, root, out), shard, out)


def gather(
    folder: RunFolder, job: Job, spread: Spread, root: Path | None, dtype: str, device: str | None, progress: bool
) -> None:
    """Have all parts written, by whoever is to, and append them to the run in order.

    What the run holds already becomes parts first, so that nobody writes it again. Raises `SteerlabError` for a folder to gather
    from that holds no part of this sweep.
    """
    done = folder.completed_batches(SAMPLES)
    kept = {row["number"]: row for row in folder.read(SAMPLES)} if done else {}
    for number in map(int, done):
        if job.parts.read(number) is None:
            job.parts.write(number, [kept[i] for i in job.batches[number]])
    for other in spread.gather:
        theirs = other / FOLDER / job.parts.folder.name
        if not theirs.is_dir():
            raise SteerlabError(
                f"{other} holds no shard of this sweep: give folders that the same command wrote with --shard."
            )
        job.parts.adopt(theirs)
    if (spread.workers or spread.ray) and job.parts.written() < job.parts.count:
        share = partial(worker, job.asked, root, folder.path, dtype, device)
        start(share, spread.workers, spread.ray, count=job.parts.written, total=job.parts.count, progress=progress)
    write_parts(job, Shard(0, spread.shard.count, steal=True), folder.path, progress)
    for number in range(job.parts.count):
        if str(number) not in done:
            rows = job.parts.read(number)
            assert rows is not None
            folder.append(SAMPLES, rows, batch=str(number))
