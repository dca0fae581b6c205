"""What is measured on the texts of a sweep: outcomes text by text, then arm against arm in pairs of common noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steerlab.ablation.forced import ForcedKL
from steerlab.errors import SteerlabError
from steerlab.evaluation.downstream import TextClassifier, clean
from steerlab.evaluation.fluency import log_likelihood
from steerlab.evaluation.human import human_texts
from steerlab.evaluation.language import identify
from steerlab.evaluation.repetition import repetition_rate
from steerlab.evaluation.stats import Estimate, bootstrap, jackknife, paired_bootstrap, wilson
from steerlab.evaluation.words import words
from steerlab.model import TracedModel

Judge = Callable[[Sequence[str]], Sequence[str]]  # texts in, the label each reads like out

MEASURES = {
    "in_target": "share of texts in the target language",
    "kl": "KL of the next token from unsteered, along given texts (nats, mean)",
    "kl_95": "KL of the next token from unsteered, along given texts (nats, 95th percentile of tokens)",
    "log_perplexity": "surprise of the unsteered model at the text (nats a token)",
    "repetition": "share of a text's word pairs that stood in it before",
    "distinct_2": "different word pairs of the arm's texts / all of them",
    "agreement": "share of texts that read like the label they were written for",
    "tokens": "tokens of a text",
    "ended": "share of texts that end by themselves",
}
SHARES, MEANS = ("in_target", "agreement", "ended"), ("log_perplexity", "repetition", "tokens")
COLUMNS = ("vector", "operator", "layer", "strength", "measure", "arm", "against")
_FEW = 6  # prompts from which on the interval is over prompts


def label_judge(texts: Sequence[str], labels: Sequence[str]) -> Judge:
    """The character n-gram classifier of `evaluation.downstream`, trained once on these human texts. Give it texts of every
    language it may have to judge.
    """
    rows, wanted, _ = clean(texts, labels, "training")
    classifier = TextClassifier(rows, wanted)
    fitted = classifier.fit()
    return lambda own: [str(label) for label in fitted.predict(classifier.transform(own))] if len(own) else []


def human_judge(task: str, codes: Sequence[str], root: Path | None = None, per_language: int = 150) -> Judge:
    """A judge of a task's labels, trained on human texts of all these languages together (those that have a train split).

    Raises `SteerlabError` where none has.
    """
    texts, labels, reason = [], [], "no languages were given"
    for code in codes:
        try:
            human = human_texts(task, code, root)
        except SteerlabError as error:
            reason = str(error)
            continue
        texts += human.train_texts[:per_language]
        labels += human.train_labels[:per_language]
    if not texts:
        raise SteerlabError(
            f"there are no human texts to train a judge of {task!r} on ({reason.rstrip('.')}): go without one."
        )
    return label_judge(texts, labels)


def score_texts(
    model: TracedModel,
    written: pd.DataFrame,
    prompts: Sequence[str],
    labels: Sequence[str] | None = None,
    judge: Judge | None = None,
) -> pd.DataFrame:
    """The table of a sweep (prompt, text, tokens, ended) with columns language (lid.176), log_probability, log_perplexity,
    repetition and agreement.

    The two logarithms are of the text behind its own prompt under the unsteered model. `agreement` (1 or 0) needs a
    judge and the label that each prompt asks for, and is NaN without; what cannot be computed for a text is NaN too.
    """
    if (labels is None) != (judge is None) or (labels is not None and len(labels) != len(prompts)):
        raise SteerlabError(
            f"{len(prompts)} prompts, {len(labels or ())} labels and {'a' if judge else 'no'} judge were given: "
            "give one label per prompt and a judge, or neither."
        )
    texts, asked = [str(t) for t in written["text"]], [int(p) for p in written["prompt"]]
    total, count = log_likelihood(model, texts, [prompts[p] for p in asked])
    unique = list(dict.fromkeys(texts))
    language = dict(zip(unique, (guess.language for guess in identify(unique)), strict=True))
    agreement: Any = math.nan
    if labels is not None and judge is not None:
        read = dict(zip(unique, judge(unique), strict=True))
        pairs = zip(texts, asked, strict=True)
        agreement = [float(bool(text.strip()) and read[text] == labels[p]) for text, p in pairs]
    return written.assign(
        language=[language[text] for text in texts],
        log_probability=total,
        log_perplexity=-total / np.where(count > 0, count, np.nan),
        repetition=[repetition_rate(text, 2) for text in texts],
        agreement=agreement,
        ended=written["ended"].astype(float),
    )


class Cell(NamedTuple):
    """One vector at one operator, layer and strength."""

    vector: str
    operator: str
    layer: int
    strength: float


def summarise(
    texts: pd.DataFrame,
    kl: Mapping[tuple[Cell, str], tuple[ForcedKL, Sequence[int]]] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per cell, measure, arm ("unsteered", "vector", "random") and what it is compared with (`against`).

    `texts`: one row per text with vector, arm, direction, operator, layer, strength, prompt, sample and the outcomes; all
    arms have the same prompts and samples. A difference is taken between texts of one prompt and sample, which share their noise; several
    random directions enter as their mean. Its interval is a bootstrap over prompts where there are six or more, else
    over texts; distinct_2 is a number of the whole set and has a jackknife, over texts left out on both sides.
    """
    rows: list[dict[str, Any]] = []
    for vector, own in texts.groupby("vector", sort=False):
        arms = {key: part.sort_values(["prompt", "sample"]) for key, part in _arms(own)}
        (plain,) = (_Arm(part) for (arm, *_), part in arms.items() if arm == "unsteered")
        groups = plain.groups
        rows += _rows(Cell(str(vector), "none", -1, 0.0), "unsteered", plain, {}, groups, seed)
        cells = dict.fromkeys(key[1:4] for key in arms if key[0] == "vector")
        for operator, layer, strength in cells:
            cell = Cell(str(vector), str(operator), int(layer), float(strength))
            steered = _Arm(*(p for k, p in arms.items() if k[0] == "vector" and k[1:4] == cell[1:]))
            controls = [p for k, p in arms.items() if k[0] == "random" and k[1:4] == cell[1:]]
            others = {"unsteered": plain} | ({"random": _Arm(*controls)} if controls else {})
            rows += _rows(cell, "vector", steered, others, groups, seed)
            if controls:
                rows += _rows(cell, "random", _Arm(*controls), {"unsteered": plain}, groups, seed)
            rows += _kl_rows(cell, kl or {}, seed)
    order = [*COLUMNS, "value", "low", "high", "n", "reason"]
    return pd.DataFrame(rows).reindex(columns=order)


