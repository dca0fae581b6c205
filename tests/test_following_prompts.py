"""Phrasings, base queries and prompts for small models: seeded, disjoint, and texts that obey what they are asked."""

from __future__ import annotations

import re

import pytest

from steerlab.data.languages import LANGUAGES
from steerlab.data.leakage import overlap_report
from steerlab.data.plain import read_sample
from steerlab.errors import SteerlabError
from steerlab.evaluation.language import LABELS
from steerlab.following.phrasings import LANGUAGE_NAMES, PHRASINGS, instruct, phrase
from steerlab.following.prompts import MARKS, WORDS, cell_name, obey, simple_prompts, together
from steerlab.following.queries import OPENERS, SUBJECTS, Query, own_queries, split_queries
from steerlab.following.registry import CHECKERS, FORMATS, IFEVAL, SIMPLE, arguments, check_all
from tests.test_following_registry import ARGUMENTS, OWN


def test_every_phrasing_names_every_argument_of_its_check() -> None:
    """So no two arguments share a prompt; all format instructions of the paper and all of ours have at least four phrasings."""
    for name, phrasings in PHRASINGS.items():
        needed = set(CHECKERS[name].arguments)
        needed = {"word" if field == "words" else field for field in needed}
        assert len(set(phrasings)) == len(phrasings) >= 4
        for own in phrasings:
            assert set(re.findall(r"{(\w+)}", own)) == needed, (name, own)
    paper = {name for name in IFEVAL if name.split(":")[0] in FORMATS}
    assert len(paper) == 13 and paper | set(OWN) == set(PHRASINGS)


def test_phrases_have_their_arguments_in_words() -> None:
    for name in PHRASINGS:
        kwargs = OWN[name][0] if name in OWN else ARGUMENTS.get(name, {})
        for number in range(len(PHRASINGS[name])):
            said = phrase(name, kwargs, number)
            assert "{" not in said.replace("{}", "") and said
    assert phrase("simple:language", {"language": "jv"}) == "Answer in Javanese."
    assert phrase("words:exclude", {"words": ["cat", "dog"]}) == "Do not use the word cat, dog."
    assert phrase("simple:lowercase", {}, 6) == phrase("simple:lowercase", {}, 0)
    assert set(LANGUAGE_NAMES) <= LABELS and len(LANGUAGE_NAMES) == 39
    with pytest.raises(SteerlabError, match="lacks 'n'"):
        phrase("simple:max_words", {})
    with pytest.raises(SteerlabError, match="no phrasings"):
        phrase("combination:two_responses", {})
    with pytest.raises(SteerlabError, match="is not known"):
        phrase("simple:lower", {})


def test_phrasings_are_drawn_from_seed_and_key_alone() -> None:
    drawn = [instruct(f"Q{i}.", "simple:quotes", {}, seed=1) for i in range(60)]
    assert drawn == [instruct(f"Q{i}.", "simple:quotes", {}, seed=1) for i in range(60)]
    assert len({text.split(" ", 1)[1] for text in drawn}) == 6
    assert drawn != [instruct(f"Q{i}.", "simple:quotes", {}, seed=2) for i in range(60)]
    assert all(text.startswith(f"Q{i}. ") for i, text in enumerate(drawn))


def test_splits_share_no_subject_and_no_text() -> None:
    queries = own_queries((None, "da", "jv"))
    assert len(queries) == 70 * len(OPENERS) * 3 == len({query.id for query in queries})
    assert all(len(set(own)) == 10 for own in SUBJECTS.values()) and len(SUBJECTS) == 7
    found = split_queries(queries, seed=5)
    groups = {name: {query.group for query in own} for name, own in found.items()}
    assert {name: len(own) for name, own in groups.items()} == {"train": 42, "valid": 14, "test": 14}
    assert not groups["train"] & groups["valid"] | groups["train"] & groups["test"] | groups["valid"] & groups["test"]
    assert all({query.label for query in own} == set(SUBJECTS) for own in found.values())
    report = overlap_report({name: [query.text for query in own] for name, own in found.items()})
    assert not any(overlap.exact for overlap in report.overlaps)
    assert split_queries(queries[::-1], seed=5)["valid"] == found["valid"][::-1]
    assert split_queries(queries, seed=6)["valid"] != found["valid"]


def test_splits_refuse_what_they_cannot_divide() -> None:
    queries = own_queries()
    with pytest.raises(SteerlabError, match="sum to 1"):
        split_queries(queries, shares={"train": 0.5, "valid": 0.2, "test": 0.2})
    with pytest.raises(SteerlabError, match="leave the split 'valid' empty"):
        split_queries([query for query in queries if query.group == "bees"])
    with pytest.raises(SteerlabError, match="stands under two labels"):
        split_queries([*queries, *(Query(f"x{i}", "t", "bees", f"l{i}") for i in range(9))])


