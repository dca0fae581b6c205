"""Copies of training texts: all of them, none of them, and almost."""

from __future__ import annotations

from steerlab.evaluation.copying import copied, copy_report

TRAIN = [
    "The harvest of the early spring was the largest in a decade.",
    "Ships waited outside the harbour until the storm had passed.",
    "No.",
]
FRESH = ["A violin teacher moved into the flat upstairs.", "Rain is forecast for the whole of next week."]


def test_copies_are_copies_and_others_are_not() -> None:
    assert copy_report(TRAIN, TRAIN)["copied_exactly"].value == 1
    assert copy_report(TRAIN, TRAIN)["copied_nearly"].value == 1
    none = copy_report(FRESH, TRAIN)
    assert none["copied_exactly"].value == 0 and none["copied_nearly"].value == 0 and none["copied_nearly"].high > 0.3


def test_case_and_punctuation_do_not_hide_a_copy_and_a_changed_word_makes_it_near() -> None:
    almost = "The harvest of the early spring was the largest in a century."
    exact, near = copied([TRAIN[1].upper() + "!!", almost, FRESH[0], "no"], TRAIN)
    assert exact == [True, False, False, True]
    assert near == [True, True, False, True]


def test_every_copy_counts_and_empty_texts_do_not() -> None:
    found = copy_report([TRAIN[0], TRAIN[0], FRESH[0], "", "..."], TRAIN)
    assert found["copied_exactly"].value == 2 / 3 and found["copied_exactly"].n == 3
    assert "2 of 5 texts are empty" in found["copied_exactly"].reason
    assert not copy_report([""], TRAIN)["copied_exactly"].known
    assert copied([""], ["", "..."]) == ([False], [False])


def test_without_training_texts_it_is_missing() -> None:
    assert "no training texts" in copy_report(FRESH, [])["copied_exactly"].reason
