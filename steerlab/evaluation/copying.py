"""What a set repeats: texts of the training data, and itself."""

from __future__ import annotations

from collections.abc import Sequence

from steerlab.data.leakage import SHORTEST, normalise, overlap_report
from steerlab.evaluation.stats import Estimate, wilson
from steerlab.evaluation.words import as_texts


def copied(texts: Sequence[str], train: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Which texts equal a training text, and which are equal or near to one.

    Equal: but for case, punctuation and spacing. Near: Jaccard similarity of the character 8-grams of at least 0.6, or thirteen words
    in a row (`data.leakage`); texts of fewer than 20 characters are only ever equal. An empty text copies nothing.
    """
    texts = as_texts(texts)
    known = {plain for text in train if (plain := normalise(text))}
    exact = [normalise(text) in known for text in texts]
    near = set(overlap_report({"training": list(train), "texts": list(texts)}).rows("texts")) if train else set()
    return exact, [same or i in near for i, same in enumerate(exact)]


def copy_report(texts: Sequence[str], train: Sequence[str]) -> dict[str, Estimate]:
    """`copied_exactly` and `copied_nearly` (which includes the exact ones): shares of texts, with Wilson intervals.

    Texts without a letter or digit are left out; the reason says how many.
    """
    filled = [text for text in as_texts(texts) if normalise(text)]
    if not train:
        return {name: Estimate.missing("no training texts were given") for name in ("copied_exactly", "copied_nearly")}
    exact, near = copied(filled, train)
    empty = len(texts) - len(filled)
    note = f"{empty} of {len(texts)} texts are empty and left out" if empty else ""
    short = sum(len(normalise(text)) < SHORTEST for text in filled)
    short_note = f"{short} texts of under {SHORTEST} characters are compared to the letter only" if short else ""
    return {
        "copied_exactly": noted(wilson(sum(exact), len(filled)), note),
        "copied_nearly": noted(wilson(sum(near), len(filled)), "; ".join(filter(None, (note, short_note)))),
    }


def noted(estimate: Estimate, note: str) -> Estimate:
    """The estimate with one more reason."""
    reason = "; ".join(filter(None, (estimate.reason, note)))
    return Estimate(estimate.value, estimate.low, estimate.high, estimate.n, reason)
