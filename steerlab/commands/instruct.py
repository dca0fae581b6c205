"""`steerlab instruct fit` and `select`: instruction vectors, and where and how strongly each acts best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.errors import SteerlabError
from steerlab.generation import Settings
from steerlab.instructions import (
    AGAINST,
    KINDS,
    Application,
    CellSelection,
    Form,
    carry,
    cells_of,
    choose_cells,
    find_form,
    fit_instructions,
    load_instruction_vectors,
    pairs_of,
    plan_trials,
    prompt_source,
    reference_perplexity,
    save_instructions,
    tables_of,
)
from steerlab.instructions.composition import Placed, cosines
from steerlab.instructions.runs import vector_digests, write_requests
from steerlab.instructions.sources import prompt_digest
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Gate
from steerlab.store import RunFolder
from steerlab.types import Positions
from steerlab.vectors import SteeringVector

VECTORS, CHOICES = "vectors", "choices.json"
SELF, NO_MODEL = "self", "none"


@dataclass(frozen=True)
class Prompts:
    """Which prompts, of which model, in which form: what all `instruct` commands ask."""

    model: str
    source: str
    instructions: tuple[str, ...]
    n: int
    form: str
    seed: int
    data: Path | None = None

    def rows(self, part: Any) -> list[Any]:
        """The prompts of a part."""
        return prompt_source(self.source, part, self.instructions, self.n, seed=self.seed, root=self.data)

    @property
    def shape(self) -> Form:
        """The form the prompts are put in."""
        return find_form(self.form)


@dataclass(frozen=True)
class Acting:
    """How the vectors act, from the command line's words."""

    kind: str = "match"
    unit: str = "raw"
    cap: float | None = None
    gate: float | None = None
    positions: str = "all"

    @property
    def application(self) -> Application:
        """The application; raises `SteerlabError` for words that are not known."""
        gate = None if self.gate is None else Gate(self.gate)
        kind: Any = self.kind
        unit: Any = self.unit
        if kind not in KINDS or unit not in ("raw", "residual"):
            raise SteerlabError(
                f"--apply {kind!r} and --unit {unit!r} were given: give one of {', '.join(KINDS)}, and raw or residual."
            )
        return Application(kind, unit, self.cap, gate, Positions.parse(self.positions))


def vectors_of(folder: Path) -> dict[str, SteeringVector]:
    """Vectors from a folder of them, or from the folder of a run that made some."""
    inner = folder / VECTORS
    return load_instruction_vectors(inner if inner.is_dir() else folder)


def checked(vectors: Mapping[str, SteeringVector], model: TracedModel) -> None:
    """Raise `SteerlabError` where a vector is of another model."""
    for vector in vectors.values():
        vector.check(model.name, model.revision, model.d_model, model.n_layers)


def base_config(command: str, asked: Any, prompts: Prompts, rows: Sequence[Any], revision: str) -> dict[str, Any]:
    """What a run's configuration holds, whichever command it is of."""
    told = {name: value for name, value in asdict(prompts).items() if name != "data"}
    options = {} if asked is None else asdict(asked)
    return {
        "command": f"instruct {command}",
        **told,
        "options": options,
        "revision": revision,
        "prompts": prompt_digest(rows),
    }


@dataclass(frozen=True)
class FitOptions:
    """What `fit` was asked beside its prompts."""

    against: str = "bare"
    last: int = 1
    splits: int = 10


def fit(
    asked: FitOptions, prompts: Prompts, out: Path, dtype: str, device: str | None, progress: bool
) -> list[dict[str, Any]]:
    """Fit a vector per instruction and keep all in `out`; one row each."""
    if asked.against not in AGAINST:
        raise SteerlabError(f"--against {asked.against!r} is not known: give one of {', '.join(AGAINST)}.")
    rows, form = prompts.rows("train"), prompts.shape
    pairs = pairs_of(rows)
    if not pairs:
        raise SteerlabError("no prompt has exactly one instruction: fitting needs those.")
    model = load(prompts.model, dtype=dtype, device=device)
    with RunFolder.open(out, base_config("fit", asked, prompts, rows, model.revision)) as folder:
        if not folder.finished:
            vectors = fit_instructions(
                model, pairs, against=asked.against, form=form, last=asked.last, splits=asked.splits, seed=prompts.seed,
                progress=progress,
            )  # fmt: skip
            save_instructions(vectors, folder.path / VECTORS)
            folder.write_table("vectors.csv", _layers(vectors))
            folder.finish()
        return [_row(vector) for vector in vectors_of(folder.path).values()]


def _layers(vectors: Mapping[str, SteeringVector]) -> pd.DataFrame:
    """One row per vector and layer: norm, projections, reliability."""
    rows = []
    for name, vector in vectors.items():
        own = vector.projections
        assert own is not None
        for row, layer in enumerate(vector.layers):
            sure = own.reliability[row] if own.reliability else float("nan")
            rows.append((name, layer, float(vector.raw_norm[row]), own.bare[row], own.instructed[row], sure))
    return pd.DataFrame(rows, columns=["instruction", "layer", "raw_norm", "bare", "instructed", "reliability"])


