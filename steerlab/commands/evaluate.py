"""`steerlab evaluate`: judge a data set that was written earlier, here or elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import data
from steerlab.commands.synthesize import default_source, records
from steerlab.data import language
from steerlab.errors import SteerlabError
from steerlab.evaluation.human import human_texts
from steerlab.evaluation.stats import Estimate
from steerlab.evaluation.table import metrics_table
from steerlab.loading import load
from steerlab.recipes import evaluate
from steerlab.records import read_object, understood
from steerlab.store import RunFolder, read_rows
from steerlab.synthesis import SAMPLES
from steerlab.tasks import check_label, task

COLUMNS = ("language", "task", "label", "text")


@dataclass(frozen=True)
class Classifier:
    """A transformer to fine-tune beside the classical classifier; `model` "" fine-tunes none. `validation`: "train" stops by a share of
    the samples, "human" by the human validation split. `ceiling`: fine-tune on the human train split as well. `keep`: run folder for
    finished seeds. None leaves a default of the study as it is.
    """

    model: str = ""
    seeds: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    validation: str = "train"
    ceiling: bool = False
    keep: Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.validation not in ("train", "human"):
            raise SteerlabError(f"--classifier-validation is {self.validation!r}: give train or human.")


def run(
    where: Path, source: str, seeds: int, model: str, root: Path | None, classifier: Classifier | None = None
) -> list[dict[str, Any]]:
    """Metric rows of the samples in a run folder or a .jsonl file. Raises `SteerlabError` naming the row that is no sample."""
    if seeds < 1:
        raise SteerlabError(f"--seeds is {seeds}: give at least 1.")
    rows = read_rows(where / SAMPLES if where.is_dir() else where)
    if not rows:
        raise SteerlabError(f"{where} has no samples: write some with `steerlab synthesize`.")
    for number, row in enumerate(rows, start=1):
        row.setdefault("condition", "all")
        missing = [c for c in (*COLUMNS, "condition") if not isinstance(row.get(c), str)]
        if missing:
            raise SteerlabError(
                f"row {number} of {where} has no text as {missing[0]!r} (it has {', '.join(row)}): every sample needs {', '.join(COLUMNS)}."
            )
        try:
            language(row["language"])
            check_label(task(row["task"]), row["label"])
        except SteerlabError as error:
            raise SteerlabError(f"row {number} of {where}: {error}") from error
    traced = None if model == "none" else load(model)
    source, shown = source or default_source(root), _shown(where)
    if classifier is not None and classifier.model:
        tuned = fine_tuned(rows, root, source, shown, classifier)
    else:
        tuned = metrics_table([])
    progress = classifier is not None and classifier.progress
    metrics = evaluate(
        rows, model=traced, root=root, source=source, seeds=range(seeds), without=shown, progress=progress
    )
    return records(pd.concat([metrics, tuned]) if len(tuned) else metrics)


def fine_tuned(
    rows: Sequence[Mapping[str, Any]], root: Path | None, source: str, shown: Collection[str], classifier: Classifier
) -> pd.DataFrame:
    """Rows `macro_f1_finetuned`, and with a ceiling `macro_f1_ceiling_finetuned`, per language, task and condition.

    What cannot be trained is NaN with the reason; what cannot be loaded raises `SteerlabError` first.
    """
    from steerlab.evaluation.classifier import FineTuneConfig, find_base
    from steerlab.evaluation.finetune import fine_tune

    given = {"learning_rate": classifier.learning_rate, "epochs": classifier.epochs}
    given |= {"seeds": None if classifier.seeds is None else tuple(range(1, classifier.seeds + 1))}
    config = FineTuneConfig(classifier.model, **{name: value for name, value in given.items() if value is not None})
    find_base(config, ("a", "b"))
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["language"], row["task"], row["condition"]), []).append(row)
    found, tops = [], {}
    record = {"command": "evaluate --classifier", "config": {k: v for k, v in asdict(config).items() if k != "seeds"}}
    with RunFolder.open(classifier.keep, record) if classifier.keep else nullcontext() as run:

        def score(train: tuple[Sequence[str], Sequence[str]], human: Any, valid: Any) -> Estimate:
            test = human.test_texts, human.test_labels
            try:
                return fine_tune(train, test, valid, config, run, classifier.progress).result.macro_f1
            except SteerlabError as error:
                return Estimate.missing(str(error))

        for (code, name, condition), own in groups.items():
            human = human_texts(name, code, root, source or None, shown)
            valid = _validation(human.source, code, name, root, shown) if classifier.validation == "human" else None
            place = {"language": code, "task": name, "condition": condition}
            made = score(([str(r["text"]) for r in own], [str(r["label"]) for r in own]), human, valid)
            found.append({**place, "metric": "macro_f1_finetuned", "estimate": made})
            if classifier.ceiling:
                if (code, name) not in tops:
                    tops[code, name] = (
                        score((human.train_texts, human.train_labels), human, valid)
                        if human.train_texts
                        else Estimate.missing(f"{human.source} has no train split")
                    )
                found.append({**place, "metric": "macro_f1_ceiling_finetuned", "estimate": tops[code, name]})
        if run is not None:
            run.finish()
    return metrics_table(found)


def _validation(
    source: str, code: str, name: str, root: Path | None, shown: Collection[str]
) -> tuple[list[str], list[str]]:
    corpus = data.load(source, code, split="valid", root=root)
    rows = [e for e in corpus.examples if e.label in task(name).labels and e.text not in shown]
    return [e.text for e in rows], [str(e.label) for e in rows]


def _shown(where: Path) -> set[str]:
    """The few-shot examples of a run folder's prompts, which are no test texts."""
    config = where / "config.json"
    if not (where.is_dir() and config.is_file()):
        return set()
    cells = read_object(config).get("cells", [])
    with understood(config):
        return {str(text) for cell in cells for texts in cell.get("shots", {}).values() for text in texts}
