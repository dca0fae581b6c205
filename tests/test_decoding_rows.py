"""Positions under the key-value cache, and rows that end early: what a row means does not depend on steps, padding or neighbours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlab.decoding import Decoded
from steerlab.model import TracedModel
from steerlab.steering import Gate, Intervention, Plan, TokenContext
from steerlab.types import Positions, Site
from tests.reference import hooks
from tests.test_decoding import NEW, TEXTS, Script, answers, greedy, mixed, never
from tests.tiny import CORE, tiny, vector

EOS = 2
KINDS = {
    "all": Positions.parse("all"),
    "prompt": Positions.parse("prompt"),
    "last_prompt": Positions.parse("last_prompt"),
    "generated": Positions.parse("generated"),
    "writing": Positions.parse("writing"),
    "span across the end": Positions.parse("-3:2"),
    "span in the answer": Positions.parse("2:5"),
    "last three of the prompt": Positions.parse("last:3"),
    "all but BOS": Positions(skip_ids=(1,)),
    "the letter a only": Positions(only_ids=(70, 262 - 1)),
    "writing but some": Positions(-1, None, skip_ids=(40, 41, 42)),
}


def _script(model: TracedModel, plan: Plan | None, forced: list[list[int]]) -> Script:
    script = Script(forced)
    model.decode(model.encode(TEXTS), script, never, NEW, plan)
    return script


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", CORE)
def test_positions_mean_the_same_in_cached_generation_and_in_one_forward(family: str, kind: str) -> None:
    """Every step's logits are those of one unpadded forward over prompt and answer with the mask written out token by token."""
    model = tiny(family)
    change = (
        Intervention(vector(1), 1, strength=3.0, positions=KINDS[kind]),
        Intervention(vector(2, "mlp_out"), 2, "ablate", positions=KINDS[kind]),
    )
    a, one = answers(4), Plan((change,))
    script, prompts = _script(model, Plan.uniform(change, 4), a), model.token_rows(TEXTS)
    for i, prompt in enumerate(prompts):
        want = hooks.logits(model.hf, family, [*prompt, *a[i]], len(prompt), one)[len(prompt) - 1 :]
        for step in range(NEW):
            gap = (script.logits[i, step] - want[step]).norm()
            assert gap < 1e-5 * want[step].norm(), (i, step)


@pytest.mark.parametrize("family", CORE)
def test_the_first_token_is_written_by_the_last_prompt_position(family: str) -> None:
    model = tiny(family)
    a = answers(4)
    plain = _script(model, None, a)
    first_hit = {"all": 0, "prompt": 0, "last_prompt": 0, "writing": 0, "generated": 1, "2:5": 3}
    for kind, hit in first_hit.items():
        change = Intervention(vector(1), 1, strength=3.0, positions=Positions.parse(kind))
        steered = _script(model, Plan.uniform((change,), 4), a)
        for (row, step), logits in plain.logits.items():
            untouched = torch.equal(steered.logits[row, step], logits)
            assert untouched == (step < hit), (kind, row, step)


@pytest.mark.parametrize("family", CORE)
def test_a_forward_over_prompt_and_answer_agrees_with_generation(family: str) -> None:
    """The same compiled plan on `encode(texts, answers)`, padded and in one pass, gives the logits of the cached steps."""
    model, plan = tiny(family), mixed()
    texts = ["ab", "a longer prompt", "x", "middle"]
    tails = ["answers!", "12345678", "aaaaaaaa", "zyxwvuts"]
    ids = [model.tokenizer(tail, add_special_tokens=False)["input_ids"] for tail in tails]
    script = Script(ids)
    model.decode(model.encode(texts), script, never, NEW, plan)
    batch = model.encode(texts, answers=tails)
    compiled, context = model.compile(plan), TokenContext(batch.relative, batch.input_ids, batch.real)
    edits = {site: (lambda h, s=site: compiled.edit(s, h, context)) for site in compiled.sites}
    logits = model.forward(batch, edit=edits, logits=True).logits
    assert logits is not None
    for (row, step), want in script.logits.items():
        assert (logits[row, step - NEW - 1] - want).norm() < 1e-5 * want.norm(), (row, step)


def test_padding_is_never_steered() -> None:
    """What goes into block 1 is as it was on padding, and moved on every real token, in every step."""
    model, plan = tiny("gpt2"), Plan.uniform((Intervention(vector(1), 0, strength=50.0),), 4)
    batch = model.encode(TEXTS)
    entered: list[Tensor] = []

    def keep(h: Tensor) -> Tensor:
        entered.append(h.clone())
        return h

    for some in (None, plan):
        with hooks.hooked(model.hf, "gpt2", {Site(1, "resid_pre"): keep}):
            model.decode(batch, Script(answers(4)), never, NEW, some)
    plain, steered = entered[:NEW], entered[NEW:]
    assert torch.equal((plain[0] != steered[0]).any(-1), batch.real)
    assert not batch.real.all()
    assert all((a != b).any(-1).all() for a, b in zip(plain[1:], steered[1:], strict=True))


