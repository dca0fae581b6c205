"""Surface form: what goes, what stays, and that doing it twice changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steerlab.data.contrast import ContrastPairs
from steerlab.data.parallel import load_pairs
from steerlab.data.surface import normalise_surface

MARKS = "\"'„“”‘’‚«»‹›`´-–—…. ,;:!?()[]\u00a0\u200f\u200b%።፡İßǅaB1\n"


@given(st.one_of(st.text(), st.text(alphabet=MARKS, max_size=30)))
@example("İ’)‘")  # the small form of this letter ends in a combining dot, after which the apostrophe opens a quotation
def test_normalising_twice_is_normalising_once(text: str):
    once = normalise_surface(text)
    assert normalise_surface(once) == once


@pytest.mark.parametrize(
    "variants",
    [
        (
            "»To je dobro,« je dejal.",
            "“To je dobro,” je dejal",
            'to je dobro," je dejal .',
            "To je dobro , je dejal…",
        ),
        ("- Ali ni res?", "— ali ni  res ?", "Ali ni res?!"),
        ("Cena (8,3 %) raste.", "cena ( 8,3% ) raste"),
        ("Ta’ Malta", "ta' Malta.", "ta' ‘Malta’"),
        ("\u200fשלום עולם.", "שלום עולם"),
        ("“ዌልሽ” ፡፡", "ዌልሽ።"),
    ],
)
def test_spellings_of_one_text_get_one_form(variants: tuple[str, ...]):
    assert len({normalise_surface(text) for text in variants}) == 1


def test_words_their_order_and_inner_punctuation_stay():
    assert normalise_surface("Prvi, drugi: tretji – A. B.") == "prvi, drugi: tretji - A. B"
    assert normalise_surface("a b") != normalise_surface("b a")
    assert normalise_surface("X'tagħmel ta' l-Għid") == "x'tagħmel ta' l-Għid"
    assert normalise_surface(" „…“ ") == ""


def test_real_pairs_differ_less_in_surface_and_mostly_still_differ(shared):
    """Quotes, final stops and spaces before commas tell human from translated Slovene; afterwards none of them can."""
    pairs = load_pairs(root=shared, hops=2, split="heldout")

    def telling(side: tuple[str, ...]) -> float:
        return sum(any(mark in text for mark in ("»", " ,", " .", "“", "„")) for text in side) / len(side)

    assert abs(telling(pairs.human) - telling(pairs.degraded)) > 0.1
    human = tuple(normalise_surface(text) for text in pairs.human)
    degraded = tuple(normalise_surface(text) for text in pairs.degraded)
    assert telling(human) == telling(degraded) == 0
    same = sum(a == b for a, b in zip(human, degraded, strict=True))
    assert 0 < same < 0.1 * len(pairs)
    assert isinstance(pairs, ContrastPairs)
