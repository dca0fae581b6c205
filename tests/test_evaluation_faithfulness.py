"""Faithful texts are recognised, unfaithful ones are not, and chance is what luck would give."""

from __future__ import annotations

import math

import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.faithfulness import faithfulness

WORDS = {
    "health": "doctor clinic vaccine patient",
    "sports": "match goal stadium coach",
    "travel": "hotel beach ticket island",
}


def _texts(start: int, n: int) -> tuple[list[str], list[str]]:
    rows = [
        (f"{words.split()[i % 4]} number{i} {words.split()[(i // 4) % 4]} report", label)
        for label, words in WORDS.items()
        for i in range(start, start + n)
    ]
    return [text for text, _ in rows], [label for _, label in rows]


TRAIN, TEST, WRITTEN = _texts(0, 12), _texts(100, 8), _texts(200, 10)


def test_faithful_texts_agree_as_human_ones_do() -> None:
    result = faithfulness(*WRITTEN, *TRAIN, *TEST)
    assert result.share.value == result.judge_accuracy.value == 1
    assert result.share.n == 30 and result.judge_accuracy.n == 24
    assert 0.85 < result.share.low < result.share.high
    assert set(result.per_label) == set(result.judge_per_label) == set(WORDS)
    assert all(e.value == 1 and e.n == 10 for e in result.per_label.values())
    assert result.chance.value == pytest.approx(1 / 3) and math.isnan(result.chance.low)


def test_texts_under_the_wrong_label_do_not() -> None:
    turn = {"health": "sports", "sports": "travel", "travel": "health"}
    result = faithfulness(WRITTEN[0], [turn[label] for label in WRITTEN[1]], *TRAIN, *TEST)
    assert result.share.value == 0 and result.judge_accuracy.value == 1
    assert result.chance.value == pytest.approx(1 / 3)


def test_one_text_for_every_label_agrees_only_by_chance() -> None:
    texts = [WRITTEN[0][0]] * 30
    result = faithfulness(texts, WRITTEN[1], *TRAIN, *TEST)
    assert result.share.value == pytest.approx(result.chance.value) == pytest.approx(1 / 3)
    assert result.per_label["health"].value == 1 and result.per_label["sports"].value == 0


def test_an_empty_text_is_not_faithful() -> None:
    result = faithfulness(["", " ", WRITTEN[0][0]], ["health"] * 3, *TRAIN, *TEST)
    assert result.share.value == pytest.approx(1 / 3) and result.share.n == 3
    assert faithfulness([""], ["health"], *TRAIN, *TEST).share.value == 0


def test_without_texts_the_shares_are_missing() -> None:
    result = faithfulness([], [], *TRAIN, *TEST)
    assert not result.share.known and not result.chance.known and result.judge_accuracy.known
    assert not faithfulness(*WRITTEN, *TRAIN, [], []).judge_accuracy.known


@pytest.mark.parametrize(
    ("written", "train", "words"),
    [
        ((["a"], ["politics"]), TRAIN, r"written for \['politics'\]"),
        ((["a", "b"], ["health"]), TRAIN, "2 texts and 1 intended labels"),
        (WRITTEN, ([], []), "at least two"),
        ((["a"], ["health"]), (["a", "b"], ["health", "health"]), "at least two"),
    ],
)
def test_bad_data_is_told_in_one_sentence(
    written: tuple[list[str], list[str]], train: tuple[list[str], list[str]], words: str
) -> None:
    with pytest.raises(SteerlabError, match=words):
        faithfulness(*written, *train, *TEST)
