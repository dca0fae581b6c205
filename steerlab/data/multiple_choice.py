"""A multiple-choice question as one line of text, written and read back: `Question? A. bank B. library … Answer: A.`"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from steerlab.errors import SteerlabError

LETTERS = "ABCDE"
_CHOICE = re.compile(r"(?:(?<=\s)|^)([A-E])\.(?=\s|$)")
_ANSWER = re.compile(r"\bAnswer:\s*")


@dataclass(frozen=True)
class MultipleChoice:
    """A question, its five choices in the order A to E, and the letter of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: str

    def render(self) -> str:
        """One line; `parse` reads it back. White space becomes single spaces."""
        listed = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True)]
        return " ".join(f"{self.question} {' '.join(listed)} Answer: {self.answer}.".split())


def parse(text: str) -> MultipleChoice:
    """The question that a text in the form of `render` holds.

    Raises `SteerlabError` naming the first thing that is wrong: "no question", "no choices", "choices out of order" (not A to E, each
    once), "empty choice", "no answer", "answer is no choice", "text after the answer". The message holds
    nothing of the text.
    """
    head, *rest = _ANSWER.split(" ".join(text.split()), maxsplit=1)
    marks = list(_CHOICE.finditer(head))
    question = head[: marks[0].start()].strip() if marks else head.strip()
    ends = [*(mark.start() for mark in marks), len(head)][1:]
    choices = tuple(head[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True))
    answer, tail = (rest[0][:1], rest[0][1:]) if rest else ("", "")
    checks = (
        (bool(question), "no question"),
        (bool(marks), "no choices"),
        ("".join(mark[1] for mark in marks) == LETTERS, "choices out of order"),
        (all(choices), "empty choice"),
        (bool(answer), "no answer"),
        (answer in LETTERS, "answer is no choice"),
        (tail.strip() in ("", "."), "text after the answer"),
    )
    for good, wrong in checks:
        if not good:
            raise SteerlabError(wrong)
    return MultipleChoice(question, choices, answer)


@dataclass(frozen=True)
class Parsed:
    """The questions among some texts, in their order, and how many texts were none, by reason."""

    questions: tuple[MultipleChoice, ...]
    errors: tuple[tuple[str, int], ...]

    @property
    def failed(self) -> int:
        return sum(count for _, count in self.errors)


def parse_all(texts: Iterable[str]) -> Parsed:
    """Read every text with `parse`; what is no question is counted by its reason, the most frequent first."""
    questions, errors = [], Counter[str]()
    for text in texts:
        try:
            questions.append(parse(text))
        except SteerlabError as error:
            errors[str(error)] += 1
    return Parsed(tuple(questions), tuple(sorted(errors.items(), key=lambda item: (-item[1], item[0]))))