def test_a_gate_sees_the_stream_of_its_own_row_and_step() -> None:
    model = tiny("llama")
    change = (Intervention(vector(1), 1, strength=4.0, gate=Gate(0.0)),)
    a = answers(4)
    script, prompts = _script(model, Plan.uniform(change, 4), a), model.token_rows(TEXTS)
    plain = _script(model, None, a)
    for i, prompt in enumerate(prompts):
        want = hooks.logits(model.hf, "llama", [*prompt, *a[i]], len(prompt), Plan((change,)))[len(prompt) - 1 :]
        assert max(float((script.logits[i, s] - want[s]).norm() / want[s].norm()) for s in range(NEW)) < 1e-5
    assert any(not torch.equal(script.logits[key], plain.logits[key]) for key in plain.logits)


class Ends:
    """Greedy, but row r writes EOS as its token number `when[r]`; and the rule that EOS ends a row."""

    def __init__(self, when: dict[int, int]) -> None:
        self.when = when
        self.logits: dict[tuple[int, int], Tensor] = {}

    def __call__(self, rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        chosen = logits[:, 6:].argmax(-1) + 6  # no special token by itself
        for i, row in enumerate(rows.tolist()):
            self.logits[row, step] = logits[i].clone()
            if self.when.get(row) == step:
                chosen[i] = EOS
        return chosen

    @staticmethod
    def finished(rows: Tensor, tokens: Tensor) -> Tensor:
        return tokens[:, -1] == EOS


def _ending(model: TracedModel, when: dict[int, int], plan: Plan | None, retire: bool) -> tuple[Decoded, Ends]:
    ends = Ends(when)
    return model.decode(model.encode(TEXTS), ends, ends.finished, NEW, plan, retire), ends


@pytest.mark.parametrize("retire", [True, False])
@pytest.mark.parametrize("plan", [None, mixed()], ids=["unsteered", "mixed plan"])
@pytest.mark.parametrize("when", [{0: 1, 3: 3}, {0: 0, 1: 0, 2: 0}, {3: 2}, {0: 7}, {0: 1, 1: 2, 2: 3, 3: 4}])
@pytest.mark.parametrize("family", CORE)
def test_rows_that_end_early_lose_nothing(family: str, when: dict[int, int], plan: Plan | None, retire: bool) -> None:
    """Every row is the prefix of what it writes when nobody ends, up to its EOS; the others go on under their own interventions."""
    model = tiny(family)
    out, ends = _ending(model, when, plan, retire)
    whole, unended = _ending(model, {}, plan, retire=False)
    for row in range(4):
        stop = when.get(row)
        want = whole.row(row) if stop is None else [*whole.row(row)[:stop], EOS]
        assert out.row(row) == want, row
        assert bool(out.ended[row]) == (stop is not None)
        for step in range(len(want)):
            gap = (ends.logits[row, step] - unended.logits[row, step]).norm()
            assert gap < 1e-5 * unended.logits[row, step].norm(), (row, step)
    assert out.steps == (max(when.values()) + 1 if len(when) == 4 else NEW)


@pytest.mark.parametrize("family", CORE)
def test_rows_leave_the_batch_once_a_quarter_of_it_is_done(family: str) -> None:
    model, when = tiny(family), {0: 1, 1: 1, 2: 4}
    staying, _ = _ending(model, when, mixed(), retire=False)
    leaving, _ = _ending(model, when, mixed(), retire=True)
    assert [staying.row(i) for i in range(4)] == [leaving.row(i) for i in range(4)]
    assert staying.row_steps == 4 * NEW
    assert leaving.row_steps == 4 * 2 + 2 * 3 + 1 * 3
    ends = Ends({0: 1, 5: 3})
    eight = model.decode(model.encode([*TEXTS, *TEXTS]), ends, ends.finished, NEW)
    assert eight.row_steps == 8 * 4 + 6 * (NEW - 4)  # one of eight stays, the second takes both along


def test_a_row_alone_that_ends_at_once_is_one_token() -> None:
    model = tiny("llama")
    ends = Ends({0: 0})
    out = model.decode(model.encode(["a"]), ends, ends.finished, NEW, mixed().select([0]))
    assert (out.row(0), out.steps, out.ended.tolist()) == ([EOS], 1, [True])
    assert out.tokens.shape == (1, 1)


def test_the_history_given_to_pick_is_the_rows_own() -> None:
    model, rows_seen = tiny("llama"), []
    prompts = model.token_rows(TEXTS)

    def watch(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        rows_seen.append(rows.tolist())
        for i, row in enumerate(rows.tolist()):
            own = history[i, history.shape[1] - step - len(prompts[row]) :].tolist()
            assert own[: len(prompts[row])] == prompts[row]
            assert own[len(prompts[row]) :] == [100 + row] * step
        chosen = torch.tensor([100 + row for row in rows.tolist()])
        return torch.where((rows < 2) & torch.tensor(step == 2), torch.tensor(EOS), chosen)

    model.decode(model.encode(TEXTS), watch, Ends.finished, 6, mixed())
    assert rows_seen == [[0, 1, 2, 3]] * 3 + [[2, 3]] * 3


def test_without_a_plan_nothing_is_traced_and_the_tokens_are_those_of_an_empty_plan() -> None:
    model = tiny("llama")
    batch = model.encode(TEXTS)
    plain = model.decode(batch, greedy, never, NEW)
    assert torch.equal(plain.tokens, model.decode(batch, greedy, never, NEW, Plan.none(4)).tokens)
