"""Samples side by side: every steered text beside the unsteered one of its place, with the words that differ marked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

import regex

from steerlab.report.gather import Seen
from steerlab.steering_text import described

Marked = list[tuple[str, bool]]  # pieces of a text, and whether the other side lacks them
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
MOST_WORDS = 400


@dataclass(frozen=True)
class Pair:
    """One place of a data set. `noise`: both sides were drawn with the same random numbers. A side that is not there is empty."""

    run: str
    language: str
    task: str
    label: str
    index: str
    condition: str
    steering: str
    left: str
    right: str
    noise: bool

    @cached_property
    def _marked(self) -> tuple[Marked, Marked]:
        return marked(self.left, self.right)

    @property
    def plain(self) -> Marked:
        """The unsteered side in pieces."""
        return self._marked[0]

    @property
    def steered(self) -> Marked:
        """The steered side in pieces."""
        return self._marked[1]

    @property
    def lang(self) -> str:
        """The language as HTML spells it; empty where it is no such code."""
        return self.language if _LANGUAGE.fullmatch(self.language) else ""


def pairs(runs: Sequence[Seen]) -> list[Pair]:
    """Every steered sample beside the unsteered one of the same language, task, label and number, and unsteered ones that
    stand beside none.

    Of several unsteered ones that of the same run and the same prompt is taken, then that of the same run, then any.
    """
    rows = list(_placed(runs))
    plain: dict[tuple[str, ...], list[_Row]] = {}
    for row in rows:
        if not row.steering:
            plain.setdefault(row.place, []).append(row)
    used: set[int] = set()
    found = []
    for row in rows:
        if row.steering:
            beside = max(plain.get(row.place, []), key=row.likeness, default=None)
            if beside is not None:
                used.add(id(beside))
            left = beside.text if beside is not None else ""
            found.append(row.pair(left, row.text, beside is not None and beside.key == row.key))
    alone = [row for own in plain.values() for row in own if id(row) not in used]
    return found + [row.pair(row.text, "", False) for row in alone]


def marked(left: str, right: str) -> tuple[Marked, Marked]:
    """Both texts in pieces, those that the other lacks marked; unmarked where one is empty or they are very long."""
    a, b = _words(left), _words(right)
    if not left or not right or max(len(a), len(b)) > MOST_WORDS:
        return ([(left, False)] if left else []), ([(right, False)] if right else [])
    sides: tuple[Marked, Marked] = ([], [])
    for what, i, j, k, end in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for side, piece in zip(sides, ("".join(a[i:j]), "".join(b[k:end])), strict=True):
            if piece:
                side.append((piece, what != "equal" and not piece.isspace()))
    return sides


@dataclass(frozen=True, eq=False)
class _Row:
    run: str
    part: str
    prompt: str
    place: tuple[str, ...]
    condition: str
    steering: str
    key: str
    text: str

    def likeness(self, other: _Row) -> tuple[bool, bool, bool]:
        """How well another row stands beside this one, the larger the better."""
        return (self.part == other.part, self.prompt == other.prompt, self.run == other.run)

    def pair(self, left: str, right: str, noise: bool) -> Pair:
        language, task, label, index = self.place
        return Pair(self.run, language, task, label, index, self.condition, self.steering or "none", left, right, noise)


def _placed(runs: Sequence[Seen]) -> Iterator[_Row]:
    for run in runs:
        for state, samples in run.parts:
            prompts = {
                (cell.get("condition"), cell.get("language"), cell.get("task")): str(cell.get("prompt_language"))
                for cell in state.config.get("cells") or ()
                if isinstance(cell, Mapping)
            }
            for number, sample in enumerate(samples):
                names = [str(sample.get(name, "")) for name in ("language", "task", "label")]
                place = (*names, str(sample.get("index", number)))
                condition = str(sample.get("condition", ""))
                yield _Row(
                    run.name,
                    state.path.name,
                    prompts.get((sample.get("condition"), sample.get("language"), sample.get("task")), ""),
                    place,
                    condition,
                    _steering(sample),
                    str(sample.get("key", "")),
                    str(sample.get("text", "")),
                )


def _steering(sample: Mapping[str, Any]) -> str:
    """In words what was done to a sample's stream or logits; empty for nothing."""
    done = sample.get("interventions") or ()
    guided = "guided by other streams" if sample.get("guidance") else ""
    return "; ".join(filter(None, [described(done) if done else "", guided]))


def _words(text: str) -> list[str]:
    """Words with the space behind them apart; letters, with their marks, where a text has no spaces."""
    if len(text) > 30 and not any(letter.isspace() for letter in text):
        return regex.findall(r"\X", text)
    return re.findall(r"\s+|\S+", text)
