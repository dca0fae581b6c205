"""`steerlab sweep`: layer x strength x vector measured, an arm chosen for every vector, everything kept in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import figures
from steerlab.ablation.dose import DoseResponse, respond
from steerlab.ablation.outcomes import MEASURES, score_texts
from steerlab.ablation.selection import Rule, Selection, choose, save_choice, with_choice
from steerlab.commands.sweep_inputs import Asked, judge_of, read
from steerlab.commands.sweep_parts import SAMPLES, Job, Spread, gather, write_parts
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.generation import generate_batches
from steerlab.loading import load
from steerlab.store import RunFolder, read_config, verify

TABLE = "sweep.csv"
SIDE = ("log_perplexity", "repetition", "distinct_2")
TOLERANCE = 1e-3  # how far a repeated number may be off: sums in another order round differently


def run(
    asked: Asked,
    out: Path,
    root: Path | None,
    keep: bool,
    dtype: str,
    device: str | None,
    progress: bool,
    spread: Spread | None = None,
) -> list[dict[str, Any]]:
    """Write, measure, choose, draw; the manifest comes last. One row per vector. `keep`: write choices into headers. `spread`:
    who writes (nothing given: this process); a process with a shard that does not lead says what it wrote, and ends there.

    Bad input is refused before the model is loaded or anything written.
    """
    spread = spread or Spread()
    inputs, rule = read(asked), Rule(asked.effect)
    judge = judge_of(asked, inputs.labels, root) if spread.shard.leads else None
    model = load(asked.model, dtype=dtype, device=spread.shard.device(device))
    job = Job.plan(model, asked, inputs, root, out)
    if not spread.shard.leads:
        write_parts(job, spread.shard, out, progress)
        return [
            {
                "shard": f"{spread.shard.index + 1}/{spread.shard.count}",
                "parts": job.parts.written(),
                "of": job.parts.count,
            }
        ]
    with RunFolder.open(out, job.config) as folder:
        if spread.alone and not job.parts.folder.is_dir():
            _write(folder, job, progress)
        else:
            gather(folder, job, spread, root, dtype, device, progress)
        written = pd.DataFrame(sorted(folder.read(SAMPLES), key=lambda kept: kept["number"])).drop(columns="number")
        scored = score_texts(model, written, inputs.prompts, inputs.labels if judge else None, judge)
        response = respond(model, inputs.design, scored, inputs.prompts, inputs.targets, inputs.texts, progress)
        chosen = {name: _chosen(response, name, rule) for name in inputs.vectors}
        _finish(folder, response, chosen, rule, asked, keep)
    if spread.shard.whole:  # else others may still be looking at them
        job.parts.remove()
    if keep and not any(isinstance(found, Selection) for found in chosen.values()):
        raise SteerlabError(f"nothing was chosen, so no header was written: {next(iter(chosen.values()))}")
    return [_row(name, found, rule) for name, found in chosen.items()]


def _write(folder: RunFolder, job: Job, progress: bool) -> None:
    """The texts of every arm, but for batches an earlier process finished."""
    skip = {int(number) for number in folder.completed_batches(SAMPLES)}
    batches = generate_batches(
        job.model, job.requests, job.inputs.settings, batch_rows=job.asked.batch_rows, skip=skip, progress=progress
    )  # fmt: skip
    for number, members, samples in batches:
        folder.append(SAMPLES, job.rows(members, samples), batch=str(number))


def _finish(
    folder: RunFolder,
    response: DoseResponse,
    chosen: Mapping[str, Selection | str],
    rule: Rule,
    asked: Asked,
    keep: bool,
) -> None:
    """Tables, figure, choices, the headers that were asked for, and the manifest last."""
    folder.write_table(TABLE, response.table)
    folder.write_table("outcomes.csv", response.texts.drop(columns="text"))
    record: dict[str, Any] = {}
    for number, (name, found) in enumerate(chosen.items()):
        if isinstance(found, str):
            record[name] = {"chosen": None, "reason": found}
            continue
        record[name] = {"chosen": found.choice.to_json(), "choosing": found.choosing, "checking": found.checking}
        folder.write_table(f"candidates/{number}-{Path(name).stem}.csv", found.candidates)
        if keep and Path(name).is_file():
            save_choice(name, found)
        elif keep:
            vector = with_choice(response.design.vectors[name], found)
            vector.save(folder.path / "vectors" / f"{vector.name}.safetensors")
    folder.write_json("choices.json", {"rule": str(rule), "vectors": record})
    figures.write_images(draw(response, chosen, asked.effect), folder.path, "sweep")
    folder.finish()


def draw(response: DoseResponse, chosen: Mapping[str, Selection | str], effect: str) -> Any:
    """For each of the first four vectors the target effect and the surprise by layer and strength, the chosen arm ringed."""
    operator = str(next(iter(dict.fromkeys(response.texts["operator"][response.texts["operator"] != "none"]))))
    names = list(response.design.vectors)[:4]
    figure, axes = figures.new(columns=2, rows=len(names), height=1.0 + 2.3 * len(names))
    for row, name in enumerate(names):
        for column, measure in enumerate((effect, "log_perplexity")):
            own, panel = response.map(measure, name, operator=operator), axes[2 * row + column]
            share = measure in ("in_target", "agreement", "ended", "distinct_2")
            shown = own * 100 if share else own
            low, high = (0.0, 100.0) if share else (float(own.min().min()), float(own.max().max()) + 1e-9)
            unit = "%" if share else "nats a token"
            figures.heat(panel, shown, low=low, high=high, label=unit, fmt="{:.0f}" if share else "{:.1f}")
            panel.set(xlabel=f"strength ({operator})", ylabel="layer")
            found = chosen[name]
            told = "nothing chosen"
            if isinstance(found, Selection):
                cell = found.cell
                told = f"{cell.operator} {cell.strength:g} at layer {cell.layer}"
                if cell.operator == operator:
                    at = list(own.columns).index(cell.strength), list(own.index).index(cell.layer)
                    panel.plot(*at, marker="o", ms=22, mfc="none", mec=figures.COLOURS[5], mew=2)
            title = "in the target language" if measure == "in_target" else measure
            panel.set_title(f"{Path(name).stem}: {title}" if column else f"{Path(name).stem}: {told}\n{title}")
    return figure


def _chosen(response: DoseResponse, name: str, rule: Rule) -> Selection | str:
    """The selection, or why there is none."""
    try:
        return choose(response, name, rule, seed=response.design.seed)
    except SteerlabError as error:
        return str(error)


def _row(name: str, found: Selection | str, rule: Rule) -> dict[str, Any]:
    """One line of the answer."""
    columns = ("operator", "layer", "strength", rule.effect, "more than unsteered", "more than random")
    if isinstance(found, str):
        return {"vector": name, **dict.fromkeys(columns), **{f"{m} change": None for m in SIDE}, "note": found}
    cell, evidence = found.cell, found.evidence
    shown = [evidence.get(key) for key in (rule.effect, f"{rule.effect} - unsteered", f"{rule.effect} - random")]
    values = (cell.operator, cell.layer, cell.strength, *(_words(one) for one in shown))
    side = {f"{m} change": _words(evidence.get(f"{m} - unsteered")) for m in SIDE}
    beaten = shown[2]
    weak = beaten is not None and beaten.known and not beaten.low > 0
    note = "no better than random directions on these prompts" if weak else ""
    return {"vector": name, **dict(zip(columns, values, strict=True)), **side, "note": note}


def _words(found: Estimate | None) -> str:
    if found is None or not found.known:
        return "–"
    return f"{found.value:.2f}" if found.low != found.low else f"{found:.2f}"


def reproduce(
    old: Path, out: Path, dtype: str, device: str | None, progress: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Repeat the finished sweep in `old` from its configuration, and compare every number of its table; True when all agree
    to a thousandth. Raises `SteerlabError` where `old` is no finished sweep or was changed since.
    """
    verify(old)
    config = read_config(old)
    if config.get("command") != "sweep":
        raise SteerlabError(f"{old} is not the folder of a sweep: give one that `steerlab sweep` wrote.")
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["asked"].items()}
    for name in ("prompts", "texts"):
        kept[name] = None if kept[name] is None else Path(kept[name])
    root = None if config["data"] is None else Path(config["data"])
    run(Asked(**kept), out, root, False, dtype, device, progress)
    tables: list[Any] = [pd.read_csv(folder / TABLE) for folder in (old, out)]
    rows: list[dict[str, Any]] = []
    same = len(tables[0]) == len(tables[1])
    for measure in MEASURES:
        a, b = (t[t["measure"] == measure]["value"].to_numpy(float) for t in tables)
        if len(a) and len(a) == len(b):
            gap = float(abs(a - b).max())
            same &= gap <= TOLERANCE
            rows.append({"measure": measure, "numbers": len(a), "largest difference": gap, "same": gap <= TOLERANCE})
    return rows, same
