"""A prompt that several rows share is read once per plan, and what they write is what each would write alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab import generation
from steerlab.attention import NAME, grouped
from steerlab.generation import Request, Settings, generate
from steerlab.model import TracedModel
from steerlab.steering import Intervention, Plan
from tests.test_decoding import NEW, Script, answers, greedy, never
from tests.tiny import CORE, hf_model, tiny, vector

PUSH = (Intervention(vector(1), 1, strength=3.0),)
ABLATE = (Intervention(vector(2), 2, "ablate"),)
PROMPTS = ["a longer prompt, padded by none", "short", "a longer prompt, padded by none", "short", "short", "short"]
PLAN = Plan((PUSH, (), PUSH, (), ABLATE, ABLATE))
SAME = torch.tensor([7, 3, 7, 3, 5, 5])  # numbers of groups, in no order


def _seen(model: TracedModel, same: Tensor | None) -> tuple[dict[Any, Tensor], list[int]]:
    """Logits by (row, step), and how many rows each forward held."""
    script, held = Script(answers(len(PROMPTS))), []
    hook = model.hf.get_input_embeddings().register_forward_hook(lambda m, a, out: held.append(len(out)))
    try:
        model.decode(model.encode(PROMPTS), script, never, NEW, PLAN, same=same)
    finally:
        hook.remove()
    return script.logits, held


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", [*CORE, "gemma3", "gpt2", "neox"])
def test_shared_prompts_change_no_logit(family: str, dtype: torch.dtype) -> None:
    model = tiny(family, dtype=dtype)
    (alone, full), (shared, fewer) = _seen(model, None), _seen(model, SAME)
    assert full == [6] * NEW and fewer == [3] + [6] * (NEW - 1)
    assert alone.keys() == shared.keys()
    for place, want in alone.items():
        assert (shared[place] - want).norm() <= (1e-5 if dtype == torch.float32 else 2e-2) * want.norm(), place


def test_rows_that_differ_are_all_read() -> None:
    assert _seen(tiny("llama"), torch.arange(6))[1] == [6] * NEW


@pytest.mark.parametrize("family", CORE)
def test_rows_that_leave_take_their_own_cache_along(family: str) -> None:
    model = tiny(family)

    def ends(rows: Tensor, tokens: Tensor) -> Tensor:  # row i after i + 1 tokens
        return torch.full_like(rows, tokens.shape[1]) > rows

    runs = [model.decode(model.encode(PROMPTS), greedy, ends, NEW, PLAN, same=same) for same in (None, SAME)]
    assert torch.equal(runs[0].tokens, runs[1].tokens) and torch.equal(runs[0].lengths, runs[1].lengths)
    assert runs[1].lengths.tolist() == [1, 2, 3, 4, 5, min(6, NEW)]


def test_generate_shares_a_prompt_only_under_one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    model, told = tiny("llama"), []
    decode = TracedModel.decode

    def watch(self: TracedModel, *args: Any, same: Tensor, **options: Any) -> Any:
        told.append(same.tolist())
        return decode(self, *args, same=same, **options)

    monkeypatch.setattr(TracedModel, "decode", watch)
    asked = [
        Request(text, ("s", i), interventions)
        for i, (text, interventions) in enumerate(
            [("ab", PUSH), ("ab", PUSH), ("ab", ()), ("ab", ABLATE), ("ac", PUSH)]
        )
    ]
    together = generate(model, asked, Settings(max_new_tokens=6))
    assert told == [[0, 0, 1, 2, 3]]
    assert [generate(model, [one], Settings(max_new_tokens=6))[0].tokens for one in asked] == [
        s.tokens for s in together
    ]
    assert len({s.tokens for s in together}) > 1 and generation.plan_requests(model, asked, 8)[1] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_one_query_over_shared_heads_is_transformers_attention(family: str) -> None:
    hf: Any = hf_model(family)
    ids = torch.randint(3, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    assert hf.config._attn_implementation == "sdpa"

    def last(short: bool) -> Tensor:
        with torch.no_grad():
            position = (mask.cumsum(1) - 1).clamp(min=0)
            past = hf(
                ids[:, :-1], attention_mask=mask[:, :-1], position_ids=position[:, :-1], use_cache=True
            ).past_key_values
            inputs = {"attention_mask": mask, "position_ids": position[:, -1:], "past_key_values": past}
            if not short:
                return hf(ids[:, -1:], **inputs).logits
            with grouped(hf):
                assert hf.config._attn_implementation == NAME
                return hf(ids[:, -1:], **inputs).logits

    want = last(False)
    assert (last(True) - want).norm() < 1e-5 * want.norm()


def test_the_model_keeps_its_attention_also_after_an_error() -> None:
    hf: Any = hf_model("llama")
    with pytest.raises(RuntimeError, match="inside"), grouped(hf):
        raise RuntimeError("inside")
    assert hf.config._attn_implementation == "sdpa"
    eager: Any = hf_model("llama", num_key_value_heads=4)  # no shared heads: nothing to gain
    with grouped(eager):
        assert eager.config._attn_implementation == "sdpa"
