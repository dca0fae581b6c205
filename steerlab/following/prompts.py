"""Prompts with simple verifiable instructions, drawn from base queries, and texts made to obey them: what a small model learns from."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from steerlab.data.ifeval import InstructedPrompt
from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.evaluation.words import words
from steerlab.following.phrasings import instruct
from steerlab.following.queries import Query
from steerlab.following.registry import SIMPLE, check_all
from steerlab.records import encode_text

MARKS = ("!", "?", ";")
LIMITS = (3, 5, 8, 12, 20)
WORDS = tuple(
    """water house people first day night money world old small river music garden winter letter friend bridge bread light
    answer""".split()  # noqa: SIM905  a list of literals would fill a page
)
CASELESS = frozenset(code for code, entry in LANGUAGES.items() if entry.script in ("Ethiopic", "Hebrew"))
# The order in which a text is made to obey: a word is chosen from what is left after cutting, quotes go around the whole.
ORDER = tuple(
    f"simple:{name}"
    for name in ("language", "max_words", "include_word", "end_mark", "lowercase", "uppercase", "quotes")
)
CLASHES = ({"simple:lowercase", "simple:uppercase"}, {"simple:end_mark", "simple:quotes"})
_TAIL = re.compile(r"[\s\"'»“”)\].,;:!?…–—-]+$")


def draw(
    instruction: str, rng: random.Random, word_pool: Sequence[str] = WORDS, languages: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments for a simple instruction. Raises `SteerlabError` for an instruction that is not simple."""
    choices: Mapping[str, Callable[[], dict[str, Any]]] = {
        "simple:lowercase": dict,
        "simple:uppercase": dict,
        "simple:quotes": dict,
        "simple:end_mark": lambda: {"mark": rng.choice(MARKS)},
        "simple:max_words": lambda: {"n": rng.choice(LIMITS)},
        "simple:include_word": lambda: {"word": rng.choice(list(word_pool))},
        "simple:language": lambda: {"language": rng.choice(list(languages or LANGUAGES))},
    }
    if instruction not in choices:
        raise SteerlabError(f"{instruction!r} is no simple instruction: give one of {', '.join(choices)}.")
    return choices[instruction]()


def fits(instruction: str, language: str | None) -> bool:
    """Can the instruction stand behind a query that names this language (None: none)? Scripts without case have no lowercase, and
    a language is asked for once.
    """
    if instruction == "simple:language":
        return language is None
    return not (instruction in ("simple:lowercase", "simple:uppercase") and language in CASELESS)


def cell_name(instruction: str, kwargs: Mapping[str, Any]) -> str:
    """The instruction's name in tables and for vectors: every language and every mark is its own."""
    value = kwargs.get("language") or kwargs.get("mark")
    return f"{instruction}_{value}" if value else instruction


def together(instructions: str | Sequence[str]) -> tuple[str, ...]:
    """One instruction or several as a tuple. Raises `SteerlabError` for none, repeats, and those no answer can follow together."""
    names = (instructions,) if isinstance(instructions, str) else tuple(instructions)
    clash = next((pair for pair in CLASHES if pair <= set(names)), None)
    if not names or len(set(names)) < len(names) or clash:
        raise SteerlabError(
            f"the instructions {names} were given together: give different ones an answer can follow at once."
        )
    return names


def simple_prompts(
    queries: Sequence[Query],
    instructions: Sequence[str | tuple[str, ...]] = SIMPLE,
    seed: int = 0,
    split: str = "train",
    word_pool: Sequence[str] = WORDS,
    languages: Sequence[str] = (),
) -> list[InstructedPrompt]:
    """Every query with every instruction that fits it: arguments and phrasing drawn from (seed, query, instruction) alone.

    So a prompt does not depend on which others are made. A tuple of instructions stands behind one query together. Queries of
    `split_queries` keep base queries apart. `languages`: which may be asked for (all twelve unless given).
    """
    found = []
    for query in queries:
        for names in map(together, instructions):
            if not all(fits(name, query.language) for name in names):
                continue
            kwargs = tuple(
                draw(name, random.Random(f"{seed}\x1f{query.id}\x1f{name}"), word_pool, languages) for name in names
            )
            prompt = query.text
            for name, own in zip(names, kwargs, strict=True):
                prompt = instruct(prompt, name, own, seed, query.id)
            row_id = f"{query.id}-{'+'.join(name.split(':')[1] for name in names)}"
            cells = tuple(map(cell_name, names, kwargs))
            found.append(InstructedPrompt(row_id, prompt, query.text, query.group, names, kwargs, cells, split))
    return found


def obey(
    text: str,
    instructions: str | tuple[str, ...],
    language: str,
    seed: int = 0,
    given: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> tuple[tuple[dict[str, Any], ...], str] | None:
    """Arguments, one mapping per instruction, and a version of the text that follows all of them, or None where the text allows none.

    The text gives the word to include and the language; case, marks, quotes and length are changed. What comes back passes the
    strict checks. Depends on (seed, text, instructions) alone, and on the arguments that are `given` by instruction.
    """
    names = together(instructions)
    body, kwargs = " ".join(text.split()), dict[str, dict[str, Any]]()
    for name in sorted(names, key=lambda own: ORDER.index(own) if own in ORDER else -1):
        rng = random.Random(encode_text(f"{seed}\x1f{text}\x1f{name}"))
        kwargs[name] = dict(given[name]) if name in given else draw(name, rng, long_words(body) or WORDS, (language,))
        body = _changed(body, name, kwargs[name])
    asked = tuple(kwargs[name] for name in names)
    return (asked, body) if all(own.passed for own in check_all(names, asked, body)) else None


def _changed(body: str, instruction: str, kwargs: Mapping[str, Any]) -> str:
    match instruction:
        case "simple:lowercase":
            return body.lower()
        case "simple:uppercase":
            return body.upper()
        case "simple:quotes":
            return '"' + body.replace('"', "'").strip("'") + '"'
        case "simple:end_mark":
            return _TAIL.sub("", body) + kwargs["mark"]
        case "simple:max_words":
            return cut(body, kwargs["n"])
        case _:
            return body


def long_words(text: str) -> tuple[str, ...]:
    """The words of at least four letters, each once."""
    return tuple(dict.fromkeys(word for word in words(text) if len(word) >= 4 and word.isalpha()))


def cut(text: str, n: int) -> str:
    """The text's beginning with at most n words, ended by a full stop where something was cut off."""
    if len(words(text)) <= n:
        return text
    pieces = text.split()
    kept = next((k for k in range(len(pieces), 0, -1) if len(words(" ".join(pieces[:k]))) <= n), 0)
    return _TAIL.sub("", " ".join(pieces[:kept])) + "." if kept else ""
