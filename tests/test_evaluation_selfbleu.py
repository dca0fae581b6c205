"""Self-BLEU equals sacrebleu's sentence score of every text against all others, on any subset."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from steerlab.evaluation.selfbleu import SelfBleu, self_bleu


def _theirs(tokens: list[list[str]]) -> list[float]:
    bleu = BLEU(tokenize="none", effective_order=True)
    texts = [" ".join(text) for text in tokens]
    return [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score / 100 for i, text in enumerate(texts)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=9), min_size=2, max_size=6))
def test_scores_equal_sacrebleu(tokens: list[list[str]]) -> None:
    assert SelfBleu(tokens).scores(np.arange(len(tokens))).tolist() == pytest.approx(_theirs(tokens))


def test_a_subset_scores_as_if_the_rest_did_not_exist() -> None:
    rng = np.random.default_rng(0)
    tokens = [[str(w) for w in rng.integers(12, size=size)] for size in rng.integers(3, 20, size=15)]
    whole = SelfBleu(tokens)
    for rows in ([0, 1, 2], [3, 7, 8, 14], list(range(1, 15))):
        expected = _theirs([tokens[row] for row in rows])
        assert whole.scores(np.array(rows)).tolist() == pytest.approx(expected)
    assert whole.scores(np.array([0, 1, 2]))[0] != pytest.approx(whole.scores(np.arange(15))[0])


def test_identical_texts_score_one_and_texts_with_nothing_in_common_zero() -> None:
    text = ["one", "two", "three", "four", "five"]
    assert self_bleu([text] * 4) == pytest.approx(1)
    assert self_bleu([text, ["six", "seven", "eight"], ["nine"]]) == 0


def test_texts_without_words_take_no_part() -> None:
    tokens = [["a", "b"], [], ["a", "c"], []]
    assert self_bleu(tokens) == self_bleu([["a", "b"], ["a", "c"]]) > 0
    assert math.isnan(self_bleu([["a"], []])) and math.isnan(self_bleu([]))


def test_more_texts_than_the_cap_are_sampled_by_the_seed() -> None:
    rng = np.random.default_rng(1)
    tokens = [[str(w) for w in rng.integers(9, size=8)] for _ in range(30)]
    assert self_bleu(tokens, cap=10, seed=1) == self_bleu(tokens, cap=10, seed=1)
    assert self_bleu(tokens, cap=10, seed=1) != self_bleu(tokens, cap=10, seed=2)
    assert self_bleu(tokens, cap=10) < self_bleu(tokens, cap=30) == self_bleu(tokens)
