"""What do guidance and a quality vector do together, in a low-resource language?

Javanese topic sentences for the seven labels of SIB-200, with three writers: the base (polyglot-mini), an expert (a LoRA adapter
trained on the 701 Javanese training texts: `steerlab expert train --task topic -l jv --steps 80 --out experts/topic-jv`), and the expert
guided (contrasted with its base, moving away from ten real or accepted texts of the label, balanced form). Each writes without a
vector, with the bundled quality vector where it is recommended, and with a random direction as long, another one for each
seed. Measured: share in Javanese (lid.176), diversity, surprise of the base, labels recognised by a classifier of human texts
(faithfulness), and macro-F1 on human test texts of a classifier trained on the synthetic ones. Intervals are over seeds; all writers
and directions share keys, so differences are paired by seed.

    python -m analyses.20_steer_low_resource --data DIR   # about 15 minutes on one core; continues where it was stopped
    python -m analyses.20_steer_low_resource --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses._experts import pick, rows_of, trained
from analyses._harness import ROOT, Result, main
from steerlab import data, figures
from steerlab.cells import Cell, Guidance
from steerlab.commands.synthesize import Steering, interventions
from steerlab.estimators import random_like
from steerlab.evaluation import language
from steerlab.evaluation.human import HumanTexts, example_corpus, human_texts
from steerlab.evaluation.stats import over_seeds
from steerlab.generation import Settings
from steerlab.guidance import Form, Guide
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.recipes import evaluate
from steerlab.steering import Intervention
from steerlab.store import RunFolder
from steerlab.synthesis import synthesize
from steerlab.tasks import FINISHES, TOPIC

NAME, DIFFERENCES = "steer_low_resource", "steer_low_resource_differences"
WRITERS = ("base", "expert", "guided")
PUSHES = {"none": "no vector", "vector": "quality vector", "random": "random direction"}
SHOWN = {
    "language_share": ("texts in {name} (%)", 100),
    "distinct_2": ("distinct-2", 1),
    "faithfulness": ("label recognised (%)", 100),
    "macro_f1": ("macro-F1 on human text", 1),
}
# What is held against what: the pairs of (writer, push).
AGAINST = {
    "vector, base": (("base", "vector"), ("base", "none")),
    "vector, expert": (("expert", "vector"), ("expert", "none")),
    "vector, guided": (("guided", "vector"), ("guided", "none")),
    "random, base": (("base", "random"), ("base", "none")),
    "random, expert": (("expert", "random"), ("expert", "none")),
    "random, guided": (("guided", "random"), ("guided", "none")),
    "expert": (("expert", "none"), ("base", "none")),
    "guidance": (("guided", "none"), ("expert", "none")),
    "guidance and vector": (("guided", "vector"), ("expert", "none")),
    "all three": (("guided", "vector"), ("base", "none")),
}


@dataclass(frozen=True)
class Config:
    """`per_label` texts of every label for each writer, direction and seed."""

    language: str = "jv"
    experts: str = "experts"
    gamma: float = 0.2
    eta: float = 0.6
    form: Form = "balanced"
    per_label: int = 10
    seeds: tuple[int, ...] = (0, 1, 2)
    classifier_seeds: int = 5
    max_new_tokens: int = 64


def compute(config: Config) -> Result:
    """Every measure by writer and direction over seeds, and the differences paired by seed."""
    code = config.language
    expert, base = trained(config.experts, f"topic-{code}", f"--task topic -l {code}"), load()
    (push,) = interventions(Steering("quality"), (code,), base, 0)[code]
    found: list[Any] = []
    for seed in config.seeds:
        rows = _written(config, expert, base, push, seed)
        judged: Any = evaluate(rows, model=base, seeds=range(config.classifier_seeds))
        judged[["writer", "push"]] = judged["condition"].str.split(" ", expand=True)
        found.append(judged.assign(seed=seed))
    every = pd.concat(found, ignore_index=True)
    human = human_texts(TOPIC, code)
    hashes = {f"human {side}": data.texts_sha256(list(getattr(human, f"{side}_texts"))) for side in ("train", "test")}
    facts = {"name": data.language(code).name, "human": _human(human, code, every), "layer": push.at[0]}
    return Result({NAME: _over(every), DIFFERENCES: _differences(every)}, facts, base.revision, hashes)


def _written(
    config: Config, expert: TracedModel, base: TracedModel, push: Intervention, seed: int
) -> list[dict[str, Any]]:
    """The sample rows of all writers and directions with one seed; conditions are "WRITER PUSH"."""
    code, finish = config.language, FINISHES[TOPIC.finish]
    settings = Settings(
        max_new_tokens=config.max_new_tokens, temperature=1.0, top_k=10, top_p=1.0, stop=finish.stop, seed=seed
    )
    aside = Intervention(random_like(push.vector, seed), push.at, strength=push.strength, unit=push.unit)
    pushes = {"none": (), "vector": (push,), "random": (aside,)}
    corpus = example_corpus(TOPIC, code)
    real = {label: tuple(e.text for e in corpus.examples if e.label == label) for label in TOPIC.labels}
    guidance = Guidance(Guide(config.gamma, config.eta, config.form), real=real)
    rows: list[dict[str, Any]] = []
    for name, model, guides in (("base", base, [None]), ("expert", expert, [None, guidance])):
        writers = ("base",) if name == "base" else ("expert", "guided")
        cells = [
            Cell(f"{writer} {kind}", code, TOPIC, own, code, guidance=guide)
            for writer, guide in zip(writers, guides, strict=True)
            for kind, own in pushes.items()
        ]
        record = {
            "command": f"analyses.20_{NAME}", "model": model.name, "revision": model.revision, "seed": seed,
            "adapter": "" if model.adapter is None else model.adapter.digest, "settings": settings.to_json(),
            "per_label": config.per_label, "cells": [cell.to_json() for cell in cells],
        }  # fmt: skip
        with RunFolder.open(ROOT / "runs" / NAME / f"{name}-{seed}", record) as run:
            rows += synthesize(model, cells, run, per_label=config.per_label, settings=settings).samples
            run.finish()
    return rows


def _over(every: Any) -> pd.DataFrame:
    """The mean over seeds of every measure, by writer and direction."""
    rows: list[dict[str, Any]] = []
    for (writer, push), own in every.groupby(["writer", "push"], sort=False):
        means = {metric: over_seeds(part["value"].tolist()) for metric, part in own.groupby("metric", sort=False)}
        rows += rows_of({"writer": writer, "push": push}, means)
    return pd.DataFrame(rows)


def _differences(every: Any) -> pd.DataFrame:
    """The mean over seeds of every measure in one place less that in another, paired by seed."""
    rows: list[dict[str, Any]] = []
    for what, places in AGAINST.items():
        one, other = (
            every[(every["writer"] == writer) & (every["push"] == push)].pivot_table("value", "seed", "metric")
            for writer, push in places
        )
        gap = one - other
        rows += rows_of({"what": what}, {metric: over_seeds(gap[metric].tolist()) for metric in gap})
    return pd.DataFrame(rows)


def _human(human: HumanTexts, code: str, every: Any) -> dict[str, float]:
    """What human text of this kind reaches, for each measure that has such a value."""
    share = language.language_share(list(human.test_texts), data.language(code).lid).value
    ceiling, judge = (
        float(every[every["metric"] == m]["value"].iloc[0]) for m in ("macro_f1_ceiling", "judge_accuracy")
    )
    return {"language_share": share, "faithfulness": judge, "macro_f1": ceiling}


def draw(result: Result) -> Mapping[str, Figure]:
    """The four measures by writer and direction, and what was gained against what."""
    table, gaps = result.tables[NAME], result.tables[DIFFERENCES]
    return {NAME: _levels(table, result.facts), DIFFERENCES: _gaps(gaps, result.facts["name"])}


def _levels(table: Any, facts: Mapping[str, Any]) -> Figure:
    figure, panels = figures.new(columns=2, rows=2, height=6.4)
    for axes, (metric, (label, scale)) in zip(panels, SHOWN.items(), strict=True):
        own = pick(table, metric).copy()
        own[["value", "low", "high"]] *= scale
        figures.dots(axes, own, place="writer", series="push", order=WRITERS, series_order=tuple(PUSHES), names=PUSHES)
        if metric in facts["human"]:
            axes.axhline(facts["human"][metric] * scale, color="black", ls="--", lw=1.2, label="human text")
        axes.set(ylabel=label.format(**facts))
        at = {(row.writer, row.push): row.value for row in own.itertuples()}
        digits = 0 if scale == 100 else 2
        told = (f"{at[place]:.{digits}f}" for place in (("expert", "none"), ("guided", "none"), ("guided", "vector")))
        axes.set_title("Expert {}, guided {},\nguided with vector {}".format(*told))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _gaps(gaps: Any, name: str) -> Figure:
    """Differences with intervals, a panel per measure."""
    figure, panels = figures.new(columns=2, rows=2, height=7.2)
    names = list(AGAINST)
    for place, (axes, (metric, (label, scale))) in enumerate(zip(panels, SHOWN.items(), strict=True)):
        own = pick(gaps, metric).set_index("what").reindex(names)
        value, low, high = (own[one].to_numpy(float) * scale for one in ("value", "low", "high"))
        y = np.arange(len(names))
        axes.errorbar(
            value, y, xerr=np.vstack([value - low, high - value]), ls="", marker="o", ms=4.5, color=figures.COLOURS[0],
            capsize=2, lw=1.2,
        )  # fmt: skip
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(y, names if place % 2 == 0 else [])
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=f"more {label.format(name=name)}")
        axes.set_title(_sure(own))
    return figure


def _sure(own: Any) -> str:
    """Which differences have an interval that does not hold zero."""
    sure: Sequence[str] = [str(what) for what, row in own.iterrows() if row["low"] > 0 or row["high"] < 0]
    return f"{len(sure)} of {len(own)} intervals\nexclude zero"


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
