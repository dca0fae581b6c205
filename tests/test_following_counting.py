"""Words, capital words and sentences as IFEval counts them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.following.counting import (
    ABBREVIATIONS,
    capital_words,
    count_sentences,
    count_sentences_anywhere,
    count_words,
    split_sentences,
)

SENTENCES = [
    ("", 0),
    (" \n\t", 0),
    ("no mark at all", 1),
    ("One. Two! Three?", 3),
    ("Dr. Smith met Mrs. Jones at 5 p.m. on Monday. They talked.", 2),
    ("It was in the U.S. Army. It was in the U.S. The war ended.", 3),
    ("J. R. R. Tolkien wrote it.", 1),
    ("Pi is 3.14 and e is 2.71. Both are irrational.", 2),
    ("She is 42. and he is not.", 1),
    ("1. Buy milk.\n2. Sell eggs.", 4),  # the numbers are sentences of their own, in NLTK too
    ('He said "Go." Then he left.', 2),
    ("(All of it.) And more.", 2),
    ("What?! Really!!! Yes...", 3),
    ("Well... maybe. Well... The end.", 3),
    ("A heading without a mark\nand a line.", 1),
    ("Bold.** Next", 2),
    ("See example.com for more. Done.", 2),
    ("hello. world.", 2),
    ("Fruit, e.g. figs. Or i.e. nuts.", 2),
    ("Is that I. Or you.", 2),
]


@pytest.mark.parametrize(("text", "count"), SENTENCES)
def test_sentences_by_hand(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_split_keeps_closing_quotes_with_their_sentence() -> None:
    assert split_sentences('He said "Go." Then (he left.) "Why?" she asked.') == [
        'He said "Go."',
        "Then (he left.)",
        '"Why?"',
        "she asked.",
    ]


def test_a_full_stop_after_an_abbreviation_ends_a_sentence_only_before_a_starter() -> None:
    for short in ABBREVIATIONS:
        assert count_sentences(f"They saw {short}. Xanthos again.") == 1, short
        assert count_sentences(f"They saw {short}. The end.") == 2, short
        assert count_sentences(f"They saw {short}. again.") == 1, short


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["birds sing", "The tide is low", "we saw it", "Ask her"]), min_size=1, max_size=40))
def test_plain_sentences_are_counted_exactly(bodies: list[str]) -> None:
    for mark in ".!?":
        assert count_sentences(" ".join(body + mark for body in bodies)) == len(bodies)
        assert count_sentences("\n\n".join(body + mark for body in bodies)) == len(bodies)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="aB1.?!\"')(*- \n,…éش", max_size=60))
def test_splitting_loses_nothing_but_white_space(text: str) -> None:
    pieces = split_sentences(text)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)
    assert all(piece == piece.strip() != "" for piece in pieces)


def test_other_scripts_end_sentences_only_where_asked() -> None:
    amharic = "ዝናብ ዘነበ። ቤት ቀረን።"
    assert count_sentences(amharic) == 1
    assert count_sentences_anywhere(amharic) == 2
    assert count_sentences_anywhere("今日は晴れ。明日は雨！") == 2
    assert count_sentences_anywhere("One. Two.") == 2


def test_words_are_runs_of_word_characters() -> None:
    assert count_words("Don't stop, well-known co_op: 3.5!") == 8
    assert count_words("") == count_words("... --- !!!") == 0


CAPITALS = [
    ("NASA sent X-RAY-2 to the U.S.A. today", ["NASA", "X-RAY-2", "U.S.A."]),
    ("IT'S DON'T I'm he'll", ["IT", "'S", "DO", "N'T", "I"]),
    ("IT’S", ["IT", "S"]),
    ("R&D and AT&T", ["R", "D", "AT", "T"]),
    ("A:1 A:B 1,000 A,B", ["A:1", "A", "B", "A", "B"]),
    ("CANNOT GONNA 'TIS", ["CAN", "NOT", "GON", "NA", "'T", "IS"]),
    ("Mixed Case and 123 — nothing", []),
    ('**BOLD** "QUOTED" (HELD) WOW! END.', ["BOLD", "QUOTED", "HELD", "WOW", "END."]),
]


@pytest.mark.parametrize(("text", "found"), CAPITALS)
def test_capital_words_by_hand(text: str, found: list[str]) -> None:
    assert capital_words(text) == found
