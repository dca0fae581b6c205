"""Methods of writing beside each other on tasks: as many texts and as many tokens for each, every measure with its interval."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steerlab import data
from steerlab.baselines import BASELINES, Method, write
from steerlab.data.leakage import normalise
from steerlab.errors import SteerlabError
from steerlab.evaluation.distinguish import distinguish, table
from steerlab.evaluation.downstream import train_and_test
from steerlab.evaluation.embeddings import Embedder
from steerlab.evaluation.stats import Estimate, bootstrap
from steerlab.experts.pairs import Pair, task_pairs
from steerlab.generation import Request, Settings
from steerlab.model import TracedModel
from steerlab.negatives import Draw, Negative, Pool, join
from steerlab.store import RunFolder
from steerlab.tasks import FINISHES, Task, task

KEYS = ("task", "method")
REAL = "real text"
ROWS = "samples.jsonl"
WORTH = "downstream_macro_f1"
MATCHED = ("real_ngrams_3", "real_diversity_2_4")  # of real text as long as a method's: they belong to the method
ONE = {f"{name}_ratio": Estimate.point(1.0, 1, "by definition") for name in ("ngrams_3", "diversity_2_4")}


@dataclass(frozen=True)
class Subject:
    """What is written and what it is held against: prompts in turn, held-out real texts, the expert's training texts, and how an answer
    ends. `finish` names one of `tasks.FINISHES`; its length and stop strings hold for every method. `taught` and `tested`: training
    and test texts behind their prompts, for tasks whose prompts name labels that a classifier can learn.
    """

    name: str
    prompts: tuple[str, ...]
    real: tuple[str, ...]
    train: tuple[str, ...]
    chat: bool = False
    finish: str = "line"
    taught: tuple[Pair, ...] = ()
    tested: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        if not (self.prompts and self.real and self.train) or self.finish not in FINISHES:
            raise SteerlabError(
                f"subject {self.name!r} has {len(self.prompts)} prompts, {len(self.real)} real and {len(self.train)} training texts and "
                f"the finish {self.finish!r}: give at least one of each, and a finish among {', '.join(FINISHES)}."
            )


@dataclass(frozen=True)
class Plan:
    """How much is written by every method, and with which negatives. `chunk` texts are written between two looks at the pool: with
    `grow` their accepted texts join it, as the authors' do one by one. `max_new_tokens` None: the task's own.
    """

    texts: int = 100
    seed: int = 0
    draw: Draw = field(default_factory=Draw)
    grow: bool = True
    chunk: int = 32
    batch_rows: int = 32
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.texts < 1 or self.chunk < 1:
            raise SteerlabError(
                f"{self.texts} texts in chunks of {self.chunk} were asked for: give at least 1 of both."
            )


@dataclass(frozen=True)
class Comparison:
    """`table`: task, method, metric, value, low, high, n, reason; the method "real text" is held-out real text against itself.
    `texts`: what every method wrote, by task and method.
    """

    table: pd.DataFrame
    texts: Mapping[tuple[str, str], tuple[str, ...]]


def subject(
    chosen: str | Task, labels: Sequence[str] = (), root: Path | str | None = None, allow_offensive: bool = False
) -> Subject:
    """A task whose real texts come in splits: experts learn from train, and synthetic text is held against valid and test."""
    known = task(chosen)
    splits = {
        split: task_pairs(known, split, labels=labels, root=root, allow_offensive=allow_offensive)
        for split in ("train", "valid", "test")
    }
    train = splits["train"]
    return Subject(
        known.name, tuple(dict.fromkeys(pair.prompt for pair in train)),
        tuple(dict.fromkeys(pair.text for pair in (*splits["valid"], *splits["test"]))),
        tuple(dict.fromkeys(pair.text for pair in train)), known.chat, known.finish, tuple(train), tuple(splits["test"]),
    )  # fmt: skip


def compare(
    model: TracedModel,
    what: Subject,
    methods: Mapping[str, Method] = BASELINES,
    plan: Plan | None = None,
    *,
    base: TracedModel | None = None,
    embed: Embedder | str | None = None,
    folder: Path | None = None,
    subsets: int = 100,
) -> Comparison:
    """Write `plan.texts` texts by every method with the expert `model`, and measure each set against the same held-out real texts.

    All methods get the same prompts, keys (so those that sample share their noise), stop strings and number of new tokens; the
    measured sets are cut to one size. `base` None: the model with its adapter off. With `folder` every method has a run folder there
    and goes on where it was stopped. Raises what `write` and `distinguish` refuse.
    """
    plan = plan or Plan()
    written = {
        name: _written(model, what, name, how, plan, base, None if folder is None else folder / what.name / slug(name))
        for name, how in methods.items()
    }
    tidied = {name: tuple(tidied_as(what, str(row["text"])) for row in rows) for name, rows in written.items()}
    filled = min((sum(bool(normalise(text)) for text in texts) for texts in tidied.values()), default=0)
    found: list[pd.DataFrame] = []
    prompts = [prompt_of(what, i) for i in range(plan.texts)]
    for name, texts in tidied.items():
        judged: Any = distinguish(
            texts, what.real, train=what.train, embed=embed, model=model, base=base, prompts=prompts, chat=what.chat,
            size=max(filled, 1), seed=plan.seed, subsets=subsets, controls=not found,
        )  # fmt: skip
        of_real = judged["metric"].str.startswith("real_") & ~judged["metric"].isin(MATCHED)
        if not found:
            control = judged[of_real].assign(metric=lambda rows: rows["metric"].str.removeprefix("real_"))
            known = table(ONE | {WORTH: worth(what, *_as_taught(what, plan.texts, plan.seed))})
            found.append(pd.concat([control, known]).assign(task=what.name, method=REAL))
        tokens = np.array([row["tokens"] for row in written[name]], dtype=float)
        extra = table({"tokens_per_text": bootstrap(tokens, seed=plan.seed), WORTH: worth(what, texts, prompts)})
        found.append(pd.concat([judged[~of_real], extra]).assign(task=what.name, method=name))
    columns = [*KEYS, "metric", "value", "low", "high", "n", "reason"]
    whole: Any = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)
    return Comparison(whole[columns], {(what.name, name): texts for name, texts in tidied.items()})


def worth(what: Subject, texts: Sequence[str], prompts: Sequence[str]) -> Estimate:
    """Macro-F1 on the subject's test texts of a classifier that learnt from these texts which prompt a text stands behind."""
    if len({pair.prompt for pair in what.tested}) < 2:
        return Estimate.missing("the task has no labels to tell apart")
    try:
        tested = [pair.text for pair in what.tested], [pair.prompt for pair in what.tested]
        return train_and_test(texts, prompts, *tested, seeds=range(10)).macro_f1
    except SteerlabError as error:
        return Estimate.missing(str(error))