def _arms(own: pd.DataFrame) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    grouped: Any = own.groupby(["arm", "operator", "layer", "strength", "direction"], sort=False)
    yield from grouped


class _Arm:
    """Outcomes of one arm as arrays "k n", k = random directions (1 for the others), texts in the order of prompt and sample."""

    def __init__(self, *parts: pd.DataFrame) -> None:
        self.groups: Int[np.ndarray, "n"] = parts[0]["prompt"].to_numpy(int)
        columns = (*SHARES, *MEANS)
        self.of = {name: np.stack([part[name].to_numpy(float) for part in parts]) for name in columns}
        known: dict[tuple[str, str], int] = {}
        self.pairs = [[_bigrams(str(text), known) for text in part["text"]] for part in parts]

    def distinct(self, rows: Int[np.ndarray, "m"]) -> float:
        """distinct-2 of these texts, the mean over directions."""
        found = []
        for texts in self.pairs:
            ids = np.concatenate([texts[row] for row in rows]) if len(rows) else np.empty(0)
            found.append(len(np.unique(ids)) / len(ids) if len(ids) else math.nan)
        return float(np.mean(found))


def _bigrams(text: str, known: dict[tuple[str, str], int]) -> Int[np.ndarray, "g"]:
    tokens = words(text)
    pairs = itertools.pairwise(tokens)
    return np.array([known.setdefault(pair, len(known)) for pair in pairs], dtype=np.int64)


def _rows(
    cell: Cell, arm: str, own: _Arm, others: Mapping[str, _Arm], prompts: Int[np.ndarray, "n"], seed: int
) -> Iterator[dict[str, Any]]:
    """Every measure of an arm, and its difference from the others."""
    groups = prompts if len(set(prompts.tolist())) >= _FEW else np.arange(len(prompts))

    def row(measure: str, against: str, found: Estimate) -> dict[str, Any]:
        if found.known and found.low == found.high:
            found = Estimate.point(found.value, found.n, "it is the same for every text")
        facts = (*cell, measure, arm, against)
        return {**dict(zip(COLUMNS, facts, strict=True)), **asdict(found)}

    for measure in (*SHARES, *MEANS):
        values = own.of[measure]
        if np.isnan(values).all():
            continue
        mean = _mean(values)
        if measure in SHARES:
            yield row(measure, "nothing", wilson(int(np.nansum(values)), int((~np.isnan(values)).sum())))
        else:
            yield row(measure, "nothing", bootstrap(mean, groups=groups, seed=seed))
        for against, other in others.items():
            yield row(measure, against, paired_bootstrap(mean, _mean(other.of[measure]), groups, seed=seed))
    n = len(prompts)
    yield row("distinct_2", "nothing", jackknife(n, own.distinct, seed, bounds=(0.0, 1.0)))
    for against, other in others.items():

        def gap(kept: Int[np.ndarray, "m"], other: _Arm = other) -> float:
            return own.distinct(kept) - other.distinct(kept)

        yield row("distinct_2", against, jackknife(n, gap, seed))


def _mean(values: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "n"]:
    """Over directions; NaN only where all are."""
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)


def _kl_rows(
    cell: Cell, kl: Mapping[tuple[Cell, str], tuple[ForcedKL, Sequence[int]]], seed: int
) -> Iterator[dict[str, Any]]:
    """KL of the vector and of the random directions (the mean over these), and the difference, with intervals over texts."""
    means: dict[str, np.ndarray] = {}
    for arm in ("vector", "random"):
        if (cell, arm) not in kl:
            continue
        found, changes = kl[cell, arm]
        means[arm] = found.by_text()[list(changes)].mean(0)
        spread = ForcedKL(found.kl[list(changes)].reshape(1, -1), np.tile(found.text, len(changes)))
        for measure, own in (("kl", bootstrap(means[arm], seed=seed)), ("kl_95", spread.quantile(0, 0.95, seed))):
            yield {**dict(zip(COLUMNS, (*cell, measure, arm, "nothing"), strict=True)), **asdict(own)}
    if len(means) == 2:
        gap = paired_bootstrap(means["vector"], means["random"], seed=seed)
        yield {**dict(zip(COLUMNS, (*cell, "kl", "vector", "random"), strict=True)), **asdict(gap)}
