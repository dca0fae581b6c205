"""Does a probability mean what it says? Reliability of the classifier's on human texts, and how sure a judge is of synthetic labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from steerlab.errors import SteerlabError
from steerlab.evaluation.downstream import TextClassifier, clean
from steerlab.evaluation.splits import Labelled, held_out
from steerlab.evaluation.stats import Estimate, bootstrap, wilson
from steerlab.evaluation.words import as_texts

BINS = 10
COLUMNS = ("bin", "count", "confidence", "accuracy", "low", "high")
_RESAMPLES = 2000
_RANGE = (0.02, 50.0)  # temperatures looked at
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far probabilities are from frequencies, on n texts.

    `table`: per bin of confidence (the probability of the answer given; bins of about equal count) the count, mean confidence, and
    accuracy with Wilson's interval. `ece`: expected calibration error of the answers (Naeini et al. 2015; Guo et al. 2017), the mean
    over texts of |confidence - accuracy| of their bin, corrected by the bootstrap for its upward bias at few texts (Efron and Tibshirani
    1993, 10.6; Kumar et al. 2019 do the same). Its interval runs from the basic bootstrap's lower end, or 0 where `ece_plain` is no
    higher than chance makes it, to the percentile bootstrap's upper end: simulated on 200 texts it covered 91 to 98 %. `ece_plain`: the
    number most papers print, uncorrected. `if_calibrated`: mean and central 95 % of the `ece_plain` that perfectly calibrated
    probabilities would score on as many texts (Broecker and Smith 2007): inside it there is no evidence of miscalibration. `brier`: mean
    over texts of the squared distance between probabilities and truth, summed over labels (Brier 1950); 0 is best, 2 worst.
    """

    table: pd.DataFrame
    ece: Estimate
    ece_plain: float
    if_calibrated: Estimate
    brier: Estimate


def calibration(
    probabilities: Float[np.ndarray, "n k"], truth: Int[np.ndarray, "m"], bins: int = BINS, seed: int = 0
) -> Calibration:
    """Measure probabilities (rows sum to 1) against the true labels, numbers of columns.

    Raises `SteerlabError` for no texts, counts that do not match, rows that are no probabilities, and fewer than one bin.
    """
    _check(probabilities, truth)
    if bins < 1:
        raise SteerlabError(f"{bins} bins were asked for: give at least 1.")
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == truth).astype(float)
    n = len(truth)
    # Quantiles as edges: about equal counts, and equal confidences stay together.
    inner = np.unique(np.quantile(confidence, np.arange(1, bins) / bins))
    place = np.searchsorted(inner, confidence, side="right")
    member = np.eye(len(inner) + 1)[place]
    member = member[:, member.any(axis=0)]
    rows = []
    for number, own in enumerate(member.T.astype(bool), start=1):
        share = wilson(int(right[own].sum()), int(own.sum()))
        rows.append((number, int(own.sum()), float(confidence[own].mean()), share.value, share.low, share.high))
    rng = np.random.default_rng(seed)
    plain = float(_ece(confidence - right, member, np.ones((1, n)))[0])
    weight = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(float)
    honest = confidence - (rng.random((_RESAMPLES, n)) < confidence)
    chance = _spread(np.abs(honest @ member).sum(axis=1) / n, n)
    wrong = probabilities - np.eye(probabilities.shape[1])[truth]
    return Calibration(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        _corrected(plain, _ece(confidence - right, member, weight), chance),
        plain,
        chance,
        bootstrap((wrong**2).sum(axis=1), seed=seed, resamples=_RESAMPLES),
    )


def _ece(
    gap: Float[np.ndarray, "n"], member: Float[np.ndarray, "n m"], weight: Float[np.ndarray, "r n"]
) -> Float[np.ndarray, "r"]:
    return np.abs((weight * gap) @ member).sum(axis=1) / weight.sum(axis=1)


def _corrected(plain: float, drawn: Float[np.ndarray, "r"], chance: Estimate) -> Estimate:
    high = np.quantile(drawn, 0.975)
    low = 2 * plain - high if plain > chance.high else 0.0
    value, low, high = (float(np.clip(x, 0, 1)) for x in (2 * plain - drawn.mean(), low, high))
    return Estimate(value, low, high, chance.n)


def _spread(drawn: Float[np.ndarray, "r"], n: int) -> Estimate:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(float(drawn.mean()), float(low), float(high), n)


