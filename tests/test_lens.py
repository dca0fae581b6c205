"""The lens reads what the model does: behind the last block exactly, before it through the skip path alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlab import bridge, lens
from steerlab.bridge import Readout, readout
from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.types import Site
from tests.tiny import LAYERS, VOCAB, hf_model, tiny, tokenizer, vector

FAMILIES = ("llama", "gemma2", "qwen2", "gpt2")
TEXTS = ["a", "bcdefgh ijk", "Hello wörld, this is a longer text."]
LAST = LAYERS - 1


@cache
def made(family: str) -> tuple[TracedModel, Readout]:
    """A tiny model whose norms have gains and shifts of their own, and whose soft cap (Gemma-2) bites."""
    changes: dict[str, Any] = {"final_logit_softcapping": 2.0} if family == "gemma2" else {}
    hf = hf_model(family, **changes)
    source = torch.Generator().manual_seed(1)
    for name, weight in hf.named_parameters():
        if weight.ndim == 1 and "norm" in name + "norm" * ("ln_" in name):
            weight.data += 0.5 * torch.randn(weight.shape, generator=source)
    model = wrap(hf, tokenizer(), name=f"tiny-{family}")
    return model, readout(model)


def steered_logits(model: TracedModel, texts: list[str], layer: int, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (b s v) without and with `delta` added behind block `layer`, and the mask of real tokens without BOS."""
    batch = model.encode(texts)
    plain = model.forward(batch, logits=True).logits
    moved = model.forward(batch, edit={Site(layer): lambda h: h + delta}, logits=True).logits
    assert plain is not None and moved is not None
    return plain, moved, batch.real & (batch.input_ids != 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_readout_gives_the_logits_of_the_model(family: str) -> None:
    model, out = made(family)
    batch = model.encode(TEXTS)
    seen = model.forward(batch, read=[Site(LAST), Site(LAST - 1)], logits=True)
    assert seen.logits is not None
    assert (out.logits(seen[Site(LAST)]) - seen.logits)[batch.real].abs().max() < 1e-4
    assert (out.logits(seen[Site(LAST - 1)]) - seen.logits)[batch.real].abs().max() > 0.1
    assert (out.gain - 1).abs().max() > 0.5 and out.centred == (family == "gpt2")


def test_a_soft_cap_is_part_of_the_readout() -> None:
    model, out = made("gemma2")
    h = model.forward(model.encode(TEXTS), read=[Site(LAST)])[Site(LAST)]
    bare = replace(out, after=lambda logits: logits).logits(h)
    assert bare.abs().max() > 2.5
    assert torch.allclose(out.logits(h), 2 * (bare / 2).tanh(), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_directions_own_promotion_is_the_slope_of_the_logits_at_constant_scale(family: str) -> None:
    out = replace(made(family)[1], after=lambda logits: logits)
    source = torch.Generator().manual_seed(2)
    h, v = torch.randn(2, len(out.gain), generator=source).double()
    out = replace(out, gain=out.gain.double(), shift=out.shift.double(), bias=out.bias.double())
    h, v = (x - x.mean() if out.centred else x for x in (h, v))
    v = v - (v @ h) / (h @ h) * h  # across h, so that the scale of h + a v changes in second order only
    scale = (h.square().mean() + out.eps).sqrt()
    slope = (out.logits(h + 1e-5 * v) - out.logits(h - 1e-5 * v)) / 2e-5 * scale
    assert torch.allclose(out.direction(v), slope, atol=1e-5)
    assert (out.unembedding.double() @ v - slope).abs().max() > 0.1  # the gain is not 1
    if out.centred:
        assert torch.allclose(out.direction(v + 3.0), slope, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vector_added_behind_the_last_block_shifts_logits_by_exactly_the_lens_prediction(family: str) -> None:
    model, out = made(family)
    v = vector(3)
    predicted = lens.exact_promotion(model, out, v, TEXTS, strength=0.5, unit="residual", token_budget=40)
    for layer in range(LAYERS):
        delta = 0.5 * v.norm_at(layer) * v.at(layer)
        plain, moved, real = steered_logits(model, TEXTS, layer, delta)
        gap = (predicted[layer] - (moved - plain)[real].mean(0)).abs().max()
        assert gap < 1e-4 if layer == LAST else gap > 0.01, (layer, gap)


def test_row_by_row_the_change_is_the_models_too() -> None:
    model, out = made("gemma2")
    delta = 2.0 * vector(3).at(LAST)
    plain, moved, real = steered_logits(model, TEXTS, LAST, delta)
    h = model.forward(model.encode(TEXTS), read=[Site(LAST)])[Site(LAST)][real]
    assert torch.allclose(lens.lens_change(out, h, delta), (moved - plain)[real], atol=1e-4)
    targets = torch.arange(VOCAB) % 7 == 0
    gain = lens.lens_change(out, h, delta, lambda logits: lens.log_mass(logits, targets))
    want = torch.log_softmax(moved[real], -1)[:, targets].exp().sum(-1).log()
    want = want - torch.log_softmax(plain[real], -1)[:, targets].exp().sum(-1).log()
    assert torch.allclose(gain.float(), want, atol=1e-4)


def test_few_logits_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = made("llama")
    whole = lens.exact_promotion(model, out, vector(3), TEXTS)
    plain, other = torch.randn(2, 9, len(out.gain), generator=torch.Generator().manual_seed(0))
    together = lens.kl(out, plain, other)
    monkeypatch.setattr(lens, "_LOGITS", 2 * VOCAB)
    assert torch.allclose(lens.exact_promotion(model, out, vector(3), TEXTS), whole, atol=1e-6)
    assert np.allclose(lens.kl(out, plain, other), together)


def test_half_precision_is_read_in_float32_by_slices_of_the_unembedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_ROWS", 100)
    model = tiny("llama", dtype=torch.bfloat16)
    out = readout(model)
    h = model.forward(model.encode(TEXTS), read=[Site(LAST)])[Site(LAST)]
    logits = out.logits(h)
    want = h.float() * (h.float().square().mean(-1, keepdim=True) + out.eps).rsqrt() @ model.hf.lm_head.weight.float().T
    assert logits.dtype == torch.float32 and logits.shape[-1] == VOCAB
    assert torch.allclose(logits, want, atol=1e-5)


def test_a_head_that_does_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrap(hf_model("llama"), tokenizer(), name="odd")
    forward = model.hf.lm_head.forward
    monkeypatch.setattr(model.hf.lm_head, "forward", lambda x: forward(x) * 1.5)
    with pytest.raises(SteerlabError, match="norm and unembedding of odd do not give its logits"):
        readout(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_effect_is_the_run_with_later_blocks_frozen_and_total_the_run_itself(family: str) -> None:
    model, out = made(family)
    v, targets = vector(4), torch.arange(VOCAB) < 40
    table = lens.effects(model, out, v, TEXTS, 0.7, targets=targets, chat=False)
    wide = table.pivot(index="layer", columns="measure", values="value")
    batch = model.encode(TEXTS)
    later = [Site(k, s) for k in range(LAYERS) for s in ("attn_out", "mlp_out")]
    seen = model.forward(batch, read=later, logits=True)
    assert seen.logits is not None
    for layer in range(LAYERS):
        delta = 0.7 * v.norm_at(layer) * v.at(layer)

        def shift(h: Tensor, delta: Tensor = delta) -> Tensor:
            return h + delta

        frozen = {site: (lambda h, site=site: seen[site]) for site in later if site.layer > layer}
        mass = []
        for edit in ({Site(layer): shift, **frozen}, {Site(layer): shift}, {}):
            logits = model.forward(batch, edit=edit, logits=True).logits
            assert logits is not None
            mass.append(torch.log_softmax(logits[:, -1].double(), -1)[:, targets].exp().sum(-1).log().mean())
        assert abs(wide.loc[layer, "direct"] - float(mass[0] - mass[2])) < 1e-4
        assert abs(wide.loc[layer, "total"] - float(mass[1] - mass[2])) < 1e-4
    assert abs(wide.loc[LAST, "cosine"] - 1) < 1e-5 and abs(wide.loc[LAST, "ratio"] - 1) < 1e-4
    assert wide.loc[0, "cosine"] < 0.98 and abs(wide.loc[0, "ratio"] - 1) > 0.01


def test_kl_is_that_of_the_models_own_logits_and_zero_where_nothing_is_added() -> None:
    model, out = made("gemma2")
    both = {"v": vector(5), "w": vector(6)}
    table: Any = lens.kl_effect(model, out, both, TEXTS, (0, LAST), (0, 0.5), chat=False, token_budget=60)
    zero = table["strength"] == 0
    assert (table.loc[zero, ["value", "low", "high"]] == 0).all(axis=None) and zero.sum() == 4
    assert (table["n"] == len(TEXTS)).all() and list(table["arm"]) == ["v"] * 4 + ["w"] * 4
    for layer in (0, LAST):
        delta = 0.5 * (layer + 1.0) * vector(5).at(layer)
        p, q = (torch.log_softmax(x[:, -1].double(), -1) for x in steered_logits(model, TEXTS, layer, delta)[:2])
        want = (p.exp() * (p - q)).sum(-1).numpy()
        row, other = (table[(table["layer"] == layer) & (table["arm"] == arm) & ~zero].iloc[0] for arm in "vw")
        assert abs(other["value"] - row["value"]) > 1e-4
        assert abs(row["value"] - want.mean()) < 1e-5
        assert want.min() - 1e-5 <= row["low"] < row["value"] < row["high"] <= want.max() + 1e-5


def test_kl_grows_with_the_square_of_a_small_strength() -> None:
    model, out = made("llama")
    small, double = lens.kl_effect(model, out, {"v": vector(6)}, TEXTS, (1,), (0.01, 0.02), "raw")["value"]
    assert 3.5 < double / small < 4.5


def test_streams_are_those_of_single_prompts_at_their_last_token() -> None:
    model, _ = made("gpt2")
    sites = [Site(1), Site(LAST)]
    together = lens.prompt_streams(model, TEXTS, sites, token_budget=60)
    assert together.shape == (len(TEXTS), 2, model.d_model)
    for text, row in zip(TEXTS, together, strict=True):
        alone = model.forward(model.encode([text], chat=True), read=sites)
        for k, site in enumerate(sites):
            assert torch.allclose(row[k], alone[site][0, -1], atol=1e-4)
    push = (Intervention(vector(7), 1, strength=2.0),)
    plain, moved, idle = lens.final_streams(model, TEXTS, [(), push, (replace(push[0], strength=0.0),)])
    assert torch.allclose(plain, together[:, 1], atol=1e-5) and torch.equal(idle, plain)
    assert (moved - plain).norm(dim=-1).min() > 0.1


def test_top_tokens_are_the_extremes_in_order_and_ties_go_by_number() -> None:
    scores = torch.tensor([0.0, 3.0, -2.0, 3.0, 1.0])
    assert lens.top_tokens(scores, 3) == [1, 3, 4]
    assert lens.top_tokens(scores, 2, lowest=True) == [2, 0]


def test_promotion_ranks_tokens_per_layer() -> None:
    model, out = made("llama")
    token = 77
    raw = (model.hf.lm_head.weight[token] * out.gain)[None].expand(2, -1).detach() * torch.tensor([[1.0], [-1.0]])
    v = lens.SteeringVector.from_raw("token", raw, (1, 3))
    scores = lens.promotion(out, v)
    assert lens.top_tokens(scores[0], 1) == [token] and lens.top_tokens(scores[1], 1, lowest=True) == [token]


def test_what_has_no_reading_is_refused() -> None:
    model, out = made("llama")
    with pytest.raises(SteerlabError, match="lives in mlp_out, which the lens does not read"):
        lens.exact_promotion(model, out, vector(1, "mlp_out"), TEXTS)
    with pytest.raises(SteerlabError, match="no token of the 3 texts is at positions generated"):
        lens.exact_promotion(model, out, vector(1), TEXTS, positions="generated")
    gated = TracedModel("g", model.hf, model.tokenizer, replace(model.layout, adds=False), "r", model.template)
    with pytest.raises(SteerlabError, match="blocks of g scale or gate the stream"):
        lens.effects(gated, out, vector(1), TEXTS)
