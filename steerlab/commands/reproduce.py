"""`steerlab reproduce`: repeat a finished run from what its folder keeps, and compare texts and numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steerlab.cells import Cell
from steerlab.commands.synthesize import records
from steerlab.disk import fingerprint, told
from steerlab.errors import SteerlabError
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.origin import ORIGIN, VECTORS, cells_again, keep, read_origin, versions
from steerlab.recipes import evaluate
from steerlab.records import config_key, read_object
from steerlab.store import CONFIG, MANIFEST, RunFolder, read_config
from steerlab.synthesis import SAMPLES, Written, synthesize

METRICS = "metrics.json"
NUMBERS = ("value", "low", "high", "n")
Row = dict[str, Any]


@dataclass(frozen=True)
class Reproduction:
    """One row per thing compared (what, recorded, now, equal), then one per number that differs; sentences about what is not
    as it was; and whether all is equal.
    """

    rows: list[Row]
    differing: list[Row]
    warnings: list[str]

    @property
    def equal(self) -> bool:
        """True where texts, numbers and files are what was recorded."""
        return all(row["equal"] for row in self.rows)


def run(
    where: Path, out: Path | None, root: Path | None, device: str | None, tolerance: float, progress: bool
) -> Reproduction:
    """Write and judge the run in `where` again, in `out` (default: a folder that is deleted), and compare.

    `tolerance`: largest difference of two numbers that count as equal, relative to the recorded one where that is above 1.

    Raises `SteerlabError` where the run cannot be repeated: not finished, another kind of run, its settings or vectors
    changed since, its model gone or another one, an operator only Python knows, human texts missing.
    """
    if not 0 <= tolerance < 1:
        raise SteerlabError(f"--tolerance is {tolerance}: give a number from 0 (bitwise) to below 1.")
    if out is not None and out.exists() and any(out.iterdir()):
        raise SteerlabError(f"{out} is not empty: give a new folder for the repetition.")
    files = _files(where)
    config = read_config(where)
    cells, origin = cells_again(where, config), read_origin(where)
    engine = origin.get("engine", "local")
    place = device or (origin["device"] if engine == "local" else None)
    model = load(config["model"], engine, dtype=origin["dtype"], device=place)
    if model.revision != config["model_revision"]:
        raise SteerlabError(
            f"the model {config['model']} is {model.revision} now, and the run was written by {config['model_revision']}: get "
            "that revision again."
        )
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as folder:
        place = Path(folder) / "run" if out is None else Path(folder)
        written, metrics = _again(model, config, cells, place, root, (where / METRICS).is_file(), progress)
        rows = [_intact(where, files), _samples(where, place)]
    if metrics is None:
        return Reproduction(rows, [], _warnings(origin, model))
    recorded = read_object(where / METRICS)
    with told(where):
        compared, differing = _numbers(recorded, metrics, written, tolerance)
    return Reproduction(rows + compared, differing, _warnings(origin, model))


def _files(where: Path) -> dict[str, Any]:
    """The files the manifest names. Raises `SteerlabError` where what decides the run is not as the manifest says."""
    if not (where / MANIFEST).is_file():
        raise SteerlabError(f"{where} holds no finished run ({MANIFEST} is missing): give the folder of one.")
    with told(where):
        manifest = read_object(where / MANIFEST)
    files, config = manifest.get("files"), read_config(where)
    if not isinstance(files, dict) or manifest.get("config_key") != config_key(config):
        raise SteerlabError(
            f"{where / CONFIG} is not the one the run finished with: restore it, for what was asked is not known."
        )
    for name in files:
        if name == ORIGIN or name.startswith(f"{VECTORS}/"):
            if not (where / name).is_file():
                raise SteerlabError(
                    f"{where / name} is missing: restore it, for without it the run cannot be repeated."
                )
            if fingerprint(where / name) != files[name]:
                raise SteerlabError(f"{where / name} was changed after the run finished: restore it.")
    return files


def _again(
    model: TracedModel,
    config: Mapping[str, Any],
    cells: Sequence[Cell],
    place: Path,
    root: Path | None,
    judge: bool,
    progress: bool,
) -> tuple[Written, list[Row] | None]:
    """Write the cells into a fresh run folder, and judge them where the run was judged."""
    given = {**config["settings"], "stop": tuple(config["settings"]["stop"])}
    with RunFolder.open(place, config, resume=False) as folder:
        keep(folder, model, cells)
        written = synthesize(
            model,
            cells,
            folder,
            per_label=config["per_label"],
            settings=Settings(**given),
            batch_rows=config["batch_rows"],
            max_tries=config["max_tries"],
            near_duplicate=config["near_duplicate"],
            progress=progress,
        )
        if not judge:
            folder.finish()
            return written, None
        shown = {text for cell in cells for texts in cell.shots.values() for text in texts}
        table = evaluate(written.samples, model=model, root=root, source=config["source"], without=shown)
        metrics = records(table)
        folder.write_json(METRICS, {"metrics": metrics, "rejected": written.rejected, "unfilled": written.unfilled})
        folder.finish()
    return written, metrics


def _intact(where: Path, files: Mapping[str, Any]) -> Row:
    """Are the run's files what its manifest says."""
    changed = [name for name in files if not (where / name).is_file() or fingerprint(where / name) != files[name]]
    now = "as the manifest says" if not changed else f"changed since: {', '.join(changed)}"
    return {"what": "files of the run", "recorded": f"{len(files)} files", "now": now, "equal": not changed}


