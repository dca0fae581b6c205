"""What interventions and plans mean, how they are built and described, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import WRITING, Site
from steerlab.vectors import SteeringVector
from tests.reference.plans import SITE, A, B, D, context_of, states


def test_strength_zero_compiles_to_nothing() -> None:
    plan = Plan.uniform([Intervention(A, 1, strength=0.0), Intervention(B, 1, "ablate", 0.0)], 3)
    assert plan.compile(D).sites == ()
    h = states(3, 4)
    assert plan.compile(D).edit(SITE, h, context_of([2, 2, 2], width=4)) is h
    assert Plan.none(3).compile(D).sites == ()


def test_two_vectors_on_one_layer_accumulate_and_neither_replaces_the_other() -> None:
    plan = Plan.uniform([Intervention(A, 1, strength=2.0), Intervention(B, 1, strength=3.0)], 2)
    h = states(2, 4)
    out = plan.compile(D).edit(SITE, h, context_of([2, 2], width=4))
    torch.testing.assert_close(out - h, (2 * A.at(1) + 3 * B.at(1)).expand(2, 4, D), atol=2e-6, rtol=1e-5)


def test_interventions_act_in_the_order_given() -> None:
    first = (Intervention(A, 1, strength=4.0), Intervention(A, 1, "ablate"))
    h = states(2, 4)
    out = Plan((first, first[::-1])).compile(D).edit(SITE, h, context_of([2, 2], width=4))
    assert (out[0] @ A.at(1)).abs().max() < 1e-5
    torch.testing.assert_close(out[1] @ A.at(1), torch.full((4,), 4.0))


def test_residual_units_are_fractions_of_the_mean_norm_at_each_layer() -> None:
    fraction = Plan.uniform([Intervention(A, (0, 1, 3), strength=0.5, unit="residual")], 1).compile(D)
    for layer, norm in ((0, 1.0), (1, 2.0), (3, 3.0)):
        raw = Plan.uniform([Intervention(A, layer, strength=0.5 * norm)], 1).compile(D)
        h, context = states(1, 4), context_of([2], width=4)
        assert torch.equal(fraction.edit(Site(layer), h, context), raw.edit(Site(layer), h, context))


def test_plans_are_built_from_rows() -> None:
    one, two = Intervention(A, 1), Intervention(B, 1)
    plan = Plan.uniform([one], 1) + Plan.uniform([two], 1)
    assert plan.repeat(2).rows == ((one,), (one,), (two,), (two,))
    assert plan.select([1, 0, 1]).rows == ((two,), (one,), (two,))
    assert len(Plan.none(3)) == 3
    assert Plan.uniform([one], 2).sites == (Site(1),)
    assert Intervention(A, (1, 3)).at == (1, 3)
    assert Intervention(A, 1).layers == (1,)
    assert Intervention(A, 1, strength=25).to_json() == Intervention(A, 1, strength=25.0).to_json()
    assert json.dumps(Intervention(A, 1, strength=25).to_json()["strength"]) == "25.0"


def test_the_description_is_json_and_says_everything_that_matters() -> None:
    plan = Plan(((), (Intervention(A, 1, "match", 0.5, "residual", 2.0, WRITING, Gate(0.1)),)))
    described = json.loads(json.dumps(plan.to_json()))
    assert described == [
        [],
        [
            {
                "vector": "v1",
                "method": "test",
                "model": "m",
                "stream": "resid_post",
                "layers": [1],
                "operator": "match",
                "strength": 0.5,
                "unit": "residual",
                "target": 2.0,
                "positions": "writing",
                "gate": {"threshold": 0.1, "above": True},
            }
        ],
    ]


def test_the_model_is_checked_before_tensors_are_built() -> None:
    plan = Plan(((), (Intervention(A, 3),)))
    with pytest.raises(
        SteerlabError, match="layer 3 was given for vector 'v1' in row 1, but the model has layers 0 to 2"
    ):
        plan.compile(D, n_layers=3)
    with pytest.raises(SteerlabError, match="in row 1 has width 48, but the model has width 64"):
        plan.compile(64)
    plan.compile(D, n_layers=4)


def test_interventions_refuse_what_has_no_meaning() -> None:
    with pytest.raises(SteerlabError, match="no direction at layer 2: it has layers 0-1, 3"):
        Intervention(A, 2)
    with pytest.raises(SteerlabError, match="each once"):
        Intervention(A, (1, 1))
    with pytest.raises(SteerlabError, match="at least one layer"):
        Intervention(A, ())
    with pytest.raises(SteerlabError, match="finite"):
        Intervention(A, 1, strength=float("nan"))
    with pytest.raises(SteerlabError, match="only 'match' and 'match_up' have a target"):
        Intervention(A, 1, "ablate", target=1.0)
    with pytest.raises(SteerlabError, match="'residual' was given for 'rotate'"):
        Intervention(A, 1, "rotate", 0.1, "residual")
    with pytest.raises(SteerlabError, match="between -1 and 1"):
        Gate(1.5)
    bare = SteeringVector.from_raw("bare", torch.ones(1, D), (1,))
    with pytest.raises(SteerlabError, match="does not record the residual norm at layer 1"):
        Intervention(bare, 1, unit="residual")
    Intervention(bare, 1, unit="raw")


def test_an_addition_too_large_for_the_dtype_is_refused() -> None:
    plan = Plan.uniform([Intervention(A, 1, strength=1e7)], 1)
    with pytest.raises(SteerlabError, match=r"row 0 overflow torch\.float16"):
        plan.compile(D, torch.float16)
    plan.compile(D, torch.bfloat16)
