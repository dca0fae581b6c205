"""A row whose text breaks is weakened from the next token on, says so, and no other row notices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steerlab.backoff import BackOff, loops
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Sample, Settings, generate
from steerlab.guidance import Guide
from steerlab.guided import Guided
from steerlab.steering import Intervention
from steerlab.types import Positions
from tests.tiny import CORE, tiny, vector

SETTINGS = Settings(max_new_tokens=24, greedy=True, stop=())
PUSH = (Intervention(vector(1), 3, strength=40.0),)
RULE = BackOff(factor=0.5, floor=0.2, times=3, period=4, least=6)


def written(asked: list[Request], rows: int = 8, settings: Settings = SETTINGS) -> list[Sample]:
    return generate(tiny("llama"), asked, settings, batch_rows=rows)


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        ([7, 7, 7, 7, 7, 7], True),
        ([7, 7, 7, 7, 7], False),
        ([1, 2, 3, 1, 2, 3, 1, 2, 3], True),
        ([1, 2, 3, 1, 2, 3, 1, 2], False),
        ([9, 1, 2, 1, 2, 1, 2], True),
        ([1, 2, 1, 2, 1, 2, 9], False),
        ([1, 2, 3, 4, 5] * 3, False),
        ([], False),
    ],
)
def test_a_loop_is_a_phrase_three_times_at_the_end(tokens: list[int], found: bool) -> None:
    assert loops(tokens, RULE) is found


@pytest.mark.parametrize("operator", ["add", "match"])
def test_from_the_step_it_names_on_a_row_is_steered_with_the_share_it_names(operator: str) -> None:
    """Equal to interventions whose positions end and begin there: every position is edited once, when it is first read."""
    push = replace(PUSH[0], operator=operator, target=60.0) if operator == "match" else PUSH[0]
    if operator == "match":
        push = replace(push, strength=1.0)
    (one,) = written([Request("a text", ("k",), (push,), backoff=RULE)])
    assert one.lowered and {low.reason for low in one.lowered} == {"repetition"}
    edges = [None, *(low.step for low in one.lowered), None]
    shares = [1.0, *(low.share for low in one.lowered)]
    spans = [
        replace(push, strength=push.strength * share, positions=Positions(start, stop))
        for share, start, stop in zip(shares, edges[:-1], edges[1:], strict=True)
    ]
    (by_hand,) = written([Request("a text", ("k",), tuple(spans))])
    assert one.tokens == by_hand.tokens
    (never,) = written([Request("a text", ("k",), (push,))])
    first = one.lowered[0].step
    assert never.lowered == () and never.tokens[: first + 1] == one.tokens[: first + 1] != one.tokens


def test_shares_fall_by_the_factor_and_end_at_nothing() -> None:
    (one,) = written([Request("a text", ("k",), PUSH, backoff=replace(RULE, factor=0.9, floor=0.85, least=3, times=2))])
    assert [low.share for low in one.lowered][:2] == [0.9, 0.0]
    assert len(one.lowered) == 2  # a row at 0 is not looked at any more
    steps = [low.step for low in one.lowered]
    assert steps == sorted(set(steps)) and one.lowered[0].step >= 2


@pytest.mark.parametrize("family", CORE)
def test_rows_that_back_off_are_the_same_alone_and_leave_others_alone(family: str) -> None:
    model = tiny(family)
    rules = [None, RULE, replace(RULE, alpha=0.2), BackOff(times=0, alpha=0.3), None]
    pushes = [PUSH, PUSH, PUSH, PUSH, ()]
    guided = [None, None, Guided(Guide(gamma=0.5, eta=0.0), base_prompt="b"), None, None]
    asked = [
        Request(f"text {i}", ("k", i), pushes[i % 5], backoff=rules[i % 5], guided=guided[i % 5]) for i in range(10)
    ]
    settings = Settings(max_new_tokens=12, stop=tuple("abcdefgh"), temperature=1.3)
    together = generate(model, asked, settings, batch_rows=10)
    assert together == generate(model, asked, settings, batch_rows=1)
    plain = generate(model, [replace(r, backoff=None) for r in asked], settings, batch_rows=10)
    for i in (0, 4, 5, 9):
        assert together[i] == plain[i]
    assert any(sample.lowered for sample in together)


def test_with_plausibility_one_the_unsteered_text_is_all_that_is_left() -> None:
    rule = BackOff(times=0, alpha=1.0)
    steered, plain = written([Request("a text", ("k",), PUSH, backoff=rule), Request("a text", ("k",))])
    assert steered.tokens == plain.tokens
    assert {low.reason for low in steered.lowered} == {"implausible"}
    (free,) = written([Request("a text", ("k",), PUSH)])
    assert free.tokens != plain.tokens


def test_a_plausible_token_is_no_reason() -> None:
    rule = BackOff(times=0, alpha=1e-30)
    steered, free = written([Request("a text", ("k",), PUSH, backoff=rule), Request("a text", ("k",), PUSH)])
    assert steered == free


def test_nonsense_is_refused() -> None:
    wrong: Any
    for wrong in ({"factor": 1.0}, {"alpha": 2}, {"times": 1}, {"period": 0}, {"floor": -1}):
        with pytest.raises(SteerlabError, match="was given"):
            BackOff(**wrong)
    with pytest.raises(SteerlabError, match="times and alpha are 0"):
        BackOff(times=0)