def test_prompts_are_seeded_and_independent_of_each_other() -> None:
    queries = own_queries()
    found = simple_prompts(queries, seed=3, split="valid")
    assert len(found) == len(queries) * 7 == len({row.id for row in found})
    assert found == simple_prompts(queries, seed=3, split="valid") != simple_prompts(queries, seed=4, split="valid")
    alone = simple_prompts(queries[40:41], ["simple:max_words"], seed=3, split="valid")
    assert alone[0] in found
    for row in found:
        assert row.prompt.startswith(row.base + " ") and row.split == "valid" and len(row.prompt) > len(row.base) + 8
        assert arguments(row.instructions[0], row.kwargs[0]) is not None
        assert row.cells == (cell_name(row.instructions[0], row.kwargs[0]),)
    marks = {row.kwargs[0]["mark"] for row in found if row.instructions[0] == "simple:end_mark"}
    asked = {row.kwargs[0]["language"] for row in found if row.instructions[0] == "simple:language"}
    assert marks == set(MARKS) and asked == set(LANGUAGES)
    only = simple_prompts(queries, ["simple:language"], languages=("da", "de"))
    assert {row.cells[0] for row in only} == {"simple:language_da", "simple:language_de"}
    words = simple_prompts(queries, ["simple:include_word"])
    assert {row.kwargs[0]["word"] for row in words} == set(WORDS)


def test_instructions_stand_only_behind_queries_they_fit() -> None:
    rows = simple_prompts(own_queries(("am", "he", "da")))
    names = {(row.id.split("-")[-2], row.instructions[0]) for row in rows}
    assert ("da", "simple:lowercase") in names and ("am", "simple:quotes") in names
    assert not names & {(code, f"simple:{case}") for code in ("am", "he") for case in ("lowercase", "uppercase")}
    assert not any(name == "simple:language" for _, name in names)


def test_two_instructions_stand_behind_one_query() -> None:
    pair = ("simple:lowercase", "simple:max_words")
    rows = simple_prompts(own_queries()[:20], [pair, "simple:max_words"])
    assert len(rows) == 40 and rows[0].id == "batteries-0-lowercase+max_words"
    for both, alone in zip(rows[::2], rows[1::2], strict=True):
        assert both.instructions == pair and both.kwargs[1] == alone.kwargs[0]
        assert both.prompt.endswith(alone.prompt.removeprefix(alone.base)) and both.prompt.startswith(both.base)
    for wrong in (
        ("simple:lowercase", "simple:uppercase"),
        ("simple:quotes", "simple:end_mark"),
        ("simple:quotes",) * 2,
        (),
    ):
        with pytest.raises(SteerlabError, match="given together"):
            simple_prompts(own_queries()[:1], [wrong])


def test_obeying_texts_pass_the_strict_check_in_every_language() -> None:
    pairs = [("simple:quotes", "simple:lowercase"), ("simple:include_word", "simple:max_words")]
    made = dict.fromkeys([*SIMPLE, *pairs], 0)
    tried = 0
    for code in LANGUAGES:
        for example in read_sample(None, code, "all")[0][:8]:
            tried += 1
            for names in made:
                found = obey(example.text, names, code, seed=1)
                if found is not None:
                    assert all(own.passed for own in check_all(together(names), *found))
                    made[names] += 1
                    assert found == obey(example.text, names, code, seed=1)
    assert made["simple:quotes"] == made["simple:end_mark"] == made["simple:max_words"] == tried
    assert made["simple:include_word"] > 0.9 * tried and made[pairs[1]] > 0.8 * tried
    assert made[pairs[0]] == made["simple:lowercase"] == made["simple:uppercase"] > 0.8 * tried
    assert made["simple:language"] > 0.7 * tried


def test_obeying_changes_what_it_must_and_no_more() -> None:
    text = 'The old bridge, built in 1880, was "lost" in a flood; nobody knows why.'
    assert obey(text, "simple:quotes", "en") == (({},), '"' + text.replace('"', "'") + '"')
    assert obey(text, "simple:uppercase", "en") == (({},), text.upper())
    ended = obey(text, "simple:end_mark", "en")
    assert ended is not None and ended[1] == text[:-1] + ended[0][0]["mark"]
    cut = next(
        own for seed in range(50) if (own := obey(text, "simple:max_words", "en", seed)) and own[0] == ({"n": 5},)
    )
    assert cut[1] == "The old bridge, built in."
    both = obey(text, ("simple:quotes", "simple:max_words"), "en")
    assert both is not None and both[1].startswith('"The') and both[1].endswith('."') and both[0][1]["n"] >= 3
    assert obey(text, "simple:language", "de") is None
    assert obey("ዝናብ ዘነበ።", "simple:lowercase", "am") is None
    with pytest.raises(SteerlabError, match="no simple instruction"):
        obey(text, "punctuation:no_comma", "en")
