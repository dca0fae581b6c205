"""`steerlab guide` and `steerlab sweep guidance`: guided texts in a run folder, and the map of gamma and eta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from steerlab import figures
from steerlab.cells import Cell
from steerlab.commands.guide_inputs import Asked
from steerlab.commands.synthesize import records
from steerlab.data import redacted
from steerlab.errors import SteerlabError
from steerlab.evaluation import table
from steerlab.evaluation.copying import copy_report
from steerlab.experts.pairs import is_offensive
from steerlab.guidance import Guide
from steerlab.guidance_sweep import Grid, draw, finding, measures, sweep_guidance
from steerlab.model import TracedModel
from steerlab.origin import keep
from steerlab.store import RunFolder
from steerlab.synthesis import Written, check, synthesize

TRIES = 5
TABLE = "guidance.csv"


def run(
    asked: Asked,
    guide: Guide,
    out: Path,
    compare: bool,
    root: Path | None,
    dtype: str,
    device: str | None,
    progress: bool,
) -> list[dict[str, Any]]:
    """Write, measure, report; the manifest comes last. Returns the metric rows. Bad input is refused before `out` is touched."""
    settings = _ready(asked, root)
    model, base, free = asked.models.load(dtype, device)
    cells = asked.cells(model, guide, free, root, compare)
    check(model, cells, asked.per_label, settings, asked.batch_rows, TRIES, base)
    config = {"command": "guide", **asked.record(model, base), "max_tries": TRIES, "near_duplicate": 0.9}
    with RunFolder.open(out, {**config, "cells": [cell.to_json() for cell in cells]}) as folder:
        keep(folder, model, cells)
        written = synthesize(
            model, cells, folder, per_label=asked.per_label, settings=settings, batch_rows=asked.batch_rows,
            max_tries=TRIES, progress=progress, base=base,
        )  # fmt: skip
        metrics = table.metrics_table(_metrics(model, base, cells, written, asked.per_label))
        told = {"metrics": records(metrics), "rejected": written.rejected, "unfilled": written.unfilled}
        folder.write_json("metrics.json", told)
        folder.write_table("metrics.csv", metrics)
        folder.write_text("report.md", _report(written, table.markdown(metrics), is_offensive(asked.chosen)))
        folder.finish()
    return records(metrics)


def sweep(
    asked: Asked,
    grid: Grid,
    like_guide: Guide,
    out: Path,
    root: Path | None,
    dtype: str,
    device: str | None,
    progress: bool,
) -> list[dict[str, Any]]:
    """Write the grid, measure and draw it; the manifest comes last. Returns the table's rows. The guide says what is not in
    the grid: cutoff and schedules.
    """
    if len(asked.languages) != 1:
        raise SteerlabError(f"{len(asked.languages)} languages were given: a map is of one language.")
    settings = _ready(asked, root)
    for gamma in grid.gammas:  # refused before a model is loaded
        for eta in grid.etas:
            replace(like_guide, gamma=gamma, eta=eta)
    model, base, free = asked.models.load(dtype, device)
    (like,) = asked.cells(model, like_guide, free, root)
    cells = list(grid.cells(like).values())
    check(model, cells, asked.per_label, settings, asked.batch_rows, TRIES, base)
    config = {"command": "guide-sweep", **asked.record(model, base), "cells": [cell.to_json() for cell in cells]}
    with RunFolder.open(out, config) as folder:
        keep(folder, model, cells)
        found = sweep_guidance(
            model, like, folder, grid, per_label=asked.per_label, settings=settings, base=base,
            batch_rows=asked.batch_rows, progress=progress,
        )  # fmt: skip
        folder.write_table(TABLE, found)
        figures.write_images(draw(found, title=finding(found)), folder.path, "guidance")
        folder.finish()
    return records(found)


def wide(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each different value of the columns `by`, and a column for each measure that is known somewhere."""
    known = list(dict.fromkeys(row["metric"] for row in rows if row["value"] is not None))
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        place = tuple(row[name] for name in by)
        line = found.setdefault(place, {**dict(zip(by, place, strict=True)), **dict.fromkeys(known)})
        if row["metric"] in known:
            line[row["metric"]] = row["value"]
    return list(found.values())


def _ready(asked: Asked, root: Path | None) -> Any:
    """Refuse what needs no model to be seen; the settings."""
    if not asked.languages:
        raise SteerlabError("no language was given: give at least one, say -l en.")
    asked.models.check()
    for code in asked.languages:
        asked.guidance(Guide(0.0, 0.0), code, False, root)
    return asked.settings()


def _metrics(
    model: TracedModel, base: TracedModel | None, cells: Sequence[Cell], written: Written, per_label: int
) -> list[dict[str, Any]]:
    """Every measure of every cell; unguided ones are held against the base and the examples of the guided ones."""
    like = {cell.language: cell.guidance for cell in cells if cell.guidance is not None}
    rows = []
    for cell in cells:
        texts, labels = written.texts(cell)
        guidance = like[cell.language]
        found = measures(model, base, replace(cell, guidance=guidance), texts, labels, per_label)
        names = cell.chosen_labels() if guidance.by_label else ("",)
        real = [text for label in names for text in guidance.texts("real", label)]
        found |= copy_report(texts, real)
        place = {"language": cell.language, "task": str(cell.to_json()["task"]), "condition": cell.condition}
        rows += [{**place, "metric": name, "estimate": one} for name, one in found.items()]
    return rows


def _report(written: Written, metrics: str, hide: bool) -> str:
    """A page to read: metrics, what could not be filled, and two samples of every label in every cell with their negatives."""
    parts = ["# Guided texts\n", metrics, ""]
    if written.unfilled:
        parts += ["## Could not be filled\n", *[f"- {k}: {n} missing" for k, n in written.unfilled.items()], ""]
    parts.append("## Samples\n")
    by_cell: dict[str, list[Mapping[str, Any]]] = {}
    for row in written.samples:
        by_cell.setdefault(str(row["cell"]), []).append(row)
    for cell, rows in by_cell.items():
        parts.append(f"### {cell}\n")
        for row in (row for row in rows if int(row["index"]) < 2):
            away = ", ".join(row.get("guidance", {}).get("negatives", ()))
            parts.append(f"- **{row['label']}**: {redacted(row['text']) if hide else row['text']}")
            parts += [f"  - away from {away}"] if away else []
        parts.append("")
    return "\n".join(parts)
