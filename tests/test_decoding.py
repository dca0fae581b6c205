"""Steered decoding: cached, batched and traced, it writes what transformers writes under raw hooks and what an uncached loop writes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.operators import OPERATORS
from steerlab.steering import Intervention, Plan
from steerlab.types import Positions, Site
from tests.reference import hooks
from tests.tiny import CORE, FAMILIES, hf_model, tiny, tokenizer, vector

TEXTS = ["a", "bcdefgh ijk", "Hello wörld, this is a longer text.", "xyz"]
NEW = 8
NAMES: tuple[Any, ...] = tuple(OPERATORS)
UNIFORM = (Intervention(vector(1), (1, 2), strength=2.0),)


def greedy(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
    return logits.argmax(-1)


def never(rows: Tensor, tokens: Tensor) -> Tensor:
    return torch.zeros(len(rows), dtype=torch.bool)


class Script:
    """Picks the tokens it was given, whatever the logits, and keeps the logits of every row and step."""

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self.answers = answers
        self.logits: dict[tuple[int, int], Tensor] = {}

    def __call__(self, rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        for i, row in enumerate(rows.tolist()):
            self.logits[row, step] = logits[i].clone()
        return torch.tensor([self.answers[row][step] for row in rows.tolist()])


def answers(n: int, steps: int = NEW, seed: int = 3) -> list[list[int]]:
    """Random tokens, specials among them."""
    return torch.randint(0, 262, (n, steps), generator=torch.Generator().manual_seed(seed)).tolist()


def mixed() -> Plan:
    """Another vector, layer, stream, operator, unit and positions in every row, and nothing in one."""
    return Plan(
        (
            (Intervention(vector(1), (0, 2), strength=3.0),),
            (
                Intervention(vector(2), 1, strength=2.0, positions=Positions.parse("generated")),
                Intervention(vector(3, "attn_out"), 2, "ablate"),
                Intervention(vector(2), 1, strength=-1.0),
            ),
            (),
            (
                Intervention(vector(4, "resid_pre"), 0, "rotate", 0.7, positions=Positions(skip_ids=(1,))),
                Intervention(vector(5, "mlp_out"), 3, strength=0.3, unit="residual"),
            ),
        )
    )


def rows_of(model: TracedModel, plan: Plan | None, texts: Sequence[str] = TEXTS, chat: bool = False) -> list[list[int]]:
    out = model.decode(model.encode(texts, chat=chat), greedy, never, NEW, plan)
    assert out.lengths.tolist() == [NEW] * len(texts)
    assert not out.ended.any()
    return [out.row(i) for i in range(len(texts))]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_is_steered_as_by_raw_hooks_in_transformers_generate(family: str) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS, chat=True)
    deltas = {layer: 2 * vector(1).at(layer) for layer in (1, 2)}
    changes = {Site(layer): (lambda h, d=d: h + d) for layer, d in deltas.items()}
    want = hooks.generate(model.hf, family, batch.input_ids, batch.attention_mask, changes, NEW)
    assert rows_of(model, Plan.uniform(UNIFORM, 4), chat=True) == want
    plain = hooks.generate(model.hf, family, batch.input_ids, batch.attention_mask, {}, NEW)
    assert rows_of(model, None, chat=True) == plain
    assert plain != want


@pytest.mark.parametrize("family", CORE)
def test_bfloat16_too(family: str) -> None:
    model = tiny(family, torch.bfloat16)
    batch = model.encode(TEXTS)
    delta = {layer: (2 * vector(1).at(layer)).bfloat16() for layer in (1, 2)}
    changes = {Site(layer): (lambda h, d=d: h + d) for layer, d in delta.items()}
    want = hooks.generate(model.hf, family, batch.input_ids, batch.attention_mask, changes, NEW)
    assert rows_of(model, Plan.uniform(UNIFORM, 4)) == want


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_writes_what_each_row_writes_alone_and_uncached(family: str) -> None:
    model, plan = tiny(family), mixed()
    together = rows_of(model, plan)
    for i, text in enumerate(TEXTS):
        prompt = model.token_rows([text])[0]
        assert together[i] == rows_of(model, plan.select([i]), [text])[0], i
        assert together[i] == hooks.uncached(model.hf, family, prompt, plan.select([i]), NEW), i
    assert together[2] == rows_of(model, None)[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_of_every_step_are_those_of_one_uncached_forward(family: str) -> None:
    """Forced tokens, so that a model which repeats itself cannot hide a difference; sliding windows of 8 included."""
    model, plan, forced = tiny(family), mixed(), Script(answers(4))
    model.decode(model.encode(TEXTS), forced, never, NEW, plan)
    prompts = model.token_rows(TEXTS)
    for i, prompt in enumerate(prompts):
        want = hooks.logits(model.hf, family, [*prompt, *forced.answers[i]], len(prompt), plan.select([i]))
        plain = hooks.logits(model.hf, family, [*prompt, *forced.answers[i]], len(prompt), Plan.none(1))
        for step in range(NEW):
            at = len(prompt) - 1 + step
            assert (forced.logits[i, step] - want[at]).norm() < 1e-5 * want[at].norm(), (i, step)
            if i in (0, 3):
                assert (plain[at] - want[at]).norm() > 1e-3 * want[at].norm(), (i, step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", CORE)
def test_zero_strength_is_bitwise_the_unsteered_model(family: str, dtype: torch.dtype) -> None:
    model, plain = tiny(family, dtype), Script(answers(4))
    batch = model.encode(TEXTS)
    model.decode(batch, plain, never, NEW)
    everything = tuple(
        Intervention(vector(1, stream), (0, 2), operator, 0.0)
        for operator in NAMES
        for stream in ("resid_pre", "attn_out", "mlp_out", "resid_post")
    )
    zero = Script(plain.answers)
    model.decode(batch, zero, never, NEW, Plan.uniform(everything, 4))
    assert all(torch.equal(zero.logits[key], plain.logits[key]) for key in plain.logits)
    half = Script(plain.answers)  # rows without an intervention beside rows with one
    model.decode(batch, half, never, NEW, Plan((UNIFORM, (), UNIFORM, ())))
    for (row, step), logits in plain.logits.items():
        assert torch.equal(half.logits[row, step], logits) == (row in (1, 3)), (row, step)


@pytest.mark.parametrize("family", CORE)
def test_a_second_vector_on_one_layer_adds_to_the_first(family: str) -> None:
    model, (a, b) = tiny(family), (vector(1), vector(2))
    found = []
    for interventions in [
        (Intervention(a, 1, strength=2.0), Intervention(b, 1, strength=3.0)),
        (Intervention(2 * a.unit() + 3 * b.unit(), 1, strength=float((2 * a.at(1) + 3 * b.at(1)).norm())),),
        (Intervention(a, 1, strength=2.0),),
        (Intervention(b, 1, strength=3.0),),
    ]:
        script = Script(answers(1))
        model.decode(model.encode(["some text"]), script, never, 2, Plan((interventions,)))
        found.append(script.logits[0, 1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    for other in found[2:]:
        assert (found[0] - other).abs().max() > 0.01


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("family", CORE)
def test_the_first_and_the_last_layer_steer(family: str, layer: int) -> None:
    model = tiny(family)
    plan = Plan.uniform((Intervention(vector(1), layer, strength=20.0),), 4)
    steered, plain = rows_of(model, plan), rows_of(model, None)
    assert all(a != b for a, b in zip(steered, plain, strict=True))


def test_the_first_token_of_every_row_and_not_only_of_row_0_is_steered() -> None:
    model, plain, steered = tiny("llama"), Script(answers(4)), Script(answers(4))
    model.decode(model.encode(TEXTS), plain, never, 2)
    model.decode(model.encode(TEXTS), steered, never, 2, Plan.uniform(UNIFORM, 4))
    for row in range(4):
        for step in range(2):
            assert (plain.logits[row, step] - steered.logits[row, step]).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_callers_vector_is_not_changed(dtype: torch.dtype) -> None:
    v = vector(1)
    before = [t.clone() for t in (v.direction, v.raw_norm, v.residual_norm)]
    for operator in NAMES:
        rows_of(tiny("llama", dtype), Plan.uniform((Intervention(v, (0, 1), operator, 0.5),), 4))
    after = (v.direction, v.raw_norm, v.residual_norm)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("plan", [None, Plan.uniform(UNIFORM, 4)], ids=["unsteered", "steered"])
@pytest.mark.parametrize("family", CORE)
def test_afterwards_the_model_is_byte_identical_also_when_a_step_raised(family: str, plan: Plan | None) -> None:
    model = tiny(family)
    before = {key: weight.clone() for key, weight in model.hf.state_dict().items()}
    plain = rows_of(model, None)

    def failing(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        if step == 3:
            raise SteerlabError("one sentence.")
        return logits.argmax(-1)

    rows_of(model, mixed())
    with pytest.raises(SteerlabError) as caught:
        model.decode(model.encode(TEXTS), failing, never, NEW, plan)
    assert str(caught.value) == "one sentence."
    after = model.hf.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        assert not model.hf(torch.tensor([[1, 50]])).logits.requires_grad
    assert rows_of(model, None) == plain


def test_two_models_decode_at_once_without_interfering() -> None:
    """The other model writes a whole answer within each step of this one."""
    one, two = wrap(hf_model("llama"), tokenizer()), wrap(hf_model("qwen2", seed=5), tokenizer())
    plan_one, plan_two = Plan.uniform(UNIFORM, 4), mixed()
    alone_one, alone_two = rows_of(one, plan_one), rows_of(two, plan_two)
    inside = []

    def nested(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        inside.append(rows_of(two, plan_two))
        return logits.argmax(-1)

    out = one.decode(one.encode(TEXTS), nested, never, NEW, plan_one)
    assert [out.row(i) for i in range(4)] == alone_one
    assert inside == [alone_two] * NEW


@pytest.mark.parametrize("same", [True, False], ids=["one model", "two models"])
def test_threads_do_not_get_each_others_rows(same: bool) -> None:
    one = tiny("llama")
    jobs = [(one, Plan.uniform(UNIFORM, 4)), (one if same else tiny("qwen2"), mixed()), (one, None)]
    want = [rows_of(*job) for job in jobs]

    def again(i: int) -> list[list[list[int]]]:
        return [rows_of(*jobs[i]) for _ in range(4)]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(again, range(3))) == [[rows] * 4 for rows in want]


def test_a_model_that_was_steered_by_one_plan_takes_the_next() -> None:
    model = tiny("llama")
    first, second = rows_of(model, Plan.uniform(UNIFORM, 4)), rows_of(model, mixed())
    assert first != second
    assert rows_of(model, Plan.uniform(UNIFORM, 4)) == first


@pytest.mark.parametrize(
    ("new", "plan", "message"),
    [
        (0, None, "max_new_tokens is 0: give at least 1"),
        (250, None, r"a prompt of 37 tokens and 250 new ones need 287 positions, and tiny-llama has 256"),
        (2, Plan.uniform(UNIFORM, 3), "the plan has 3 rows, but the batch has 4"),
        (2, Plan.none(5), "the plan has 5 rows, but the batch has 4"),
        (
            2,
            Plan.uniform((Intervention(vector(1, width=16), 1),), 4),
            "has width 16, but the model has width 32",
        ),
        (2, Plan.uniform((Intervention(vector(1, layers=6), 5),), 4), "layer 5 was given .* layers 0 to 3"),
    ],
)
def test_what_cannot_be_decoded_is_refused(new: int, plan: Plan | None, message: str) -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match=message):
        model.decode(model.encode(TEXTS), greedy, never, new, plan)
