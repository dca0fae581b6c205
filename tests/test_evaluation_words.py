"""Words in Latin, Hebrew and Ethiopic script, and n-grams that stay inside their text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.errors import SteerlabError
from steerlab.evaluation.words import as_texts, grams, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ein Satz, 2 Teile -- fertig!", ("ein", "satz", "2", "teile", "fertig")),
        ("STRASSE Straße", ("strasse", "strasse")),
        ("Ta' Malta x'tagħmel l-Għid", ("ta", "malta", "x'tagħmel", "l", "għid")),
        ("שָׁלוֹם עוֹלָם", ("שָׁלוֹם", "עוֹלָם")),
        ('צה"ל דו״ח ג׳ירפה', ('צה"ל', "דו״ח", "ג׳ירפה")),
        ('he said "no"to', ("he", "said", "no", "to")),
        ("ሰላም፡ለዓለም።እንደምን ነህ፧", ("ሰላም", "ለዓለም", "እንደምን", "ነህ")),
        ("co\u00adopera\u200ftion", ("cooperation",)),
        ("今日 ok", ("今", "日", "ok")),
        ("… — !", ()),
        ("", ()),
    ],
)
def test_words_of_a_text(text: str, expected: tuple[str, ...]) -> None:
    assert words(text) == tuple(unicodedata.normalize("NFC", word) for word in expected)


def test_pointed_hebrew_is_not_cut_at_its_points() -> None:
    assert len(words("שָׁלוֹם")) == 1
    assert len(re.findall(r"\w+", "שָׁלוֹם")) > 1


@given(st.text())
def test_composed_and_decomposed_spelling_give_the_same_words(text: str) -> None:
    assert words(unicodedata.normalize("NFD", text)) == words(text)


def test_a_single_string_is_not_a_list_of_texts() -> None:
    assert as_texts(["ab", "c"]) == ("ab", "c")
    with pytest.raises(SteerlabError, match="one string of 2 characters"):
        as_texts("ab")


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=5))
def test_grams_are_those_of_each_text_alone(tokens: list[list[str]]) -> None:
    for n, found in enumerate(grams(tokens, 4), start=1):
        expected = [(text, tuple(row[i : i + n])) for text, row in enumerate(tokens) for i in range(len(row) - n + 1)]
        assert len(found.ids) == len(expected)
        assert found.owner.tolist() == [text for text, _ in expected]
        assert found.kinds == len({gram for _, gram in expected}) == len(set(found.ids.tolist()))
        pairs = Counter(zip(found.ids.tolist(), (gram for _, gram in expected), strict=True))
        assert len(pairs) == found.kinds
