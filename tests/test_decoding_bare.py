"""While a decode runs, only the modules its plans touch report to nnsight; the others are transformers' own, and get it back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlab.steering import Intervention, Plan
from steerlab.types import Site
from tests.test_decoding import NEW, TEXTS, greedy, never
from tests.tiny import FAMILIES, tiny, vector


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_that_nothing_watches_run_without_nnsight_and_get_it_back(family: str) -> None:
    model = tiny(family)
    batch, modules = model.encode(TEXTS), list(model.hf.modules())
    before = [module.__dict__.get("forward") for module in modules]
    seen: list[int] = []

    def looks(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        seen.append(sum("forward" in module.__dict__ for module in modules))
        if step == 3:
            raise RuntimeError("in the middle")
        return greedy(rows, history, logits, step)

    with pytest.raises(RuntimeError, match="in the middle"):
        model.decode(batch, looks, never, NEW, Plan(((Intervention(vector(1), 1),),) * len(batch)))
    assert seen == [2] * 4  # the root and the block; all others are transformers' own
    assert [module.__dict__.get("forward") for module in modules] == before and all(before)
    at = Site(1, "mlp_out")
    assert model.forward(batch, read=[at])[at].abs().sum() > 0  # and nnsight sees them again


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decode_runs_without_autograd_s_bookkeeping_and_leaves_nothing_of_that(family: str) -> None:
    model, seen = tiny(family), []

    def looks(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
        seen.append(logits.is_inference())
        return greedy(rows, history, logits, step)

    batch = model.encode(TEXTS)
    out = model.decode(batch, looks, never, NEW, Plan(((Intervention(vector(1), 1),),) * len(batch)))
    assert seen == [True] * NEW
    assert not (out.tokens.is_inference() or out.lengths.is_inference() or out.ended.is_inference())
    # A buffer or cache that the decode made inside the model would be refused by the backward pass.
    loss = model.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.square().mean()
    gradient = torch.autograd.grad(loss, model.hf.get_input_embeddings().weight)[0]
    assert gradient.abs().sum() > 0
