"""Many data sets judged against one human test set: n-grams are counted once for all of them, then every set costs milliseconds.

The numbers equal those of `downstream.TextClassifier` on each set alone (a test compares them); what is shared is the
reading of the texts, which is nearly all of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from steerlab.errors import SteerlabError
from steerlab.evaluation.downstream import NGRAMS, regression, resample
from steerlab.evaluation.words import as_texts
from steerlab.scoring import macro_f1


@dataclass(frozen=True, eq=False)
class PooledResult:
    """Macro-F1 on the test texts: `per_seed` on bootstrap resamples of the training texts, `full` on all of them once; `vendi`:
    the Vendi score of the training texts under the cosine similarity of their TF-IDF vectors.
    """

    per_seed: tuple[float, ...]
    full: float
    vendi: float


class NgramPool:
    """Character n-gram counts of a pool of texts and of labelled test texts, from which any subset of the pool can be a
    training set.
    """

    def __init__(self, texts: Sequence[str], test_texts: Sequence[str], test_labels: Sequence[str]) -> None:
        """Counts every text once. Raises `SteerlabError` without test texts, or with other than one label each."""
        texts, test_texts = as_texts(texts), as_texts(test_texts)
        if not test_texts or len(test_texts) != len(test_labels):
            raise SteerlabError(
                f"{len(test_texts)} test texts and {len(test_labels)} labels were given: give at least one text, each with its label."
            )
        counter = CountVectorizer(analyzer="char_wb", ngram_range=NGRAMS, strip_accents=None)
        counts: Any = sparse.csr_array(counter.fit_transform([*texts, *test_texts]), dtype=np.float64)
        counts.data = 1.0 + np.log(counts.data)  # sublinear term frequency
        self.train, self.test = counts[: len(texts)], counts[len(texts) :]
        self.truth = np.asarray(test_labels, dtype=object)

    def judge(self, rows: Int[np.ndarray, " n"], labels: Sequence[str], seeds: Sequence[int]) -> PooledResult:
        """Train on the pool's `rows`, written for `labels`, and test; once per seed and once on all.

        Raises `SteerlabError` for fewer than two labels.
        """
        if len(set(labels)) < 2:
            raise SteerlabError(
                f"{len(labels)} training texts with the labels {sorted(set(labels))} were given: a classifier needs texts of "
                "at least two labels."
            )
        own, weight = self._weighted(rows)
        kernel = (own @ own.T).toarray()
        across = (_unit(self.test, weight) @ own.T).toarray()
        values, vectors = np.linalg.eigh(kernel)
        keep = values > 1e-10 * values.max()
        scale = np.sqrt(values[keep])
        features, test = vectors[:, keep] * scale, across @ (vectors[:, keep] / scale)
        answer = np.asarray(labels, dtype=object)
        number = {label: i for i, label in enumerate(sorted({*labels, *self.truth}))}
        truth, once = np.array([number[label] for label in self.truth]), np.ones((1, len(self.truth)))

        def score(weight: np.ndarray) -> float:
            said = np.array([number[label] for label in regression(features, answer, weight).predict(test)])
            return float(macro_f1(said, truth, len(number), once)[0])

        return PooledResult(
            per_seed=tuple(score(resample(labels, seed)) for seed in seeds),
            full=score(np.ones(len(answer))),
            vendi=_vendi(values / len(answer)),
        )

    def _weighted(self, rows: np.ndarray) -> tuple[sparse.csr_array, Float[np.ndarray, " v"]]:
        """TF-IDF of the rows as scikit-learn computes it for them alone, and the weight of every n-gram (0 for unseen ones)."""
        own: Any = sparse.csr_array(self.train[rows])
        seen = np.bincount(own.indices, minlength=own.shape[1])
        weight = np.where(seen > 0, np.log((1 + len(rows)) / (1 + seen)) + 1, 0.0)
        return _unit(own, weight), weight


def _unit(counts: sparse.csr_array, weight: np.ndarray) -> sparse.csr_array:
    """Rows times the weights, each of length 1 (a row without a known n-gram stays zero)."""
    found = counts.copy()
    found.data = found.data * weight[found.indices]
    norm = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    found.data /= np.repeat(np.where(norm > 0, norm, 1.0), np.diff(found.indptr))
    return found


def _vendi(values: np.ndarray) -> float:
    positive = values[values > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))
