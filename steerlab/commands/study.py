"""`steerlab study`: plan, write, judge and report a low-resource study; merge shards; list presets."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.disk import replace, told
from steerlab.errors import SteerlabError
from steerlab.generation import Request, generate
from steerlab.model import TracedModel
from steerlab.records import config_key, pretty
from steerlab.sharding import Shard
from steerlab.studies.config import ModelPlan, StudyConfig
from steerlab.studies.directions import check_leakage, cosines
from steerlab.studies.judging import judge_units, references
from steerlab.studies.memory import GB, available, memory_plan
from steerlab.studies.presets import PRESETS, find_study
from steerlab.studies.report import page, tables, write_figures, write_tables
from steerlab.studies.units import Unit, arms_of, shard_of, shots_of, units_of
from steerlab.studies.worth import worth
from steerlab.studies.writing import Job, finished, jobs_of, load_model, write_units
from steerlab.studies.writing import merge as merge_units
from steerlab.tasks import prompt, task
from steerlab.vectors import SteeringVector
from steerlab.workers import check_exclusive, start

LEAKAGE = "leakage.json"
STAGES = ("all", "write", "report")
TRIAL_TOKENS = 16


def run(
    given: str,
    out: Path,
    root: Path | None,
    shard: str = "1/1",
    stage: str = "all",
    progress: bool = True,
    workers: int = 0,
    ray: str = "",
) -> list[dict[str, Any]]:
    """Write, judge and report the study; returns the rows of the claim. `stage` "write" stops before judging, "report" judges
    and reports what is there. `workers`, `ray`: that many processes, or tasks of that cluster, write before this one looks.

    Raises `SteerlabError` before anything is written for a configuration, model, vector or data set that will not do.
    """
    if stage not in STAGES:
        raise SteerlabError(f"stage {stage!r} is not known: give one of {', '.join(STAGES)}.")
    part = Shard.parse(shard)
    check_exclusive(part, workers, ray)
    config = find_study(given)
    if part.steal and not part.leads:
        write_share(given, out, root, part, progress)
        return []
    leaks = check_leakage(config, root)
    with told(out):
        out.mkdir(parents=True, exist_ok=True)
        replace(out / LEAKAGE, (leaks.to_json() + "\n").encode())
        replace(out / "study.json", pretty(config.to_json()))
    if (workers or ray) and stage != "report":
        total = len(shard_of(units_of(config), shard))
        start(
            partial(write_share, given, out, root),
            workers,
            ray,
            count=lambda: finished(out),
            total=total,
            progress=progress,
        )
    jobs: list[Job] = []
    angles: list[dict[str, Any]] = []
    for plan, model, own, vectors in _written(config, out, root, part, stage != "report", progress):
        jobs += own
        codes = list(dict.fromkeys(code for code, _ in config.cases()))
        angles += [{"model": model.name, **row} for row in cosines(vectors, codes, plan.groups(model.n_layers))]
    if stage == "write":
        return []
    places = {unit.name: place for place, unit in enumerate(units_of(config))}
    jobs.sort(key=lambda job: places[job.unit.name])  # whoever wrote what: the report reads them in one order
    return report(config, jobs, pd.DataFrame(angles), out, root, f"steerlab study low-resource {given}", progress)


def write_share(given: str, out: Path, root: Path | None, shard: Shard, progress: bool = False) -> None:
    """The whole life of a worker: the shard's units of the study, written into the folder all share; no judging."""
    config = find_study(given)
    check_leakage(config, root)
    for _ in _written(config, out, root, shard, True, progress):
        pass


def _written(
    config: StudyConfig, out: Path, root: Path | None, shard: Shard, write: bool, progress: bool
) -> Iterator[tuple[ModelPlan, TracedModel, list[Job], Mapping[str, SteeringVector]]]:
    """Model by model its jobs, written where `write` says so, in the shard's order, and its vectors."""
    mine = shard.order(units_of(config))
    for plan in config.models:
        model = load_model(plan, shard)
        units = [unit for unit in mine if unit.plan == plan]
        jobs, vectors = jobs_of(config, plan, model, units, out, root, progress)
        if write:
            write_units(config, model, jobs, progress)
        yield plan, model, jobs, vectors


def report(
    config: StudyConfig,
    jobs: Sequence[Job],
    angles: pd.DataFrame,
    out: Path,
    root: Path | None,
    command: str,
    progress: bool,
) -> list[dict[str, Any]]:
    """Judge what is written; tables, figures and page into `out`. Returns the rows of the claim in macro-F1."""
    cells = judge_units(config, jobs, out, root, progress)
    beside = worth(config, jobs, cells, out, root, progress)
    found = tables(cells, references(config, out, root), angles, beside)
    write_tables(found, out / "tables")
    record = {
        "config": config.to_json(),
        "config_key": config_key(config.to_json()),
        "strength_unit": ", ".join(dict.fromkeys(_unit(plan) for plan in config.models)),
    }
    images = write_figures(found, out / "figures", record)
    names = [path.relative_to(out).as_posix() for path in images]
    with told(out):
        replace(out / "report.md", page(found, config, names, command).encode())
    claim: Any = found["claim"]
    shown = claim[(claim["metric"] == "macro_f1") & (claim["strengths"] == "every")]
    columns = ["model", "mode", "kind", "group", "cases", "share", "share_low", "share_high", "gain", "vs_random", "p"]
    return json.loads(shown[columns].to_json(orient="records"))


