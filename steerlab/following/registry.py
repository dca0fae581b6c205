"""Every verifiable instruction by its identifier: `check` an answer strictly or loosely, and say why an instruction was not followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from steerlab.errors import SteerlabError
from steerlab.following import content, formats, simple
from steerlab.following.verdict import Checker, Mode, Verdict

IFEVAL: tuple[str, ...] = tuple(checker.id for checker in (*formats.CHECKERS, *content.CHECKERS))
SIMPLE: tuple[str, ...] = tuple(checker.id for checker in simple.CHECKERS if checker.id.startswith("simple:"))
CHECKERS: dict[str, Checker] = {
    checker.id: checker for checker in (*formats.CHECKERS, *content.CHECKERS, *simple.CHECKERS)
}
FORMATS = ("detectable_format", "change_case", "startend", "punctuation", "language")


def find_checker(instruction: str) -> Checker:
    """The checker of an instruction. Raises `SteerlabError` naming the nearest known one."""
    if instruction in CHECKERS:
        return CHECKERS[instruction]
    names = {**{name.split(":")[1]: name for name in reversed(CHECKERS)}, **{name: name for name in CHECKERS}}
    close = get_close_matches(instruction, names, n=1, cutoff=0.0)
    hint = f"did you mean {names[close[0]]!r}? There are {len(CHECKERS)}, listed in CHECKERS."
    raise SteerlabError(f"instruction {instruction!r} is not known: {hint}")


def arguments(instruction: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an instruction, validated; a value of None counts as not given (as the Hub's copy of IFEval fills them).

    Raises `SteerlabError` for an unknown instruction, and an argument that is missing, unknown or of the wrong kind. (The original
    draws missing arguments at random.)
    """
    checker = find_checker(instruction)
    given = {name: value for name, value in kwargs.items() if value is not None}
    missing = [name for name in checker.arguments if name not in given]
    unknown = [name for name in given if name not in checker.arguments]
    if missing or unknown:
        wanted = ", ".join(checker.arguments) or "none"
        raise SteerlabError(f"{instruction} was given the arguments {', '.join(given) or 'none'}: it takes {wanted}.")
    read = {}
    for name, reader in checker.arguments.items():
        try:
            read[name] = reader(given[name])
        except ValueError as expected:
            raise SteerlabError(f"{instruction} was given {name} = {given[name]!r}: it takes {expected}.") from None
    return read


def variants(answer: str) -> dict[str, str]:
    """The eight readings of IFEval's loose check: as written, without the first line, the last, or both, each also without asterisks.

    In IFEval's order; a blank reading follows nothing.
    """
    lines = answer.split("\n")
    cut = {
        "without its first line": "\n".join(lines[1:]).strip(),
        "without its last line": "\n".join(lines[:-1]).strip(),
        "without its first and last line": "\n".join(lines[1:-1]).strip(),
    }
    bare = {f"{name} and asterisks": text.replace("*", "") for name, text in cut.items()}
    return {"as written": answer, "without asterisks": answer.replace("*", ""), **cut, **bare}


def check(instruction: str, kwargs: Mapping[str, Any], answer: str, mode: Mode = "strict") -> Verdict:
    """Does the answer follow the instruction? Loosely: does any of its eight `variants`, so loose passes whenever strict does.

    A blank answer follows nothing. The reason of a loose failure is that of the answer as written. Raises `SteerlabError` for an
    unknown instruction or mode, and for wrong arguments.
    """
    if mode not in ("strict", "loose"):
        raise SteerlabError(f"mode {mode!r} was given: an answer is checked 'strict' or 'loose'.")
    checker, read = find_checker(instruction), arguments(instruction, kwargs)
    if not answer.strip():
        return Verdict(instruction, False, "it is blank.")
    readings = variants(answer) if mode == "loose" else {"as written": answer}
    reason = ""
    for name, reading in readings.items():
        if reading.strip():
            why = checker.check(reading, **read)
            if not why:
                return Verdict(instruction, True, variant=name)
            reason = reason or why
    return Verdict(instruction, False, reason)


def check_all(
    instructions: Sequence[str], kwargs: Sequence[Mapping[str, Any]], answer: str, mode: Mode = "strict"
) -> tuple[Verdict, ...]:
    """One verdict per instruction of a prompt. Raises `SteerlabError` when there are not as many arguments as instructions."""
    if len(instructions) != len(kwargs):
        raise SteerlabError(
            f"{len(instructions)} instructions and {len(kwargs)} sets of arguments were given: give one set each."
        )
    return tuple(check(name, own, answer, mode) for name, own in zip(instructions, kwargs, strict=True))
