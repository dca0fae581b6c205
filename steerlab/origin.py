"""What a run keeps so that it can be repeated: the vectors themselves, the precision, the device and the versions.

A run's config.json says what was asked and names vectors; names do not bring vectors back. `keep` puts the tensors into
`vectors/` and the rest into `origin.json`, and `cells_again` makes the run's cells from both.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from steerlab.cells import Cell
from steerlab.disk import told
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.records import read_object, understood
from steerlab.steering import Intervention
from steerlab.store import RunFolder
from steerlab.tasks import Task
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set

ORIGIN, VECTORS = "origin.json", "vectors"
PACKAGES = ("steerlab", "torch", "transformers", "nnsight", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """The versions that decide a run's numbers; "not installed" where a package is none."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def keep(run: RunFolder, model: TracedModel, cells: Sequence[Cell]) -> None:
    """Put the vectors of the cells and the facts of this process into the run folder; what is there already stays.

    Raises `SteerlabError` where the run was started with other vectors under the same names.
    """
    vectors: dict[str, SteeringVector] = {}
    keys: list[list[str]] = []
    for cell in cells:
        keys.append([_key(vectors, one.vector) for one in cell.interventions])
    if (run.path / ORIGIN).is_file():
        there = _kept(run.path) if vectors else {}
        other = [v.name for key, v in vectors.items() if key not in there or not there[key].equals(v)]
        if other:
            raise SteerlabError(
                f"{run.path} was started with another vector of the name {other[0]!r}: give the vector it was started with, or "
                "another folder."
            )
        return
    if vectors:
        with told(run.path / VECTORS):
            save_set(vectors, run.path / VECTORS)
    facts = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        **({} if model.engine == "local" else {"engine": model.engine}),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "vectors": keys,
    }
    run.write_json(ORIGIN, facts)


def _kept(path: Path) -> dict[str, SteeringVector]:
    try:
        return load_set(path / VECTORS)
    except SteerlabError as error:
        raise SteerlabError(
            f"the vectors that {path} was started with are damaged ({error}): restore {path / VECTORS}, or give another folder."
        ) from error


def _key(vectors: dict[str, SteeringVector], wanted: SteeringVector) -> str:
    for key, vector in vectors.items():
        if vector is wanted or vector.equals(wanted):
            return key
    key = f"v{len(vectors)}"
    vectors[key] = wanted
    return key


def read_origin(path: Path) -> dict[str, Any]:
    """What `keep` wrote. Raises `SteerlabError` where a run has none."""
    file = path / ORIGIN
    if not file.is_file():
        raise SteerlabError(
            f"{path} does not say what it was written with ({ORIGIN} is missing): it is of another kind or of an older version, so "
            "write it anew to have a run that can be repeated."
        )
    with told(file):
        return read_object(file)


def cells_again(path: Path, config: Mapping[str, Any]) -> list[Cell]:
    """The cells of the run in a folder, with their vectors.

    Raises `SteerlabError` for a folder without cells or origin, for vectors that are gone or damaged, for guided cells, and for
    what only Python can make again: an operator that is a function, positions by token id.
    """
    if not isinstance(config.get("cells"), list):
        raise SteerlabError(
            f"{path} holds a run of another kind: its {ORIGIN} and cells are what `synthesize` and `demo` leave."
        )
    if any(isinstance(cell, Mapping) and "guidance" in cell for cell in config["cells"]):
        raise SteerlabError(
            f"{path} holds a guided run: repeat its own command with another folder, and compare the two."
        )
    origin = read_origin(path)
    with understood(path):
        vectors = load_set(path / VECTORS) if any(origin["vectors"]) else {}
        return [
            _cell(cell, [vectors[k] for k in own]) for cell, own in zip(config["cells"], origin["vectors"], strict=True)
        ]


def _cell(record: Mapping[str, Any], vectors: Sequence[SteeringVector]) -> Cell:
    steps = zip(record["interventions"], vectors, strict=True)
    own = record.get("own_task")
    return Cell(
        condition=record["condition"],
        language=record["language"],
        task=record["task"] if own is None else Task(**{**own, "labels": tuple(own["labels"])}),
        interventions=tuple(Intervention.from_json(one, vector) for one, vector in steps),
        prompt_language=record["prompt_language"],
        shots={label: tuple(texts) for label, texts in record["shots"].items()},
        labels=tuple(record["labels"]),
    )
