"""IFEval's checks of an answer's form: lists, highlights, sections, titles, JSON, paragraphs, beginnings and ends.

The rules are those of google-research's instruction_following_eval (Zhou et al. 2023, arXiv 2311.07911), whose details decide borderline
answers; markers and phrases given as arguments are taken literally, where the original reads them as regular expressions.
"""

from __future__ import annotations

import json
import re

from steerlab.following.verdict import Checker, count, positive, text

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_STAR_BULLET = re.compile(r"^\s*\*[^*].*$", re.MULTILINE)
_DASH_BULLET = re.compile(r"^\s*-.*$", re.MULTILINE)
_FENCES = ("```json", "```Json", "```JSON", "```")


def number_bullet_lists(answer: str, num_bullets: int) -> str:
    """Exactly so many lines that begin with one * or with -; "**bold**" lines are none, "- - -" is one."""
    found = len(_STAR_BULLET.findall(answer)) + len(_DASH_BULLET.findall(answer))
    return "" if found == num_bullets else f"it has {found} bullet points, not {num_bullets}."


def number_highlighted_sections(answer: str, num_highlights: int) -> str:
    """At least so many *highlights* or **highlights** on one line, blank ones not counted."""
    single = sum(bool(found.strip("*").strip()) for found in re.findall(r"\*[^\n*]*\*", answer))
    double = sum(bool(found[2:-2].strip()) for found in re.findall(r"\*\*[^\n*]*\*\*", answer))
    found = single + double
    return "" if found >= num_highlights else f"it has {found} highlighted sections, fewer than {num_highlights}."


def multiple_sections(answer: str, section_spliter: str, num_sections: int) -> str:
    """At least so many places where the marker stands before a number ("Section 2"), its case kept."""
    found = len(re.findall(rf"\s?{re.escape(section_spliter)}\s?\d+\s?", answer))
    return (
        ""
        if found >= num_sections
        else f"it has {found} sections marked {section_spliter!r}, fewer than {num_sections}."
    )


def title(answer: str) -> str:
    """A title in double angular brackets on one line, not blank."""
    found = re.findall(r"<<[^\n]+>>", answer)
    return (
        "" if any(own.lstrip("<").rstrip(">").strip() for own in found) else "it has no title in <<double brackets>>."
    )


def json_format(answer: str) -> str:
    """One JSON value, perhaps inside a Markdown fence; a quoted text or a number alone is JSON too."""
    inner = answer.strip()
    for fence in _FENCES:
        inner = inner.removeprefix(fence)
    try:
        json.loads(inner.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return "it is not JSON as a whole."
    return ""


def constrained_response(answer: str) -> str:
    """One of the three set replies stands in the answer, word for word."""
    return "" if any(option in answer for option in OPTIONS) else "none of the three set replies stands in it."


def number_paragraphs(answer: str, num_paragraphs: int) -> str:
    """Exactly so many paragraphs between *** dividers; a blank one may stand only first or last, and does not count."""
    parts = re.split(r"\s?\*\*\*\s?", answer)
    if any(not part.strip() for part in parts[1:-1]):
        return "two dividers *** stand with nothing between them."
    found = len(parts) - sum(not parts[end].strip() for end in {0, len(parts) - 1})
    return "" if found == num_paragraphs else f"it has {found} paragraphs between *** dividers, not {num_paragraphs}."


def nth_paragraph_first_word(answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> str:
    """Exactly so many paragraphs between blank lines, the nth of which begins with the word.

    As in IFEval blank paragraphs are not counted but keep their place, so the nth is looked up among all.
    """
    parts = answer.split("\n\n")
    found = sum(bool(part.strip()) for part in parts)
    if found != num_paragraphs:
        return f"it has {found} paragraphs between blank lines, not {num_paragraphs}."
    if nth_paragraph > found or not parts[nth_paragraph - 1].strip():
        return f"paragraph {nth_paragraph} is missing or blank."
    start = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    word = re.split(r"[.,?!'\"]", start, maxsplit=1)[0].lower()
    return "" if word == first_word.lower() else f"paragraph {nth_paragraph} begins with {word!r}, not {first_word!r}."


def postscript(answer: str, postscript_marker: str) -> str:
    """The marker stands somewhere, case ignored; P.S. and P.P.S may have a space inside."""
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = known.get(postscript_marker, re.escape(postscript_marker.lower()))
    return "" if re.search(pattern, answer.lower()) else f"it has no postscript marked {postscript_marker}."


def number_placeholders(answer: str, num_placeholders: int) -> str:
    """At least so many [placeholders] on one line each."""
    found = len(re.findall(r"\[.*?\]", answer))
    return "" if found >= num_placeholders else f"it has {found} [placeholders], fewer than {num_placeholders}."


def two_responses(answer: str) -> str:
    """Two different answers between ******; a blank part may stand only first or last."""
    parts = answer.split("*" * 6)
    if any(not part.strip() for part in parts[1:-1]):
        return "two dividers ****** stand with nothing between them."
    given = [part.strip() for part in parts if part.strip()]
    if len(given) != 2:
        return f"it has {len(given)} answers divided by ******, not two."
    return "" if given[0] != given[1] else "its two answers are the same."


def repeat_prompt(answer: str, prompt_to_repeat: str) -> str:
    """The answer begins with the request, case ignored."""
    begins = answer.strip().lower().startswith(prompt_to_repeat.strip().lower())
    return "" if begins else "it does not begin with the request, word for word."


def end_checker(answer: str, end_phrase: str) -> str:
    """The answer ends with the phrase, case, white space and double quotes around it ignored."""
    ends = answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    return "" if ends else f"it does not end with {end_phrase!r}."


def quotation(answer: str) -> str:
    """The whole answer stands between straight double quotation marks."""
    inner = answer.strip()
    wrapped = len(inner) > 1 and inner[0] == inner[-1] == '"'
    return "" if wrapped else "it is not wrapped in double quotation marks."


CHECKERS: tuple[Checker, ...] = (
    Checker("detectable_format:number_bullet_lists", number_bullet_lists, "n bullet points", {"num_bullets": count}),
    Checker(
        "detectable_format:number_highlighted_sections",
        number_highlighted_sections,
        "at least n highlighted sections",
        {"num_highlights": count},
    ),
    Checker(
        "detectable_format:multiple_sections",
        multiple_sections,
        "at least n marked sections",
        {"section_spliter": text, "num_sections": count},
    ),
    Checker("detectable_format:title", title, "a title in double brackets", {}),
    Checker("detectable_format:json_format", json_format, "JSON", {}),
    Checker("detectable_format:constrained_response", constrained_response, "one of three set replies", {}),
    Checker("length_constraints:number_paragraphs", number_paragraphs, "n paragraphs", {"num_paragraphs": count}),
    Checker(
        "length_constraints:nth_paragraph_first_word",
        nth_paragraph_first_word,
        "n paragraphs, one beginning with a word",
        {"num_paragraphs": positive, "nth_paragraph": positive, "first_word": text},
    ),
    Checker("detectable_content:postscript", postscript, "a postscript", {"postscript_marker": text}),
    Checker(
        "detectable_content:number_placeholders", number_placeholders, "n placeholders", {"num_placeholders": count}
    ),
    Checker("combination:two_responses", two_responses, "two different answers", {}),
    Checker("combination:repeat_prompt", repeat_prompt, "the request repeated first", {"prompt_to_repeat": text}),
    Checker("startend:end_checker", end_checker, "a given last phrase", {"end_phrase": text}),
    Checker("startend:quotation", quotation, "double quotation marks around it", {}),
)
