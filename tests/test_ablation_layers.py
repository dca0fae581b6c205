"""Layer ablation: replaced parts are what they should be, and replacing what does nothing changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from steerlab.ablation.layers import (
    PARTS,
    LayerAblation,
    Lending,
    ablation_editor,
    donors,
    every_part,
    layer_effects,
    part_means,
)
from steerlab.architecture import submodule
from steerlab.batch import Batch, left_pad
from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.types import Site
from tests.tiny import CORE, hf_model, stranger, tiny, tokenizer, vector

TEXTS = ["the river is wide", "no", "a longer text of the same kind", "and one more"]
OTHERS = ["something else", "said at another time"]


def silenced(family: str, block: int, constant: float = 0.0) -> TracedModel:
    """A model one of whose blocks adds nothing (or a constant) to the stream, whatever it reads."""
    hf: Any = hf_model(family)
    with torch.no_grad():
        if family == "gpt2":
            own = hf.transformer.h[block]
            for last in (own.attn.c_proj, own.mlp.c_proj):
                last.weight.zero_()
                last.bias.copy_(constant * torch.randn(32, generator=torch.Generator().manual_seed(1)))
        else:
            own = hf.model.layers[block]
            for last in (own.self_attn.o_proj, own.mlp.down_proj):
                last.weight.zero_()
    return wrap(hf, tokenizer(), name=f"silenced-{family}")


def _quiet(table: Any) -> bool:
    own = table[table["layer"] >= 0]
    return own["kl"].max() < 1e-6 and own["loss_change"].abs().max() < 1e-6


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2"])
def test_a_block_with_zero_output_weights_changes_nothing(family: str) -> None:
    model = silenced(family, 2)
    ablations = [one for one in every_part(model.n_layers) if one.layer == 2]
    table: Any = layer_effects(model, TEXTS, ablations, reference=OTHERS)
    assert len(table) == (1 + 9) * len(TEXTS) and _quiet(table)
    other: Any = layer_effects(
        model, TEXTS, [LayerAblation(1, "block", how) for how in ("zero", "mean", "resample")], reference=OTHERS
    )
    assert (other[other["layer"] == 1].groupby("how")["kl"].mean() > 0.01).all()


def test_a_constant_part_is_its_own_mean_and_everybodys() -> None:
    model = silenced("gpt2", 2, constant=0.3)
    same = [LayerAblation(2, part, how) for part in PARTS for how in ("mean", "resample")]
    assert _quiet(layer_effects(model, TEXTS, same, reference=OTHERS))  # pyright: ignore[reportArgumentType]
    assert not _quiet(layer_effects(model, TEXTS, [LayerAblation(2, "attn_out", "zero")]))


def _edited(
    model: TracedModel, one: LayerAblation, batch: Batch, lending: Lending | None = None, means: Any = None
) -> Any:
    members = list(range(len(batch)))
    sites = [Site(one.layer, stream) for stream in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    edits = ablation_editor(model, one, means, lending)(batch, members)
    return sites, model.forward(batch, read=sites), model.forward(batch, read=sites, edit=edits)


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("part", PARTS)
def test_zero_and_mean_replace_exactly_the_part_and_only_behind_bos(family: str, part: Any) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS)
    own = batch.real & (batch.input_ids != 1)
    (pre, attn, _, post), plain, zero = _edited(model, LayerAblation(1, part, "zero"), batch)
    gone = zero[post] - zero[pre] if part == "block" else zero[Site(1, part)]
    assert float(gone[own].abs().max()) < 1e-5
    torch.testing.assert_close(zero[pre][batch.real], plain[pre][batch.real])
    bos = batch.real & ~own
    torch.testing.assert_close(zero[post][bos], plain[post][bos])
    if part == "mlp_out":
        torch.testing.assert_close(zero[attn][batch.real], plain[attn][batch.real])
    one = LayerAblation(1, part, "mean")
    means = part_means(model, OTHERS, [one])
    _, _, mean = _edited(model, one, batch, means=means)
    other = model.encode(OTHERS)
    seen = model.forward(other, read=one.sites)
    real = other.real & (other.input_ids != 1)
    want = [seen[site][real].mean(0) for site in one.sites]
    got = mean[post] - mean[pre] if part == "block" else mean[Site(1, part)]
    torch.testing.assert_close(
        got[own], (want[-1] - want[0] if part == "block" else want[0]).expand_as(got[own]), atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(mean[post][own], plain[post][own], atol=1e-2)


def test_a_donor_lends_what_it_does_at_the_same_place_and_starts_again_where_it_ends() -> None:
    model = tiny("llama")
    rows = model.token_rows(TEXTS)
    batch = left_pad(rows, model.pad_id)
    site, giver = Site(2, "attn_out"), [2, 3, 0, 1]
    lending = Lending(model, rows, giver, [site])
    one = LayerAblation(2, "attn_out", "resample")
    _, plain, lent = _edited(model, one, batch, lending)
    width = batch.input_ids.shape[1]
    for row, donor in enumerate(giver):
        own = model.forward(left_pad([rows[donor]], model.pad_id), read=[site])[site][0]
        for place in range(1, len(rows[row])):
            at = place if place < len(own) else 1 + (place - 1) % (len(own) - 1)
            torch.testing.assert_close(lent[site][row, width - len(rows[row]) + place], own[at], atol=1e-4, rtol=1e-4)
    first = width - len(rows[0])
    torch.testing.assert_close(lent[site][0, first], plain[site][0, first])  # BOS


def test_a_text_that_lends_to_itself_stays_as_it_is_and_batches_do_not_matter() -> None:
    model = tiny("qwen2")
    ablations = [LayerAblation(1, part, "resample") for part in PARTS]
    assert _quiet(layer_effects(model, TEXTS, ablations, donor=range(4)))
    together, alone = (layer_effects(model, TEXTS, ablations, token_budget=budget, seed=3) for budget in (4096, 1))
    assert together["kl"].tolist() == pytest.approx(alone["kl"].tolist(), abs=1e-4) and not _quiet(together)


def test_donors_are_others_and_each_lends_once() -> None:
    for n in (2, 3, 17):
        found = donors(n, seed=1)
        assert sorted(found) == list(range(n)) and all(i != d for i, d in enumerate(found))
    with pytest.raises(SteerlabError, match="at least two"):
        donors(1)


def test_readouts_follow_the_ablation_downstream() -> None:
    """Without the whole last block its output projects as its input did."""
    model, v = tiny("llama"), vector(0).at(1)
    last = Site(model.n_layers - 1)
    table: Any = layer_effects(
        model, TEXTS, [LayerAblation(last.layer, "block", "zero")],
        readouts={"out": (last, v), "in": (Site(last.layer, "resid_pre"), v)},
    )  # fmt: skip
    plain, edited = table[table["layer"] < 0], table[table["layer"] >= 0]
    assert edited["out"].tolist() == pytest.approx(plain["in"].tolist(), rel=1e-4)
    assert edited["out"].tolist() != pytest.approx(plain["out"].tolist(), rel=1e-2)


def test_models_whose_blocks_do_not_simply_add_keep_the_whole_block_only() -> None:
    granite = wrap(stranger("Granite", residual_multiplier=0.5), tokenizer(), name="granite")
    assert not granite.layout.adds
    with pytest.raises(SteerlabError, match="not what its blocks add"):
        layer_effects(granite, TEXTS, [LayerAblation(1, "mlp_out", "zero")])
    table: Any = layer_effects(granite, TEXTS, [LayerAblation(1, "block", "zero")])
    assert table[table["layer"] == 1]["kl"].min() > 1e-4


def test_what_cannot_be_done_is_refused() -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="without reference texts"):
        layer_effects(model, TEXTS, [LayerAblation(0)])
    with pytest.raises(SteerlabError, match="layer 9 does not exist"):
        layer_effects(model, TEXTS, [LayerAblation(9, "block", "zero")])
    with pytest.raises(SteerlabError, match="give each the number of one"):
        layer_effects(model, TEXTS, [LayerAblation(0, "block", "resample")], donor=[0, 1])


def test_every_part_is_every_part() -> None:
    found = every_part(3)
    assert len(found) == len(set(map(str, found))) == 3 * 3 * 3
    assert str(LayerAblation(2, "mlp_out", "zero")) == "zero mlp_out 2"


def test_the_parts_are_modules_of_the_layout() -> None:
    """What is replaced is the output that the layout names: in Gemma-2 the norm behind the attention."""
    model: Any = tiny("gemma2")
    block = model.hf.model.layers[1]
    named = submodule(block, model.layout.attn_out)
    assert isinstance(named, nn.Module) and named is block.post_attention_layernorm
