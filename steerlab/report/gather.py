"""What the folders of runs and studies hold that a reader wants to see."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steerlab.disk import told
from steerlab.errors import SteerlabError
from steerlab.records import read_object
from steerlab.run_state import STUDY, RunState, complete_rows, run_state, units
from steerlab.store import SAMPLES, verify

MOST_ROWS = 500
LARGEST_IMAGE = 2_000_000
_SECRET = re.compile(r"hf_\w{8,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|AKIA\w{12,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+")
_SECRET_KEY = re.compile(r"(?i)(?:^|[_.])(?:token|secret|password|passwd|credential|api_?key)$")


@dataclass(frozen=True)
class Table:
    """Rows of text cells under a caption; `left_out` rows are not shown."""

    name: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    left_out: int = 0


@dataclass(frozen=True)
class Seen:
    """One run or study as the page shows it. `parts` are its run folders with their samples: one, or a study's units."""

    name: str
    state: str
    whole: bool
    settings: list[tuple[str, str]]
    metrics: list[dict[str, Any]]
    parts: list[tuple[RunState, list[dict[str, Any]]]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    images: list[tuple[str, bytes]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(path: Path, name: str) -> Seen:
    """Read one run or study folder. Raises `SteerlabError` where it is neither, or a file of it is broken."""
    if (path / STUDY).is_file():
        with told(path):
            settings = read_object(path / STUDY)
        states = [run_state(folder) for folder in units(path)]
        done = sum(state.finished for state in states)
        said, whole = f"study of {len(states)} units, {done} finished", done == len(states)
    else:
        states = [run_state(path)]
        settings = states[0].config
        said, whole = _standing(states[0])
    metrics: list[dict[str, Any]] = []
    notes: list[str] = []
    if (path / "metrics.json").is_file():
        found = read_object(path / "metrics.json")
        metrics = [row for row in found.get("metrics", []) if isinstance(row, dict)]
        notes = list(_notes(found))
    parts = [(state, complete_rows(state, SAMPLES)) for state in states]
    tables = [_table(file, path) for file in sorted(path.rglob("*.csv")) if _shown(file, path)]
    images = [
        (file.relative_to(path).as_posix(), file.read_bytes())
        for file in sorted(path.rglob("*.png"))
        if _shown(file, path) and file.stat().st_size <= LARGEST_IMAGE
    ]
    return Seen(name, said, whole, list(flat(settings)), metrics, parts, tables, images, notes)


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as lines: nested names joined by dots, lists of plain values on one line, what looks like a secret hidden."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if _SECRET_KEY.search(name) and item not in (None, ""):
            yield name, "[hidden]"
        elif isinstance(item, Mapping):
            yield from flat(item, f"{name}.")
        elif isinstance(item, list) and any(isinstance(one, Mapping) for one in item):
            for number, one in enumerate(item):
                yield from flat(one if isinstance(one, Mapping) else {"": one}, f"{name}[{number}].")
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            yield name, _SECRET.sub("[hidden]", text)


def _standing(state: RunState) -> tuple[str, bool]:
    if not state.finished:
        have, wanted = state.rows.get(SAMPLES, 0), state.wanted
        return f"not finished: {have} texts" + (f" of {wanted}" if wanted else "") + " so far", False
    try:
        verify(state.path)
    except SteerlabError as error:
        return f"finished, but {error}", False
    return "finished, and every file is as it was written", True


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    for cell, reasons in (found.get("rejected") or {}).items():
        if reasons:
            yield f"{cell}: drawn again, " + ", ".join(f"{why} {count}" for why, count in reasons.items())
    for slot, count in (found.get("unfilled") or {}).items():
        yield f"{slot}: {count} texts could not be written"
    leak = found.get("leakage")
    if isinstance(leak, Mapping):
        clean = leak.get("clean")
        yield "leakage between the vectors' texts and the test texts: " + (
            f"not checked ({leak.get('reason')})" if clean is None else "none found" if clean else "FOUND"
        )


def _shown(file: Path, root: Path) -> bool:
    """Whether a table or picture is one of this folder, neither hidden, nor the metrics (drawn by themselves), nor elsewhere."""
    inside = file.relative_to(root)
    hidden = any(part.startswith(".") for part in inside.parts)
    return not hidden and inside.as_posix() != "metrics.csv" and file.resolve().is_relative_to(root.resolve())


def _table(file: Path, root: Path) -> Table:
    with told(file):
        text = file.read_bytes().decode("utf-8", errors="replace")
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    head, body = (rows[0], rows[1:]) if rows else ([], [])
    wide = [(row + [""] * len(head))[: len(head)] for row in body[:MOST_ROWS]]
    return Table(file.relative_to(root).as_posix(), tuple(head), wide, max(0, len(body) - MOST_ROWS))
