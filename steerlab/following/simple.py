"""Checks of our own: lengths at most, at least or exactly n, words kept in or out, and instructions small models can learn."""

from __future__ import annotations

from collections.abc import Sequence

import regex

from steerlab.data.languages import LANGUAGES
from steerlab.evaluation.language import LABELS, UNDETERMINED, identify
from steerlab.evaluation.words import words
from steerlab.following.counting import count_sentences_anywhere
from steerlab.following.verdict import Checker, compare, positive, relation, text, texts

_LETTER = r"[\p{L}\p{M}\p{N}_]"


def has_word(answer: str, word: str) -> bool:
    """Does the word, or the words in a row, stand in the answer as a whole, case ignored? Combining marks belong to words."""
    return place_of(answer, word) is not None


def place_of(answer: str, word: str) -> tuple[int, int] | None:
    """The first place of the word, as `has_word` finds it: its first character and the one behind its last; None where it is not."""
    inner = r"\s+".join(regex.escape(part) for part in word.split())
    found = regex.search(rf"(?<!{_LETTER}){inner}(?!{_LETTER})", answer, regex.IGNORECASE)
    return found.span() if found else None


def include_words(answer: str, words: Sequence[str]) -> str:
    """Every word stands in the answer as a whole word, case ignored."""
    absent = [word for word in words if not has_word(answer, word)]
    return f"it lacks {', '.join(map(repr, absent))}." if absent else ""


def exclude_words(answer: str, words: Sequence[str]) -> str:
    """None of the words stands in the answer as a whole word, case ignored."""
    there = [word for word in words if has_word(answer, word)]
    return f"it has {', '.join(map(repr, there))}." if there else ""


def length_words(answer: str, n: int, relation: str) -> str:
    """So many words, as `steerlab.evaluation.words` counts them in every script; "don't" is one."""
    return compare(len(words(answer)), relation, n, "words")


def length_sentences(answer: str, n: int, relation: str) -> str:
    """So many sentences; the full stops of other scripts count."""
    return compare(count_sentences_anywhere(answer), relation, n, "sentences")


def lowercase(answer: str) -> str:
    """No capital and at least one small letter, in whatever language; a script without case never passes."""
    return "" if answer.islower() else "it has capital letters, or no small ones."


def uppercase(answer: str) -> str:
    """No small letter and at least one capital, in whatever language; a script without case never passes."""
    return "" if answer.isupper() else "it has small letters, or no capitals."


def end_mark(answer: str, mark: str) -> str:
    """The answer ends with exactly this mark, white space ignored: "..." is no "." and "?!" no "!"."""
    body = answer.rstrip()
    kept = body.endswith(mark) and body.removesuffix(mark)[-1:] not in (".", "!", "?", "…", mark[:1])
    return "" if kept and body != mark else f"it ends with {body[-1:]!r}, not {mark!r} alone."


def quotes(answer: str) -> str:
    """The whole answer stands between straight double quotation marks, with something inside and no such mark."""
    inner = answer.strip()
    wrapped = len(inner) > 2 and inner[0] == inner[-1] == '"' and '"' not in inner[1:-1]
    return "" if wrapped else "it is not wrapped in one pair of double quotation marks."


def max_words(answer: str, n: int) -> str:
    """At least one word and at most n."""
    found = len(words(answer))
    return "it has no words." if not found else compare(found, "at most", n, "words")


def include_word(answer: str, word: str) -> str:
    """The word stands in the answer as a whole word, case ignored."""
    return include_words(answer, (word,))


def lid_language(value: object) -> str:
    """A language of the project or another code lid.176 can answer."""
    label = LANGUAGES[value].lid if isinstance(value, str) and value in LANGUAGES else value
    if not isinstance(label, str) or label not in LABELS:
        raise ValueError("a language code such as 'de' or 'jv'")
    return label


def in_language(answer: str, language: str) -> str:
    """The answer is in the language; unlike IFEval's check, one without letters is in none."""
    found = identify([answer])[0].language
    return (
        ""
        if found == language
        else ("it has no letters." if found == UNDETERMINED else f"its language is {found}, not {language}.")
    )


CHECKERS: tuple[Checker, ...] = (
    Checker("words:include", include_words, "given words, whole", {"words": texts}),
    Checker("words:exclude", exclude_words, "none of given words", {"words": texts}),
    Checker(
        "length:words", length_words, "at most, at least or exactly n words", {"n": positive, "relation": relation}
    ),
    Checker("length:sentences", length_sentences, "the same of sentences", {"n": positive, "relation": relation}),
    Checker("simple:lowercase", lowercase, "small letters only", {}),
    Checker("simple:uppercase", uppercase, "capitals only", {}),
    Checker("simple:end_mark", end_mark, "a given last mark", {"mark": text}),
    Checker("simple:quotes", quotes, "double quotation marks around it", {}),
    Checker("simple:max_words", max_words, "at most n words", {"n": positive}),
    Checker("simple:include_word", include_word, "a given word", {"word": text}),
    Checker("simple:language", in_language, "a given language", {"language": lid_language}),
)
