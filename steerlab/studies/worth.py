"""What the texts of a study are worth beside human ones, and how far their labels can be trusted: mixed curves and calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from steerlab import data
from steerlab.disk import replace, told
from steerlab.evaluation import calibration
from steerlab.evaluation.mixing import HUMAN, MIXED, mixing_curves
from steerlab.evaluation.splits import Labelled
from steerlab.evaluation.stats import Estimate, bootstrap
from steerlab.records import config_key, plain, pretty, sealed
from steerlab.studies.config import StudyConfig
from steerlab.studies.judging import JUDGED, Judge, read_rows, read_sealed
from steerlab.studies.writing import Job
from steerlab.synthesis import SAMPLES
from steerlab.tasks import task

UNSTEERED, STEERED = "unsteered", "steered"
COLUMNS = ("model", "language", "task", "what", "arm", "measure", "k", "value", "low", "high", "n", "reason")


def best_arms(cells: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    """(model, language, task) -> name of the zero-shot arm best in macro-F1 on the first generation seed; random directions do not run."""
    first: Any = cells[(cells["seed"] == cells["seed"].min()) & (cells["mode"] == "zero-shot")]
    steered = first[~first["kind"].isin(["none", "random"])].dropna(subset=["macro_f1"])
    order = steered.sort_values(["macro_f1", "strength"], ascending=[False, True], kind="stable")
    top = order.groupby(["model", "language", "task"], sort=False).head(1)
    return {
        (row["model"], row["language"], row["task"]): f"{row['kind']}/{row['group']}/{row['strength']:g}"
        for row in top.to_dict("records")
    }


def worth(
    config: StudyConfig, jobs: Sequence[Job], cells: pd.DataFrame, out: Path, root: Path | None, progress: bool = True
) -> pd.DataFrame:
    """Zero-shot texts of every (model, language, task), unsteered and by the best arm (chosen on the first generation seed, measured
    on the others): macro-F1 with k human texts beside them, human texts alone, and calibration.

    Columns: model, language, task, what ("unsteered", "steered"), arm, measure, k, value, low, high, n, reason. Measures: the series
    of `mixing_curves`, `worth` in human texts, `ece` and `ece_scaled` of a classifier trained on the synthetic texts and tested on the
    human ones, and `label_confidence` of a judge trained on human texts. Kept per pair in the study's folder.
    """
    arms = best_arms(cells)
    places = [
        key for key in dict.fromkeys((j.record["model"], j.unit.language, j.unit.task) for j in jobs) if key in arms
    ]
    rows: list[dict[str, Any]] = []
    for model, code, name in tqdm(places, unit="pair", desc="worth", disable=not progress):
        judge = Judge(config, code, name, root)
        if not judge.human.train_texts:
            continue
        own = [
            job for job in jobs if job.finished and job.unit.mode == "zero-shot"
            and (job.record["model"], job.unit.language, job.unit.task) == (model, code, name)
        ]  # fmt: skip
        for what, arm in ((UNSTEERED, "none"), (STEERED, arms[model, code, name])):
            later = [job for job in own if job.unit.seed != min(config.seeds)] or own
            path = out / JUDGED / f"worth-{_key(later, arm, judge)}.json"
            kept = read_sealed(path)
            if kept is None:
                kept = {"rows": plain(list(_measured(config, judge, [_texts(job, arm) for job in later])))}
                with told(path):
                    replace(path, pretty(sealed(kept)))
            known = {"model": model, "language": code, "task": name, "what": what, "arm": arm}
            rows += [known | row for row in kept["rows"]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _key(jobs: Sequence[Job], arm: str, judge: Judge) -> str:
    record = {
        "units": [job.record for job in jobs],
        "arm": arm,
        "test": data.texts_sha256(judge.test[0]),
        "human": data.texts_sha256(judge.human.train_texts),
        "seeds": list(judge.seeds),
    }
    return config_key(record)[:12]


def _texts(job: Job, arm: str) -> Labelled:
    rows = [row for row in read_rows(job, SAMPLES) if row["condition"] == arm]
    return [str(row["text"]) for row in rows], [str(row["label"]) for row in rows]


def _measured(config: StudyConfig, judge: Judge, sets: Sequence[Labelled]) -> Iterator[dict[str, Any]]:
    human = judge.human.train_texts, judge.human.train_labels
    sets = [one for one in sets if len(set(one[1])) > 1]
    if not sets:
        return
    curves = mixing_curves(human, sets, judge.test, seeds=list(judge.seeds))
    for row in curves.table.to_dict("records"):
        yield {"measure": row.pop("series"), **row}
    yield _row("worth", curves.worth)
    whole: Labelled = [t for one in sets for t in one[0]], [label for one in sets for label in one[1]]
    model = calibration.fit(whole)
    raw = calibration.calibration(model.raw(judge.test[0]), model.numbers(judge.test[1]))
    yield _row("ece", raw.ece)
    yield _row("ece_scaled", model.calibration(*judge.test).ece)
    reader = calibration.fit(human)
    yield _row("label_confidence", calibration.label_confidence(reader, *whole).mean)
    yield _row("label_confidence_human", calibration.label_confidence(reader, *judge.test).mean)


def _row(measure: str, estimate: Estimate) -> dict[str, Any]:
    return {"measure": measure, "k": math.nan, **estimate.to_json()}


def mixed(table: pd.DataFrame) -> pd.DataFrame:
    """Macro-F1 against human texts per label, the mean over (language, task) with a bootstrap interval over them, for human texts
    alone and beside unsteered and steered synthetic ones. Only pairs that have every point of a series enter it.
    """
    rows = []
    series = (
        ("human texts alone", UNSTEERED, HUMAN),
        ("unsteered + human", UNSTEERED, MIXED),
        ("steered + human", STEERED, MIXED),
    )
    for name, what, measure in series:
        own: Any = table[(table["what"] == what) & (table["measure"] == measure)].copy()
        own["per_label"] = [round(k / len(task(t).labels)) for k, t in zip(own["k"], own["task"], strict=True)]
        wide = own.pivot(index=["model", "language", "task"], columns="per_label", values="value")
        wide = wide[[k for k in wide.columns if wide[k].notna().mean() > 0.5]].dropna()
        for k in wide.columns:
            mean = bootstrap(wide[k].to_numpy(float))
            rows.append(
                {
                    "series": name,
                    "per_label": int(k),
                    "value": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "n": mean.n,
                }
            )
    return pd.DataFrame(rows, columns=["series", "per_label", "value", "low", "high", "n"])
