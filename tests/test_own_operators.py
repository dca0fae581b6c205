"""A function can be an operator: it acts as a built-in of its formula, strength 0 is bitwise nothing, and what is none is refused."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab import operators
from steerlab.compiled import TokenContext
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.operators import name_of
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import GENERATED, LAST_PROMPT, Positions, Site
from tests.tiny import CORE, D, tiny, vector


def own_match(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return h + strength * (target - (h * v).sum(-1, keepdim=True)) * v


def cap(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    """At most `target` along v."""
    along = (h * v).sum(-1, keepdim=True)
    return h + strength * (torch.minimum(along, target) - along) * v


def plain_add(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return h + strength * v


def _context(b: int, s: int) -> TokenContext:
    real = torch.ones(b, s, dtype=torch.bool)
    real[0, :2] = False  # left padding
    return TokenContext(torch.arange(-s, 0).repeat(b, 1), torch.ones(b, s, dtype=torch.long), real)


def _edited(rows: tuple[tuple[Intervention, ...], ...], h: Tensor) -> Tensor:
    return Plan(rows).compile(D, h.dtype).edit(Site(1), h, _context(*h.shape[:2]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions", [Positions(), Positions(-2, None)])
@pytest.mark.parametrize("gate", [None, Gate(0.0, above=False)])
def test_a_function_acts_as_the_built_in_of_its_formula(
    dtype: torch.dtype, positions: Positions, gate: Gate | None
) -> None:
    h = torch.randn(4, 5, D, generator=torch.Generator().manual_seed(0)).to(dtype)
    how: dict[str, Any] = {"target": 0.7, "positions": positions, "gate": gate}
    made = [
        _edited(
            (
                (Intervention(vector(1), 1, operator, 0.5, **how),),
                (),
                (Intervention(vector(2), 1, "add", 3.0), Intervention(vector(3), 1, operator, 1.0, **how)),
                (Intervention(vector(1), 1, operator, 0.0, **how),),
            ),
            h,
        )
        for operator in (own_match, "match")
    ]
    assert torch.equal(*made) and made[0].dtype == dtype
    assert not torch.equal(made[0][0], h[0]) and torch.equal(made[0][[1, 3]], h[[1, 3]])
    assert torch.equal(made[0][0, :2], h[0, :2])  # padding


def test_strength_zero_is_bitwise_nothing_whatever_the_function_does() -> None:
    h = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(1))
    h[0, 0, 0], h[1, 1, 3], h[2, 0, 1] = float("nan"), -0.0, float("inf")
    v = torch.nn.functional.normalize(torch.ones(3, 1, 8), dim=-1)
    zero, half = torch.zeros(3, 1, 1), torch.tensor([0.0, 0.0, 0.5])[:, None, None]
    for dtype in (torch.float32, torch.bfloat16):
        cast = h.to(dtype)
        bits = torch.int32 if dtype == torch.float32 else torch.int16
        for operator in (plain_add, cap, own_match):
            assert torch.equal(operators.apply(operator, cast, v, zero, zero).view(bits), cast.view(bits))
        some = operators.apply(plain_add, cast, v, half, zero)
        assert torch.equal(some[:2].view(bits), cast[:2].view(bits)) and not torch.equal(some[2, 1], cast[2, 1])
    assert not torch.equal(plain_add(h, v, zero, zero).view(torch.int32), h.view(torch.int32))  # by itself it is not


@pytest.mark.parametrize("family", CORE)
def test_a_batch_steered_by_a_function_equals_its_singles_while_generating(family: str) -> None:
    model = tiny(family)
    capped = Intervention(vector(4), 1, cap, target=-1.0)
    late = Intervention(vector(5), (0, 2), plain_add, 4.0, positions=GENERATED)
    first = Intervention(vector(5), 2, own_match, 1.0, target=5.0, positions=LAST_PROMPT)
    texts = ["a cat", "the longest of the prompts here", "dog"]
    rows = [
        Request(t, ("r", i), steps)
        for i, (t, steps) in enumerate(zip(texts, ((capped,), (late, first), ()), strict=True))
    ]
    settings = Settings(max_new_tokens=8)
    together = [s.tokens for s in generate(model, rows, settings)]
    assert together == [generate(model, [row], settings)[0].tokens for row in rows]
    plain = [s.tokens for s in generate(model, [Request(t, ("r", i)) for i, t in enumerate(texts)], settings)]
    assert together[2] == plain[2] and together[1] != plain[1]


def test_a_cap_holds_the_projection_at_its_target() -> None:
    h = torch.randn(1, 6, D, generator=torch.Generator().manual_seed(3)) * 3
    one = Intervention(vector(4), 1, cap, target=0.25)
    real, v = _context(1, 6).real, vector(4).at(1)
    before, after = h @ v, _edited(((one,),), h) @ v
    torch.testing.assert_close(after[real], before[real].clamp(max=0.25), atol=1e-5, rtol=0)
    assert bool((before[real] > 0.25).any()) and bool((before[real] < 0.25).any())


def _grows(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return h + v  # whatever the strength


def _flat(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return (h + strength * v).sum(-1)


def _in_place(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return h.add_(strength * v)


def _over_tokens(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return h + strength * h.mean(dim=1, keepdim=True)


def _over_rows(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return h + strength * h.mean(dim=0, keepdim=True)


def _broken(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Tensor:
    return h / (strength - 0.5)


def _nothing(h: Tensor, v: Tensor, strength: Tensor, target: Tensor) -> Any:
    return None


@pytest.mark.parametrize(
    ("operator", "because"),
    [
        (_grows, "changes activations at strength 0"),
        (_flat, r"returned a tensor of shape \(2, 3\)"),
        (_in_place, "writes to the activations"),
        (_over_tokens, "gives a token another result beside other tokens than alone"),
        (_over_rows, "gives a token another result beside other tokens than alone"),
        (_broken, "return finite ones"),
        (_nothing, "returned a NoneType"),
    ],
)
def test_what_is_no_operator_is_refused(operator: Any, because: str) -> None:
    with pytest.raises(SteerlabError, match=rf"operator test_own_operators.{operator.__name__}@\w{{8}} .*{because}"):
        Intervention(vector(0), 1, operator)


def test_numbers_of_a_function_are_raw() -> None:
    with pytest.raises(SteerlabError, match="unit 'residual' was given for 'test_own_operators.cap@"):
        Intervention(vector(0), 1, cap, unit="residual")
    assert Intervention(vector(0), 2, cap, 0.5, target=3.0).numbers(2) == (0.5, 3.0)


def test_the_record_names_the_function_and_what_it_does() -> None:
    one = Intervention(vector(0), 1, cap, target=2.0).to_json()
    assert str(one["operator"]).startswith("test_own_operators.cap@") and one["target"] == 2.0
    assert name_of(cap) == name_of(importlib.import_module(__name__).cap) != name_of(own_match)

    def made(by: float) -> Any:
        code = f"def f(h, v, strength, target):\n    return h + {by} * strength * v"
        space: dict[str, Any] = {}
        exec(code, space)
        return space["f"]

    assert name_of(made(2.0)) == name_of(made(2.0)) != name_of(made(3.0))
    with pytest.raises(SteerlabError, match="is a function, which no record can hold"):
        Intervention.from_json(one, vector(0))


def test_a_record_and_its_vector_make_the_intervention_again() -> None:
    given = [
        Intervention(vector(0), (1, 3), strength=0.25, unit="residual", positions=LAST_PROMPT),
        Intervention(vector(0), 2, "match", target=4, gate=Gate(0.1, above=False), positions=Positions(-5, 0)),
    ]
    for one in given:
        again = Intervention.from_json(one.to_json(), one.vector)
        assert again.to_json() == one.to_json() and again.numbers(one.at[0]) == one.numbers(one.at[0])
        assert again.gate == one.gate and again.positions == one.positions and again.vector is one.vector
    with pytest.raises(SteerlabError, match="'v0' .* was described and vector 'v1'"):
        Intervention.from_json(given[0].to_json(), vector(1))
    odd = Intervention(vector(0), 1, positions=Positions(skip_ids=(1,)))
    with pytest.raises(SteerlabError, match="are not known"):
        Intervention.from_json(odd.to_json(), vector(0))
