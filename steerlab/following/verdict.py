"""What a check says of an answer, and what a checker is: an identifier, the arguments it needs, and a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steerlab.errors import SteerlabError

Relation = Literal["less than", "at least", "at most", "exactly"]
Mode = Literal["strict", "loose"]
Check = Callable[..., str]  # (answer, **arguments) -> "" when followed, else one sentence why not
Reader = Callable[[Any], Any]  # an argument as given -> as the check takes it; raises ValueError saying what it expects


@dataclass(frozen=True)
class Verdict:
    """Was an instruction followed? `reason`: why not, in one sentence (empty when it was). `variant`: which reading of the answer
    followed it, "as written" unless a loose check had to drop lines or asterisks.
    """

    instruction: str
    passed: bool
    reason: str = ""
    variant: str = "as written"

    def __str__(self) -> str:
        if not self.passed:
            return f"{self.instruction}: not followed, {self.reason}"
        return f"{self.instruction}: followed" + ("" if self.variant == "as written" else f" ({self.variant})")


@dataclass(frozen=True)
class Checker:
    """A verifiable instruction. `arguments`: name -> how it is read. `told`: what it asks for, for tables and errors."""

    id: str
    check: Check
    told: str
    arguments: Mapping[str, Reader]


def count(value: Any) -> int:
    """A whole number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1 != 0:
        raise ValueError("a whole number, 0 or more")
    return int(value)


def positive(value: Any) -> int:
    """A whole number, 1 or more."""
    if count(value) < 1:
        raise ValueError("a whole number, 1 or more")
    return int(value)


def text(value: Any) -> str:
    """A text that is not blank; white space around it goes."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not blank")
    return value.strip()


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts, none blank."""
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise ValueError("a list of words")
    return tuple(text(entry) for entry in value)


def letter(value: Any) -> str:
    """One character, in lower case."""
    if not isinstance(value, str) or len(value.strip()) != 1:
        raise ValueError("one letter")
    return value.strip().lower()


def official_relation(value: Any) -> str:
    """ "less than" or "at least", the two relations of IFEval."""
    if value not in ("less than", "at least"):
        raise ValueError("'less than' or 'at least'")
    return str(value)


def relation(value: Any) -> str:
    """ "less than", "at least", "at most" or "exactly"."""
    if value not in ("less than", "at least", "at most", "exactly"):
        raise ValueError("'less than', 'at least', 'at most' or 'exactly'")
    return str(value)


def compare(found: int, asked: str, wanted: int, noun: str) -> str:
    """ "" when `found` stands in the relation to `wanted`, else the sentence that says it does not."""
    kept = {
        "less than": found < wanted,
        "at least": found >= wanted,
        "at most": found <= wanted,
        "exactly": found == wanted,
    }
    if asked not in kept:
        raise SteerlabError(f"the relation {asked!r} was given: give one of {', '.join(kept)}.")
    return "" if kept[asked] else f"it has {found} {noun}, not {asked} {wanted}."
