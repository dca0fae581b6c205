"""The multiple-choice form: what is written is read back, and what is wrong is counted by its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.data.multiple_choice import LETTERS, MultipleChoice, parse, parse_all
from steerlab.data.sources import load
from steerlab.errors import SteerlabError

WHOLE = "Where is it? A. bank B. new york C. mall D. a. b E. shop Answer: C."
words = st.text("abcdefg", min_size=1, max_size=8)


def test_the_form_is_one_line_in_a_fixed_order():
    item = parse(WHOLE)
    assert item == MultipleChoice("Where is it?", ("bank", "new york", "mall", "a. b", "shop"), "C")
    assert item.render() == WHOLE
    assert MultipleChoice("Two\n words? ", item.choices, "A").render().startswith("Two words? A. bank B.")


@given(words, st.lists(words, min_size=5, max_size=5, unique=True), st.sampled_from(LETTERS))
def test_reading_undoes_writing(question: str, choices: list[str], answer: str):
    item = MultipleChoice(f"{question}?", tuple(choices), answer)
    assert parse(item.render()) == item


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no question"),
        ("A. a B. b C. c D. d E. e Answer: A.", "no question"),
        ("Where is it? Answer: A.", "no choices"),
        ("Where? A. a B. b C. c D. d Answer: A.", "choices out of order"),
        ("Where? A. a C. c B. b D. d E. e Answer: A.", "choices out of order"),
        ("Where? A. a B. b C. c D. d E. e A. f Answer: A.", "choices out of order"),
        ("Where? A. a B. C. c D. d E. e Answer: A.", "empty choice"),
        ("Where? A. a B. b C. c D. d E. e", "no answer"),
        ("Where? A. a B. b C. c D. d E. e Answer: F.", "answer is no choice"),
        ("Where? A. a B. b C. c D. d E. e Answer: A. More", "text after the answer"),
    ],
)
def test_what_is_wrong_is_named(text: str, reason: str):
    with pytest.raises(SteerlabError, match=f"^{reason}$"):
        parse(text)


def test_errors_are_counted_by_reason():
    found = parse_all([WHOLE, "no", "Where?", "Q? A. a B. b C. c D. d E. e", WHOLE])
    assert found.questions == (parse(WHOLE), parse(WHOLE))
    assert found.errors == (("no choices", 2), ("no answer", 1)) and found.failed == 3


def test_every_real_question_is_read_back(shared):
    for split in ("train", "valid", "test"):
        corpus = load("commonsense-qa", "en", split, root=shared)
        found = parse_all(corpus.texts)
        assert found.errors == () and tuple(item.render() for item in found.questions) == corpus.texts
        assert tuple(item.answer for item in found.questions) == corpus.labels
