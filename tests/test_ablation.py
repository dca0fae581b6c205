"""Sweeps: arms share their noise, mixed batches equal single ones, and the best arm is chosen by rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from steerlab.ablation import Arm, best_arm, grid, score_arms, sweep
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.generation import Settings
from steerlab.types import GENERATED
from tests.tiny import tiny, vector

SETTINGS = Settings(max_new_tokens=10, stop=(), seed=3)
PROMPTS = ("Tell me of the river.", "Say it again.")


def _texts(table: Any, arm: str, strength: float | None = None, layer: int | None = None) -> list[str]:
    own = table[table["arm"] == arm]
    own = own if strength is None else own[own["strength"] == strength]
    own = own if layer is None else own[own["layer"] == layer]
    return own["text"].tolist()


def test_the_grid_has_one_arm_for_each_choice() -> None:
    arms = grid({"a": vector(0), "b": vector(1)}, [0, 2, 3], [0.5, 1.0], positions=GENERATED)
    assert len(arms) == 2 * 3 * 2
    assert {(arm.name, arm.layer, arm.strength) for arm in arms} == {
        (name, layer, strength) for name in "ab" for layer in (0, 2, 3) for strength in (0.5, 1.0)
    }
    for arm in arms:
        (one,) = arm.interventions
        assert one.at == (arm.layer,) and one.strength == arm.strength
        assert one.unit == "residual" and one.positions == GENERATED
        assert one.vector.name == {"a": "v0", "b": "v1"}[arm.name]
        # The vector records layer + 1 as the mean residual norm: a fraction of it is what is added.
        assert one.numbers(one.at[0])[0] == arm.strength * (one.at[0] + 1)
    assert grid({"a": vector(0)}, [1], [2.0], unit="raw")[0].interventions[0].numbers(1)[0] == 2.0


def test_arms_share_their_noise() -> None:
    """The arm of strength 0 writes the unsteered texts one by one, behind the same prompt and under the same number."""
    arms = [Arm("plain"), *grid({"v": vector(0)}, [1], [0.0, 6.0])]
    table = sweep(tiny("llama"), arms, PROMPTS, 3, SETTINGS)
    assert len(table) == 3 * 2 * 3
    assert _texts(table, "v", 0.0) == _texts(table, "plain")
    assert _texts(table, "v", 6.0) != _texts(table, "plain")
    assert len(set(_texts(table, "plain"))) == 6  # and the samples of one arm do not share theirs
    assert table[["prompt", "sample"]].drop_duplicates().shape[0] == 6
    assert max(table["tokens"].tolist()) <= 10


def test_a_mixed_batch_writes_what_separate_sweeps_write() -> None:
    arms = [Arm("plain"), *grid({"a": vector(0), "b": vector(1)}, [0, 3], [1.5, 4.0])]
    mixed = sweep(tiny("llama"), arms, PROMPTS, 2, SETTINGS, batch_rows=7)
    single = pd.concat([sweep(tiny("llama"), [arm], PROMPTS, 2, SETTINGS, batch_rows=4) for arm in arms])
    for column in ("arm", "prompt", "sample", "text", "tokens", "ended"):
        assert mixed[column].tolist() == single[column].tolist()
    assert len({tuple(_texts(mixed, "a", s, layer)) for s in (1.5, 4.0) for layer in (0, 3)}) == 4


def test_prompts_are_put_behind_the_template_unless_told_otherwise() -> None:
    arms = [Arm("plain")]
    chat, bare = (sweep(tiny("llama"), arms, PROMPTS, 2, SETTINGS, chat=chat) for chat in (True, False))
    assert chat["text"].tolist() != bare["text"].tolist()


@pytest.mark.parametrize(
    ("arms", "prompts", "samples"), [((), PROMPTS, 1), ((Arm("a"),), (), 1), ((Arm("a"),), PROMPTS, 0)]
)
def test_an_empty_sweep_is_refused(arms: Sequence[Arm], prompts: Sequence[str], samples: int) -> None:
    with pytest.raises(SteerlabError, match="give at least one of each"):
        sweep(tiny("llama"), arms, prompts, samples, SETTINGS)


def test_scores_are_taken_arm_by_arm() -> None:
    rows = [("a", 0, 1.0, "x"), ("a", 0, 1.0, "xx"), ("a", 1, 1.0, "xxx"), ("plain", None, 0.0, "xxxx")]
    table = pd.DataFrame(rows, columns=["arm", "layer", "strength", "text"])
    seen: list[tuple[str, list[str]]] = []

    def length(arm: str, texts: list[str]) -> Estimate:
        seen.append((arm, texts))
        mean = sum(map(len, texts)) / len(texts)
        return Estimate(mean, mean - 1, mean + 1, len(texts))

    scores = score_arms(table, length)
    assert seen == [("a", ["x", "xx"]), ("a", ["xxx"]), ("plain", ["xxxx"])]
    assert scores["value"].tolist() == [1.5, 3.0, 4.0] and scores["n"].tolist() == [2, 1, 1]
    assert scores["low"].tolist() == [0.5, 2.0, 3.0] and scores["high"].tolist() == [2.5, 4.0, 5.0]
    assert math.isnan(scores["layer"].tolist()[2])


def test_the_best_arm_wins_and_ties_go_to_the_weaker_then_the_earlier() -> None:
    rows = [
        ("a", 3, 0.5, 0.9),
        ("a", 2, 0.5, 0.9),
        ("a", 0, 1.0, 0.9),
        ("a", 1, 0.1, 0.8),
        ("b", 0, 1.0, 0.2),
        ("b", 5, 2.0, 0.7),
        ("b", 1, 0.1, math.nan),
    ]
    scores = pd.DataFrame(rows, columns=["arm", "layer", "strength", "value"])
    for order in (scores, scores.iloc[::-1]):
        best = best_arm(order).set_index("arm")
        assert tuple(best.loc["a", ["layer", "strength"]]) == (2, 0.5)
        assert tuple(best.loc["b", ["layer", "strength"]]) == (5, 2.0)
