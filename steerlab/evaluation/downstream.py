"""What a data set is worth: macro-F1 on human test texts of a classifier trained on it, between a floor and a ceiling.

The classifier is character n-gram TF-IDF and logistic regression: no download, no tokenizer that knows one language better than
another, seconds for twenty seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate, over_seeds
from steerlab.evaluation.words import as_texts

NGRAMS = (1, 5)
DENSE = 1000  # up to this many training texts the regression runs in the space they span
_RESAMPLES = 2000


class TextClassifier:
    """TF-IDF of character 1- to 5-grams within words and L2-regularised logistic regression with balanced classes.

    `char_wb` n-grams stop at word boundaries, so that they are stems and affixes and not accidents of which words meet; on 140 texts in
    six languages that was about one point of macro-F1 above `char`, and lengths 1 to 5 no worse than any shorter range. Counts enter as
    1 + log(count), C = 1. Everything is deterministic: a new fit on the same texts gives the same answers.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Learns the n-grams and their weights from the texts; `fit` learns the labels. Duplicates and empty texts must be gone."""
        if len(set(labels)) < 2:
            raise SteerlabError(
                f"{len(texts)} training texts with the labels {sorted(set(labels))} were given: a classifier needs texts of at"
                " least two labels."
            )
        self.vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=NGRAMS, sublinear_tf=True, strip_accents=None)
        features: sparse.csr_array = sparse.csr_array(self.vectoriser.fit_transform(texts))
        self.labels = np.array(labels, dtype=object)
        # The L2 solution lies in the span of the training rows: with few of them, regress on coordinates there (same answers, faster).
        self.basis: np.ndarray | None = None
        self.features: np.ndarray | sparse.csr_array = features
        if len(labels) <= min(DENSE, len(self.vectoriser.vocabulary_)):
            values, vectors = np.linalg.eigh((features @ features.T).toarray())
            keep = values > 1e-10 * values.max()
            scale = np.sqrt(values[keep])
            self.features = vectors[:, keep] * scale
            self.basis = features.T @ (vectors[:, keep] / scale)

    def fit(self, weight: Float[np.ndarray, "n"] | None = None) -> LogisticRegression:
        """Learn the labels, row i counted `weight[i]` times (default once each)."""
        return regression(self.features, self.labels, np.ones(len(self.labels)) if weight is None else weight)

    def transform(self, texts: Sequence[str]) -> np.ndarray | sparse.csr_array:
        """The features of other texts, for the `predict` of a fitted model."""
        found = sparse.csr_array(self.vectoriser.transform(texts))
        return found if self.basis is None else np.asarray(found @ self.basis)


def regression(
    features: np.ndarray | sparse.csr_array, labels: np.ndarray, weight: Float[np.ndarray, "n"]
) -> LogisticRegression:
    """L2-regularised logistic regression with C = 1, row i counted `weight[i]` times, every label with the same total weight."""
    mass = {label: weight[labels == label].sum() for label in set(labels)}
    balanced = np.array([len(labels) / len(mass) / mass[label] for label in labels])
    model = LogisticRegression(C=1.0, max_iter=5000)
    return model.fit(features, labels.astype(str), sample_weight=weight * balanced)


@dataclass(frozen=True, eq=False)
class DownstreamResult:
    """A classifier's macro-F1 on human test texts.

    `macro_f1`: the mean over seeds; its interval covers another draw of the training texts and of the test texts. `per_seed`: one
    macro-F1 each. `full`: macro-F1 when trained on every text once, higher as a rule, since a resample holds about 63 % of the texts.
    `per_class`: F1 of each label, as `macro_f1`. `predicted` "s n" and `truth` "n": numbers into `labels`. `dropped`: empty and
    repeated training rows left out.
    """

    macro_f1: Estimate
    per_seed: tuple[float, ...]
    full: float
    per_class: dict[str, Estimate]
    labels: tuple[str, ...]
    predicted: Int[np.ndarray, "s n"]
    truth: Int[np.ndarray, "n"]
    seeds: tuple[int, ...]
    train_size: int
    dropped: int

    @cached_property
    def seed_interval(self) -> Estimate:
        """The mean over seeds with Student's t interval: the convention of many papers, which takes the test texts as given."""
        return over_seeds(self.per_seed)


