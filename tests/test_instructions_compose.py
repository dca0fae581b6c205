"""Composition reaches every target where it is orthogonalised, and the interference report says what each vector does to the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from steerlab.choice import Choice
from steerlab.compiled import TokenContext
from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell
from steerlab.generation import Settings
from steerlab.instructions import Application, Placed, compose, fit_instructions, interference, target
from steerlab.instructions.composition import cosines
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import Positions, Site
from tests.instruct import pairs, prompts
from tests.tiny import LAYERS, D, tiny, vector

SETTINGS = Settings(max_new_tokens=6, greedy=True, stop=())


def placed(layers: tuple[int, ...] = (2, 2, 2), kind: str = "match") -> list[Placed]:
    found = fit_instructions(tiny("llama"), pairs(4)).values()
    application = Application(kind)  # type: ignore[arg-type]
    return [
        Placed(v, Cell(layer, 1.0 + i), application) for i, (v, layer) in enumerate(zip(found, layers, strict=True))
    ]


def edited(interventions: tuple[Intervention, ...], layer: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Random activations before and after."""
    h = 3 * torch.randn(1, 5, D, generator=torch.Generator().manual_seed(0))
    context = TokenContext(
        torch.arange(-5, 0)[None], torch.ones(1, 5, dtype=torch.int64), torch.ones(1, 5, dtype=torch.bool)
    )
    plan = Plan.uniform(interventions, 1).compile(D, n_layers=LAYERS)
    return h, plan.edit(Site(layer), h, context)


def test_orthogonalised_matching_at_one_layer_reaches_every_target_exactly() -> None:
    own = placed()
    told: Any = cosines({str(i): p for i, p in enumerate(own)})["cosine"]
    assert told.abs().max() > 0.2  # else there is nothing to get in the way
    before, after = edited(compose(own, orthogonal=True))
    plain = edited(compose(own))[1]
    missed = []
    for one in own:
        goal = target(one.vector, 2, one.cell.strength)
        torch.testing.assert_close(after @ one.vector.at(2), torch.full((1, 5), goal), rtol=1e-4, atol=1e-4)
        missed.append(float((plain @ one.vector.at(2) - goal).abs().max()))
    assert max(missed[:2]) > 0.1 and missed[2] < 1e-4
    span = torch.linalg.qr(torch.stack([one.vector.at(2) for one in own]).T).Q
    rest = [h - h @ span @ span.T for h in (before, after)]
    torch.testing.assert_close(rest[0], rest[1], rtol=1e-4, atol=1e-4)


def test_each_direction_is_orthogonal_to_the_earlier_ones_at_its_layer() -> None:
    own = placed((1, 2, 3), "add")
    made = compose(own, orthogonal=True)
    assert [i.at for i in made] == [(1,), (2,), (3,)]
    assert [i.strength for i in made] == [1.0, 2.0, 3.0]
    for number, push in enumerate(made):
        for other in own[:number]:
            assert abs(float(push.vector.at(number + 1) @ other.vector.at(number + 1))) < 1e-5
    assert made[0].vector is own[0].vector


def test_plain_composition_is_what_each_does_alone_by_layer() -> None:
    own = placed((3, 1, 2))
    assert compose(own) == (*own[1].interventions, *own[2].interventions, *own[0].interventions)
    silent = [replace(own[0], cell=Cell(3, 0.0)), *own[1:]]
    assert compose(silent) == compose(own[1:]) and len(compose(silent, orthogonal=True)) == 2


def test_orthogonal_vectors_are_left_as_they_are() -> None:
    one = vector(1)
    other = vector(2).project_out(one)
    own = [Placed(v, Cell(1, 2.0), Application("add")) for v in (one, other)]
    first, second = compose(own, orthogonal=True)
    torch.testing.assert_close(second.vector.at(1), other.at(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(edited((first, second), 1)[1], edited(compose(own), 1)[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["match", "match_up", "add", "subtract"])
def test_a_vector_is_placed_where_its_header_says(kind: str) -> None:
    (v, *_) = fit_instructions(tiny("llama"), pairs(4)).values()
    unit = "residual" if kind in ("add", "subtract") else "raw"
    how = Application(kind, unit, cap=0.5, gate=Gate(0.1), positions=Positions.parse("last:2"))  # type: ignore[arg-type]
    (one,) = how.at(v, Cell(2, 1.5))
    choice = Choice(
        one.at, one.strength, str(one.operator), one.unit, one.target, str(one.positions), cap=one.cap, gate=(0.1, True)
    )
    own = Placed.as_chosen(replace(v, choice=choice))
    assert own.cell.layer == 2 and own.cell.strength == pytest.approx(1.5) and own.application == how
    (again,) = own.interventions
    assert (again.strength, again.unit, again.operator) == (one.strength, one.unit, one.operator)
    assert again.target == pytest.approx(one.target)
    assert (
        Placed.as_chosen(replace(v, choice=replace(choice, strength=0.0, operator="add", target=0.0))).interventions
        == ()
    )
    with pytest.raises(SteerlabError, match="is chosen for the layers"):
        Placed.as_chosen(replace(v, choice=replace(choice, layers=(1, 2))))
    with pytest.raises(SteerlabError, match="no layer and strength were chosen"):
        Placed.as_chosen(v)


def test_parallel_vectors_cannot_be_told_apart() -> None:
    own = [Placed(v, Cell(1, 2.0), Application("add")) for v in (vector(1), vector(1))]
    with pytest.raises(SteerlabError, match="are parallel at layer 1"):
        compose(own, orthogonal=True)


def test_the_report_has_every_condition_and_the_rates_of_each_and_all() -> None:
    both = prompts(3, [("simple:lowercase", "simple:quotes")], split="test")
    own = {p.vector.name: p for p in placed() if p.vector.name != "simple:uppercase"}
    found = interference(tiny("llama"), own, both, settings=SETTINGS)
    rates: Any = found.rates
    assert list(dict.fromkeys(rates["acting"])) == ["none", *own, "together", "together, orthogonal"]
    assert set(rates["instruction"]) == {*own, "all"} and (rates["n"] == 3).all() and len(rates) == 15
    wide: Any = rates.pivot(index="acting", columns="instruction", values="followed")
    assert (wide["all"] <= wide[list(own)].min(axis=1)).all()
    (cosine,) = found.cosines["cosine"]
    a, b = own.values()
    assert cosine == pytest.approx(float(a.vector.at(2) @ b.vector.at(2)), abs=1e-5)
    assert "together, orthogonal" in found._repr_html_()
    with pytest.raises(SteerlabError, match="at least two vectors"):
        interference(tiny("llama"), own, prompts(2), settings=SETTINGS)
