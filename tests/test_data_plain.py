"""Sentences out of wrapped text, and the sample set that ships."""

from __future__ import annotations

import textwrap
from collections import Counter

import pytest

from steerlab.data.languages import LANGUAGES
from steerlab.data.plain import join_wrapped, load_sample_pairs, split_sentences
from steerlab.data.sources import load
from steerlab.errors import SteerlabError
from steerlab.tasks import TASKS

SENTENCES = [
    "Kde tá ľudská duša drieme?",
    "Bol to 18. storočia začiatok, napr. v Uhorsku.",
    "„Nebyť toho, Slovensko by dnes neexistovalo.“",
    "Aby sa ľudia mohli smiať!",
    "Šťastie prišlo v roku 1963.",
]


def test_wrapping_is_undone_and_sentences_come_back():
    wrapped = textwrap.wrap(" ".join(SENTENCES * 4), width=80, break_long_words=False, break_on_hyphens=False)
    assert len(wrapped) > 5
    paragraphs = join_wrapped(wrapped)
    assert paragraphs == [" ".join(SENTENCES * 4)]
    assert split_sentences(paragraphs[0]) == SENTENCES * 4


def test_a_short_line_ends_its_paragraph():
    assert join_wrapped(["Krátky riadok.", "Druhý odsek.", "", "Tretí."]) == [
        "Krátky riadok.",
        "Druhý odsek.",
        "Tretí.",
    ]


def test_a_stop_before_a_small_letter_ends_nothing():
    assert split_sentences("Prišiel o 5. hodine ráno. Odišiel.") == ["Prišiel o 5. hodine ráno.", "Odišiel."]
    assert split_sentences(" ") == []


def test_slovak_treebank_lines_become_sentences(shared):
    texts = load("ud-text", "sk", root=shared).texts
    assert len(texts) > 8000 and len(set(texts)) == len(texts)
    closed = sum(text.rstrip("\"“”»').,; ")[-1:] != "" and text.rstrip("\"“”»') ")[-1] in ".!?…" for text in texts)
    assert closed > 0.95 * len(texts)
    assert Counter(len(text) > 80 for text in texts)[True] > 1000, "sentences longer than the wrapping width are whole"


def test_the_sample_set_has_six_sentences_for_every_label_and_language():
    for code in LANGUAGES:
        for name, task in TASKS.items():
            counts = Counter(load("sample", code, name).labels)
            assert set(counts) == set(task.labels) and min(counts.values()) >= 6, (code, name, counts)
        every = load("sample", code).examples
        assert len({e.text for e in every}) == len(every) and {e.language for e in every} == {code}


def test_the_sample_pairs_show_a_contrast_in_every_language():
    pairs = [load_sample_pairs(code) for code in LANGUAGES]
    assert all(len(found) >= 1 and found.dropped == 0 for found in pairs)
    assert sum(map(len, pairs)) == len(load_sample_pairs())
    with pytest.raises(SteerlabError, match="'xx' is not known"):
        load_sample_pairs("xx")
