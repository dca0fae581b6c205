"""What steering costs the answers: length, repetition, and, through functions of yours, perplexity, relevance and a judge's word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab.errors import SteerlabError
from steerlab.evaluation.repetition import longest_loop, repetition_rate
from steerlab.evaluation.stats import Estimate, bootstrap, paired_bootstrap
from steerlab.evaluation.words import words
from steerlab.following.arms import ARMS, Answer
from steerlab.following.counting import count_sentences_anywhere

Perplexity = Callable[[Sequence[str]], Float[np.ndarray, "n"]]
Embed = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]
Judge = Callable[
    [Sequence[str], Sequence[str]], Sequence[float]
]  # (base queries, answers) -> a score from 0 to 1, NaN for none
REFERENCE = {"random": "none", "steered": "none", "instructed": "none", "both": "instructed", "guided": "instructed"}


@dataclass(frozen=True, eq=False)
class Quality:
    """`items`: one row per answer: prompt, group, arm, and one column per measure, NaN where it does not exist."""

    items: pd.DataFrame

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """The measures there are."""
        return tuple(name for name in self.items.columns if name not in ("prompt", "group", "arm"))

    def table(self, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
        """Means with bootstrap intervals over base queries, and the paired difference to the arm without steering (for `instructed`,
        to `none`): measure, arm, n, value, low, high, reference, difference, difference_low, difference_high, reason.
        """
        rows = []
        for measure in self.measures:
            wide = self.items.pivot(index="prompt", columns="arm", values=measure)
            group = dict(zip(self.items["prompt"], self.items["group"], strict=True))
            groups = [group[prompt] for prompt in wide.index]
            for arm in (arm for arm in ARMS if arm in wide.columns):
                own = wide[arm].to_numpy(float)
                mean = bootstrap(own, groups=groups, seed=seed, level=level)
                other = REFERENCE.get(arm, "")
                if other in wide.columns:
                    gap = paired_bootstrap(own, wide[other].to_numpy(float), groups, seed=seed, level=level)
                else:
                    gap = Estimate.missing("no arm to compare with")
                rows.append((measure, arm, mean.n, mean.value, mean.low, mean.high, other))
                rows[-1] += (gap.value, gap.low, gap.high, mean.reason)
        columns = ["measure", "arm", "n", "value", "low", "high", "reference"]
        return pd.DataFrame(rows, columns=[*columns, "difference", "difference_low", "difference_high", "reason"])

    def _repr_html_(self) -> str:
        return self.table().to_html(index=False, float_format=lambda x: f"{x:.3f}", border=0)


def measure_quality(
    given: Sequence[Answer],
    perplexity: Perplexity | None = None,
    embed: Embed | None = None,
    judge: Judge | None = None,
) -> Quality:
    """Measure every answer.

    Always: `words`, `sentences`, `repetition` (share of repeated word 4-grams), `loop` (share of the words in the longest loop). With
    `perplexity` (of a reference model, such as `steerlab.evaluation.fluency.perplexity`): `log_perplexity`, whose mean one broken
    text does not swamp. With `embed`: `relevance`, the cosine between the answer and its base query. With `judge`: `judged`. Blank
    answers have no measure but length 0. Raises `SteerlabError` when a function returns another number of values, or a judge a score
    outside 0 to 1.
    """
    rows = list(given)
    if len({(row.prompt, row.arm) for row in rows}) < len(rows):
        raise SteerlabError("a prompt has two answers in one arm: give one answer per prompt and arm.")
    texts = [row.text for row in rows]
    columns: dict[str, np.ndarray] = {
        "words": np.array([len(words(text)) for text in texts], dtype=float),
        "sentences": np.array([count_sentences_anywhere(text) for text in texts], dtype=float),
        "repetition": np.array([repetition_rate(text) for text in texts], dtype=float),
    }
    loops = np.array([longest_loop(text) for text in texts], dtype=float)
    columns["loop"] = np.divide(loops, columns["words"], out=np.full(len(rows), np.nan), where=columns["words"] > 0)
    if perplexity is not None:
        columns["log_perplexity"] = np.log(_filled("perplexity", perplexity, texts))
    if embed is not None:
        columns["relevance"] = _relevance(rows, embed)
    if judge is not None:
        columns["judged"] = _judged(rows, judge)
    head = {
        "prompt": [row.prompt for row in rows],
        "group": [row.group or row.prompt for row in rows],
        "arm": [row.arm for row in rows],
    }
    return Quality(pd.DataFrame(head | columns))


def _filled(name: str, function: Perplexity, texts: Sequence[str]) -> Float[np.ndarray, "n"]:
    """The function's values where there is a text, NaN elsewhere."""
    found = np.full(len(texts), np.nan)
    there = [number for number, text in enumerate(texts) if text.strip()]
    if there:
        values = np.asarray(function([texts[number] for number in there]), dtype=float)
        if values.shape != (len(there),):
            raise SteerlabError(
                f"the {name} of {len(there)} texts came as {values.shape}: it must return one number per text."
            )
        found[there] = values
    return found


def _relevance(rows: Sequence[Answer], embed: Embed) -> Float[np.ndarray, "n"]:
    found = np.full(len(rows), np.nan)
    there = [number for number, row in enumerate(rows) if row.text.strip() and row.query.strip()]
    queries = list(dict.fromkeys(rows[number].query for number in there))
    if not there:
        return found
    vectors = np.asarray(embed([*queries, *(rows[number].text for number in there)]), dtype=float)
    if vectors.ndim != 2 or len(vectors) != len(queries) + len(there):
        raise SteerlabError(
            f"{len(queries) + len(there)} texts were embedded and {vectors.shape} came back: one row per text is needed."
        )
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.full_like(vectors, np.nan), where=norm > 0)
    place = {query: number for number, query in enumerate(queries)}
    own = unit[len(queries) :]
    found[there] = (own * unit[[place[rows[number].query] for number in there]]).sum(axis=1)
    return found


def _judged(rows: Sequence[Answer], judge: Judge) -> Float[np.ndarray, "n"]:
    found = np.full(len(rows), np.nan)
    there = [number for number, row in enumerate(rows) if row.text.strip()]
    scores = np.asarray(judge([rows[n].query for n in there], [rows[n].text for n in there]), dtype=float)
    if scores.shape != (len(there),) or ((scores < 0) | (scores > 1)).any():
        raise SteerlabError(f"a judge of {len(there)} answers must return as many scores from 0 to 1, or NaN.")
    found[there] = scores
    return found
