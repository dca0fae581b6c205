"""Instructions in words: several phrasings of each, so that a vector is of the instruction and not of one sentence.

The sentences are ours; the fields in braces are the arguments of the instruction's check.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from steerlab.data.languages import LANGUAGES
from steerlab.errors import SteerlabError
from steerlab.following.registry import find_checker
from steerlab.records import encode_text

# Languages of IFEval and of the studies, by the codes their checks take.
_OTHERS = """ar Arabic bg Bulgarian bn Bengali es Spanish fa Persian fi Finnish fr French gu Gujarati hi Hindi it Italian ja Japanese
kn Kannada ko Korean ml Malayalam mr Marathi ne Nepali pa Punjabi pl Polish pt Portuguese ru Russian sw Swahili ta Tamil te Telugu
th Thai uk Ukrainian ur Urdu vi Vietnamese"""
LANGUAGE_NAMES: dict[str, str] = {
    **{entry.lid: entry.name for entry in LANGUAGES.values()},
    **dict(zip(_OTHERS.split()[::2], _OTHERS.split()[1::2], strict=True)),
}

_LANGUAGE = (
    "Answer in {language}.",
    "Write your answer in {language} only.",
    "Use no language but {language}.",
    "The whole answer must be in {language}.",
    "Please reply in {language}.",
    "Give me the text in {language}.",
)
_QUOTES = (
    "Put the whole answer in double quotation marks.",
    "Wrap your answer in double quotes.",
    "Begin and end with a double quotation mark.",
    "Your answer must stand between double quotation marks.",
    "Set quotation marks around everything you write.",
    "Quote the entire answer with double quotes.",
)
_INCLUDE = (
    "Use the word {word}.",
    "Include the word {word}.",
    "The word {word} must appear in your answer.",
    "Make sure that {word} is one of your words.",
    "Your answer should contain the word {word}.",
    "Work the word {word} in somewhere.",
)
PHRASINGS: Mapping[str, tuple[str, ...]] = {
    "simple:lowercase": (
        "Write in lowercase letters only.",
        "Use no capital letters.",
        "Everything must be in small letters.",
        "Please answer in lowercase.",
        "Avoid uppercase letters altogether.",
        "Keep every letter lowercase.",
    ),
    "simple:uppercase": (
        "Write in capital letters only.",
        "Use no small letters.",
        "Everything must be in capitals.",
        "Please answer in uppercase.",
        "Avoid lowercase letters altogether.",
        "Keep every letter uppercase.",
    ),
    "simple:end_mark": (
        "End your answer with {mark}",
        "The last mark must be {mark}",
        "Close your answer with the mark {mark}",
        "Finish with {mark} and nothing after it",
        "Your final character should be {mark}",
        "Let your answer end on {mark}",
    ),
    "simple:quotes": _QUOTES,
    "simple:max_words": (
        "Use at most {n} words.",
        "Answer in no more than {n} words.",
        "Keep it to {n} words or fewer.",
        "Do not go beyond {n} words.",
        "Your answer may have {n} words at the very most.",
        "Stay within {n} words.",
    ),
    "simple:include_word": _INCLUDE,
    "simple:language": _LANGUAGE,
    "words:include": _INCLUDE,
    "words:exclude": (
        "Do not use the word {word}.",
        "Leave out the word {word}.",
        "The word {word} must not appear in your answer.",
        "Avoid the word {word}.",
        "Answer without saying {word}.",
        "Your answer should not contain the word {word}.",
    ),
    "length:words": (
        "Answer with {relation} {n} words.",
        "Your answer should have {relation} {n} words.",
        "Write {relation} {n} words.",
        "Make it {relation} {n} words long.",
    ),
    "length:sentences": (
        "Answer with {relation} {n} sentences.",
        "Your answer should have {relation} {n} sentences.",
        "Write {relation} {n} sentences.",
        "Make it {relation} {n} sentences long.",
    ),
    "change_case:english_lowercase": (
        "Answer in English and in lowercase letters only.",
        "Write in English without any capital letter.",
        "Your whole answer must be English in small letters.",
        "Use English, and keep every letter lowercase.",
    ),
    "change_case:english_capital": (
        "Answer in English and in capital letters only.",
        "Write in English without any small letter.",
        "Your whole answer must be English in capitals.",
        "Use English, and keep every letter uppercase.",
    ),
    "change_case:capital_word_frequency": (
        "Use {capital_relation} {capital_frequency} words written entirely in capitals.",
        "Words in all capitals should appear {capital_relation} {capital_frequency} times.",
        "Write {capital_relation} {capital_frequency} of your words in capital letters.",
        "Your answer should have {capital_relation} {capital_frequency} fully capitalised words.",
    ),
    "detectable_format:constrained_response": (
        'Reply with one of these: "My answer is yes.", "My answer is no.", "My answer is maybe."',
        'Choose your reply from "My answer is yes.", "My answer is no." and "My answer is maybe."',
        'Say exactly "My answer is yes.", "My answer is no." or "My answer is maybe."',
        'Your reply must be "My answer is yes.", "My answer is no." or "My answer is maybe."',
    ),
    "detectable_format:json_format": (
        "Give the whole answer as JSON.",
        "Format your answer as one JSON object.",
        "Write nothing but valid JSON.",
        "Your entire answer must be in JSON format.",
    ),
    "detectable_format:multiple_sections": (
        "Divide your answer into {num_sections} sections, each opened by {section_spliter} and its number.",
        "Write {num_sections} sections and mark them {section_spliter} 1, {section_spliter} 2 and so on.",
        "Your answer must have {num_sections} sections; begin each with {section_spliter} X.",
        "Use {num_sections} sections, headed {section_spliter} 1 and onwards.",
    ),
    "detectable_format:number_bullet_lists": (
        "Give exactly {num_bullets} bullet points in markdown, such as * a point.",
        "Your answer must have exactly {num_bullets} markdown bullets (* like this).",
        "Write {num_bullets} bullet points, no more and no fewer, each opened by *.",
        "Use a markdown list of exactly {num_bullets} bullets.",
    ),
    "detectable_format:number_highlighted_sections": (
        "Highlight at least {num_highlights} passages with markdown, as in *highlighted*.",
        "Mark at least {num_highlights} sections of your answer *like this*.",
        "Put asterisks around {num_highlights} or more passages, i.e. *passage*.",
        "At least {num_highlights} parts of your answer should be *highlighted* in markdown.",
    ),
    "detectable_format:title": (
        "Add a title in double angular brackets, such as <<a title>>.",
        "Give your answer a title wrapped like <<this>>.",
        "Your answer needs a title between << and >>.",
        "Include a title written <<in double angular brackets>>.",
    ),
    "language:response_language": _LANGUAGE,
    "punctuation:no_comma": (
        "Do not use any commas.",
        "Write without commas.",
        "Your answer must not contain a comma.",
        "Leave out all commas.",
    ),
    "startend:end_checker": (
        "End with exactly these words: {end_phrase}",
        "Your last words must be: {end_phrase}",
        "Finish your answer with this phrase and nothing after it: {end_phrase}",
        "Close with the exact phrase: {end_phrase}",
    ),
    "startend:quotation": _QUOTES,
}


def phrase(instruction: str, kwargs: Mapping[str, Any], number: int = 0) -> str:
    """The instruction in words, phrasing `number` (counted round when there are fewer).

    Raises `SteerlabError` for an unknown instruction, one without phrasings, and arguments that do not fit.
    """
    find_checker(instruction)
    if instruction not in PHRASINGS:
        raise SteerlabError(f"{instruction} has no phrasings: give one of {', '.join(PHRASINGS)}.")
    words = {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in kwargs.items()
    }
    if "words" in words:
        words["word"] = words.pop("words")
    if "language" in words:
        code = LANGUAGES[words["language"]].lid if words["language"] in LANGUAGES else words["language"]
        words["language"] = LANGUAGE_NAMES.get(code, code)
    own = PHRASINGS[instruction]
    try:
        return own[number % len(own)].format(**words)
    except KeyError as error:
        raise SteerlabError(
            f"{instruction} was given {dict(kwargs)} and lacks {error}: give all its arguments."
        ) from None


def instruct(base: str, instruction: str, kwargs: Mapping[str, Any], seed: int = 0, key: str = "") -> str:
    """The base query with the instruction behind it, in a phrasing drawn from (seed, key) alone; `key` is the base query unless
    given. Raises `SteerlabError` as `phrase` does, and for half a character.
    """
    rng = random.Random(encode_text(f"{seed}\x1f{key or base}\x1f{instruction}"))
    return f"{base} {phrase(instruction, kwargs, rng.randrange(10_000))}"
