"""Whole experiments: write a data set under several conditions, and judge every condition against human texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from steerlab import data
from steerlab.data.leakage import overlap_report
from steerlab.errors import SteerlabError
from steerlab.evaluation import (
    diversity,
    downstream,
    faithfulness,
    fluency,
    language,
    repetition,
    stats,
    table,
)
from steerlab.evaluation.human import HumanTexts, example_corpus, human_texts
from steerlab.generation import Settings
from steerlab.model import TracedModel
from steerlab.origin import keep
from steerlab.steering import Intervention
from steerlab.store import RunFolder
from steerlab.synthesis import Cell, Written, check, synthesize
from steerlab.tasks import Task, few_shot_examples, task

PROMPTS = ("target", "none", "english")


@dataclass(frozen=True)
class SynthesisConfig:
    """What to write. The same object is the command's options, the run's key and its record."""

    languages: tuple[str, ...]
    tasks: tuple[str | Task, ...] = ("topic",)
    model: str = "polyglot-mini"
    per_label: int = 20
    prompt: str = "target"  # the language the prompt names: the target, none, or English
    shots: int = 0
    source: str = (
        ""  # human texts for few-shot examples and tests; "" = the largest public set, "sample" = the bundled one
    )
    settings: Settings = field(default_factory=Settings)
    max_tries: int = 5
    near_duplicate: float = 0.9
    batch_rows: int = 64

    def __post_init__(self) -> None:
        if self.prompt not in PROMPTS:
            raise SteerlabError(f"prompt {self.prompt!r} is not known: give one of {', '.join(PROMPTS)}.")
        if not self.languages or not self.tasks:
            raise SteerlabError("no languages or no tasks were given: give at least one of each.")
        if self.per_label < 1:
            raise SteerlabError(f"{self.per_label} samples per label were asked for: ask for at least 1.")
        for code in self.languages:
            data.language(code)
        for name in self.tasks:
            task(name)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "settings": self.settings.to_json()}


@dataclass(frozen=True)
class Condition:
    """A named way to write: interventions per language, and the prompt's language where it differs from the
    config's.
    """

    name: str
    interventions: Mapping[str, tuple[Intervention, ...]]
    prompt: str | None = None


def cells_of(config: SynthesisConfig, conditions: Sequence[Condition], root: Path | None = None) -> list[Cell]:
    """Every language x task x condition, with few-shot examples where the config asks for them."""
    found = []
    for code in config.languages:
        for name in config.tasks:
            shots: dict[str, tuple[str, ...]] = {}
            if config.shots:
                corpus = example_corpus(name, code, root, config.source or None)
                shots = {label: few_shot_examples(corpus, label, k=config.shots) for label in task(name).labels}
            for condition in conditions:
                kind = condition.prompt or config.prompt
                named = {"target": code, "none": None, "english": "en"}[kind]
                found.append(Cell(condition.name, code, name, condition.interventions.get(code, ()), named, shots))
    return found


def write_data(
    model: TracedModel,
    config: SynthesisConfig,
    conditions: Sequence[Condition],
    out: Path,
    root: Path | None = None,
    progress: bool = True,
) -> tuple[Written, list[Cell], RunFolder]:
    """Write every condition into the run folder `out`; a killed run continues when called again with the same
    arguments. The folder keeps its vectors and what else a repetition needs (`steerlab.origin`).

    Raises `SteerlabError` when `out` holds another run, and as `synthesize` does, for bad input before `out` is touched.
    """
    cells = cells_of(config, conditions, root)
    check(model, cells, config.per_label, config.settings, config.batch_rows, config.max_tries)
    record = {
        **config.to_json(),
        "model_revision": model.revision,
        **({} if model.engine == "local" else {"engine": model.engine}),
        "cells": [cell.to_json() for cell in cells],
    }
    run = RunFolder.open(out, record)
    try:
        keep(run, model, cells)
        written = synthesize(
            model,
            cells,
            run,
            per_label=config.per_label,
            settings=config.settings,
            batch_rows=config.batch_rows,
            max_tries=config.max_tries,
            near_duplicate=config.near_duplicate,
            progress=progress,
        )
    except BaseException:
        run.close()  # or this process could not continue the run
        raise
    return written, cells, run


def evaluate(
    samples: Sequence[Mapping[str, Any]],
    *,
    model: TracedModel | None = None,
    root: Path | None = None,
    source: str = "",
    seeds: Sequence[int] = range(10),
    without: Collection[str] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """Every metric of every (language, task, condition) among the sample rows, as a tidy table with intervals.

    Sample rows have language, task, condition, label, text. With a model, perplexity under it and the Vendi
    score of its embeddings are added. A metric that cannot be computed is NaN with a reason. `without`: texts the prompts showed,
    which are not tested on.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in samples:
        groups.setdefault((row["language"], row["task"], row["condition"]), []).append(row)
    human: dict[tuple[str, str], HumanTexts] = {}
    for code, name, _ in groups:  # what is refused is refused before the bar stands there
        if (code, name) not in human:
            human[code, name] = human_texts(name, code, root, source or None, without)
    found: list[dict[str, Any]] = []
    for (code, name, condition), rows in tqdm(groups.items(), desc="judge", unit="cell", disable=not progress):
        texts, labels = [str(r["text"]) for r in rows], [str(r["label"]) for r in rows]
        metrics = text_metrics(texts, code, model) | label_metrics(texts, labels, human[code, name], seeds)
        found += [
            {"language": code, "task": name, "condition": condition, "metric": m, "estimate": e}
            for m, e in metrics.items()
        ]
    return table.metrics_table(found)


