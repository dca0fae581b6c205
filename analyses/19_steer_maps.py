"""Where is guidance usable: what do gamma and eta do to fluency and diversity, and does the balanced form stay fluent at a high eta?

Maps: every gamma and eta of the authors' grid, in the published and in the balanced form, written in mixed batches by an expert (see
`analyses.17_steer_methods`) with ten negatives a text. Curves: more texts at one gamma, beside two controls. "Temperature alone" is the
expert and its base without negatives at the temperature 1 / (1 - eta), which is what eta does in the published form where the
negatives say what the prompt says. "Balanced, no mask" has the balanced weights over all tokens; both are also written at etas beyond
the grid (in the table). "Real text" is held-out text. Fluency is the surprise of the base model, 4-grams repeated
inside a text, and the share of texts that lid.176 calls English. Intervals are over texts.

    python -m analyses.19_steer_maps --data DIR   # about 15 minutes on one core; continues where it was stopped
    python -m analyses.19_steer_maps --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses._experts import pick, rows_of, trained
from analyses._harness import ROOT, Result, main
from steerlab import data, figures, guidance_sweep
from steerlab.cells import Cell, Guidance
from steerlab.comparison import REAL, Subject, subject
from steerlab.evaluation.language import language_share
from steerlab.generation import Settings
from steerlab.guidance import Guide
from steerlab.guidance_sweep import AUTHORS, Grid, measures, sweep_guidance
from steerlab.model import TracedModel
from steerlab.store import RunFolder
from steerlab.synthesis import Written, synthesize
from steerlab.tasks import FINISHES

NAME, CURVES = "steer_maps", "steer_eta"
FORMS, OPEN, HOT = ("published", "balanced"), "balanced, no mask", "temperature alone"
BEYOND = (2.0, 4.0)
MAPPED = ("diversity_2_4", "ngrams_3_ratio", "log_perplexity_base")
SHOWN = {
    "log_perplexity_base": ("surprise of the base\n(nats a token)", 1),
    "repetition": ("4-grams repeated\nin a text (%)", 100),
    "in_english": ("texts in English (%)", 100),
    "diversity_2_4": ("diversity 2-4 (%)", 100),
}
ROWS = 384  # all cells of a text number draw the same negatives, which a batch reads once: large batches are cheap
HIGH = 0.8  # from where on the published form is said to collapse


@dataclass(frozen=True)
class Config:
    """`map_texts` in every cell of the maps, which are of the task `mapped`; `texts` at every eta of the curves, at this `gamma`."""

    tasks: tuple[str, ...] = ("hypotheses", "commonsense")
    mapped: str = "hypotheses"
    experts: str = "experts"
    map_texts: int = 8
    texts: int = 32
    gamma: float = 0.2
    max_new_tokens: int = 60
    seed: int = 0


def compute(config: Config) -> Result:
    """Two tables: the maps of one task, and the curves of all."""
    curves: list[Any] = []
    maps, hashes, revision = pd.DataFrame(), {}, ""
    for name in config.tasks:
        model, what = trained(config.experts, name, f"--task {name}"), subject(name)
        like = Cell("guided", "en", name, guidance=Guidance(Guide(config.gamma), real=what.train))
        settings = Settings(
            max_new_tokens=config.max_new_tokens, temperature=1.0, top_k=10, top_p=1.0, stop=FINISHES[what.finish].stop,
            seed=config.seed,
        )  # fmt: skip
        curves += _curves(config, model, what, like, settings)
        if name == config.mapped:
            with _folder(model, name, "map", settings, list(Grid().cells(like).values()), config.map_texts) as run:
                maps = sweep_guidance(model, like, run, per_label=config.map_texts, settings=settings, batch_rows=ROWS)
                run.finish()
        hashes |= {f"{name} {side}": data.texts_sha256(list(getattr(what, side))) for side in ("train", "real")}
        revision = model.revision
    facts = {"mapped": config.mapped, "gamma": config.gamma}
    return Result({NAME: maps, CURVES: pd.DataFrame(curves)}, facts, revision, hashes)


def _folder(
    model: TracedModel, task: str, name: str, settings: Settings, cells: Sequence[Cell], texts: int
) -> RunFolder:
    """The run folder of some cells, which goes on where it was stopped."""
    adapter = "" if model.adapter is None else model.adapter.digest
    record = {
        "command": f"analyses.19_{NAME}", "model": model.name, "revision": model.revision, "adapter": adapter,
        "settings": settings.to_json(), "per_label": texts, "cells": [cell.to_json() for cell in cells],
    }  # fmt: skip
    return RunFolder.open(ROOT / "runs" / NAME / task / name, record)


def _curves(config: Config, model: TracedModel, what: Subject, like: Cell, settings: Settings) -> list[dict[str, Any]]:
    """Every measure of both forms at every eta, of temperature alone, and of real text."""
    rows: list[dict[str, Any]] = []

    def add(form: str, eta: float, cell: Cell, texts: Sequence[str], labels: Sequence[str]) -> None:
        found = measures(model, None, cell, texts, labels, config.texts)
        found["in_english"] = language_share(list(texts), "en")
        rows.extend(rows_of({"task": what.name, "form": form, "eta": eta}, found))

    def write(name: str, cells: Sequence[Cell], how: Settings) -> Written:
        with _folder(model, what.name, name, how, cells, config.texts) as run:
            found = synthesize(model, cells, run, per_label=config.texts, settings=how, batch_rows=ROWS)
            run.finish()
        return found

    cells = Grid((config.gamma,), AUTHORS).cells(like)
    written = write("curve", list(cells.values()), settings)
    for (form, _, eta), cell in cells.items():
        add(form, eta, cell, *written.texts(cell))
    more = _more(config, like)
    written = write("more", list(more.values()), settings)
    for (form, eta), cell in more.items():
        add(form, eta, cell, *written.texts(cell))
    for eta in (eta for eta in AUTHORS if eta < 1):
        cell = replace(like, condition=HOT, guidance=Guidance(Guide(config.gamma, 0.0), real=what.train))
        hot = replace(settings, temperature=1 / (1 - eta))
        add(HOT, eta, cell, *write(f"temperature-{eta:g}", [cell], hot).texts(cell))
    people = what.real[: config.texts]
    add(REAL, 0.0, like, people, like.chosen_labels() * len(people))
    return rows


def _more(config: Config, like: Cell) -> dict[tuple[str, float], Cell]:
    """The balanced form without its mask at every eta, and both beyond the grid."""
    found = {}
    for form, alpha, etas in ((FORMS[1], None, BEYOND), (OPEN, 0.0, (*AUTHORS, *BEYOND))):
        for eta in etas:
            guide = Guide(config.gamma, eta, "balanced", alpha)
            assert like.guidance is not None
            guidance = replace(like.guidance, guide=guide)
            found[form, eta] = replace(like, condition=f"{form} eta={eta:g}", guidance=guidance)
    return found


def draw(result: Result) -> Mapping[str, Figure]:
    """The maps of both forms, and fluency and diversity against eta for every task."""
    maps, curves = result.tables[NAME], result.tables[CURVES]
    task = result.facts["mapped"]
    title = textwrap.fill(f"{task}. {guidance_sweep.finding(maps)}", 88)
    return {NAME: guidance_sweep.draw(maps, MAPPED, title), CURVES: _drawn(curves, result.facts["gamma"])}


def _drawn(table: Any, gamma: float) -> Figure:
    tasks = list(dict.fromkeys(table["task"]))
    figure, panels = figures.new(columns=2, rows=2 * len(tasks), height=0.6 + 5.4 * len(tasks))
    for k, task in enumerate(tasks):
        for place, (metric, (label, scale)) in enumerate(SHOWN.items()):
            axes = panels[4 * k + place]
            own = pick(table, metric, task=task).copy()
            own[["value", "low", "high"]] *= scale
            figures.lines(axes, own[own["eta"] <= 1], x="eta", series="form", series_order=(*FORMS, HOT, OPEN))
            (real,) = own[own["form"] == REAL].itertuples()
            axes.axhline(real.value, color="black", ls="--", lw=1.2, label=REAL)
            axes.axhspan(real.low, real.high, color="grey", alpha=0.15, lw=0)
            axes.set(xlabel="eta (weight of the negatives)", ylabel=label)
            axes.set_title(_told(own, task), fontsize=8)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, title=f"gamma {gamma:g}")
    return figure


def _told(own: Any, task: str) -> str:
    """The numbers of both forms and of temperature alone at a high eta, beside real text."""
    at = own[own["eta"] == HIGH].set_index("form")["value"]
    real = float(own[own["form"] == REAL]["value"].iloc[0])
    digits = 1 if own["value"].max() < 20 else 0
    short = {"published": "published", "balanced": "balanced", OPEN: "no mask", HOT: "temperature"}
    numbers = ", ".join(f"{word} {at[form]:.{digits}f}" for form, word in short.items() if form in at.index)
    return textwrap.fill(f"{task}, eta {HIGH:g}: {numbers}, real {real:.{digits}f}", 36)


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
