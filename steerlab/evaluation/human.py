"""Human texts a synthetic data set is judged against: train split for the ceiling, test split for everything."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from steerlab import data
from steerlab.errors import SteerlabError
from steerlab.tasks import Task, task

SENTIMENT_SOURCES = {
    "am": "afrisenti",
    "id": "nusax",
    "jv": "nusax",
    "su": "nusax",
    "en": "nusax",
    "da": "lcc-danish",
}


@dataclass(frozen=True)
class HumanTexts:
    """Labelled human texts of one task and language. `train_texts` is empty where the source has no train
    split.
    """

    source: str
    licence: str
    train_texts: tuple[str, ...]
    train_labels: tuple[str, ...]
    test_texts: tuple[str, ...]
    test_labels: tuple[str, ...]


def source_of(task_name: str, language: str) -> str:
    """The data set with human test texts for this task and language; "sample" (the bundled set) where there is
    no larger one.
    """
    if task_name == "topic":
        return "sib200"
    return SENTIMENT_SOURCES.get(language, "sample") if task_name == "sentiment" else "sample"


def example_corpus(
    chosen: str | Task, language: str, root: Path | None = None, source: str | None = None
) -> data.Corpus:
    """Where few-shot examples come from: the train split of the task's human texts (the bundled sample set has only its own
    texts). Of NusaX, `lm` is: the rest of its train split is what vectors are fitted on.
    """
    wanted = task(chosen).name
    name = source or source_of(wanted, language)
    return data.load(name, language, split={"sample": wanted, "nusax": "lm"}.get(name, "train"), root=root)


def human_texts(
    chosen: str | Task,
    language: str,
    root: Path | None = None,
    source: str | None = None,
    without: Collection[str] = (),
) -> HumanTexts:
    """Human texts with the labels of the task; rows with other labels are left out.

    source: a data set name, or "sample" for the set that ships with the package and needs no download. Default:
    the largest public one. without: texts that must not be tested on, because the prompts showed them; a test text
    that is nearly one of them (see `data.leakage`) is left out too.
    """
    wanted = task(chosen)
    name = source or source_of(wanted.name, language)

    def part(split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        rows = [e for e in data.load(name, language, split=split, root=root).examples if e.label in wanted.labels]
        if split != "train" and without:
            shown = data.overlap_report({"shown": list(without), "test": [e.text for e in rows]}).rows("test")
            rows = [e for i, e in enumerate(rows) if i not in shown and e.text not in without]
        return tuple(e.text for e in rows), tuple(str(e.label) for e in rows)

    train = ((), ()) if name == "sample" else part("train")
    test = part(wanted.name if name == "sample" else "test")
    if not test[0]:
        raise SteerlabError(
            f"{name} has no test texts in {language!r} with the labels of task {wanted.name!r}: choose another source or language."
        )
    return HumanTexts(name, data.SOURCES[name].card.licence, *train, *test)


def label_counts(labels: Sequence[str]) -> dict[str, int]:
    """How many texts each label has."""
    return {label: list(labels).count(label) for label in dict.fromkeys(labels)}