def _as_taught(what: Subject, count: int, seed: int) -> tuple[list[str], list[str]]:
    """As many training texts as a method writes, all prompts in turn, and those prompts."""
    rng = np.random.default_rng([seed, 3])
    left = {own: [pair for pair in what.taught if pair.prompt == own] for own in what.prompts}
    order = {own: rng.permutation(len(pairs)).tolist() for own, pairs in left.items()}
    drawn = [left[own][order[own][i]] for i in range(count) for own in what.prompts if i < len(left[own])][:count]
    return [pair.text for pair in drawn], [pair.prompt for pair in drawn]


def prompt_of(what: Subject, i: int) -> str:
    """The prompt of text number i: all in turn."""
    return what.prompts[i % len(what.prompts)]


def tidied_as(what: Subject, text: str) -> str:
    """An answer, tidied up as the subject's finish says."""
    return FINISHES[what.finish].tidy(text)


def slug(name: str) -> str:
    """A name as a folder's: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.casefold()).strip("-")


def _settings(what: Subject, plan: Plan) -> Settings:
    finish = FINISHES[what.finish]
    return Settings(max_new_tokens=plan.max_new_tokens or finish.max_new_tokens, stop=finish.stop, seed=plan.seed)


def _written(
    model: TracedModel,
    what: Subject,
    name: str,
    how: Method,
    plan: Plan,
    base: TracedModel | None,
    folder: Path | None,
) -> list[dict[str, Any]]:
    """The rows of one method: number, text, tokens, whether it ended, and the ids of its negatives."""
    record = _record(model, what, name, how, plan, base)
    rows: list[dict[str, Any]] = []
    with RunFolder.open(folder, record) if folder is not None else nullcontext() as run:
        if run is not None:
            rows = run.read(ROWS)
            if run.finished:
                return rows
        for first in range(len(rows), plan.texts, plan.chunk):
            new = _chunk(model, what, how, plan, base, rows, range(first, min(first + plan.chunk, plan.texts)))
            rows += new
            if run is not None:
                run.append(ROWS, new, batch=str(first))
        if run is not None:
            run.finish()
    return rows


def _chunk(
    model: TracedModel,
    what: Subject,
    how: Method,
    plan: Plan,
    base: TracedModel | None,
    before: Sequence[Mapping[str, Any]],
    numbers: range,
) -> list[dict[str, Any]]:
    """Some texts in a row, each with its own negatives out of the training texts and what was accepted before this chunk."""
    requests = [Request(prompt_of(what, i), (what.name, i), chat=what.chat) for i in numbers]
    settings, texts, ids = _settings(what, plan), [""] * len(requests), [[] for _ in requests]
    if how.needs_negatives:
        accepted = [
            Negative(f"synthetic-{row['number']}", text, real=False)
            for row in before
            if plan.grow and (text := tidied_as(what, str(row["text"])))
        ]
        pool = Pool([Negative(f"train-{i}", text, real=True) for i, text in enumerate(what.train)], accepted)
        room = model.context_length - settings.max_new_tokens
        for place, request in enumerate(requests):
            drawn = pool.draw(plan.draw, plan.seed, request.key)
            texts[place], kept = join(drawn, room, lambda text: len(model.token_rows([text])[0]) if text else 0)
            ids[place] = [one.id for one in kept]
    samples = write(model, how, requests, settings, base=base, negatives=texts, batch_rows=plan.batch_rows)
    return [
        {"number": i, "text": sample.text, "tokens": len(sample.tokens), "ended": sample.ended, "negatives": own}
        for i, sample, own in zip(numbers, samples, ids, strict=True)
    ]


def _record(
    model: TracedModel, what: Subject, name: str, how: Method, plan: Plan, base: TracedModel | None
) -> dict[str, Any]:
    """Everything that decides the texts of one method."""

    def known(one: TracedModel | None) -> dict[str, str] | None:
        if one is None:
            return None
        return {"name": one.name, "revision": one.revision, "adapter": one.adapter.digest if one.adapter else ""}

    return {
        "task": what.name, "method": name, "how": how.to_json(), "texts": plan.texts, "seed": plan.seed, "grow": plan.grow,
        "chunk": plan.chunk, "draw": plan.draw.to_json(), "settings": _settings(what, plan).to_json(), "model": known(model),
        "base": known(base), "prompts": list(what.prompts), "chat": what.chat, "train": data.texts_sha256(list(what.train)),
    }  # fmt: skip
