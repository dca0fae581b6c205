"""Positions are compared at equal strength, with common random numbers, sample by sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab.ablation.positions import (
    UNSTEERED,
    compare,
    in_language,
    kl_at_positions,
    position_arms,
    repetition,
    write_at_positions,
)
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.steering import Intervention
from steerlab.types import GENERATED, NAMED_POSITIONS, PROMPT
from tests.tiny import tiny, vector

PUSH = Intervention(vector(0), 1, strength=5.0)
PROMPTS = ["tell me of it", "and now"]
SETTINGS = Settings(max_new_tokens=8, stop=(), seed=2)


def test_arms_differ_in_positions_only() -> None:
    arms = position_arms(PUSH, label="jv")
    assert [arm.name for arm in arms] == ["jv unsteered", *(f"jv {name}" for name in NAMED_POSITIONS)]
    assert arms[0].interventions == () and {arm.layer for arm in arms} == {1}
    for arm, where in zip(arms[1:], NAMED_POSITIONS.values(), strict=True):
        (own,) = arm.interventions
        assert own.positions == where and (own.vector, own.at, own.strength) == (PUSH.vector, PUSH.at, PUSH.strength)
    with pytest.raises(SteerlabError, match="rename them"):
        position_arms(PUSH, {UNSTEERED: PROMPT})


def test_steering_generated_tokens_leaves_the_first_and_steering_the_prompt_does_not() -> None:
    """The last prompt token writes the first generated one: its text differs only where that token was steered."""
    model, arms = tiny("llama"), position_arms(PUSH)
    places = [(arm, p, k) for arm in arms for p in range(2) for k in range(4)]
    requests = [Request(PROMPTS[p], ("sweep", p, k), arm.interventions) for arm, p, k in places]
    tokens: dict[str, list[tuple[int, ...]]] = {arm.name: [] for arm in arms}
    for (arm, _, _), own in zip(places, generate(model, requests, SETTINGS), strict=True):
        tokens[arm.name].append(own.tokens)
    first = {name: [own[0] for own in some] for name, some in tokens.items()}
    assert first["generated"] == first[UNSTEERED] and tokens["generated"] != tokens[UNSTEERED]
    assert first["writing"] == first["last_prompt"] != first[UNSTEERED]
    assert first["all"] == first["prompt"] != first[UNSTEERED]


def test_the_arms_draw_the_same_random_numbers() -> None:
    """At strength 0 every arm writes the unsteered texts, one by one."""
    table: Any = write_at_positions(tiny("llama"), replace(PUSH, strength=0.0), PROMPTS, 3, SETTINGS)
    texts = {str(name): own["text"].tolist() for name, own in table.groupby("arm", sort=False)}
    assert list(texts) == [UNSTEERED, *NAMED_POSITIONS]
    assert all(own == texts[UNSTEERED] for own in texts.values()) and len(set(texts[UNSTEERED])) == 6


def test_kl_starts_where_steering_does() -> None:
    table: Any = kl_at_positions(tiny("llama"), PUSH, PROMPTS, ["yes it is", "no"])
    sizes = table.groupby(["arm", "answer"])["token"].count()
    assert sizes["all", 0] == len("yes it is") + 1 and sizes["all", 1] == len("no") + 1
    assert table.groupby(["arm", "answer"])["token"].max()["all", 1] == len("no")
    start = table[table["token"] == 0].groupby("arm")["kl"].max()
    later = table[table["token"] > 0].groupby("arm")["kl"].mean()
    assert start["generated"] < 1e-5 < 1e-3 < min(start[["prompt", "last_prompt", "writing", "all"]])
    assert later.min() > 1e-5
    # Up to the last prompt token, "all" is "prompt" and "writing" is "last_prompt".
    first = table[table["token"] == 0].pivot(index="answer", columns="arm", values="kl")
    np.testing.assert_allclose(first["all"], first["prompt"], atol=1e-4)
    np.testing.assert_allclose(first["writing"], first["last_prompt"], atol=1e-4)
    only: Any = kl_at_positions(tiny("llama"), PUSH, PROMPTS, ["a", "b"], {"generated": GENERATED})
    assert set(only["arm"]) == {"generated"}


def _texts(arms: dict[str, list[str]]) -> pd.DataFrame:
    rows = [
        {"arm": name, "prompt": i // 3, "sample": i % 3, "text": text}
        for name, own in arms.items()
        for i, text in enumerate(own)
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_sample_by_sample() -> None:
    """Lengths vary a lot between samples and the difference not at all: its interval has no width."""
    plain = ["a" * n for n in (1, 9, 30, 4, 50, 2)]
    table = compare(
        _texts({UNSTEERED: plain, "all": [text + "bb" for text in plain]}),
        {"length": lambda texts: np.array([float(len(text)) for text in texts])},
    ).set_index("arm")
    own = table.loc["all"]
    assert own["value"] == pytest.approx(18.0) and own["high"] - own["low"] > 1
    assert (own["change"], own["change_low"], own["change_high"]) == pytest.approx((2.0, 2.0, 2.0))
    assert table.loc[UNSTEERED].isna()["change"]


def test_arms_that_wrote_other_samples_are_not_paired() -> None:
    texts = _texts({UNSTEERED: ["a"] * 6, "all": ["b"] * 6})
    with pytest.raises(SteerlabError, match="did not write the same samples"):
        compare(texts.iloc[:-1], {"repetition": repetition()})
    with pytest.raises(SteerlabError, match="no arm is named 'plain'"):
        compare(texts, {"repetition": repetition()}, baseline="plain")


def test_scores_are_one_number_per_text() -> None:
    found = in_language("sl")(
        ["To je slovensko besedilo o reki in mestu.", "This is an English sentence about a river.", "12"]
    )
    assert found.tolist() == [1.0, 0.0, 0.0]
    rates = repetition()(["one two three four one two three four", "one"])
    assert rates[0] == pytest.approx(0.2) and np.isnan(rates[1])
    assert repetition(1)(["a b a"]).tolist() == pytest.approx([1 / 3])
