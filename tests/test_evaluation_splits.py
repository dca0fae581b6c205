"""Held-out shares are stratified and never take the last text; balanced orders are balanced in every beginning and nested."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.splits import balanced_order, held_out

LABELS = ["a"] * 10 + ["b"] * 4 + ["c"] * 30


def test_a_share_of_every_label_is_held_out() -> None:
    kept, held = held_out(LABELS, 0.2, seed=0)
    assert Counter(LABELS[i] for i in held) == {"a": 2, "b": 1, "c": 6}
    assert sorted([*kept, *held]) == list(range(len(LABELS)))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()


def test_a_held_out_share_takes_one_row_at_least_and_leaves_one_at_least() -> None:
    labels = ["a", "a", "b", "b", "b", "c"]
    for share, wanted in ((0.01, {"a": 1, "b": 1}), (0.99, {"a": 1, "b": 2})):
        _, held = held_out(labels, share, seed=3)
        assert Counter(labels[i] for i in held) == wanted


def test_the_seed_decides_the_share_and_the_order() -> None:
    assert (held_out(LABELS, 0.3, 1)[1] == held_out(LABELS, 0.3, 1)[1]).all()
    assert held_out(LABELS, 0.3, 1)[1].tolist() != held_out(LABELS, 0.3, 2)[1].tolist()
    assert (balanced_order(LABELS, 1) == balanced_order(LABELS, 1)).all()
    assert balanced_order(LABELS, 1).tolist() != balanced_order(LABELS, 2).tolist()


def test_every_beginning_of_the_order_is_balanced_while_labels_last() -> None:
    order = balanced_order(LABELS, seed=5)
    assert sorted(order) == list(range(len(LABELS)))
    for k in range(1, 13):  # the rarest label has four rows
        counts = Counter(LABELS[i] for i in order[:k])
        assert max(counts.values()) - min(counts.get(name, 0) for name in "abc") <= 1
    assert Counter(LABELS[i] for i in order[12:24]) == {"a": 6, "c": 6}
    assert {LABELS[i] for i in order[24:]} == {"c"}


def test_what_cannot_be_split_is_told() -> None:
    for share in (0.0, 1.0, -0.1, 1.5):
        with pytest.raises(SteerlabError, match="above 0 and below 1"):
            held_out(LABELS, share, 0)
    with pytest.raises(SteerlabError, match="two texts of a label"):
        held_out(["a", "b"], 0.5, 0)
    assert len(balanced_order([], 0)) == 0