def _unit(plan: ModelPlan) -> str:
    return "multiple of the unit vector" if plan.unit == "raw" else "fraction of the residual norm"


def merge(given: str, out: Path, parts: Sequence[Path], root: Path | None, progress: bool) -> list[dict[str, Any]]:
    """Units of other folders into `out` by key, then the report over all of them. Raises as `writing.merge` and `run`."""
    with told(out):
        out.mkdir(parents=True, exist_ok=True)
    merge_units(out, parts)
    return run(given, out, root, stage="report", progress=progress)


def dry_run(given: str, root: Path | None, shard: str = "1/1") -> list[dict[str, Any]]:
    """One row per model: units, cells, texts, tokens, memory, and the expected time measured on one mixed batch where the model
    can be loaded here. Nothing is written.
    """
    config = find_study(given)
    mine = shard_of(units_of(config), shard)
    rows = []
    for plan in config.models:
        units = [unit for unit in mine if unit.plan == plan]
        rows.append({"model": plan.name, **_expected(config, plan, units, root)})
    return rows


def _expected(config: StudyConfig, plan: ModelPlan, units: Sequence[Unit], root: Path | None) -> dict[str, Any]:
    need, (have, _) = memory_plan(plan, 1024), available(plan.device)
    model, why = None, ""
    try:
        model = load_model(plan)
    except SteerlabError as error:
        why = str(error)
    arms = len(arms_of(config, plan, model.n_layers if model else 10**6))
    texts = {unit.name: arms * len(task(unit.task).labels) * config.per_label[unit.task] for unit in units}
    total = sum(texts.values())
    found: dict[str, Any] = {
        "units": len(units),
        "cells": arms * len(units),
        "texts": total,
        "new_tokens_at_most": total * config.max_new_tokens,
        "memory_gb": round(need.total / GB, 1) if need else None,
        "memory_here_gb": round(have / GB, 1),
    }
    if model is None:
        return found | {"prompt_tokens": None, "seconds_per_new_token_step": None, "hours_at_most": None, "note": why}
    sizes = {(u.mode, u.language, u.task): _prompt_tokens(config, model, u, root) for u in units}
    prompts = sum(sizes[u.mode, u.language, u.task] * texts[u.name] for u in units)
    step = trial(config, plan, model, units[0])
    batches = sum(-(-n // plan.batch_rows) for n in texts.values())
    hours = batches * config.max_new_tokens * step / 3600
    note = "measured on one unsteered batch; answers that end early make it shorter, rejected drafts longer"
    return found | {
        "prompt_tokens": round(prompts),
        "seconds_per_new_token_step": round(step, 4),
        "hours_at_most": round(hours, 2),
        "note": note,
    }


def _prompt_tokens(config: StudyConfig, model: TracedModel, unit: Unit, root: Path | None) -> float:
    """Mean prompt length in tokens over the unit's labels."""
    shots = shots_of(config, unit.language, unit.task, root) if unit.mode == "few-shot" else {}
    texts = [prompt(unit.task, label, unit.language, shots.get(label, ())) for label in task(unit.task).labels]
    rows = model.token_rows(texts, chat=True)
    return sum(map(len, rows)) / len(rows)


def trial(config: StudyConfig, plan: ModelPlan, model: TracedModel, unit: Unit) -> float:
    """Seconds per decoding step of one full batch of the unit's zero-shot prompts."""
    settings = dataclasses.replace(config.settings(0), max_new_tokens=TRIAL_TOKENS, stop=())
    labels = task(unit.task).labels
    rows = [
        Request(prompt(unit.task, labels[i % len(labels)], unit.language), ("trial", i)) for i in range(plan.batch_rows)
    ]
    generate(model, rows[: max(1, len(rows) // 8)], settings, batch_rows=plan.batch_rows)  # warm up
    began = time.perf_counter()
    generate(model, rows, settings, batch_rows=plan.batch_rows)
    return (time.perf_counter() - began) / TRIAL_TOKENS


def presets(name: str) -> list[dict[str, Any]] | str:
    """A row per preset; with a name, that preset as TOML to start a configuration from."""
    if name:
        return to_toml(name)
    return [
        {
            "preset": key,
            "models": ", ".join(plan.name for plan in study.models),
            "blocks": str(dict(study.models[0].layers)) if study.models[0].layers else "1/4, 1/2, 4/5 of the depth",
            "strengths": f"{', '.join(f'{s:g}' for s in study.models[0].strengths)} ({study.models[0].unit})",
            "units": len(units_of(study)),
        }
        for key, study in PRESETS.items()
    ]


def to_toml(name: str) -> str:
    """The preset as TOML, every field with its value."""
    study = find_study(name)
    lines = [f"preset = {json.dumps(name)}"]
    for key, value in study.to_json().items():
        if key != "models":
            lines.append(f"{key} = {_toml(value)}")
    for plan in study.models:
        lines += ["", "[[models]]", *[f"{key} = {_toml(value)}" for key, value in dataclasses.asdict(plan).items()]]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)
