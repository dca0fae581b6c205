"""Every checker with a passing and a failing answer, arguments, the eight loose readings, and all of IFEval."""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.data.ifeval import load_instructions
from steerlab.errors import SteerlabError
from steerlab.following.registry import CHECKERS, IFEVAL, SIMPLE, arguments, check, check_all, find_checker, variants
from tests.following_answers import ENGLISH, PAIRS, SENTENCES

ARGUMENTS: dict[str, dict[str, Any]] = {
    "detectable_format:number_bullet_lists": {"num_bullets": 2},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_format:multiple_sections": {"section_spliter": "Section", "num_sections": 2},
    "length_constraints:number_paragraphs": {"num_paragraphs": 2},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "elm"},
    "detectable_content:postscript": {"postscript_marker": "P.P.S"},
    "detectable_content:number_placeholders": {"num_placeholders": 2},
    "combination:repeat_prompt": {"prompt_to_repeat": "Say it."},
    "startend:end_checker": {"end_phrase": "The end."},
    "keywords:existence": {"keywords": ["cat", "dog"]},
    "keywords:frequency": {"keyword": "cat", "frequency": 2, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["cat", "dog"]},
    "keywords:letter_frequency": {"letter": "q", "let_frequency": 2, "let_relation": "less than"},
    "language:response_language": {"language": "de"},
    "length_constraints:number_words": {"num_words": 4, "relation": "less than"},
    "length_constraints:number_sentences": {"num_sentences": 3, "relation": "at least"},
    "change_case:capital_word_frequency": {"capital_frequency": 2, "capital_relation": "at least"},
}
OWN: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "words:include": ({"words": ["cat"]}, ["A Cat.", "cat"], ["education", "cats", "cat_1"]),
    "words:exclude": ({"words": ["cat", "ice cream"]}, ["education", "ice-cream"], ["no CAT!", "an ice  cream"]),
    "length:words": (
        {"n": 3, "relation": "exactly"},
        ["don't stop now", "ከ ዝናብ በፊት"],
        ["two words", "one two three four"],
    ),
    "length:sentences": ({"n": 2, "relation": "at most"}, ["One. Two.", "ዝናብ ዘነበ። ቤት ቀረን።"], ["One. Two. Three."]),
    "simple:lowercase": ({}, ["all small 1."], ["One capital", "123", "ዝናብ"]),
    "simple:uppercase": ({}, ["ALL CAPITALS 1."], ["ONE SMALL lETTER", "123", "ዝናብ"]),
    "simple:end_mark": ({"mark": "!"}, ["Yes! ", "no. yes!"], ["Yes.", "Yes!!", "Yes?!", "!", "Yes!."]),
    "simple:quotes": ({}, ['"It is."', ' "a" '], ["It is.", '"It" is "so"', '""', '"']),
    "simple:max_words": ({"n": 3}, ["one two three", "one"], ["one two three four", "..."]),
    "simple:include_word": ({"word": "day"}, ["Day one", "a day."], ["days", "today"]),
    "simple:language": ({"language": "de"}, [SENTENCES["de"]], [ENGLISH, "123"]),
}


def test_there_are_the_25_of_ifeval_and_the_seven_simple_ones() -> None:
    assert len(IFEVAL) == len(set(IFEVAL)) == 25 and set(IFEVAL) == set(PAIRS)
    assert len(SIMPLE) == 7 and set(CHECKERS) == set(IFEVAL) | set(OWN)
    assert all(checker.told and checker.check.__doc__ for checker in CHECKERS.values())


@pytest.mark.parametrize("name", IFEVAL)
def test_every_ifeval_checker_passes_one_answer_and_fails_another(name: str) -> None:
    kwargs = ARGUMENTS.get(name, {})
    follows, does_not = PAIRS[name](kwargs)
    passed, failed = check(name, kwargs, follows), check(name, kwargs, does_not)
    assert passed.passed and passed.reason == "" and str(passed) == f"{name}: followed"
    assert not failed.passed and failed.reason.endswith(".") and failed.reason in str(failed)


