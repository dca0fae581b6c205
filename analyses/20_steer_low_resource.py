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

import textwrap
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
from steerlab.evaluation.diversity import distinct_n
from steerlab.evaluation.downstream import TextClassifier, floor, train_and_test
from steerlab.evaluation.fluency import perplexity
from steerlab.evaluation.human import HumanTexts, example_corpus, human_texts
from steerlab.evaluation.repetition import repetition_rate
from steerlab.evaluation.stats import over_seeds
from steerlab.generation import Settings
from steerlab.guidance import Form, Guide
from steerlab.loading import load
from steerlab.model import TracedModel
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
    "vector on base": (("base", "vector"), ("base", "none")),
    "vector on expert": (("expert", "vector"), ("expert", "none")),
    "vector on guided": (("guided", "vector"), ("guided", "none")),
    "random on base": (("base", "random"), ("base", "none")),
    "random on expert": (("expert", "random"), ("expert", "none")),
    "random on guided": (("guided", "random"), ("guided", "none")),
    "expert over base": (("expert", "none"), ("base", "none")),
    "guided over expert": (("guided", "none"), ("expert", "none")),
    "guided, vector over expert": (("guided", "vector"), ("expert", "none")),
    "guided, vector over base": (("guided", "vector"), ("base", "none")),
}


@dataclass(frozen=True)
class Config:
    """`per_label` texts of every label for each writer, direction and seed."""

    language: str = "jv"
    experts: str = "experts"
    gamma: float = 0.2
    eta: float = 0.6
    form: Form = "balanced"
    per_label: int = 12
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    classifier_seeds: int = 5
    max_new_tokens: int = 64


def compute(config: Config) -> Result:
    """Every measure by writer and direction over seeds, and the differences paired by seed."""
    code = config.language
    expert, base = trained(config.experts, f"topic-{code}", f"--task topic -l {code}"), load()
    (push,) = interventions(Steering("quality"), (code,), base, 0)[code]
    human = human_texts(TOPIC, code)
    judge = Judge(human, data.language(code).lid, range(config.classifier_seeds))
    found: list[dict[str, Any]] = []
    for seed in config.seeds:
        for condition, own in pd.DataFrame(_written(config, expert, base, push, seed)).groupby("condition", sort=False):
            writer, kind = str(condition).split(" ")
            place = {"writer": writer, "push": kind, "seed": seed}
            values = judge.measures(base, own["text"].tolist(), own["label"].tolist())
            found += [{**place, "metric": name, "value": value} for name, value in values.items()]
    every = pd.DataFrame(found)
    hashes = {f"human {side}": data.texts_sha256(list(getattr(human, f"{side}_texts"))) for side in ("train", "test")}
    facts = {"name": data.language(code).name, "human": judge.human(), "layer": push.at[0], "strength": push.strength}
    return Result({NAME: _over(every), DIFFERENCES: _differences(every)}, facts, base.revision, hashes)


class Judge:
    """Measures of labelled texts, held against human ones: the classifier of human texts is trained once for all sets."""

    def __init__(self, texts: HumanTexts, lid: str, seeds: Sequence[int]) -> None:
        self.texts, self.lid, self.seeds = texts, lid, seeds
        self.classifier = TextClassifier(texts.train_texts, texts.train_labels)
        self.fitted = self.classifier.fit()

    def measures(self, base: TracedModel, texts: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
        """Share in the language, distinct-2, repetition, surprise of the base, labels recognised, and macro-F1 on human texts."""
        return {
            "language_share": language.language_share(texts, self.lid).value,
            "distinct_2": distinct_n(texts, 2),
            "repetition": float(np.mean([repetition_rate(text) for text in texts])),
            "log_perplexity": float(np.nanmean(np.log(perplexity(base, texts)))),
            "faithfulness": self.recognised(texts, labels),
            "macro_f1": self.f1(texts, labels),
        }

    def recognised(self, texts: Sequence[str], labels: Sequence[str]) -> float:
        """Share of texts that the classifier of human texts gives the label they were written for."""
        return float(np.mean(self.fitted.predict(self.classifier.transform(texts)) == np.array(labels)))

    def f1(self, texts: Sequence[str], labels: Sequence[str]) -> float:
        """Macro-F1 on the human test texts of a classifier trained on these."""
        tested = self.texts.test_texts, self.texts.test_labels
        return train_and_test(texts, labels, *tested, seeds=self.seeds).macro_f1.value

    def human(self) -> dict[str, float]:
        """What human text reaches: test texts for language and labels, training texts for macro-F1."""
        own = self.texts
        return {
            "language_share": language.language_share(own.test_texts, self.lid).value,
            "faithfulness": self.recognised(own.test_texts, own.test_labels),
            "macro_f1": self.f1(own.train_texts, own.train_labels),
            "macro_f1_floor": floor(own.test_texts, own.test_labels).value,
        }


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
            # One batch: the directions draw the same negatives for a text number, which are read once.
            rows += synthesize(
                model, cells, run, per_label=config.per_label, settings=settings, batch_rows=512, progress=False
            ).samples
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
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=f"gain in {label.format(name=name)}")
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(_sure(own), fontsize=9)
    return figure


def _sure(own: Any) -> str:
    """Which differences have an interval that does not hold zero."""
    sure: Sequence[str] = [str(what) for what, row in own.iterrows() if row["low"] > 0 or row["high"] < 0]
    told = f"{len(sure)} of {len(own)} intervals leave out zero"
    return textwrap.fill(f"{told}: {', '.join(sure)}" if 0 < len(sure) < 3 else told, 28)


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