def train_and_test(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    test_texts: Sequence[str],
    test_labels: Sequence[str],
    seeds: Sequence[int] = range(20),
) -> DownstreamResult:
    """Train on the one set, test on the other, once per seed.

    The solver is deterministic, so a seed means a bootstrap resample of the training texts, within each label; TF-IDF is fitted once on all
    of them. Equal numbers of texts per label get equal resamples for equal seeds, which pairs two sets written for the same slots.
    Empty rows and repeats are dropped on both sides (the first of equal texts stays). Raises `SteerlabError` for lists of unequal
    length, fewer than two training labels, no test texts, no common label, no seeds.
    """
    train_texts, train_labels, dropped = clean(train_texts, train_labels, "training")
    test_texts, test_labels, _ = clean(test_texts, test_labels, "test")
    if not test_texts:
        raise SteerlabError("no test texts were given that are not empty: give human texts with labels.")
    if len(seeds) == 0:
        raise SteerlabError("no seeds were given: give at least one.")
    if train_texts and not set(train_labels) & set(test_labels):
        raise SteerlabError(
            f"the training labels {sorted(set(train_labels))} and the test labels {sorted(set(test_labels))} have none in common:"
            " give both the same names."
        )
    classifier = TextClassifier(train_texts, train_labels)
    labels = tuple(sorted({*train_labels, *test_labels}))
    number = {label: i for i, label in enumerate(labels)}
    truth = np.array([number[label] for label in test_labels])
    features = classifier.transform(test_texts)

    def answers(weight: np.ndarray | None) -> np.ndarray:
        return np.array([number[label] for label in classifier.fit(weight).predict(features)])

    predicted = np.stack([answers(resample(train_labels, seed)) for seed in seeds])
    k, once = len(labels), np.ones((1, len(truth)))
    by_seed = np.concatenate([_f1(row, truth, k, once) for row in predicted])
    replicates = _replicates(predicted, truth, k, *_draws(seeds, len(truth)))
    return DownstreamResult(
        macro_f1=_estimate(_macro(by_seed), _macro(replicates), len(truth)),
        per_seed=tuple(float(x) for x in _macro(by_seed)),
        full=float(_macro(_f1(answers(None), truth, k, once))[0]),
        per_class={label: _estimate(by_seed[:, i], replicates[:, i], len(truth)) for label, i in number.items()},
        labels=labels,
        predicted=predicted,
        truth=truth,
        seeds=tuple(int(seed) for seed in seeds),
        train_size=len(train_texts),
        dropped=dropped,
    )


def ceiling(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    test_texts: Sequence[str],
    test_labels: Sequence[str],
    seeds: Sequence[int] = range(20),
) -> DownstreamResult:
    """What the same classifier reaches when trained on the human train split: `train_and_test` under the name it has in a table.

    Mind `train_size`: a human split with more texts than the synthetic set is a ceiling in amount as well as in kind.
    """
    return train_and_test(train_texts, train_labels, test_texts, test_labels, seeds)


def floor(test_texts: Sequence[str], test_labels: Sequence[str], seed: int = 0) -> Estimate:
    """Macro-F1 of always answering the most frequent label of the test texts, its interval over the test texts."""
    _, labels, _ = clean(test_texts, test_labels, "test")
    if not labels:
        raise SteerlabError("no test texts were given that are not empty: give human texts with labels.")
    names, truth = np.unique(labels, return_inverse=True)
    constant = np.full(len(truth), np.bincount(truth).argmax())
    value = _macro(_f1(constant, truth, len(names), np.ones((1, len(truth)))))
    _, weight = _draws((seed,), len(truth))
    return _estimate(value, _macro(_f1(constant, truth, len(names), weight)), len(truth))


