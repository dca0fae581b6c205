"""How well a label can be read from activations: cross-validated linear probes with intervals, controls and
text baselines.

Folds never split a group (a text and its degraded twin, say), everything that is fitted is fitted inside the
fold, and every result carries the score of the same procedure on shuffled labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from steerlab import scoring
from steerlab.errors import SteerlabError

Kind = Literal["logistic", "diff_of_means", "lda"]
# (training rows, their labels 0..k-1, test rows) -> scores of the test rows, one column for two classes, else one per class
Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """One probe, scored on texts it was not fitted on.

    `metric` is "auroc" for two classes (pairs within one fold) and "macro_f1" for more; `low` and `high` bound
    its 95 % bootstrap interval over groups; `shuffled` is its mean over label permutations. `scores` "n r":
    held-out scores, r = 1 for two classes (above 0 means `classes[1]`), else one column per class. `fold` "n":
    where each row was held out. `direction` "r d": unit rows in raw activation space, fitted on everything;
    None for text baselines.
    """

    kind: str
    metric: Literal["auroc", "macro_f1"]
    value: float
    low: float
    high: float
    accuracy: float
    shuffled: float
    n: int
    classes: tuple[int, ...]
    scores: Float[Tensor, "n r"]
    fold: Int[Tensor, "n"]
    direction: Float[Tensor, "r d"] | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """What all probes of one comparison share: labels 0..k-1, folds and bootstrap weights."""

    classes: tuple[int, ...]
    labels: Int[np.ndarray, "n"]
    fold: Int[np.ndarray, "n"]
    weight: Float[np.ndarray, "r n"]
    seed: int
    shuffles: int


def trial(
    y: Int[Tensor, "n"],
    groups: Int[Tensor, "m"],
    *,
    folds: int = 5,
    seed: int = 0,
    shuffles: int = 3,
    resamples: int = 1000,
) -> Trial:
    """Lay out one comparison. Rows with the same group stay together; folds are balanced by label as far as
    groups allow.

    Raises `SteerlabError` with fewer than two classes, or too few rows of a class or groups for the folds.
    """
    if len(y) != len(groups):
        raise SteerlabError(f"{len(y)} labels and {len(groups)} groups were given: one of each per row is needed.")
    classes, labels = np.unique(y.cpu().numpy(), return_inverse=True)
    if len(classes) < 2:
        raise SteerlabError(
            f"labels with {len(classes)} distinct values were given: a probe needs at least two classes."
        )
    group = groups.cpu().numpy()
    if folds < 2:
        raise SteerlabError(f"{folds} folds were given: at least 2 are needed.")
    if np.bincount(labels).min() < folds or len(np.unique(group)) < folds:
        raise SteerlabError(
            f"{len(np.unique(group))} groups and {np.bincount(labels).min()} rows in the smallest class were given: "
            f"{folds} folds need at least {folds} of each, so give more texts or fewer folds."
        )
    fold = np.full(len(labels), -1)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for k, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, group)):
        fold[held_out] = k
    for k in range(folds):
        if len(np.unique(labels[fold != k])) < len(classes):
            raise SteerlabError(
                "a class lies in a single fold because its rows share a group: give more groups per class."
            )
    weight = scoring.group_resamples(group, resamples, seed)
    return Trial(tuple(int(c) for c in classes), labels, fold, weight, seed, shuffles)


def cross_validated_probe(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, "m"],
    groups: Int[Tensor, "g"],
    kind: Kind = "logistic",
    folds: int = 5,
    seed: int = 0,
    *,
    c: float = 1.0,
    shuffles: int = 3,
    resamples: int = 1000,
) -> ProbeResult:
    """How well `y` is read from `x` by a linear probe, on held-out groups.

    `kind`: "logistic" regression on features standardised inside the fold (`c` is the inverse L2 penalty),
    "diff_of_means" (projection on the difference of the class means in raw space, which is the steering
    vector's own view; nearest mean for more classes), "lda" with Ledoit-Wolf shrinkage on standardised
    features.
    """
    return layerwise(x[:, None], y, groups, kind, folds, seed, c=c, shuffles=shuffles, resamples=resamples)[0]


def layerwise(
    x: Float[Tensor, "n l d"],
    y: Int[Tensor, "m"],
    groups: Int[Tensor, "g"],
    kind: Kind = "logistic",
    folds: int = 5,
    seed: int = 0,
    *,
    c: float = 1.0,
    shuffles: int = 3,
    resamples: int = 1000,
) -> list[ProbeResult]:
    """`cross_validated_probe` for every layer, all with the same folds, shuffles and resamples."""
    if kind not in ("logistic", "diff_of_means", "lda"):
        raise SteerlabError(f"probe kind {kind!r} is not known: choose 'logistic', 'diff_of_means' or 'lda'.")
    shared = trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    _check_rows(len(x), shared)
    results: list[ProbeResult] = []
    for row in range(x.shape[1]):
        data = x[:, row].detach().cpu().double().numpy()
        if not np.isfinite(data).all():
            raise SteerlabError(f"the activations in slice {row} hold NaN or infinity: capture them again.")

        def score(train: np.ndarray, labels: np.ndarray, test: np.ndarray, data: np.ndarray = data) -> np.ndarray:
            weights, offset = fit_linear(kind, data[train], labels, c)
            return data[test] @ weights.T + offset

        weights, _ = fit_linear(kind, data, shared.labels, c)
        direction = torch.from_numpy(weights / np.linalg.norm(weights, axis=1, keepdims=True)).float()
        results.append(evaluate(kind, shared, score, direction))
    return results


def char_ngram_baseline(
    texts: Sequence[str],
    y: Int[Tensor, "m"],
    groups: Int[Tensor, "g"],
    folds: int = 5,
    seed: int = 0,
    *,
    longest: int = 4,
    c: float = 10.0,
    shuffles: int = 1,
    resamples: int = 1000,
) -> ProbeResult:
    """The same comparison from the text alone: TF-IDF of character 1- to `longest`-grams and logistic regression.

    Only n-grams that two training texts hold are used, weighted by their training frequency.
    """
    shared = trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    _check_rows(len(texts), shared)
    # Counting looks at no label and at one text at a time, so it is done once; the vocabulary is chosen inside the fold.
    counts: Any = CountVectorizer(analyzer="char", ngram_range=(1, longest), min_df=2).fit_transform(texts)

    def score(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        known = np.flatnonzero(np.bincount(counts[train].indices, minlength=counts.shape[1]) >= 2)
        tfidf = TfidfTransformer(sublinear_tf=True).fit(counts[train][:, known])
        fit = LogisticRegression(C=c, max_iter=5000).fit(tfidf.transform(counts[train][:, known]), labels)
        return _columns(fit.decision_function(tfidf.transform(counts[test][:, known])))

    return evaluate("char_ngrams", shared, score)


def length_baseline(
    texts: Sequence[str],
    y: Int[Tensor, "m"],
    groups: Int[Tensor, "g"],
    folds: int = 5,
    seed: int = 0,
    *,
    shuffles: int = 3,
    resamples: int = 1000,
) -> ProbeResult:
    """The same comparison from length alone: log characters, log words and characters per word, by logistic
    regression.
    """
    shared = trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    _check_rows(len(texts), shared)
    sizes = [(len(text), len(text.split())) for text in texts]
    data = np.array([(math.log1p(chars), math.log1p(words), chars / max(words, 1)) for chars, words in sizes])

    def score(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        weights, offset = fit_linear("logistic", data[train], labels, 1.0)
        return data[test] @ weights.T + offset

    return evaluate("length", shared, score)


def evaluate(kind: str, shared: Trial, score: Scorer, direction: Float[Tensor, "r d"] | None = None) -> ProbeResult:
    """Run a scorer over the folds of a trial, on the labels and on shuffled labels."""
    scores = _held_out(shared, shared.labels, score)
    once = np.ones((1, len(shared.labels)))
    value = float(_value(shared, shared.labels, scores, once)[0])
    low, high = scoring.interval(_value(shared, shared.labels, scores, shared.weight))
    control: list[float] = []
    for k in range(shared.shuffles):
        labels = np.random.default_rng([shared.seed, k]).permutation(shared.labels)
        if all(len(np.unique(labels[shared.fold != f])) == len(shared.classes) for f in np.unique(shared.fold)):
            control.append(float(_value(shared, labels, _held_out(shared, labels, score), once)[0]))
    return ProbeResult(
        kind=kind,
        metric="auroc" if len(shared.classes) == 2 else "macro_f1",
        value=value,
        low=low,
        high=high,
        accuracy=float((_predicted(scores) == shared.labels).mean()),
        shuffled=float(np.mean(control)) if control else float("nan"),
        n=len(shared.labels),
        classes=shared.classes,
        scores=torch.from_numpy(scores),
        fold=torch.from_numpy(shared.fold),
        direction=direction,
    )


def fit_linear(
    kind: Kind, x: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], c: float
) -> tuple[Float[np.ndarray, "r d"], Float[np.ndarray, "r"]]:
    """Weights and offsets in raw space, so that scores are `x @ weights.T + offset`; one row for two classes."""
    k = int(labels.max()) + 1
    if kind == "diff_of_means":
        means = np.stack([x[labels == label].mean(0) for label in range(k)])
        offset = -0.5 * (means**2).sum(1)
        return (means, offset) if k > 2 else (means[1:] - means[:1], offset[1:] - offset[:1])
    centre, spread = x.mean(0), x.std(0)
    spread[spread == 0] = 1.0
    model: Any = LogisticRegression(C=c, max_iter=5000)
    if kind == "lda":
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    model.fit((x - centre) / spread, labels)
    weights = model.coef_ / spread
    return weights, model.intercept_ - weights @ centre


def _held_out(shared: Trial, labels: np.ndarray, score: Scorer) -> np.ndarray:
    parts = {}
    for k in np.unique(shared.fold):
        train, test = np.flatnonzero(shared.fold != k), np.flatnonzero(shared.fold == k)
        parts[k] = test, score(train, labels[train], test)
    scores = np.empty((len(labels), next(iter(parts.values()))[1].shape[1]))
    for test, values in parts.values():
        scores[test] = values
    return scores


def _value(shared: Trial, labels: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
    if len(shared.classes) == 2:
        return scoring.auroc(scores[:, 0], labels == 1, shared.fold, weight)
    return scoring.macro_f1(_predicted(scores), labels, len(shared.classes), weight)


def _predicted(scores: np.ndarray) -> np.ndarray:
    return scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(np.int64)


def _columns(scores: np.ndarray) -> np.ndarray:
    return scores if scores.ndim == 2 else scores[:, None]


def _check_rows(n: int, shared: Trial) -> None:
    if n != len(shared.labels):
        raise SteerlabError(f"{n} rows and {len(shared.labels)} labels were given: one label per row is needed.")
