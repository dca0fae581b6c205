"""Repetition inside a text: known values, and that a fresh text has none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.evaluation.repetition import longest_loop, repetition_rate, repetition_report


@pytest.mark.parametrize(
    ("text", "n", "rate"),
    [
        ("a b c d", 1, 0.0),
        ("a a a a", 1, 0.75),
        ("a a a a", 4, 0.0),
        ("a b a b a b", 2, 0.6),
        ("A, a. b", 1, 1 / 3),
    ],
)
def test_the_share_of_repeated_ngrams(text: str, n: int, rate: float) -> None:
    assert repetition_rate(text, n) == pytest.approx(rate)


def test_a_text_too_short_has_no_rate() -> None:
    assert math.isnan(repetition_rate("one two three", 4))
    assert math.isnan(repetition_rate("", 1))


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("", 0),
        ("a b c a", 0),
        ("so so so", 3),
        ("a b a b a", 5),
        ("x a b c a b c y", 6),
        ("a a b b b", 3),
        ("a b c d " * 5, 20),
        ("שלום שלום", 2),
    ],
)
def test_the_longest_loop(text: str, length: int) -> None:
    assert longest_loop(text) == length


def _slow_loop(tokens: list[str]) -> int:
    best = 0
    for start in range(len(tokens)):
        for stop in range(start + 2, len(tokens) + 1):
            part = tokens[start:stop]
            for period in range(1, len(part) // 2 + 1):
                if part[period:] == part[:-period]:
                    best = max(best, len(part))
    return best


@given(st.lists(st.sampled_from("ab c".replace(" ", "")), max_size=14))
def test_the_longest_loop_equals_a_search_over_all_stretches(tokens: list[str]) -> None:
    assert longest_loop(" ".join(tokens)) == _slow_loop(tokens)


def test_the_report_tells_loops_from_prose() -> None:
    prose = ["Das Boot liegt seit gestern im Hafen der kleinen Stadt.", "Wir sehen uns morgen früh am Markt."]
    loops = ["es ist gut es ist gut es ist gut", "ja ja ja ja ja ja ja"]
    good, bad = repetition_report(prose * 5), repetition_report(loops * 5)
    assert good["looping"].value == 0 and bad["looping"].value == 1
    assert good["repetition_4"].value == 0 < bad["repetition_4"].value
    assert good["loop_share"].value == 0 and bad["loop_share"].value == 1
    assert set(good) == {*(f"repetition_{n}" for n in range(1, 5)), "loop_share", "looping"}
    assert bad["looping"].low < 1


def test_texts_without_words_are_left_out_and_do_not_loop() -> None:
    report = repetition_report(["", "a a a a", "b c d e"])
    assert report["repetition_1"].n == 2 and report["repetition_1"].reason.startswith("1 of 3")
    assert report["looping"].value == pytest.approx(1 / 3)
    assert not repetition_report([])["repetition_1"].known
