"""Every row of a batch gets its own interventions and nothing else; the compiled plan equals the slow reference."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from steerlab.compiled import Shift, TokenContext
from steerlab.errors import SteerlabError
from steerlab.provenance import Provenance
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import ALL, GENERATED, LAST_PROMPT, PROMPT, WRITING, Positions, Site, Stream
from steerlab.vectors import SteeringVector
from tests.reference import steering as reference

D = 48
SITE = Site(1)


def _vector(seed: int, layers: tuple[int, ...] = (0, 1, 3), stream: Stream = "resid_post") -> SteeringVector:
    raw = torch.randn(len(layers), D, generator=torch.Generator().manual_seed(seed))
    norm = torch.arange(1.0, len(layers) + 1)
    return SteeringVector.from_raw(
        f"v{seed}", raw, layers, residual_norm=norm, stream=stream, provenance=Provenance(model="m", method="test")
    )


A, B = _vector(1), _vector(2)


def _h(b: int, s: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return 3 * torch.randn(b, s, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _context(lengths: list[int], steps: int = 2, width: int = 8) -> TokenContext:
    return TokenContext(*reference.context(lengths, steps, width))


def _everything() -> Plan:
    """Rows of every kind: nothing, one, several, all operators, positions, gates, units."""
    return Plan(
        (
            (),
            (Intervention(A, 1, strength=4.0),),
            (Intervention(A, 1, strength=4.0), Intervention(B, (0, 1), strength=-2.0)),
            (Intervention(A, 1, "ablate", positions=PROMPT), Intervention(B, 1, strength=2.0, positions=GENERATED)),
            (Intervention(A, 1, "match", 0.8, "residual", target=1.5, positions=WRITING),),
            (Intervention(A, 1, "scale", 1.5, positions=Positions(skip_ids=(0, 3))),),
            (Intervention(A, 1, "rotate", 0.3, positions=Positions(-3, 1)), Intervention(A, 1, "ablate", 0.5)),
            (Intervention(A, 1, strength=3.0, gate=Gate(0.05)), Intervention(B, 1, "ablate", gate=Gate(0.0, above=False))),
            (Intervention(A, 1, strength=0.0), Intervention(A, 1, "rotate", 0.0)),
            (Intervention(A, 1, strength=0.5, unit="residual", positions=LAST_PROMPT),),
            (Intervention(A, 3, strength=9.0), Intervention(_vector(5, stream="mlp_out"), 1, strength=9.0)),
            (Intervention(A, 1, strength=1.0, positions=Positions(only_ids=(3, 5))),),
        )
    )


LENGTHS = [6, 1, 4, 3, 6, 5, 2, 6, 4, 3, 6, 6]


def test_the_compiled_plan_equals_the_slow_reference_at_every_site() -> None:
    plan, context = _everything(), _context(LENGTHS)
    compiled = plan.compile(D)
    assert compiled.sites == (Site(0), Site(1, "mlp_out"), Site(1), Site(3))
    for site in (*compiled.sites, Site(2)):
        h = _h(len(plan), 8)
        want = reference.edit(plan, site, h, context.relative, context.ids, context.real)
        torch.testing.assert_close(compiled.edit(site, h, context).double(), want, rtol=1e-5, atol=1e-5)


def test_every_kind_of_row_is_changed_where_it_should_be_and_nowhere_else() -> None:
    plan, context, h = _everything(), _context(LENGTHS), _h(12, 8)
    change = reference.edit(plan, SITE, h, context.relative, context.ids, context.real) - h.double()
    want = change.abs().amax(-1) > 1e-6
    got = (plan.compile(D).edit(SITE, h, context) != h).any(-1)
    assert torch.equal(got, want)
    assert not (got & ~context.real).any()
    assert got.any(1).tolist() == [False, *[True] * 7, False, True, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_a_mixed_batch_gets_the_bits_of_the_row_alone(dtype: torch.dtype) -> None:
    plan, h, context = _everything(), _h(12, 8, dtype=dtype), _context(LENGTHS)
    together = plan.compile(D, dtype).edit(SITE, h, context)
    for row in range(len(plan)):
        part = slice(row, row + 1)
        single = TokenContext(context.relative[part], context.ids[part], context.real[part])
        alone = plan.select([row]).compile(D, dtype).edit(SITE, h[part], single)
        assert torch.equal(alone[0], together[row]), row


def test_a_prefill_and_single_steps_give_the_bits_of_one_forward() -> None:
    plan, h, context = _everything(), _h(12, 8), _context(LENGTHS)
    compiled = plan.compile(D)
    whole = compiled.edit(SITE, h, context)
    for chunk in (slice(0, 6), slice(6, 7), slice(7, 8)):
        part = TokenContext(context.relative[:, chunk], context.ids[:, chunk], context.real[:, chunk])
        assert torch.equal(compiled.edit(SITE, h[:, chunk], part), whole[:, chunk])


def test_rows_without_an_intervention_are_bitwise_untouched() -> None:
    h = _h(3, 4)
    h[0, 0], h[2, 1, 3], h[2, 2, 4] = -0.0, float("nan"), float("inf")
    plan = Plan(((), (Intervention(A, 1, strength=4.0),), (Intervention(A, 1, "rotate", 0.0),)))
    out = plan.compile(D).edit(SITE, h, _context([2, 2, 2], width=4))
    assert torch.equal(out[[0, 2]].view(torch.int32), h[[0, 2]].view(torch.int32))
    assert (out[1] != h[1]).any()


def test_strength_zero_compiles_to_nothing() -> None:
    plan = Plan.uniform([Intervention(A, 1, strength=0.0), Intervention(B, 1, "ablate", 0.0)], 3)
    assert plan.compile(D).sites == ()
    h = _h(3, 4)
    assert plan.compile(D).edit(SITE, h, _context([2, 2, 2], width=4)) is h
    assert Plan.none(3).compile(D).sites == ()


def test_padding_is_never_edited_and_its_nan_stays_its_own() -> None:
    context, h = _context([1, 6]), _h(2, 8)
    h[~context.real] = float("nan")
    for operator in ("add", "ablate", "match", "scale", "rotate"):
        out = Plan.uniform([Intervention(A, 1, operator, 0.5)], 2).compile(D).edit(SITE, h, context)
        assert out[~context.real].isnan().all()
        assert out[context.real].isfinite().all()
        assert (out[context.real] != h[context.real]).any(-1).all()


def test_two_vectors_on_one_layer_accumulate_and_neither_replaces_the_other() -> None:
    plan = Plan.uniform([Intervention(A, 1, strength=2.0), Intervention(B, 1, strength=3.0)], 2)
    h = _h(2, 4)
    out = plan.compile(D).edit(SITE, h, _context([2, 2], width=4))
    torch.testing.assert_close(out - h, (2 * A.at(1) + 3 * B.at(1)).expand(2, 4, D), atol=2e-6, rtol=1e-5)


def test_interventions_act_in_the_order_given() -> None:
    first = (Intervention(A, 1, strength=4.0), Intervention(A, 1, "ablate"))
    h = _h(2, 4)
    out = Plan((first, first[::-1])).compile(D).edit(SITE, h, _context([2, 2], width=4))
    assert (out[0] @ A.at(1)).abs().max() < 1e-5
    torch.testing.assert_close(out[1] @ A.at(1), torch.full((4,), 4.0))


def test_adds_everywhere_are_one_broadcast_addition_per_layer() -> None:
    rows = tuple((Intervention(v, layer, strength=s),) for v in (A, B) for layer in (0, 1, 3) for s in (1.0, 2.0))
    compiled = Plan((*rows, ())).compile(D, torch.bfloat16)
    for site in compiled.sites:
        (group,) = compiled.groups[site]
        assert isinstance(group, Shift)
        assert group.delta.shape == (13, 1, D)
        assert group.delta.dtype == torch.bfloat16


def test_residual_units_are_fractions_of_the_mean_norm_at_each_layer() -> None:
    fraction = Plan.uniform([Intervention(A, (0, 1, 3), strength=0.5, unit="residual")], 1).compile(D)
    for layer, norm in ((0, 1.0), (1, 2.0), (3, 3.0)):
        raw = Plan.uniform([Intervention(A, layer, strength=0.5 * norm)], 1).compile(D)
        h, context = _h(1, 4), _context([2], width=4)
        assert torch.equal(fraction.edit(Site(layer), h, context), raw.edit(Site(layer), h, context))


def test_the_last_prompt_token_belongs_to_writing_and_not_to_generated() -> None:
    h, context = _h(1, 6), _context([4], width=6)
    moved = {}
    for name, positions in (("writing", WRITING), ("generated", GENERATED), ("last", LAST_PROMPT)):
        out = Plan.uniform([Intervention(A, 1, positions=positions)], 1).compile(D).edit(SITE, h, context)
        moved[name] = (out != h).any(-1)[0].tolist()
    assert moved["writing"] == [False, False, False, True, True, True]
    assert moved["generated"] == [False, False, False, False, True, True]
    assert moved["last"] == [False, False, False, True, False, False]


def test_relative_positions_are_read_per_row() -> None:
    relative = torch.tensor([[0], [-3]])  # one row writes, the other still reads its prompt
    context = TokenContext(relative, torch.ones(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool))
    h = _h(2, 1)
    out = Plan.uniform([Intervention(A, 1, positions=GENERATED)], 2).compile(D).edit(SITE, h, context)
    assert (out != h).any(-1)[:, 0].tolist() == [True, False]


def test_a_gate_opens_by_the_cosine_at_each_token() -> None:
    v, context = A.at(1), _context([2, 2], width=4)
    h = _h(2, 4, seed=3)
    cosine = torch.nn.functional.cosine_similarity(h, v, dim=-1)
    for gate, open_ in ((Gate(-0.05), cosine > -0.05), (Gate(-0.05, above=False), cosine < -0.05)):
        out = Plan.uniform([Intervention(A, 1, strength=5.0, gate=gate)], 2).compile(D).edit(SITE, h, context)
        assert torch.equal((out != h).any(-1), open_)
        assert 0 < open_.sum() < open_.numel()


def test_h_is_not_written_to() -> None:
    plan, h, context = _everything(), _h(12, 8), _context(LENGTHS)
    before = h.clone()
    plan.compile(D).edit(SITE, h, context)
    assert torch.equal(h, before)


@pytest.mark.parametrize("index", [[11, 3, 0, 7], [5], [0, 8], [6, 6, 2], list(range(12))])
def test_selecting_rows_of_the_compiled_plan_is_compiling_the_selected_plan(index: list[int]) -> None:
    plan, h = _everything(), _h(len(index), 8)
    context = _context([LENGTHS[i] for i in index])
    late, early = plan.compile(D).select(torch.tensor(index)), plan.select(index).compile(D)
    assert set(late.sites) == set(early.sites)
    for site in (Site(0), Site(1), Site(1, "mlp_out"), Site(3)):
        assert torch.equal(late.edit(site, h, context), early.edit(site, h, context))


def test_masks_are_computed_once_per_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Positions] = []
    original = Positions.mask
    monkeypatch.setattr(Positions, "mask", lambda self, *a: calls.append(self) or original(self, *a))
    compiled = Plan.uniform([Intervention(A, (0, 1, 3)), Intervention(B, (0, 1), "ablate", positions=PROMPT)], 2).compile(D)
    context = _context([6, 2])
    for site in compiled.sites:
        compiled.edit(site, _h(2, 8), context)
    assert sorted(calls, key=str) == [ALL, PROMPT]


def test_plans_are_built_from_rows() -> None:
    one, two = Intervention(A, 1), Intervention(B, 1)
    plan = Plan.uniform([one], 1) + Plan.uniform([two], 1)
    assert plan.repeat(2).rows == ((one,), (one,), (two,), (two,))
    assert plan.select([1, 0, 1]).rows == ((two,), (one,), (two,))
    assert len(Plan.none(3)) == 3
    assert Plan.uniform([one], 2).sites == (Site(1),)
    assert Intervention(A, (1, 3)).at == (1, 3)
    assert Intervention(A, 1).layers == (1,)


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


def test_a_plan_for_another_batch_size_is_refused() -> None:
    compiled = Plan.uniform([Intervention(A, 1)], 2).compile(D)
    with pytest.raises(SteerlabError, match="the plan has 2 rows, but the batch has 3"):
        compiled.edit(SITE, _h(3, 8), _context([6, 6, 6]))


def test_the_model_is_checked_before_tensors_are_built() -> None:
    plan = Plan((() , (Intervention(A, 3),)))
    with pytest.raises(SteerlabError, match="layer 3 was given for vector 'v1' in row 1, but the model has layers 0 to 2"):
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
    with pytest.raises(SteerlabError, match="only 'match' has a target"):
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
