"""The language table and the error for a language it lacks."""

from __future__ import annotations

import re

import pytest

from steerlab.data.languages import LANGUAGES, language
from steerlab.errors import SteerlabError


def test_the_twelve_languages_are_there_under_their_own_code():
    assert list(LANGUAGES) == ["am", "cs", "da", "de", "en", "he", "id", "jv", "mt", "sk", "sl", "su"]
    assert all(code == entry.code == entry.lid for code, entry in LANGUAGES.items())


def test_codes_of_other_schemes_are_well_formed_and_distinct():
    sib = [entry.sib200 for entry in LANGUAGES.values()]
    assert len(set(sib)) == 12 and all(re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", code) for code in sib)
    for entry in LANGUAGES.values():
        assert entry.ntrex in (None, entry.sib200[:3])
        assert (entry.script == "Latin") == entry.sib200.endswith("_Latn")
    assert {code for code, entry in LANGUAGES.items() if entry.ntrex is None} == {"jv", "su"}


def test_only_hebrew_is_written_from_right_to_left():
    assert [code for code, entry in LANGUAGES.items() if entry.direction == "rtl"] == ["he"]


def test_families_are_those_the_vectors_are_expected_to_cluster_by():
    families = {entry.family for entry in LANGUAGES.values()}
    assert families == {"Semitic", "Slavic", "Germanic", "Austronesian"}
    assert {c for c, entry in LANGUAGES.items() if entry.family == "Semitic"} == {"am", "he", "mt"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [("javanese", "jv"), ("jav_Latn", "jv"), ("EN", "en"), ("iw", "he"), ("Slovene", "sl")],
)
def test_an_unknown_code_names_the_known_ones_and_the_nearest(given: str, meant: str):
    with pytest.raises(SteerlabError) as caught:
        language(given)
    message = str(caught.value)
    assert repr(given) in message and "am, cs, da" in message and f"did you mean {meant!r}" in message


def test_a_code_that_resembles_none_gets_no_guess():
    with pytest.raises(SteerlabError, match=r"give one of am, .*su\.$"):
        language("qqqqqq")