@pytest.mark.parametrize("name", OWN)
def test_our_own_checkers(name: str) -> None:
    kwargs, follow, do_not = OWN[name]
    assert all(check(name, kwargs, answer).passed for answer in follow)
    assert not any(check(name, kwargs, answer).passed for answer in do_not)


# Borderline answers where the original's details decide.
DETAILS = [
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "**bold**\n* one", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "---\n* one", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "* * and ** **", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*over\nlines*", False),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 1}, "Day 1", True),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 1}, "day 1", False),
    ("detectable_format:json_format", {}, '"a quoted text"', True),
    ("detectable_format:json_format", {}, "[" * 100_000, False),
    ("detectable_format:json_format", {}, "Here: {}", False),
    ("detectable_format:title", {}, "<<<<x>>>>", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "p. p. s hello", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "P.P.S hello", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\na\n***\nb\n***", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\n***\nb", False),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "Elm"},
        "'\"elm's",
        True,
    ),
    (  # a blank paragraph keeps its place: the second in the list is it
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        "a\n\n\n\nelm",
        False,
    ),
    ("combination:two_responses", {}, "******\na\n******\nb\n******", True),
    ("combination:two_responses", {}, "a\n******\n******\nb", False),
    ("startend:end_checker", {"end_phrase": "Any Questions? "}, 'any questions?"', True),
    ("startend:quotation", {}, '"', False),
    ("keywords:existence", {"keywords": ["cat"]}, "education", True),
    ("keywords:existence", {"keywords": ["c.t"]}, "cat", False),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "education", True),
    ("keywords:frequency", {"keyword": "aa", "frequency": 2, "relation": "at least"}, "aaa", False),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": "at least"}, "# x", True),
    ("change_case:english_lowercase", {}, "123 456", False),
    ("change_case:english_capital", {}, SENTENCES["de"].upper(), False),
    ("language:response_language", {"language": "de"}, "123", True),  # undetectable counts as followed
]


@pytest.mark.parametrize(("name", "kwargs", "answer", "passed"), DETAILS)
def test_details_of_the_original(name: str, kwargs: dict[str, Any], answer: str, passed: bool) -> None:
    assert check(name, kwargs, answer).passed is passed


def test_a_blank_answer_follows_nothing() -> None:
    for mode in ("strict", "loose"):
        verdict = check("punctuation:no_comma", {}, " \n", mode)
        assert not verdict.passed and verdict.reason == "it is blank."


def test_unknown_instructions_name_the_nearest() -> None:
    with pytest.raises(SteerlabError, match="did you mean 'punctuation:no_comma'"):
        check("punctuation:no_commas", {}, "x")
    with pytest.raises(SteerlabError, match="did you mean 'language:response_language'"):
        find_checker("language:response_language_de")
    with pytest.raises(SteerlabError, match="did you mean 'startend:quotation'"):
        find_checker("quotation")