def temperature(probabilities: Float[np.ndarray, "n k"], truth: Int[np.ndarray, "m"]) -> float:
    """The temperature that gives these texts the highest likelihood (Guo et al. 2017): above 1 the probabilities were too sure.

    Fit it on validation texts, never on those it is judged on. It lies between 0.02 and 50; either end means that the likelihood
    has no maximum, as when every text is right.
    """
    _check(probabilities, truth)
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(np.log(np.maximum(rescale(probabilities, math.exp(log_temperature))[rows, truth], _TINY)).mean())

    low, high = (math.log(bound) for bound in _RANGE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return math.exp(float(found.x))  # type: ignore[attr-defined]


def rescale(probabilities: Float[np.ndarray, "n k"], temperature: float) -> Float[np.ndarray, "n k"]:
    """softmax(log p / temperature), which equals softmax(logits / temperature): the answers stay, their confidence changes."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise SteerlabError(f"a temperature of {temperature} was given: give one above 0.")
    logits = np.log(np.maximum(probabilities, _TINY)) / temperature
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class LabelModel:
    """A trained classifier that answers with probabilities: `labels` in the order of their columns, `temperature` fitted on validation."""

    classifier: TextClassifier
    model: LogisticRegression
    labels: tuple[str, ...]
    temperature: float

    def raw(self, texts: Sequence[str]) -> Float[np.ndarray, "n k"]:
        """Probabilities as the regression gives them."""
        return np.asarray(self.model.predict_proba(self.classifier.transform(as_texts(texts))))

    def probabilities(self, texts: Sequence[str]) -> Float[np.ndarray, "n k"]:
        """Probabilities at the fitted temperature."""
        return rescale(self.raw(texts), self.temperature)

    def numbers(self, labels: Sequence[str]) -> Int[np.ndarray, "n"]:
        """The columns of labels. Raises `SteerlabError` for one that was not trained."""
        column = {label: i for i, label in enumerate(self.labels)}
        if unknown := sorted(set(labels) - set(self.labels)):
            raise SteerlabError(
                f"labels {unknown} were given, and the classifier was trained on {list(self.labels)}: give both the same names."
            )
        return np.array([column[label] for label in labels], dtype=np.int64)

    def calibration(self, texts: Sequence[str], labels: Sequence[str], bins: int = BINS) -> Calibration:
        """`calibration` on other labelled texts, human test texts say, at the fitted temperature."""
        texts, labels, _ = clean(texts, labels, "test")
        return calibration(self.probabilities(texts), self.numbers(labels), bins)


def fit(train: Labelled, validation: Labelled | None = None, share: float = 0.2, seed: int = 0) -> LabelModel:
    """The classifier of `downstream` trained once on `train`, and its temperature fitted on `validation`.

    Without validation texts a stratified `share` of the training texts, drawn with `seed`, serves and is not trained on. Raises
    `SteerlabError` as `TextClassifier` does, and for validation labels that were not trained.
    """
    texts, labels, _ = clean(*train, "training")
    if validation is None:
        kept, held = held_out(labels, share, seed)
        validation = [texts[i] for i in held], [labels[i] for i in held]
        texts, labels = tuple(texts[i] for i in kept), tuple(labels[i] for i in kept)
    checked, truth, _ = clean(*validation, "validation")
    classifier = TextClassifier(texts, labels)
    model = classifier.fit()
    plain = LabelModel(classifier, model, tuple(str(name) for name in model.classes_), 1.0)
    return LabelModel(classifier, model, plain.labels, temperature(plain.raw(checked), plain.numbers(truth)))


@dataclass(frozen=True, eq=False)
class LabelConfidence:
    """How sure a judge trained on human texts is that texts carry the label they were written for.

    `mean`: mean probability of the intended label; `below_chance`: share of texts with less than 1 / (number of labels), candidates for
    a wrong label (Wilson's interval); `per_label`: `mean` among the texts of each intended label; `per_text`: the probabilities, NaN
    for an empty text, which is left out of the rest.
    """

    mean: Estimate
    below_chance: Estimate
    per_label: dict[str, Estimate]
    per_text: Float[np.ndarray, "n"]


def label_confidence(judge: LabelModel, texts: Sequence[str], intended: Sequence[str]) -> LabelConfidence:
    """Judge generated texts; read the numbers beside those of human test texts, which this function gives as well.

    The judge reads character n-grams, so text in another language than its training texts scores about chance whatever it says.
    Raises `SteerlabError` for lists of unequal length and an intended label that the judge was not trained on.
    """
    texts = as_texts(texts)
    if len(texts) != len(intended):
        raise SteerlabError(f"{len(texts)} texts and {len(intended)} labels were given: give one label per text.")
    own = np.full(len(texts), np.nan)
    if len(texts):
        filled = np.array([bool(text.strip()) for text in texts])
        own = np.where(filled, judge.probabilities(texts)[np.arange(len(texts)), judge.numbers(intended)], np.nan)
    known, wanted = own[~np.isnan(own)], np.array(intended, dtype=object)
    return LabelConfidence(
        bootstrap(own),
        wilson(int((known < 1 / len(judge.labels)).sum()), len(known)),
        {label: bootstrap(own[wanted == label]) for label in sorted(set(intended))},
        own,
    )


def _check(probabilities: Float[np.ndarray, "n k"], truth: Int[np.ndarray, "m"]) -> None:
    n, k = probabilities.shape
    if n == 0 or n != len(truth):
        raise SteerlabError(
            f"probabilities of {n} texts and {len(truth)} labels were given: give at least one text, one label each."
        )
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-4) or (probabilities < 0).any():
        raise SteerlabError(
            "rows that are no probabilities were given: each must hold numbers from 0 up that sum to 1."
        )
    if truth.min() < 0 or truth.max() >= k:
        raise SteerlabError(
            f"labels from {truth.min()} to {truth.max()} were given for {k} columns: number them from 0."
        )
