"""IFEval's checks of an answer's content: keywords, letters, case, commas, language, numbers of words and sentences.

The rules are those of google-research's instruction_following_eval (Zhou et al. 2023, arXiv 2311.07911) with two differences. Keywords
are taken literally, where the original reads them as regular expressions: no keyword of its 541 prompts has a special character.
Languages are identified by lid.176 (`steerlab.evaluation.language`), not langdetect, which draws at random and can call the same text
different languages in two runs; as there, a text without letters counts as being in any language.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steerlab.evaluation.language import LABELS, UNDETERMINED, identify
from steerlab.following.counting import capital_words, count_sentences, count_words
from steerlab.following.verdict import Checker, compare, count, letter, official_relation, text, texts


def language_code(value: object) -> str:
    """A code lid.176 can answer."""
    if not isinstance(value, str) or value not in LABELS:
        raise ValueError("a language code of lid.176, such as 'de' or 'hi'")
    return value


def existence(answer: str, keywords: Sequence[str]) -> str:
    """Every keyword stands somewhere, case ignored, also inside a longer word ("cat" in "education")."""
    absent = [word for word in keywords if not re.search(re.escape(word), answer, re.IGNORECASE)]
    return f"it lacks {', '.join(map(repr, absent))}." if absent else ""


def frequency(answer: str, keyword: str, frequency: int, relation: str) -> str:
    """The keyword stands so often, case ignored, also inside longer words; counted without overlap."""
    found = len(re.findall(re.escape(keyword), answer, re.IGNORECASE))
    return compare(found, relation, frequency, f"times {keyword!r}")


def forbidden_words(answer: str, forbidden_words: Sequence[str]) -> str:
    r"""None of the words stands between word boundaries (Python's `\b`), case ignored."""
    there = [word for word in forbidden_words if re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE)]
    return f"it has {', '.join(map(repr, there))}." if there else ""


def letter_frequency(answer: str, letter: str, let_frequency: int, let_relation: str) -> str:
    """The letter (or other character) stands so often, case ignored."""
    return compare(answer.lower().count(letter), let_relation, let_frequency, f"times the letter {letter!r}")


def english_capital(answer: str) -> str:
    """No small letter, at least one capital, and English."""
    return "it has small letters, or no letters." if not answer.isupper() else response_language(answer, "en")


def english_lowercase(answer: str) -> str:
    """No capital, at least one small letter, and English."""
    return "it has capital letters, or no letters." if not answer.islower() else response_language(answer, "en")


def capital_word_frequency(answer: str, capital_frequency: int, capital_relation: str) -> str:
    """So many words in capitals only; a hyphenated word is one, and "I" is one."""
    return compare(len(capital_words(answer)), capital_relation, capital_frequency, "words in capitals")


def no_comma(answer: str) -> str:
    """No ASCII comma."""
    found = answer.count(",")
    return f"it has {found} commas." if found else ""


def response_language(answer: str, language: str) -> str:
    """The answer as a whole is in the language; one without letters passes, as in IFEval."""
    found = identify([answer])[0].language
    return "" if found in (language, UNDETERMINED) else f"its language is {found}, not {language}."


def number_words(answer: str, num_words: int, relation: str) -> str:
    r"""So many runs of `\w`."""
    return compare(count_words(answer), relation, num_words, "words")


def number_sentences(answer: str, num_sentences: int, relation: str) -> str:
    """So many sentences, by `split_sentences`."""
    return compare(count_sentences(answer), relation, num_sentences, "sentences")


_RELATION = {"relation": official_relation}
CHECKERS: tuple[Checker, ...] = (
    Checker("keywords:existence", existence, "given words", {"keywords": texts}),
    Checker("keywords:frequency", frequency, "a word so often", {"keyword": text, "frequency": count, **_RELATION}),
    Checker("keywords:forbidden_words", forbidden_words, "none of given words", {"forbidden_words": texts}),
    Checker(
        "keywords:letter_frequency",
        letter_frequency,
        "a letter so often",
        {"letter": letter, "let_frequency": count, "let_relation": official_relation},
    ),
    Checker("language:response_language", response_language, "a language", {"language": language_code}),
    Checker("length_constraints:number_words", number_words, "so many words", {"num_words": count, **_RELATION}),
    Checker(
        "length_constraints:number_sentences",
        number_sentences,
        "so many sentences",
        {"num_sentences": count, **_RELATION},
    ),
    Checker("change_case:english_capital", english_capital, "capitals, in English", {}),
    Checker("change_case:english_lowercase", english_lowercase, "small letters, in English", {}),
    Checker(
        "change_case:capital_word_frequency",
        capital_word_frequency,
        "so many words in capitals",
        {"capital_frequency": count, "capital_relation": official_relation},
    ),
    Checker("punctuation:no_comma", no_comma, "no commas", {}),
)