@pytest.mark.parametrize(
    ("name", "kwargs", "told"),
    [
        ("detectable_format:number_bullet_lists", {}, "it takes num_bullets"),
        ("detectable_format:number_bullet_lists", {"num_bullets": None}, "given the arguments none"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2.5}, "whole number"),
        ("detectable_format:number_bullet_lists", {"num_bullets": True}, "whole number"),
        ("detectable_format:number_bullet_lists", {"num_bullets": -1}, "whole number"),
        ("detectable_format:number_bullet_lists", {"num_bullets": math.nan}, "whole number"),
        ("detectable_format:number_bullet_lists", {"num_bullets": math.inf}, "whole number"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 1, "n": 2}, "num_bullets, n: it takes num_bullets"),
        ("keywords:existence", {"keywords": "cat"}, "a list of words"),
        ("keywords:existence", {"keywords": [" "]}, "not blank"),
        ("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}, "one letter"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at most"}, "'less than' or 'at least'"),
        ("length:words", {"n": 0, "relation": "at most"}, "1 or more"),
        ("language:response_language", {"language": "german"}, "language code"),
        ("simple:language", {"language": ["de"]}, "language code"),
    ],
)
def test_wrong_arguments_are_told(name: str, kwargs: dict[str, Any], told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        arguments(name, kwargs)


def test_arguments_as_the_hub_fills_them() -> None:
    """The Hub's table has every argument of every instruction, None where it does not belong, and numbers as floats."""
    assert arguments("detectable_format:number_bullet_lists", {"num_bullets": 3.0, "keywords": None}) == {
        "num_bullets": 3
    }


def test_the_eight_readings() -> None:
    answer = "Sure!\n* *Text* one\nBye"
    assert list(variants(answer).values()) == [
        answer,
        "Sure!\n Text one\nBye",
        "* *Text* one\nBye",
        "Sure!\n* *Text* one",
        "* *Text* one",
        " Text one\nBye",
        "Sure!\n Text one",
        " Text one",
    ]
    verdict = check("startend:quotation", {}, 'Sure:\n"the text"\nBye!', "loose")
    assert verdict.passed and verdict.variant == "without its first and last line"
    assert "(without its first" in str(verdict)
    assert not check("startend:quotation", {}, 'Sure:\n"the text"\nBye!').passed
    failed = check("punctuation:no_comma", {}, "a,\nb,\nc,", "loose")
    assert failed.reason == "it has 3 commas."


def test_several_instructions_need_as_many_arguments() -> None:
    names = ("punctuation:no_comma", "simple:max_words")
    assert [v.passed for v in check_all(names, ({}, {"n": 1}), "two words")] == [True, False]
    with pytest.raises(SteerlabError, match="2 instructions and 1 sets"):
        check_all(names, ({},), "x")


PIECES = [
    "*",
    "**",
    "***",
    "\n",
    "\n\n",
    '"',
    ",",
    "My answer is yes.",
    "<<t>>",
    "Section 1",
    "- x",
    "[a]",
    "P.S.",
    "{",
    "}",
]
PIECES += ["word", "WORD", "cat", " ", ".", "!", "Der Zug fährt heute ab"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_loose_passes_whenever_strict_does(answer: str) -> None:
    for name in CHECKERS:
        kwargs = OWN[name][0] if name in OWN else ARGUMENTS.get(name, {})
        assert check(name, kwargs, answer, "loose").passed >= check(name, kwargs, answer, "strict").passed


def test_all_541_prompts_parse_and_every_instruction_passes_and_fails(shared) -> None:
    prompts = load_instructions("all", shared).prompts
    assert len(prompts) == 541
    seen = set()
    for row in prompts:
        for name, kwargs in zip(row.instructions, row.kwargs, strict=True):
            follows, does_not = PAIRS[name](kwargs)
            assert check(name, kwargs, follows).passed, (row.id, name, follows)
            assert not check(name, kwargs, does_not).passed, (row.id, name, does_not)
            seen.add(name)
    assert seen == set(IFEVAL)


def test_loose_holds_strict_on_all_prompts_and_scrambled_answers(shared) -> None:
    rng = random.Random(0)
    gained = 0
    for row in load_instructions("all", shared).prompts:
        pieces = [piece for name, own in zip(row.instructions, row.kwargs, strict=True) for piece in PAIRS[name](own)]
        rng.shuffle(pieces)
        answer = rng.choice(["\n", " ", "\n\n"]).join([*pieces[:2], rng.choice(["", "Bye!", "**"])])
        strict = check_all(row.instructions, row.kwargs, answer, "strict")
        loose = check_all(row.instructions, row.kwargs, answer, "loose")
        assert all(b.passed >= a.passed for a, b in zip(strict, loose, strict=True))
        gained += sum(b.passed > a.passed for a, b in zip(strict, loose, strict=True))
    assert gained > 20  # the readings do pass answers that fail as written


def test_keyword_arguments_have_no_special_characters(shared) -> None:
    """So reading them literally or as regular expressions is the same."""
    for row in load_instructions("all", shared).prompts:
        for kwargs in row.kwargs:
            for word in [*kwargs.get("keywords", []), *kwargs.get("forbidden_words", []), kwargs.get("keyword", "x")]:
                assert re.escape(word).replace("\\ ", " ").replace("\\-", "-") == word, json.dumps(kwargs)
