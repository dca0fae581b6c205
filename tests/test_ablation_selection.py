"""The choice follows its rule, on prompts that do not judge it, and comes back from the vector's header as an intervention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from steerlab.ablation.dose import Design, DoseResponse
from steerlab.ablation.outcomes import summarise
from steerlab.ablation.selection import Rule, choose, recommended, save_choice, split_prompts, with_choice
from steerlab.errors import SteerlabError
from steerlab.types import GENERATED
from steerlab.vectors import SteeringVector
from tests.tiny import vector

N = 12  # prompts
Outcome = Callable[[str, int, float, int], dict[str, float]]  # arm, layer, strength, prompt -> outcomes


def _response(of: Outcome, **design: object) -> DoseResponse:
    """A sweep of one vector with planted outcomes: what every text would have measured."""
    made = Design({"jv": vector(0)}, (0, 2), **{"strengths": (0.3, 0.6), "directions": 1, **design})  # pyright: ignore
    fixed = {
        "in_target": 0.0,
        "agreement": float("nan"),
        "ended": 1.0,
        "log_perplexity": 2.0,
        "repetition": 0.0,
        "tokens": 9,
    }
    rows = []
    for place in made.places():
        for prompt in range(N):
            outcomes = of(place.arm, place.cell.layer, place.cell.strength, prompt) if place.arm == "vector" else {}
            facts = {**place.cell._asdict(), "arm": place.arm, "direction": 0, "prompt": prompt, "sample": 0}
            rows.append({**facts, "text": f"a b c {prompt} d {prompt}", **fixed, **outcomes})
    texts = pd.DataFrame(rows)
    return DoseResponse(summarise(texts), texts, tuple(map(str, range(N))), {"jv": "jv"}, made)


def _planted(values: dict[tuple[int, float], tuple[float, float]]) -> DoseResponse:
    """Share in the target language (as the first so many of twelve prompts, dealt evenly) and surprise, by layer and strength."""

    def of(arm: str, layer: int, strength: float, prompt: int) -> dict[str, float]:
        share, surprise = values[layer, strength]
        return {"in_target": float((prompt // 2) < share * N / 2), "log_perplexity": surprise}

    return _response(of)


def test_the_least_surprising_of_the_arms_that_reach_the_target_is_taken() -> None:
    found = choose(_planted({(0, 0.3): (0.5, 2.1), (0, 0.6): (1, 2.9), (2, 0.3): (1, 2.6), (2, 0.6): (1, 2.7)}), "jv")
    assert found.cell == ("jv", "add", 2, 0.3) and set(found.candidates["ruled_out"]) == {""}
    assert found.evidence["in_target"].value == 1 and found.evidence["in_target - unsteered"].value == 1
    assert found.evidence["log_perplexity - unsteered"].value == pytest.approx(0.6)
    assert "jv: add 0.3 at layer 2" in str(found) and "<table" in found._repr_html_()


def test_side_effects_rule_out() -> None:
    planted = {(0, 0.3): (0.5, 2.5), (0, 0.6): (1, 3.2), (2, 0.3): (5 / 6, 2.9), (2, 0.6): (1, 4.0)}
    found = choose(_planted(planted), "jv")
    assert found.cell[2:] == (2, 0.3)
    ruled: Any = found.candidates.set_index(["layer", "strength"])["ruled_out"]
    assert ruled.loc[(0, 0.6)] == "log_perplexity +1.20" and ruled.loc[(2, 0.3)] == ""
    assert choose(_planted(planted), "jv", Rule(limits={"log_perplexity": 1.5})).cell[2:] == (0, 0.6)
    with pytest.raises(
        SteerlabError, match=r"the one with the highest in_target \(add 0.6 at layer 0\) has log_perplexity \+1.20"
    ):
        choose(_planted(planted), "jv", Rule(limits={"log_perplexity": 0.1}))


def test_ties_go_to_the_weaker_then_the_earlier() -> None:
    assert choose(_planted(dict.fromkeys([(0, 0.3), (0, 0.6), (2, 0.3), (2, 0.6)], (1, 2.5))), "jv").cell[2:] == (
        0,
        0.3,
    )
    assert choose(
        _planted({(0, 0.3): (0, 2.5), (0, 0.6): (1, 2.5), (2, 0.3): (1, 2.5), (2, 0.6): (1, 2.5)}), "jv"
    ).cell[2:] == (2, 0.3)


def test_what_flatters_on_the_choosing_prompts_is_measured_on_the_others() -> None:
    """An arm that works behind the even prompts only is chosen by them, and the odd ones say what it is worth."""

    def of(arm: str, layer: int, strength: float, prompt: int) -> dict[str, float]:
        lucky = (layer, strength) == (0, 0.6)
        return {"in_target": float(prompt % 2 == 0) if lucky else 0.0}

    found = choose(_response(of), "jv")
    assert found.choosing == (0, 2, 4, 6, 8, 10) and found.checking == (1, 3, 5, 7, 9, 11)
    flattered: Any = found.candidates["in_target"]
    assert found.cell[2:] == (0, 0.6) and flattered.max() == 1
    assert found.evidence["in_target"].value == 0 and found.evidence["in_target"].high > 0
    turned = choose(_response(of), "jv", choosing=found.checking, checking=found.choosing)
    assert turned.cell[2:] == (0, 0.3)  # all the same there: the weakest


def test_the_operator_is_chosen_too() -> None:
    def of(arm: str, layer: int, strength: float, prompt: int) -> dict[str, float]:
        return {"in_target": 1.0, "log_perplexity": 2.2 if strength == 0.4 else 2.8}

    found = choose(_response(of, strengths={"add": (0.3,), "rotate": (0.4,)}), "jv")
    assert found.cell == ("jv", "rotate", 0, 0.4) and found.choice.operator == "rotate" and found.choice.unit == "raw"
    target = choose(_response(of, strengths={"match": (0.4,)}, positions=GENERATED), "jv").choice
    assert (target.operator, target.strength, target.target, target.unit) == ("match", 1.0, 0.4, "residual")
    assert target.positions == "generated"


def test_the_choice_comes_back_from_the_header_as_an_intervention(tmp_path: Path) -> None:
    path = tmp_path / "jv.safetensors"
    vector(0).save(path)
    with pytest.raises(SteerlabError, match="no layer and strength were chosen"):
        recommended(SteeringVector.load(path))
    found = choose(_planted(dict.fromkeys([(0, 0.3), (0, 0.6), (2, 0.3), (2, 0.6)], (1, 2.5))), "jv")
    saved = save_choice(path, found)
    loaded = SteeringVector.load(path)
    assert loaded.equals(saved) and loaded.equals(with_choice(vector(0), found))
    (place,) = (p for p in _planted_places(found.cell))
    made = recommended(loaded)
    assert made.vector is loaded and made.to_json() == place.to_json()
    assert loaded.choice is not None and loaded.choice.rule == str(Rule())
    assert ("in_target", 1.0) in [row[:2] for row in loaded.choice.evidence]


def _planted_places(cell: object) -> list:
    places = Design({"jv": vector(0)}, (0, 2), (0.3, 0.6)).places()
    return [p.interventions[0] for p in places if p.cell == cell and p.arm == "vector"]


def test_what_cannot_be_chosen_from_is_refused() -> None:
    response = _planted(dict.fromkeys([(0, 0.3), (0, 0.6), (2, 0.3), (2, 0.6)], (1, 2.5)))
    with pytest.raises(SteerlabError, match="was not in the sweep"):
        choose(response, "su")
    with pytest.raises(SteerlabError, match="give each to one side"):
        choose(response, "jv", choosing=[0, 1], checking=[1, 2])
    with pytest.raises(SteerlabError, match="agreement was not measured"):
        choose(response, "jv", Rule("agreement"))
    with pytest.raises(SteerlabError, match=r"measures \['beauty'\] are not known"):
        Rule("beauty")
    with pytest.raises(SteerlabError, match="at least two"):
        split_prompts(1)
    unjudged = Rule(limits={"agreement": 0.5})
    with pytest.raises(
        SteerlabError, match="has agreement unknown"
    ):  # a side effect that was not measured is not within its limit
        choose(response, "jv", unjudged)