def _samples(where: Path, place: Path) -> Row:
    """Line by line, byte by byte."""
    with told(where):
        old = (where / SAMPLES).read_bytes().splitlines() if (where / SAMPLES).is_file() else []
    new = (place / SAMPLES).read_bytes().splitlines()
    same = sum(a == b for a, b in zip(old, new, strict=False))
    equal = old == new
    return {
        "what": SAMPLES,
        "recorded": f"{len(old)} texts",
        "now": f"{same} of {len(new)} byte for byte",
        "equal": equal,
    }


def _numbers(
    recorded: Mapping[str, Any], metrics: Iterable[Row], written: Written, tolerance: float
) -> tuple[list[Row], list[Row]]:
    """Per metric how many numbers are equal, and a row for each that is not; then the counts of refused texts."""
    old, new = _by_place(recorded["metrics"]), _by_place(metrics)
    counts: dict[str, list[bool]] = {}
    differing = []
    for place in dict.fromkeys([*old, *new]):
        for name in NUMBERS:
            a, b = old.get(place, {}).get(name), new.get(place, {}).get(name)
            equal = _same(a, b, tolerance)
            counts.setdefault(place[-1], []).append(equal)
            if not equal:
                differing.append({"what": " ".join((*place, name)), "recorded": a, "now": b, "equal": False})
    rows = [
        {"what": metric, "recorded": f"{len(own)} numbers", "now": f"{sum(own)} equal", "equal": all(own)}
        for metric, own in counts.items()
    ]
    for name, own in (("rejected", written.rejected), ("unfilled", written.unfilled)):
        was = recorded[name]
        rows.append({"what": name, "recorded": _total(was), "now": _total(own), "equal": was == own})
    return rows, differing


def _by_place(metrics: Iterable[Row]) -> dict[tuple[str, ...], Row]:
    return {tuple(str(row[k]) for k in ("language", "task", "condition", "metric")): row for row in metrics}


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= tolerance * max(1.0, abs(a))


def _total(counts: Mapping[str, Any]) -> str:
    return f"{sum(sum(own.values()) if isinstance(own, Mapping) else own for own in counts.values())} texts"


def _warnings(origin: Mapping[str, Any], model: TracedModel) -> list[str]:
    """What is not as it was: packages, device, threads."""
    now, was = versions(), origin["versions"]
    found = [f"{name} is {now.get(name)} now and was {was[name]}" for name in was if now.get(name) != was[name]]
    if str(model.device) != origin["device"]:
        found.append(f"the device is {model.device} now and was {origin['device']}")
    if torch.get_num_threads() != origin["threads"]:
        found.append(f"torch computes on {torch.get_num_threads()} threads now and did on {origin['threads']}")
    return found
