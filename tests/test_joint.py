"""Streams of the same weights advance in one forward, and nothing else changes: rows, plans, rows that leave, what may not be joined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlab.guidance import Guide
from steerlab.guided import Asked, Guided, streams_of
from steerlab.joint import MOST_PADDING, Joint, side_by_side, together
from steerlab.loading import wrap
from steerlab.model import Side, TracedModel
from steerlab.steering import Intervention, Plan
from steerlab.streams import Stream
from steerlab.types import Site
from tests.test_decoding import NEW, Script, answers, mixed, never
from tests.test_decoding_rows import EOS, Ends
from tests.tiny import D, hf_model, tiny, tokenizer, vector

SHORT, LONG = "seen", "seen it"  # shorter than the longest prompt, so that they are padded
PUSH = (Intervention(vector(6), 2, strength=3.0),)


def _streams(model: TracedModel, *texts: str) -> list[Stream]:
    streams = [model.stream(Side(model.encode([text, text])), NEW) for text in texts]
    with torch.no_grad():
        for stream in streams:
            stream.read()
    return streams


def _guided(model: TracedModel, base: TracedModel | None, gamma: float, script: Script) -> None:
    """Four rows of different plans and negatives; one is not guided, one has nothing to move away from."""
    negatives = [SHORT, LONG, None, ""]
    guided = [
        None if text is None else Guided(Guide(gamma, 0.6), text, negative_interventions=PUSH) for text in negatives
    ]
    texts = ["a", "bcdefgh ijk", "Hello world", "xyz"]
    sides, mix = streams_of(model, base, [Asked(text, False, g) for text, g in zip(texts, guided, strict=True)])
    model.decode(model.encode(texts), script, never, NEW, mixed(), sides=sides, mix=mix)


def _forwards(model: TracedModel, base: TracedModel, gamma: float) -> tuple[int, int]:
    counts = [0, 0]

    def count(which: int) -> None:
        counts[which] += 1

    handles = [one.hf.register_forward_hook(lambda *_, w=which: count(w)) for which, one in enumerate((model, base))]
    _guided(model, base, gamma, Script(answers(4)))
    for handle in handles:
        handle.remove()
    return counts[0], counts[1]


def test_a_step_reads_the_weights_of_each_model_once() -> None:
    model, base = tiny("llama"), wrap(hf_model("llama", seed=5), tokenizer(), name="base")
    assert _forwards(model, base, 0.5) == (2 + NEW - 1, NEW)
    assert _forwards(tiny("gemma2"), wrap(hf_model("gemma2", seed=5), tokenizer(), name="base"), 0.5) == (2 * NEW, NEW)


def test_joined_streams_give_the_logits_of_streams_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, base = tiny("qwen2"), wrap(hf_model("qwen2", seed=5), tokenizer(), name="base")
    joined, alone = Script(answers(4)), Script(answers(4))
    _guided(model, base, 0.5, joined)
    monkeypatch.setattr("steerlab.decoding.together", list)
    _guided(model, base, 0.5, alone)
    assert len(joined.logits) == 4 * NEW
    for key, want in alone.logits.items():
        assert (joined.logits[key] - want).norm() < 1e-5 * want.norm(), key


@pytest.mark.parametrize("when", [{0: 1, 3: 3}, {0: 0, 1: 0, 2: 0}, {1: 2, 3: 2}])
def test_rows_that_leave_take_all_their_contexts_along(when: dict[int, int]) -> None:
    """Row 1 has no negatives, so that its place in the joined rows is not its place in the batch."""
    model = tiny("llama")
    negatives = [LONG, "", SHORT, "one more"]
    guided = [Asked("text", False, Guided(Guide(0.0, 0.6), text)) for text in negatives]
    kept = {}
    for retire in (True, False):
        sides, mix = streams_of(model, None, guided)
        ends = Ends(when)
        out = model.decode(model.encode(["text"] * 4), ends, ends.finished, NEW, mixed(), retire, sides=sides, mix=mix)
        kept[retire] = [out.row(i) for i in range(4)], ends.logits
    assert kept[True][0] == kept[False][0]
    assert any(EOS in row for row in kept[True][0])
    for key, got in kept[True][1].items():
        torch.testing.assert_close(got, kept[False][1][key], rtol=1e-4, atol=1e-4)


def test_side_streams_that_all_end_before_the_main_one_are_read_no_more() -> None:
    """Base and negatives are joined, the prompt is too short to be, and only the row without guidance goes on."""
    model, context = tiny("llama"), "a context that is much longer than the prompt"
    asked = [Asked("hi", False, Guided(Guide(0.5, 0.6), context, base_prompt=context)), Asked("hi", False, None)]
    kept = {}
    for retire in (True, False):
        sides, mix = streams_of(model, None, asked)
        ends = Ends({0: 1})
        out = model.decode(model.encode(["hi", "hi"]), ends, ends.finished, NEW, None, retire, sides=sides, mix=mix)
        kept[retire] = [out.row(i) for i in range(2)]
    assert kept[True] == kept[False] and [len(row) for row in kept[True]] == [2, NEW]


def test_plans_side_by_side_edit_each_row_as_its_own_plan_does_bitwise() -> None:
    model = tiny("llama")
    batch = model.encode(["a", "bcdefgh ijk", "Hello", "xyz"])
    plans = [model.compile(Plan((PUSH,) * 4)), model.compile(mixed()), model.compile(Plan(((),) * 4))]
    context = Stream(model.hf, batch.select(torch.tensor([0, 1, 2, 3] * 3)), NEW).context
    own = Stream(model.hf, batch, NEW).context
    both = side_by_side(plans)
    assert both.n_rows == 12 and set(both.sites) == {*plans[0].sites, *plans[1].sites}
    for site in both.sites:
        h = torch.randn(12, batch.input_ids.shape[1], D, generator=torch.Generator().manual_seed(2))
        want: list[Tensor] = [plan.edit(site, part, own) for plan, part in zip(plans, h.split(4), strict=True)]
        assert torch.equal(both.edit(site, h, context), torch.cat(want))
    assert not torch.equal(both.edit(Site(2, "resid_post"), h, context), h)


def test_what_cannot_or_should_not_be_joined_goes_on_alone() -> None:
    llama, other = tiny("llama"), wrap(hf_model("llama", seed=5), tokenizer(), name="base")
    (joint,) = together(_streams(llama, "a", "bcd"))
    assert isinstance(joint, Joint) and len(joint) == 4
    assert not any(isinstance(one, Joint) for one in together(_streams(tiny("gemma2"), "a", "bcd")))  # sliding windows
    assert not any(isinstance(one, Joint) for one in together([*_streams(llama, "a"), *_streams(other, "a")]))
    widest = 1 + int(MOST_PADDING * D)
    far = together(_streams(llama, "a", "b" * (widest + 1)))
    assert [type(one) for one in far] == [Stream, Stream]
    assert isinstance(together(_streams(llama, "a", "b" * widest))[0], Joint)
    on, off = _streams(llama, "a", "bcd")
    off.weights = not on.weights  # an adapter that is off
    assert [type(one) for one in together([on, off])] == [Stream, Stream]
