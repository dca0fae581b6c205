"""Length, repetition, and what functions of the caller say, by arm and against the arm without steering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.following.arms import Answer
from steerlab.following.quality import measure_quality


def answer(prompt: str, arm: Any, text: str, query: str = "the sea") -> Answer:
    return Answer(prompt, arm, text, (), (), group=prompt, query=query)


ROWS = [
    answer("a", "none", "The sea is calm. It is blue."),
    answer("b", "none", "Trains leave."),
    answer("a", "steered", "so so so so so so so so"),
    answer("b", "steered", " "),
]


def test_length_and_repetition() -> None:
    items: Any = measure_quality(ROWS).items.set_index(["prompt", "arm"])
    assert items["words"].to_dict() == {("a", "none"): 7, ("b", "none"): 2, ("a", "steered"): 8, ("b", "steered"): 0}
    assert items.loc[("a", "none"), "sentences"] == 2
    assert items.loc[("a", "steered"), "repetition"] == pytest.approx(4 / 5)
    assert items.loc[("a", "steered"), "loop"] == 1 and items.loc[("a", "none"), "loop"] == 0
    assert math.isnan(items.loc[("b", "steered"), "loop"])


def test_perplexity_is_logged_and_never_asked_of_blank_texts() -> None:
    def surprise(texts: Sequence[str]) -> np.ndarray:
        assert all(text.strip() for text in texts)
        return np.array([math.e ** len(text) for text in texts])

    items: Any = measure_quality(ROWS, perplexity=surprise).items
    assert items["log_perplexity"].tolist()[:3] == pytest.approx([len(row.text) for row in ROWS[:3]])
    assert math.isnan(items["log_perplexity"].iloc[3])


def test_relevance_is_the_cosine_to_the_base_query() -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.array([[float("sea" in text), float("Trains" in text)] for text in texts])

    items: Any = measure_quality(ROWS, embed=embed).items
    assert items["relevance"].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(
        items["relevance"].tolist()[2:]
    ).all()  # a vector of zeros has no direction; a blank answer no vector


def test_a_judge_may_decline_and_its_scores_are_checked() -> None:
    items: Any = measure_quality(ROWS, judge=lambda queries, texts: [0.5, math.nan, 1.0]).items
    assert items["judged"].tolist()[0] == 0.5 and math.isnan(items["judged"].tolist()[1])
    with pytest.raises(SteerlabError, match="scores from 0 to 1"):
        measure_quality(ROWS, judge=lambda queries, texts: [2.0] * 3)
    with pytest.raises(SteerlabError, match="scores from 0 to 1"):
        measure_quality(ROWS, judge=lambda queries, texts: [1.0])
    with pytest.raises(SteerlabError, match="one number per text"):
        measure_quality(ROWS, perplexity=lambda texts: np.ones(1))
    with pytest.raises(SteerlabError, match="one row per text"):
        measure_quality(ROWS, embed=lambda texts: np.ones((1, 2)))
    with pytest.raises(SteerlabError, match="two answers in one arm"):
        measure_quality([*ROWS, ROWS[0]])


def test_the_table_compares_each_arm_with_the_one_without_steering() -> None:
    rows = [
        answer(f"p{i}", arm, "word " * (i + extra))
        for i in range(1, 9)
        for arm, extra in (("instructed", 0), ("both", 2))
    ]
    quality = measure_quality(rows)
    assert quality.measures == ("words", "sentences", "repetition", "loop")
    table: Any = quality.table().set_index(["measure", "arm"])
    both = table.loc[("words", "both")]
    assert (both["reference"], both["difference"], both["n"]) == ("instructed", 2.0, 8)
    assert (both["difference_low"], both["difference_high"]) == (2.0, 2.0)
    assert both["low"] < both["value"] == 6.5 < both["high"]
    assert math.isnan(table.loc[("words", "instructed"), "difference"])  # no arm "none" to compare with
    assert "words" in quality._repr_html_()
