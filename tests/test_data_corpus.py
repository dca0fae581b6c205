"""The corpus value: hash, description, immutability."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.data.corpus import Corpus, Example, SourceCard, texts_sha256

CARD = SourceCard("mine", "https://example.org", None, "CC0-1.0", "Nobody 2026")


def corpus(*rows: tuple[str, str | None]) -> Corpus:
    examples = (Example(f"mine-{i}", text, label, "jv", "mine", "train") for i, (text, label) in enumerate(rows))
    return Corpus(tuple(examples), CARD, dropped=3)


@given(st.lists(st.text(), max_size=6).flatmap(lambda texts: st.tuples(st.just(texts), st.permutations(texts))))
def test_the_hash_does_not_depend_on_the_order(pair: tuple[list[str], list[str]]):
    assert texts_sha256(pair[0]) == texts_sha256(pair[1])


def test_the_hash_sees_repeats_joins_and_changes():
    hashes = [texts_sha256(texts) for texts in (["ab"], ["ab", "ab"], ["a", "b"], ["ba"], ["ab", ""], [])]
    assert len(set(hashes)) == len(hashes)


def test_texts_and_labels_stand_in_the_order_of_the_examples():
    made = corpus(("b", "x"), ("a", None))
    assert (len(made), made.texts, made.labels) == (2, ("b", "a"), ("x", None))
    assert made.sha256 == texts_sha256(["a", "b"])


def test_describe_is_one_line_with_counts_licence_and_hash():
    made = corpus(("a", "x"), ("b", "x"), ("c", "y"))
    line = made.describe()
    assert line == f"mine jv train: 3 texts; x 2, y 1; 3 dropped; CC0-1.0; sha256 {made.sha256[:12]}"
    assert "CC0-1.0" in str(CARD) and "Nobody 2026" in str(CARD)


def test_a_corpus_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        corpus(("a", None)).dropped = 0  # pyright: ignore[reportAttributeAccessIssue]
