"""Four arms on the same prompts: rates, what was gained and lost, exact tests, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import wilson
from steerlab.following.arms import Answer, answers, compare_arms, holm

GOOD, BAD, WRAPPED = "all small", "Not small", "Sure!\nall small"


def prompts(n: int, per_group: int = 1) -> list[InstructedPrompt]:
    return [
        InstructedPrompt(
            f"p{i}", "q Use small letters.", f"q{i // per_group}", f"g{i // per_group}", (name,), ({},), (name,), "test"
        )
        for i in range(n)
        for name in ["simple:lowercase" if i % 2 else "punctuation:no_comma"]
    ]


def test_rates_gains_and_mcnemar_by_hand() -> None:
    rows = [replace(row, instructions=("simple:lowercase",), cells=("simple:lowercase",)) for row in prompts(10)]
    before = [GOOD] * 2 + [BAD] * 8
    after = [BAD] + [GOOD] * 7 + [BAD] * 2
    found = compare_arms([*answers(rows, "none", before), *answers(rows, "steered", after)])
    assert found.arms == ("none", "steered") and found.names == ("all", "simple:lowercase")
    rates: Any = found.rates("strict")
    all_rows = rates[rates["instruction"] == "all"].set_index("arm")
    assert all_rows["followed"].to_dict() == {"none": 2, "steered": 7}
    expected = wilson(7, 10)
    assert all_rows.loc["steered", ["rate", "low", "high"]].tolist() == [expected.value, expected.low, expected.high]
    changes: Any = found.changes("strict").iloc[0]
    assert (changes["gained"], changes["lost"], changes["n"]) == (6, 1, 10)
    assert changes["p"] == pytest.approx(stats.binomtest(6, 7).pvalue)
    assert changes["difference"] == pytest.approx(0.5) and changes["low"] < 0.5 < changes["high"]


def test_prompt_level_needs_every_instruction_and_loose_is_kept_apart() -> None:
    both = ("simple:lowercase", "simple:max_words")
    row = replace(prompts(1)[0], instructions=both, kwargs=({}, {"n": 2}), cells=both)
    found = compare_arms([*answers([row], "none", [WRAPPED]), *answers([row], "both", [GOOD])])
    items: Any = found.items
    none = items[items["arm"] == "none"].set_index("instruction")
    assert none["strict"].tolist() == [False, False] and none["loose"].tolist() == [True, True]
    assert none.loc["simple:max_words", "reason"] == "it has 3 words, not at most 2."
    strict, loose = found.followed("strict"), found.followed("loose")
    assert strict.loc["p0"].tolist() == [False, True] and loose.loc["p0"].tolist() == [True, True]
    half = compare_arms([*answers([row], "none", ["all small now"]), *answers([row], "both", [GOOD])])
    assert half.followed("strict").loc["p0", "none"] == np.False_
    assert half.followed("strict", "simple:lowercase").loc["p0", "none"] == np.True_


def test_four_arms_are_compared_in_four_pairs_with_holm_over_instructions() -> None:
    rows = prompts(12)
    texts = {"none": [BAD] * 12, "steered": [GOOD] * 12, "instructed": [BAD, GOOD] * 6, "both": [GOOD] * 12}
    given = [answer for arm, own in texts.items() for answer in answers(rows, arm, own)]  # type: ignore[arg-type]
    found = compare_arms(given)
    changes: Any = found.changes("strict")
    assert changes[["before", "after"]].drop_duplicates().to_numpy().tolist() == [
        ["none", "steered"],
        ["instructed", "both"],
        ["none", "instructed"],
        ["steered", "both"],
    ]
    first = changes[(changes["before"] == "none") & (changes["after"] == "steered")].set_index("instruction")
    assert first.loc["simple:lowercase", "gained"] == 6 and first.loc["punctuation:no_comma", "gained"] == 0
    assert first.loc["simple:lowercase", "p_holm"] == pytest.approx(2 * first.loc["simple:lowercase", "p"])
    assert first.loc["all", "p_holm"] == first.loc["all", "p"]
    html = found._repr_html_()
    assert "simple:lowercase" in html and "[" in html and "none" in str(found)


def test_the_interval_of_a_difference_draws_base_queries() -> None:
    """Twelve prompts on two base queries, one gained whole: with whole groups drawn, 0 and 1 are possible."""
    rows = [replace(row, instructions=("simple:lowercase",), cells=("c",)) for row in prompts(12, per_group=6)]
    given = [*answers(rows, "none", [BAD] * 12), *answers(rows, "steered", [GOOD] * 6 + [BAD] * 6)]
    change: Any = compare_arms(given).changes().iloc[0]
    assert (change["low"], change["high"]) == (0.0, 1.0)
    alone = [replace(answer, group=answer.prompt) for answer in given]
    single: Any = compare_arms(alone).changes().iloc[0]
    assert 0.0 < single["low"] < 0.5 < single["high"] < 1.0
    rates: Any = compare_arms(given).rates()
    assert rates["groups"].tolist() == [2] * 4 and math.isclose(rates["rate"].iloc[1], 0.5)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def refused(given: list[Answer], told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        compare_arms(given)


def test_what_cannot_be_compared_is_refused() -> None:
    rows = prompts(2)
    none = answers(rows, "none", [GOOD, GOOD])
    refused(none, "answers of 1 arm were given")
    refused([], "answers of 0 arm")
    refused([*none, *answers(rows[:1], "both", [GOOD])], "'none' and 'both' differ in prompt 'p1'")
    refused([*none, *answers(rows, "both", [GOOD, GOOD]), none[0]], "'p0' has two answers in the arm 'none'")
    other = replace(rows[0], kwargs=({"n": 1},), instructions=("simple:max_words",))
    refused([*none, *answers([other, rows[1]], "both", [GOOD, GOOD])], "differ in prompt 'p0'")
    with pytest.raises(SteerlabError, match="2 prompts and 1 answers"):
        answers(rows, "none", [GOOD])
    with pytest.raises(SteerlabError, match="no prompt has the instruction 'title'"):
        compare_arms([*none, *answers(rows, "both", [GOOD, GOOD])]).followed("loose", "title")
