"""Odd inputs to every parser and verb: what is right, or one sentence, and nothing outside the folder. More: STEERLAB_FUZZ=20000."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from steerlab.errors import SteerlabError
from tests.fuzz import COLUMNS, EVERY, TABLE, Target, counted, one_sentence, outcome, place, targets, tried

USUAL = 25  # thousands over all targets
TARGETS = targets()
CALLED = [
    pytest.param(name, marks=pytest.mark.slow) if target.area == "commands" else name
    for name, target in TARGETS.items()
]


@pytest.mark.parametrize("name", CALLED)
def test_an_odd_input_is_read_right_or_refused_in_one_sentence(name: str) -> None:
    target, seen = TARGETS[name], Counter[str]()

    def each(example: Any, home: Path) -> None:
        seen[outcome(target, example, home)] += 1

    tried(target, EVERY or USUAL, not EVERY, each)
    assert seen.total() >= 5
    assert target.refuses or not seen["refused"], "it refused what it takes"


def _target(holds: Any) -> Target:
    return Target("", "planted", "", st.integers(0, 9), holds)


def test_a_planted_crash_is_seen_and_counted() -> None:
    def crashes(example: int, folder: Path) -> None:
        if example == 7:
            raise KeyError("x")

    with pytest.raises(KeyError):
        tried(_target(crashes), 200, True, lambda example, home: outcome(_target(crashes), example, home))
    seen, places = counted(_target(crashes), 200)
    assert seen["crashes"] and len(places) == 1 and "KeyError" in next(iter(places))
    assert seen["right"] + seen["crashes"] == seen["inputs"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda folder: (folder.parent / "other").write_text("x"), "beside its folder"),
        (lambda folder: (folder.parent / "kept").write_text("x"), "beside its folder"),
        (lambda folder: (folder / ".a.tmp").write_text("x"), "it left"),
    ],
)
def test_a_file_outside_and_half_a_file_are_seen(wrong: Any, told: str) -> None:
    with place() as home, pytest.raises(AssertionError, match=told):
        outcome(_target(lambda _, folder: wrong(folder)), 0, home)


@pytest.mark.parametrize("said", ["", "two\u2028lines", "Traceback (most recent call last)", "<x object at 0x7f>"])
def test_what_is_no_sentence_is_seen(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SteerlabError, "__str__", ValueError.__str__)
    with pytest.raises(AssertionError):
        one_sentence(SteerlabError(said))


def test_the_table_is_of_these_targets_and_knows_no_crash() -> None:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows] == list(TARGETS) and set(rows[0]) == set(COLUMNS)
    assert all(row["crashes"] == "0" and int(row["inputs"]) == int(row["right"]) + int(row["refused"]) for row in rows)
    assert sum(int(row["inputs"]) for row in rows) > 3_000
