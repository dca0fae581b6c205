"""Judge every cell of a study against human texts: one row per cell, the same numbers whichever process computes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from steerlab import data
from steerlab.disk import replace, told
from steerlab.errors import SteerlabError
from steerlab.evaluation import downstream, language, repetition
from steerlab.evaluation.classifier import FineTuneConfig
from steerlab.evaluation.diversity import compression_ratio, distinct_n, self_bleu
from steerlab.evaluation.finetune import fine_tune
from steerlab.evaluation.human import HumanTexts, human_texts
from steerlab.evaluation.pool import NgramPool
from steerlab.evaluation.words import words
from steerlab.records import (
    SEAL,
    config_key,
    from_json,
    is_sealed,
    parse,
    plain,
    pretty,
    read_sealed_rows,
    sealed,
    sealed_rows,
)
from steerlab.store import verify
from steerlab.studies.config import StudyConfig
from steerlab.studies.units import shots_of
from steerlab.studies.writing import Job
from steerlab.synthesis import DRAFTS, SAMPLES

JUDGED = "judged"
KEYS = ("model", "language", "task", "mode", "kind", "group", "layer", "strength", "seed")
# Which way is better; what is not here describes and is not compared.
BETTER = {
    "macro_f1": 1, "distinct_1": 1, "distinct_2": 1, "distinct_3": 1, "self_bleu": -1, "compression_ratio": -1,
    "vendi_ngram": 1, "language_share": 1, "faithfulness": 1, "repetition_rate": -1,
}  # fmt: skip
DIVERSITY = ("distinct_1", "distinct_2", "distinct_3", "self_bleu", "compression_ratio", "vendi_ngram")


class Judge:
    """Human texts of one (language, task) of a study, and what a classifier makes of them: floor, ceiling, faithfulness.

    Few-shot examples of the study are no test texts, in any prompt mode, so that all cells are tested on the same ones.
    """

    def __init__(self, config: StudyConfig, code: str, name: str, root: Path | None) -> None:
        given: list[str] = []
        if "few-shot" in config.modes:
            given = [text for texts in shots_of(config, code, name, root).values() for text in texts]
        self.human: HumanTexts = human_texts(name, code, root, config.source or None, without=given)
        self.wanted = data.language(code).lid
        self.seeds = range(1, config.classifier_seeds + 1)
        self.base = config.classifier
        self.test = downstream.clean(self.human.test_texts, self.human.test_labels, "test")[:2]

    @cached_property
    def reader(self) -> tuple[downstream.TextClassifier, Any] | None:
        """A classifier trained on the human train split; None where there is none."""
        texts, labels, _ = downstream.clean(self.human.train_texts, self.human.train_labels, "training")
        if not texts:
            return None
        classifier = downstream.TextClassifier(texts, labels)
        return classifier, classifier.fit()

    def references(self) -> dict[str, Any]:
        """Floor (majority label) and ceiling (human train split) of macro-F1, with intervals."""
        floor = downstream.floor(*self.test)
        found: dict[str, Any] = {"source": self.human.source, "licence": self.human.licence, "floor": floor.to_json()}
        if self.human.train_texts:
            top = downstream.ceiling(
                self.human.train_texts, self.human.train_labels, *self.test, seeds=list(self.seeds)
            )
            found |= {"ceiling": top.macro_f1.to_json(), "ceiling_texts": top.train_size}
        return found | {"test_texts": len(self.test[0])}

    def trained(self, texts: Sequence[str], labels: Sequence[str]) -> downstream.DownstreamResult:
        """The study's classifier trained on the texts and tested on the human ones: fine-tuned where the study names a model."""
        if not self.base:
            return downstream.train_and_test(texts, labels, *self.test, seeds=list(self.seeds))
        settings = FineTuneConfig(model=self.base, seeds=tuple(self.seeds))
        return fine_tune((texts, labels), self.test, config=settings, progress=False).result

    def rows(
        self, job: Job, samples: Sequence[Mapping[str, Any]], drafts: Sequence[Mapping[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """One row per arm of the unit."""
        texts = [str(row["text"]) for row in samples]
        pool = NgramPool(texts, *self.test)
        named = language.identify(texts)
        agreed = self._agreement(texts, [str(row["label"]) for row in samples])
        cost = _cost(drafts)
        by_cell: dict[str, list[int]] = {}
        for i, row in enumerate(samples):
            by_cell.setdefault(str(row["condition"]), []).append(i)
        for arm in job.arms:
            own = np.array(by_cell.get(arm.name, []), dtype=np.int64)
            found: dict[str, Any] = {
                "model": job.record["model"], "language": job.unit.language, "task": job.unit.task, "mode": job.unit.mode,
                "kind": arm.kind, "group": arm.group, "layer": arm.layer, "strength": arm.strength, "seed": job.unit.seed,
                "asked": job.slots // len(job.arms), "n": len(own), **cost[arm.name],
            }  # fmt: skip
            chosen = [texts[i] for i in own]
            found |= self._downstream(pool, own, chosen, [str(samples[i]["label"]) for i in own])
            full = len(own) == found["asked"]
            found |= _diversity(chosen) if full else dict.fromkeys(DIVERSITY, math.nan)
            found["language_share"] = _mean([named[i].language == self.wanted for i in own])
            found["faithfulness"] = _mean([agreed[i] for i in own]) if agreed is not None else math.nan
            found["repetition_rate"] = _mean([repetition.repetition_rate(text) for text in chosen])
            found["words_per_text"] = _mean([len(words(text)) for text in chosen])
            yield found

    def _agreement(self, texts: Sequence[str], labels: Sequence[str]) -> np.ndarray | None:
        if self.reader is None or not texts:
            return None
        classifier, fitted = self.reader
        return np.asarray(fitted.predict(classifier.transform(texts)), dtype=object) == np.asarray(labels, dtype=object)

    def _downstream(self, pool: NgramPool, own: np.ndarray, texts: list[str], labels: list[str]) -> dict[str, Any]:
        if len(set(labels)) < 2:
            return {"macro_f1": math.nan, "macro_f1_seeds": [], "macro_f1_full": math.nan, "vendi_ngram": math.nan}
        quick = pool.judge(own, labels, self.seeds)
        seeds, full = quick.per_seed, quick.full
        if self.base:
            slow = self.trained(texts, labels)
            seeds, full = slow.per_seed, slow.full
        return {
            "macro_f1": float(np.mean(seeds)),
            "macro_f1_seeds": [round(x, 6) for x in seeds],
            "macro_f1_full": full,
            "vendi_ngram": quick.vendi,
        }


def _diversity(texts: Sequence[str]) -> dict[str, float]:
    """Diversity of the texts of a cell in which every slot is filled: all of these depend on the number of texts."""
    return {
        **{f"distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)},
        "self_bleu": self_bleu(texts),
        "compression_ratio": compression_ratio(texts),
    }


def _cost(drafts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Per arm: drafts, tokens written and prompt tokens read, rejected drafts included."""
    found: dict[str, dict[str, int]] = {}
    for row in drafts:
        own = found.setdefault(str(row["condition"]), {"drafts": 0, "tokens": 0, "prompt_tokens": 0})
        own["drafts"] += 1
        own["tokens"] += int(row["tokens"])
        own["prompt_tokens"] += int(row["prompt_tokens"])
    return found


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def judge_key(job: Job, config: StudyConfig, judge: Judge) -> str:
    """Names a unit's judgement: the unit, the human texts and the classifier seeds."""
    record = {
        "unit": job.record,
        "test": data.texts_sha256(judge.test[0]),
        "train": data.texts_sha256(judge.human.train_texts),
        "seeds": config.classifier_seeds,
        "classifier": config.classifier,
        "judge": 2,  # 1 had no checksum
    }
    return config_key(record)[:12]


def judge_units(
    config: StudyConfig, jobs: Sequence[Job], out: Path, root: Path | None, progress: bool = True
) -> pd.DataFrame:
    """The rows of every finished unit, computed where they are not there yet, as a table in the order of the jobs.

    Raises `SteerlabError` where no unit is finished, or one was changed since.
    """
    finished = [job for job in jobs if job.finished]
    for job in finished:
        verify(job.folder)
    if not finished:
        raise SteerlabError(f"{out} has no finished unit to judge: write some first.")
    judges: dict[tuple[str, str], Judge] = {}
    rows: list[dict[str, Any]] = []
    for job in tqdm(finished, unit="unit", desc="judge", disable=not progress):
        place = (job.unit.language, job.unit.task)
        if place not in judges:
            judges[place] = Judge(config, *place, root)
        path = out / JUDGED / f"{job.unit.name}-{judge_key(job, config, judges[place])}.jsonl"
        with told(path):
            known = read_sealed_rows(path.read_bytes()) if path.is_file() else None
        if known is None:  # or no longer what was written there
            known = list(judges[place].rows(job, read_rows(job, SAMPLES), read_rows(job, DRAFTS)))
            with told(path):
                replace(path, sealed_rows(known))
        rows += map(plain, known)
    return pd.DataFrame(rows)


def read_rows(job: Job, name: str) -> list[dict[str, Any]]:
    """The rows of one of the unit's files."""
    path = job.folder / name
    with told(path):
        return parse(path.read_bytes(), path)


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The sealed object in a file without its seal; None where there is none, or it was changed since."""
    try:
        value = from_json(path.read_bytes()) if path.is_file() else None
    except ValueError:
        return None
    if not isinstance(value, dict) or not is_sealed(value):
        return None
    return {name: own for name, own in value.items() if name != SEAL}


def references(config: StudyConfig, out: Path, root: Path | None) -> pd.DataFrame:
    """Floor and ceiling of every (language, task) of the study, kept in the study's folder."""
    path = out / JUDGED / "references.json"
    known = read_sealed(path) or {}
    rows = []
    for code, name in config.cases():
        judge = Judge(config, code, name, root)
        key = f"{code}/{name}/{data.texts_sha256(judge.test[0])[:12]}/{config.classifier_seeds}/{config.classifier}"
        if key not in known:
            known[key] = judge.references()
            with told(path):
                replace(path, pretty(sealed(known)))
        own = known[key]
        row: dict[str, Any] = {"language": code, "task": name, "source": own["source"], "test_texts": own["test_texts"]}
        for what in ("floor", "ceiling"):
            for part in ("value", "low", "high"):
                row[f"{what}_{part}" if part != "value" else what] = (own.get(what) or {}).get(part, math.nan)
        rows.append({**row, "ceiling_texts": own.get("ceiling_texts", 0)})
    return pd.DataFrame(rows)