def text_metrics(texts: Sequence[str], code: str, model: TracedModel | None = None) -> dict[str, stats.Estimate]:
    """Language share, diversity, repetition and (with a model) perplexity of the texts of one condition."""
    wanted = data.language(code).lid
    embedded = None if model is None else fluency.embeddings(model, texts)
    found = {
        "language_share": language.language_share(list(texts), wanted),
        **diversity.diversity_report(list(texts), embedded),
    }
    found["repetition_rate"] = stats.bootstrap(np.array([repetition.repetition_rate(text) for text in texts]))
    if model is not None:
        try:
            found["log_perplexity"] = stats.bootstrap(np.log(fluency.perplexity(model, texts)))
        except SteerlabError as error:
            if model.engine == "local":
                raise
            found["log_perplexity"] = stats.Estimate.missing(str(error))
    return found


def label_metrics(
    texts: Sequence[str], labels: Sequence[str], human: HumanTexts, seeds: Sequence[int]
) -> dict[str, stats.Estimate]:
    """Macro-F1 of a classifier trained on the texts, with floor and ceiling, and label faithfulness."""
    test = (list(human.test_texts), list(human.test_labels))
    found: dict[str, stats.Estimate] = {}
    try:
        found["macro_f1"] = downstream.train_and_test(list(texts), list(labels), *test, seeds=list(seeds)).macro_f1
    except SteerlabError as error:
        found["macro_f1"] = stats.Estimate.missing(str(error))
    found["macro_f1_floor"] = downstream.floor(*test)
    if human.train_texts:
        train = (list(human.train_texts), list(human.train_labels))
        found["macro_f1_ceiling"] = downstream.ceiling(*train, *test, seeds=list(seeds)).macro_f1
        judged = faithfulness.faithfulness(list(texts), list(labels), *train, *test)
        found["faithfulness"], found["judge_accuracy"] = judged.share, judged.judge_accuracy
    else:
        reason = f"{human.source} has no train split"
        found["macro_f1_ceiling"] = found["faithfulness"] = stats.Estimate.missing(reason)
    return found


def leakage(
    config: SynthesisConfig, vector_texts: Mapping[str, Sequence[str]], root: Path | None = None
) -> data.LeakageReport:
    """Overlap between the texts vectors were fitted on and the human test texts of this run."""
    groups = {f"vectors {name}": list(texts) for name, texts in vector_texts.items()}
    for code in config.languages:
        for name in config.tasks:
            groups[f"test {task(name).name} {code}"] = list(
                human_texts(name, code, root, config.source or None).test_texts
            )
    return overlap_report(groups)