def _row(vector: SteeringVector) -> dict[str, Any]:
    own = vector.projections
    assert own is not None
    sure = own.reliability
    best = max(range(len(sure)), key=lambda row: sure[row] if sure[row] == sure[row] else -1.0) if sure else 0
    share = float(vector.raw_norm[best] / vector.residual_norm[best])
    return {
        "instruction": vector.name,
        "pairs": int(vector.counts[0]),
        "most reliable layer": vector.layers[best] if sure else None,
        "reliability there": sure[best] if sure else None,
        "length / stream there": share,
    }


@dataclass(frozen=True)
class SelectOptions:
    """What `select` was asked beside its prompts and how vectors act."""

    acting: Acting
    layers: tuple[int, ...]
    strengths: tuple[float, ...]
    shown: bool
    rule: str
    reference: str
    threshold: float
    folds: int
    mode: str
    max_new_tokens: int
    stop: tuple[str, ...]
    batch_rows: int
    transfer: bool = False


def select(
    asked: SelectOptions, vectors: Path, prompts: Prompts, out: Path, dtype: str, device: str | None, progress: bool
) -> list[dict[str, Any]]:
    """Try every instruction at every cell, choose, and keep the vectors with their choices in `out`; one row per instruction."""
    fitted, form, application = vectors_of(vectors), prompts.shape, asked.acting.application
    rows = [row for row in prompts.rows("valid") if len(row.cells) == 1 and row.cells[0] in fitted]
    if not rows:
        raise SteerlabError(f"no prompt has an instruction with a vector in {vectors}: it has {', '.join(fitted)}.")
    if asked.rule not in ("shrunken", "paper") or asked.mode not in ("loose", "strict"):
        raise SteerlabError(
            f"--rule {asked.rule!r}, --mode {asked.mode!r}: give shrunken or paper, and loose or strict."
        )
    model = load(prompts.model, dtype=dtype, device=device)
    fitted = carry(fitted, model) if asked.transfer else fitted
    checked(fitted, model)
    cells = cells_of(model.n_layers, asked.strengths, asked.layers or None)
    attempts = plan_trials(fitted, rows, cells, application, form=form, shown=asked.shown)
    settings = form.ends(Settings(max_new_tokens=asked.max_new_tokens, greedy=True, stop=asked.stop, seed=prompts.seed))
    config = base_config("select", asked, prompts, rows, model.revision) | {"vectors": vector_digests(fitted)}
    with RunFolder.open(out, config) as folder:
        facts = [
            {"prompt": a.prompt.id, "instruction": a.prompt.cells[0], "cell": None if a.cell is None else list(a.cell)}
            for a in attempts
        ]
        requests = [a.request for a in attempts]
        samples = write_requests(
            folder, model, requests, facts, settings, batch_rows=asked.batch_rows, progress=progress
        )
        surprise = _reference(asked.reference, model, dtype, device)
        mode: Any = asked.mode
        tables = tables_of(attempts, [s.text for s in samples], surprise, mode)
        rule: Any = asked.rule
        found = choose_cells(tables, application, rule, threshold=asked.threshold, folds=asked.folds, seed=prompts.seed)
        _keep(folder, found, {name: fitted[name] for name in tables})
        return _chosen_rows(found)


def _reference(name: str, model: TracedModel, dtype: str, device: str | None) -> Any:
    """The perplexity that tells degenerate answers: of the model itself, of another, or none."""
    if name == NO_MODEL:
        return None
    return reference_perplexity(model if name == SELF else load(name, dtype=dtype, device=device))


def _keep(folder: RunFolder, found: CellSelection, vectors: Mapping[str, SteeringVector]) -> None:
    """Trials, what the rule is worth, choices, cosines of what was chosen, the vectors, and the manifest last."""
    save_instructions(found.chosen(vectors), folder.path / VECTORS)
    rows = []
    for name, table in found.tables.items():
        for at, cell in enumerate(table.cells):
            layer, strength = (-1, float("nan")) if cell is None else cell
            own = table.perplexity[:, at]
            rows.append(
                (name, layer, strength, len(table), float(table.followed[:, at].mean()), float(pd.Series(own).median()))
            )
    folder.write_table(
        "trials.csv", pd.DataFrame(rows, columns=["instruction", "layer", "strength", "n", "followed", "perplexity"])
    )
    if found.fit is not None:
        folder.write_table("held_out.csv", found.fit.table())
    placed = {n: Placed(vectors[n], cell, found.application) for n, cell in found.cells.items() if cell is not None}
    folder.write_table("cosines.csv", cosines(placed))
    told = {name: None if cell is None else cell._asdict() for name, cell in found.cells.items()}
    folder.write_json(CHOICES, {"rule": found.rule, "application": found.application.to_json(), "cells": told})
    folder.finish()


def _chosen_rows(found: CellSelection) -> list[dict[str, Any]]:
    rows = []
    for name, cell in found.cells.items():
        table = found.tables[name]
        at = table.cells.index(cell)
        line: dict[str, Any] = {"instruction": name, "n": len(table)}
        line["layer"], line["strength"] = ("not steered", None) if cell is None else cell
        line |= {"unsteered": float(table.followed[:, 0].mean()), "chosen": float(table.followed[:, at].mean())}
        if found.fit is not None:
            line["chosen, held out"] = f"{found.fit.rate(name):.2f}"
            line["gain, held out"] = f"{found.fit.gain(name):.2f}"
        rows.append(line)
    return rows
