"""Four arms and the guidance baseline: what each shows and steers, the same in one batch as alone, checked and measured."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.following.arms import ARMS
from steerlab.following.trials import Cell
from steerlab.generation import Settings, generate
from steerlab.instructions import (
    CHAT,
    FOUR,
    Application,
    ask,
    fit_instructions,
    gather,
    plan_arms,
    pushed,
    random_pushes,
    randomised,
    run_arms,
)
from steerlab.steering import Gate, Intervention
from tests.instruct import FAMILIES, pairs, prompts
from tests.tiny import tiny

SETTINGS = Settings(max_new_tokens=8, greedy=True, stop=())


def pushes(family: str = "llama", strength: float = 3.0) -> dict[str, tuple[Intervention, ...]]:
    found = fit_instructions(tiny(family), pairs(4))
    return {name: Application().at(vector, Cell(2, strength)) for name, vector in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_arm_is_written_as_if_alone(family: str) -> None:
    model, own, rows = tiny(family), pushes(family), prompts(2, split="test")
    run = run_arms(model, rows, own, arms=ARMS, scale=2.0, settings=SETTINGS)
    shown = {"none": False, "random": False, "steered": False, "instructed": True, "both": True, "guided": True}
    acting = {"steered": own, "both": own, "random": random_pushes(own)}
    for arm in ARMS:
        asked = [
            ask(
                row,
                CHAT,
                shown[arm],
                pushed(row, acting.get(arm, {})),
                2.0 if arm == "guided" else None,
            )
            for row in rows
        ]
        assert run.texts(arm) == [s.text for s in generate(model, asked, SETTINGS, batch_rows=1)], arm
    assert run.texts("steered") != run.texts("none") and run.texts("guided") != run.texts("instructed")
    assert [a.query for a in run.answers[: len(rows)]] == [row.base for row in rows]


def test_scale_one_is_the_instruction_alone_and_no_push_is_no_steering() -> None:
    rows = prompts(2, split="test")
    run = run_arms(tiny("llama"), rows, pushes(strength=0.0), arms=ARMS, scale=1.0, settings=SETTINGS)
    assert run.texts("guided") == run.texts("both") == run.texts("instructed") != run.texts("none")
    tokens = {arm: [s.tokens for a, s in zip(run.answers, run.samples, strict=True) if a.arm == arm] for arm in ARMS}
    assert tokens["steered"] == tokens["none"] == tokens["random"]


def test_the_random_control_pushes_as_far_as_the_instruction_s_mean_moves() -> None:
    own = pushes(strength=2.0)
    control = random_pushes(own, seed=4)
    assert not callable(own) and not callable(control)
    for name, (push,) in own.items():
        (random,) = control[name]
        assert random.operator == "add" and random.at == push.at
        assert random.strength == pytest.approx(2 * float(push.vector.raw_norm[2]), rel=1e-4)
        assert abs(float(random.vector.at(2) @ push.vector.at(2))) < 0.6
    other = random_pushes(own, seed=5)
    assert not callable(other)
    assert not torch.equal(other["simple:quotes"][0].vector.at(2), control["simple:quotes"][0].vector.at(2))
    by_row = random_pushes(lambda row: own[row.cells[0]], seed=4)
    (row, *_) = prompts(1)
    assert callable(by_row) and torch.equal(by_row(row)[0].vector.direction, control[row.cells[0]][0].vector.direction)
    added = Application("add", "residual", gate=Gate(0.1)).at(next(iter(own.values()))[0].vector, Cell(1, 0.3))
    same = randomised(added[0], 0)
    assert (same.strength, same.unit, same.gate) == (0.3, "residual", Gate(0.1))


def test_shown_prompts_may_be_steered_otherwise() -> None:
    rows, own, other = prompts(1, split="test"), pushes(), pushes(strength=5.0)
    planned = plan_arms(rows, own, shown_pushes=other, arms=FOUR)
    acting = {(arm, row.cells[0]): request.interventions for row, arm, request in planned}
    for name in own:
        assert acting["steered", name] == own[name] and acting["both", name] == other[name]
        assert acting["none", name] == acting["instructed", name] == ()
    both = plan_arms(rows, own, arms=("both",))
    assert [request.interventions for _, _, request in both] == [own[row.cells[0]] for row in rows]


def test_several_instructions_act_together_by_layer() -> None:
    found = fit_instructions(tiny("llama"), pairs(4))
    own = {
        "simple:lowercase": Application().at(found["simple:lowercase"], Cell(3)),
        "simple:quotes": Application().at(found["simple:quotes"], Cell(1)),
    }
    (row,) = prompts(1, [("simple:lowercase", "simple:quotes")])
    assert [i.at for i in pushed(row, own)] == [(1,), (3,)]
    assert pushed(row, {}) == ()


def test_follow_rates_changes_and_quality_come_from_the_answers() -> None:
    rows = prompts(3, split="test")
    planned = plan_arms(rows, {}, arms=ARMS)
    blank = generate(
        tiny("llama"), [request for _, _, request in planned], Settings(max_new_tokens=1, greedy=True, stop=())
    )
    run = gather(planned, blank)
    assert set(run.table.columns) == {"instruction", "n", *ARMS} and run.table["n"].tolist() == [9, 3, 3, 3]
    pairs_told = {(b, a) for b, a in run.followed.changes()[["before", "after"]].to_numpy().tolist()}
    assert ("instructed", "guided") in pairs_told and ("none", "steered") in pairs_told
    quality = run.quality(
        embed=lambda texts: np.array([[float(len(t)), 1.0] for t in texts]), judge=lambda q, a: [0.5] * len(a)
    )
    assert {"words", "repetition", "relevance", "judged"} <= set(quality.measures)
    table = quality.table()
    assert set(table[table["measure"] == "relevance"]["arm"]) == set(ARMS)


def test_what_is_no_arm_is_refused() -> None:
    rows = prompts(1)
    for wrong in ((), ("none", "none"), ("none", "prompted")):
        with pytest.raises(SteerlabError, match="were given: give prompts"):
            inspect.unwrap(plan_arms)(rows, {}, arms=wrong)
    with pytest.raises(SteerlabError, match="0 prompts"):
        plan_arms([], {})
    with pytest.raises(SteerlabError, match="give one sample each"):
        gather(plan_arms(rows, {}), [])
