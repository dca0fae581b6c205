"""Label faithfulness: does a text written for a label read like human texts of that label?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steerlab.errors import SteerlabError
from steerlab.evaluation.downstream import TextClassifier, clean
from steerlab.evaluation.stats import Estimate, wilson
from steerlab.evaluation.words import as_texts


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Agreement of a judge trained on human texts with the labels that texts were written for.

    `share`: texts the judge gives the intended label; an empty text is not faithful. `judge_accuracy`: the same judge on human test
    texts, about as high as faithful texts can score. `chance`: what a judge with these answers would agree by luck, from how often each
    label is given and intended (Cohen 1960). `per_label`: `share` among the texts written for each label. `judge_per_label`: share of
    each label's human test texts the judge recognises.
    """

    share: Estimate
    judge_accuracy: Estimate
    chance: Estimate
    per_label: dict[str, Estimate]
    judge_per_label: dict[str, Estimate]


def faithfulness(
    texts: Sequence[str],
    intended: Sequence[str],
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    test_texts: Sequence[str],
    test_labels: Sequence[str],
) -> Faithfulness:
    """Judge generated texts by the downstream classifier trained once on the human train split, every share with Wilson's interval.

    The judge reads character n-grams: text in another language than the training texts scores about chance whatever it says.
    Raises `SteerlabError` for lists of unequal length, fewer than two training labels, and an intended label that the judge does not know.
    """
    texts = as_texts(texts)
    if len(texts) != len(intended):
        raise SteerlabError(
            f"{len(texts)} texts and {len(intended)} intended labels were given: give one label per text."
        )
    train_texts, train_labels, _ = clean(train_texts, train_labels, "training")
    test_texts, test_labels, _ = clean(test_texts, test_labels, "test")
    unknown = sorted(set(intended) - set(train_labels))
    if train_labels and unknown:
        raise SteerlabError(
            f"texts were written for {unknown}, and the judge's training texts have the labels {sorted(set(train_labels))}:"
            " give both the same names."
        )
    classifier = TextClassifier(train_texts, train_labels)
    judge = classifier.fit()

    def said(of: Sequence[str]) -> np.ndarray:
        return np.asarray(judge.predict(classifier.transform(of)) if of else [], dtype=object)

    filled = np.array([bool(text.strip()) for text in texts], dtype=bool)
    given = np.full(len(texts), "", dtype=object)
    given[filled] = said([text for text in texts if text.strip()])
    wanted, truth = np.array(intended, dtype=object), np.array(test_labels, dtype=object)
    share, per_label = _agreement(given, wanted)
    accuracy, judge_per_label = _agreement(said(test_texts), truth)
    return Faithfulness(share, accuracy, _chance(given, wanted), per_label, judge_per_label)


def _agreement(given: np.ndarray, wanted: np.ndarray) -> tuple[Estimate, dict[str, Estimate]]:
    right = given == wanted
    labels = sorted(set(wanted.tolist()))
    rows = {label: wanted == label for label in labels}
    per_label = {label: wilson(int(right[row].sum()), int(row.sum())) for label, row in rows.items()}
    return wilson(int(right.sum()), len(right)), per_label


def _chance(given: np.ndarray, wanted: np.ndarray) -> Estimate:
    if len(wanted) == 0:
        return Estimate.missing("nothing to count")
    value = sum(float((given == label).mean() * (wanted == label).mean()) for label in set(wanted.tolist()))
    return Estimate.point(value, len(wanted), "computed from the label counts")