def difference(a: DownstreamResult, b: DownstreamResult) -> Estimate:
    """Macro-F1 of `a` minus that of `b`: both tested on the same texts, resampled with the same seeds, so that what they share cancels.

    Raises `SteerlabError` when the test texts' labels or the seeds differ.
    """
    if a.seeds != b.seeds or [a.labels[i] for i in a.truth] != [b.labels[i] for i in b.truth]:
        raise SteerlabError(
            "two results with different seeds or different test texts were given: a difference needs the same of both."
        )
    draws = _draws(a.seeds, len(a.truth))
    shift = [_macro(_replicates(r.predicted, r.truth, len(r.labels), *draws)) for r in (a, b)]
    return _estimate(np.array(a.per_seed) - np.array(b.per_seed), shift[0] - shift[1], len(a.truth))


def clean(texts: Sequence[str], labels: Sequence[str], which: str) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Texts and labels without empty texts and without repeats of an earlier text, and how many rows went.

    Raises `SteerlabError` when the lists differ in length; `which` names them there.
    """
    texts = as_texts(texts)
    if len(texts) != len(labels):
        raise SteerlabError(f"{len(texts)} {which} texts and {len(labels)} labels were given: give one label per text.")
    first: dict[str, str] = {}
    for text, label in zip(texts, labels, strict=True):
        if plain := text.strip():
            first.setdefault(plain, label)
    return tuple(first), tuple(first.values()), len(texts) - len(first)


def resample(labels: Sequence[str], seed: int) -> Float[np.ndarray, "n"]:
    """How often each row is drawn by a bootstrap within its label."""
    weight = np.zeros(len(labels))
    for place, label in enumerate(sorted(set(labels))):
        rows = np.array([i for i, own in enumerate(labels) if own == label])
        drawn = np.random.default_rng((seed, place)).integers(len(rows), size=len(rows))
        weight[rows] = np.bincount(drawn, minlength=len(rows))
    return weight


def _draws(seeds: Sequence[int], n: int) -> tuple[Int[np.ndarray, "r"], Float[np.ndarray, "r n"]]:
    """For each replicate: which seed's classifier, and how often each test row counts."""
    rng = np.random.default_rng(list(seeds))
    which = rng.integers(len(seeds), size=_RESAMPLES)
    weight = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(float)
    return which, weight


def _replicates(
    predicted: Int[np.ndarray, "s n"],
    truth: Int[np.ndarray, "n"],
    k: int,
    which: Int[np.ndarray, "r"],
    weight: Float[np.ndarray, "r n"],
) -> Float[np.ndarray, "r k"]:
    """F1 per class of each replicate's classifier on its resample of the test rows."""
    found = np.empty((len(which), k))
    for s, row in enumerate(predicted):
        found[which == s] = _f1(row, truth, k, weight[which == s])
    return found


def _f1(
    predicted: Int[np.ndarray, "n"], truth: Int[np.ndarray, "n"], k: int, weight: Float[np.ndarray, "r n"]
) -> Float[np.ndarray, "r k"]:
    """F1 of each class under each row of weights; NaN for a class neither present nor predicted."""
    classes = np.arange(k)
    said, true = predicted[:, None] == classes, truth[:, None] == classes
    hits, both = weight @ (said & true).astype(float), weight @ (said.astype(float) + true)
    return np.divide(2 * hits, both, out=np.full(both.shape, np.nan), where=both > 0)


def _macro(f1: Float[np.ndarray, "r k"]) -> Float[np.ndarray, "r"]:
    return np.nanmean(f1, axis=1)


def _estimate(values: Float[np.ndarray, "s"], replicates: Float[np.ndarray, "r"], n: int) -> Estimate:
    """The mean over seeds, between the central 95 % of the replicates."""
    if np.isnan(values).all():
        return Estimate.missing("the label is neither in the test texts nor predicted", n)
    known = replicates[~np.isnan(replicates)]
    value = float(np.nanmean(values))
    if len(known) < 0.9 * len(replicates):
        return Estimate.point(value, n, "the label is too rare in the test texts")
    low, high = np.quantile(known, (0.025, 0.975))
    return Estimate(value, float(low), float(high), n)
