"""Every row of a batch gets its own interventions and nothing else; the compiled plan equals the slow reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from steerlab.compiled import Shift, TokenContext
from steerlab.errors import SteerlabError
from steerlab.steering import Gate, Intervention, Plan
from steerlab.types import ALL, GENERATED, LAST_PROMPT, PROMPT, WRITING, Positions, Site
from tests.reference import steering as reference
from tests.reference.plans import LENGTHS, SITE, A, B, D, context_of, everything, states


def test_the_compiled_plan_equals_the_slow_reference_at_every_site() -> None:
    plan, context = everything(), context_of(LENGTHS)
    compiled = plan.compile(D)
    assert compiled.sites == (Site(0), Site(1, "mlp_out"), Site(1), Site(3))
    for site in (*compiled.sites, Site(2)):
        h = states(len(plan), 8)
        want = reference.edit(plan, site, h, context.relative, context.ids, context.real)
        torch.testing.assert_close(compiled.edit(site, h, context).double(), want, rtol=1e-5, atol=1e-5)


def test_every_kind_of_row_is_changed_where_it_should_be_and_nowhere_else() -> None:
    plan, context, h = everything(), context_of(LENGTHS), states(12, 8)
    change = reference.edit(plan, SITE, h, context.relative, context.ids, context.real) - h.double()
    want = change.abs().amax(-1) > 1e-6
    got = (plan.compile(D).edit(SITE, h, context) != h).any(-1)
    assert torch.equal(got, want)
    assert not (got & ~context.real).any()
    assert got.any(1).tolist() == [False, *[True] * 7, False, True, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_a_mixed_batch_gets_the_bits_of_the_row_alone(dtype: torch.dtype) -> None:
    plan, h, context = everything(), states(12, 8, dtype=dtype), context_of(LENGTHS)
    together = plan.compile(D, dtype).edit(SITE, h, context)
    for row in range(len(plan)):
        part = slice(row, row + 1)
        single = TokenContext(context.relative[part], context.ids[part], context.real[part])
        alone = plan.select([row]).compile(D, dtype).edit(SITE, h[part], single)
        assert torch.equal(alone[0], together[row]), row


def test_a_prefill_and_single_steps_give_the_bits_of_one_forward() -> None:
    plan, h, context = everything(), states(12, 8), context_of(LENGTHS)
    compiled = plan.compile(D)
    whole = compiled.edit(SITE, h, context)
    for chunk in (slice(0, 6), slice(6, 7), slice(7, 8)):
        part = TokenContext(context.relative[:, chunk], context.ids[:, chunk], context.real[:, chunk])
        assert torch.equal(compiled.edit(SITE, h[:, chunk], part), whole[:, chunk])


def test_rows_without_an_intervention_are_bitwise_untouched() -> None:
    h = states(3, 4)
    h[0, 0], h[2, 1, 3], h[2, 2, 4] = -0.0, float("nan"), float("inf")
    plan = Plan(((), (Intervention(A, 1, strength=4.0),), (Intervention(A, 1, "rotate", 0.0),)))
    out = plan.compile(D).edit(SITE, h, context_of([2, 2, 2], width=4))
    assert torch.equal(out[[0, 2]].view(torch.int32), h[[0, 2]].view(torch.int32))
    assert (out[1] != h[1]).any()


def _held() -> Plan:
    """Rows with caps, one-sided matching and both, beside rows without."""
    return Plan(
        (
            (),
            (Intervention(A, 1, strength=40.0, cap=0.2), Intervention(B, 1, strength=2.0)),
            (Intervention(A, 1, "match_up", target=3.0),),
            (Intervention(A, 1, "match", target=30.0, cap=0.5, positions=GENERATED),),
            (Intervention(A, 1, "match_up", 0.5, "residual", target=2.0, cap=0.1, gate=Gate(0.0, above=False)),),
            (Intervention(A, 1, strength=1e-3, cap=0.2),),
            (Intervention(A, 1, strength=3.0),),
        )
    )


def test_caps_and_one_sided_matching_equal_the_slow_reference_and_their_rows_alone() -> None:
    plan, context, h = _held(), context_of(LENGTHS[:7]), states(7, 8)
    together = plan.compile(D).edit(SITE, h, context)
    want = reference.edit(plan, SITE, h, context.relative, context.ids, context.real)
    torch.testing.assert_close(together.double(), want, rtol=1e-5, atol=1e-5)
    free = Plan(tuple(tuple(replace(i, cap=None) for i in row) for row in plan.rows)).compile(D).edit(SITE, h, context)
    assert (free != together).any(-1).any(-1).tolist() == [False, True, False, True, True, False, False]
    for row in range(len(plan)):
        single = TokenContext(*(x[row : row + 1] for x in (context.relative, context.ids, context.real)))
        alone = plan.select([row]).compile(D).edit(SITE, h[row : row + 1], single)
        assert torch.equal(alone[0], together[row]), row


def test_a_scaled_plan_has_the_strengths_times_the_factors() -> None:
    context, h = context_of(LENGTHS), states(12, 8)
    plan = everything()
    compiled = plan.compile(D)
    factor = torch.tensor([1.0, 0.5, 0.0] * 4)
    weaker = Plan(
        tuple(
            tuple(replace(i, strength=i.strength * float(f)) for i in row)
            for row, f in zip(plan.rows, factor, strict=True)
        )
    )
    got = compiled.scaled(factor).edit(SITE, h, context)
    torch.testing.assert_close(got, weaker.compile(D).edit(SITE, h, context))
    ones = torch.arange(0, 12, 3)
    assert torch.equal(got[ones], compiled.edit(SITE, h, context)[ones])
    zero = h.clone()
    zero[2, -1, 0] = -0.0
    kept = compiled.scaled(factor).edit(SITE, zero, context)
    assert torch.equal(kept[2::3].view(torch.int32), zero[2::3].view(torch.int32))


def test_padding_is_never_edited_and_its_nan_stays_its_own() -> None:
    context, h = context_of([1, 6]), states(2, 8)
    h[~context.real] = float("nan")
    for operator in ("add", "ablate", "match", "scale", "rotate"):
        out = Plan.uniform([Intervention(A, 1, operator, 0.5)], 2).compile(D).edit(SITE, h, context)
        assert out[~context.real].isnan().all()
        assert out[context.real].isfinite().all()
        assert (out[context.real] != h[context.real]).any(-1).all()


def test_adds_everywhere_are_one_broadcast_addition_per_layer() -> None:
    rows = tuple((Intervention(v, layer, strength=s),) for v in (A, B) for layer in (0, 1, 3) for s in (1.0, 2.0))
    compiled = Plan((*rows, ())).compile(D, torch.bfloat16)
    for site in compiled.sites:
        (group,) = compiled.groups[site]
        assert isinstance(group, Shift)
        assert group.delta.shape == (13, 1, D)
        assert group.delta.dtype == torch.bfloat16


def test_the_last_prompt_token_belongs_to_writing_and_not_to_generated() -> None:
    h, context = states(1, 6), context_of([4], width=6)
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
    h = states(2, 1)
    out = Plan.uniform([Intervention(A, 1, positions=GENERATED)], 2).compile(D).edit(SITE, h, context)
    assert (out != h).any(-1)[:, 0].tolist() == [True, False]


def test_a_gate_opens_by_the_cosine_at_each_token() -> None:
    v, context = A.at(1), context_of([2, 2], width=4)
    h = states(2, 4, seed=3)
    cosine = torch.nn.functional.cosine_similarity(h, v, dim=-1)
    for gate, open_ in ((Gate(-0.05), cosine > -0.05), (Gate(-0.05, above=False), cosine < -0.05)):
        out = Plan.uniform([Intervention(A, 1, strength=5.0, gate=gate)], 2).compile(D).edit(SITE, h, context)
        assert torch.equal((out != h).any(-1), open_)
        assert 0 < open_.sum() < open_.numel()


def test_h_is_not_written_to() -> None:
    plan, h, context = everything(), states(12, 8), context_of(LENGTHS)
    before = h.clone()
    plan.compile(D).edit(SITE, h, context)
    assert torch.equal(h, before)


@pytest.mark.parametrize("index", [[11, 3, 0, 7], [5], [0, 8], [6, 6, 2], list(range(12))])
def test_selecting_rows_of_the_compiled_plan_is_compiling_the_selected_plan(index: list[int]) -> None:
    plan, h = everything(), states(len(index), 8)
    context = context_of([LENGTHS[i] for i in index])
    late, early = plan.compile(D).select(torch.tensor(index)), plan.select(index).compile(D)
    assert set(late.sites) == set(early.sites)
    for site in (Site(0), Site(1), Site(1, "mlp_out"), Site(3)):
        assert torch.equal(late.edit(site, h, context), early.edit(site, h, context))


def test_masks_are_computed_once_per_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Positions] = []
    original = Positions.mask
    monkeypatch.setattr(Positions, "mask", lambda self, *a: calls.append(self) or original(self, *a))
    compiled = Plan.uniform(
        [Intervention(A, (0, 1, 3)), Intervention(B, (0, 1), "ablate", positions=PROMPT)], 2
    ).compile(D)
    context = context_of([6, 2])
    for site in compiled.sites:
        compiled.edit(site, states(2, 8), context)
    assert sorted(calls, key=str) == [ALL, PROMPT]


def test_a_plan_for_another_batch_size_is_refused() -> None:
    compiled = Plan.uniform([Intervention(A, 1)], 2).compile(D)
    with pytest.raises(SteerlabError, match="the plan has 2 rows, but the batch has 3"):
        compiled.edit(SITE, states(3, 8), context_of([6, 6, 6]))
