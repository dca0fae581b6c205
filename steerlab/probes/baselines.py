"""What a probe has to beat: character n-grams, length, and the bag of the model's input embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.probes.comparison import Scorer, check_rows, evaluate, trial
from steerlab.probes.layers import cross_validated_probe
from steerlab.probes.linear import Kind, fit_linear
from steerlab.probes.result import ProbeResult

NGRAMS, LENGTH, EMBEDDINGS = "char_ngrams", "length", "bag_of_embeddings"


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
    """The same comparison from the text alone, by `char_ngram_scorer`."""
    shared = trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    check_rows(len(texts), shared)
    return evaluate(NGRAMS, shared, char_ngram_scorer(texts, longest=longest, c=c))


def char_ngram_scorer(texts: Sequence[str], *, longest: int = 4, c: float = 10.0) -> Scorer:
    """TF-IDF of character 1- to `longest`-grams, case folded, and logistic regression.

    Only n-grams that two training texts hold are used, weighted by their training frequency.
    """
    # Counting looks at no label and at one text at a time, so it is done once; the vocabulary is chosen inside the fold.
    try:
        counts: Any = CountVectorizer(analyzer="char", ngram_range=(1, longest), min_df=2).fit_transform(texts)
    except ValueError:
        raise SteerlabError(
            f"no character n-gram occurs in two of the {len(texts)} texts given: give more texts, or leave this baseline out."
        ) from None

    def score(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        known = np.flatnonzero(np.bincount(counts[train].indices, minlength=counts.shape[1]) >= 2)
        tfidf = TfidfTransformer(sublinear_tf=True).fit(counts[train][:, known])
        fit = LogisticRegression(C=c, max_iter=5000).fit(tfidf.transform(counts[train][:, known]), labels)
        scores = fit.decision_function(tfidf.transform(counts[test][:, known]))
        return scores if scores.ndim == 2 else scores[:, None]

    return score


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
    """The same comparison from length alone, by `length_scorer`."""
    shared = trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    check_rows(len(texts), shared)
    return evaluate(LENGTH, shared, length_scorer(texts))


def length_scorer(texts: Sequence[str]) -> Scorer:
    """Log characters, log words and characters per word, by logistic regression."""
    sizes = [(len(text), len(text.split())) for text in texts]
    data = np.array([(math.log1p(chars), math.log1p(words), chars / max(words, 1)) for chars, words in sizes])

    def score(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        weights, offset = fit_linear("logistic", data[train], labels, 1.0)
        return data[test] @ weights.T + offset

    return score


def bag_of_embeddings(
    embeddings: Float[Tensor, "n d"],
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
    """The same probe on what enters the first block (`resid_pre` of block 0, the mean over a text's tokens): which tokens there
    are, without any of the model's computation.
    """
    found = cross_validated_probe(embeddings, y, groups, kind, folds, seed, c=c, shuffles=shuffles, resamples=resamples)
    return replace(found, kind=EMBEDDINGS)
