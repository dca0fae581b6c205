"""One forward pass: what is read is what raw hooks read, what is edited is edited everywhere it should be and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab.batch import left_pad
from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.types import STREAMS, Site
from tests.reference import hooks
from tests.tiny import CORE, FAMILIES, LAYERS, far, hf_model, tiny, tokenizer, vector

TEXTS = ["a", "bcdefgh ijk", "Hello wörld, this is a longer text.", "xyz"]
SITES = [Site(layer, stream) for layer in range(LAYERS) for stream in STREAMS]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_four_streams_are_those_of_raw_forward_hooks(family: str, chat: bool) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS, chat=chat)
    got = model.forward(batch, read=SITES, logits=True)
    want, out = hooks.capture(model.hf, family, batch.input_ids, batch.attention_mask, SITES)
    for site in SITES:
        assert far(got[site], want[site], batch.real) < 1e-5, site
    assert got.logits is not None
    assert far(got.logits, out.logits, batch.real) < 1e-5
    assert not got.logits.requires_grad
    assert far(got[Site(1)], want[Site(1, "resid_pre")], batch.real) > 0.1  # neighbours are not alike


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_of_transformers_are_one_off_and_end_behind_the_norm(family: str) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS)
    got = model.forward(batch, read=SITES)
    _, out = hooks.capture(model.hf, family, batch.input_ids, batch.attention_mask, [])
    states = out.hidden_states
    assert len(states) == LAYERS + 1
    for layer in range(LAYERS):
        assert far(got[Site(layer, "resid_pre")], states[layer], batch.real) < 1e-5
    for layer in range(LAYERS - 1):
        assert far(got[Site(layer)], states[layer + 1], batch.real) < 1e-5
        assert far(got[Site(layer)], states[layer], batch.real) > 0.1  # block's input, the classic mistake
    assert far(got[Site(LAYERS - 1)], states[LAYERS], batch.real) > 0.1
    norm = {"gpt2": "transformer.ln_f", "neox": "gpt_neox.final_layer_norm"}.get(family, "model.norm")
    normed = model.hf.get_submodule(norm)(got[Site(LAYERS - 1)])
    assert far(normed, states[LAYERS], batch.real) < 1e-5


@pytest.mark.parametrize("family", CORE)
def test_bfloat16_is_bitwise_that_of_raw_forward_hooks(family: str) -> None:
    model = tiny(family, torch.bfloat16)
    batch = model.encode(TEXTS)
    got = model.forward(batch, read=SITES)
    want, _ = hooks.capture(model.hf, family, batch.input_ids, batch.attention_mask, SITES)
    for site in SITES:
        assert got[site].dtype == torch.bfloat16
        assert torch.equal(got[site][batch.real], want[site][batch.real]), site


@pytest.mark.parametrize("family", FAMILIES)
def test_a_left_padded_batch_reads_as_singles(family: str) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS)
    together = model.forward(batch, read=SITES, logits=True)
    for i, text in enumerate(TEXTS):
        single = model.encode([text])
        alone = model.forward(single, read=SITES, logits=True)
        n = single.input_ids.shape[1]
        for site in SITES:
            assert far(together[site][i : i + 1, -n:], alone[site], single.real) < 1e-5, (site, text)
        assert together.logits is not None
        assert alone.logits is not None
        assert far(together.logits[i : i + 1, -n:], alone.logits, single.real) < 1e-5


def test_without_position_ids_left_padding_shifts_a_model_with_absolute_positions() -> None:
    """The trap is real: what transformers makes of a padded batch when it is not told positions is something else."""
    model = tiny("gpt2")
    batch = model.encode(TEXTS)
    with torch.no_grad():
        naive = model.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    told = model.forward(batch, logits=True).logits
    assert told is not None
    assert far(naive[2:3], told[2:3], batch.real[2:3]) < 1e-5  # the longest has no padding
    assert far(naive[1:2], told[1:2], batch.real[1:2]) > 0.01


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("family", CORE)
def test_an_edit_gives_the_logits_of_the_same_edit_by_raw_hooks(family: str, stream: Any) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS)
    v = vector(1)
    changes = {Site(layer, stream): _add(v.at(layer) * 2) for layer in (0, 2)}
    got = model.forward(batch, edit=changes, read=[Site(3)], logits=True)
    with torch.no_grad(), hooks.hooked(model.hf, family, changes):
        out = model.hf(batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids)
    plain = model.forward(batch, logits=True).logits
    assert got.logits is not None
    assert plain is not None
    assert far(got.logits, out.logits, batch.real) < 1e-5
    assert far(got.logits, plain, batch.real) > 0.01


def _add(delta: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda h: h + delta


@pytest.mark.parametrize("family", CORE)
def test_reading_comes_after_the_edit_and_before_the_next_block(family: str) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS)
    plain = model.forward(batch, read=SITES)
    shift = _add(vector(1).at(1) * 3)
    post = model.forward(batch, read=SITES, edit={Site(1): shift}, logits=True)
    pre = model.forward(batch, read=SITES, edit={Site(2, "resid_pre"): shift}, logits=True)
    assert torch.equal(post[Site(1)], shift(plain[Site(1)]))
    assert torch.equal(pre[Site(1)], plain[Site(1)])
    assert torch.equal(post[Site(2, "resid_pre")], pre[Site(2, "resid_pre")])
    assert post.logits is not None
    assert pre.logits is not None
    assert torch.equal(post.logits, pre.logits)
    for stream in STREAMS:
        assert torch.equal(post[Site(0, stream)], plain[Site(0, stream)])


@pytest.mark.parametrize("site", [Site(0), Site(0, "resid_pre"), Site(0, "attn_out"), Site(2, "mlp_out")])
def test_an_edit_of_some_rows_leaves_the_others_bitwise(site: Site) -> None:
    """Rows 1 and 2 of three: neither row 0 alone, nor all. Layer 0 is a layer like any other."""
    model = tiny("llama")
    batch = model.encode(["abc", "def", "ghi"])
    chosen = torch.tensor([0.0, 1.0, 1.0])[:, None, None]
    plain = model.forward(batch, read=[Site(3)], logits=True)
    edited = model.forward(batch, read=[Site(3)], edit={site: lambda h: h + 2 * chosen}, logits=True)
    assert plain.logits is not None
    assert edited.logits is not None
    assert torch.equal(plain[Site(3)][0], edited[Site(3)][0])
    assert torch.equal(plain.logits[0], edited.logits[0])
    for row in (1, 2):
        assert (plain.logits[row] - edited.logits[row]).abs().max() > 0.01


def _calls(model: TracedModel, run: Callable[[], Any]) -> dict[str, int]:
    """How often each block and the LM head is entered."""
    watched = {f"block {i}": b for i, b in enumerate(model.hf.get_submodule(model.layout.layers))}
    watched["head"] = model.hf.get_output_embeddings()
    counts = dict.fromkeys(watched, 0)
    handles = []
    for name, module in watched.items():

        def count(*_: Any, name: str = name) -> None:
            counts[name] += 1

        handles.append(module.register_forward_pre_hook(count))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return counts


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("read", [Site(1), Site(1, "mlp_out"), Site(2, "resid_pre")])
def test_nothing_behind_the_last_site_is_run(family: str, read: Site) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS)
    counts = _calls(model, lambda: model.forward(batch, read=[Site(0), read]))
    assert [counts[f"block {i}"] for i in range(LAYERS)] == [1, 1, int(read.layer == 2), 0]
    assert counts["head"] == 0
    assert set(_calls(model, lambda: model.forward(batch, read=[read], logits=True)).values()) == {1}


def test_a_visitor_gets_every_site_and_nothing_is_kept() -> None:
    model = tiny("llama")
    batch = model.encode(TEXTS)
    seen: dict[Site, Tensor] = {}
    reading = model.forward(batch, read=SITES, visit=seen.__setitem__)
    assert not reading.sites
    assert reading.logits is None
    want = model.forward(batch, read=SITES)
    assert all(torch.equal(seen[site], want[site]) for site in SITES)


def _state(model: TracedModel) -> tuple[dict[str, Tensor], list[int], str]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    hooked = [len(getattr(module, kind)) for module in model.hf.modules() for kind in kinds]
    return copy.deepcopy(model.hf.state_dict()), hooked, str(model.hf.config)


@pytest.mark.parametrize("how", ["returns", "raises", "raises midway"])
@pytest.mark.parametrize("family", CORE)
def test_afterwards_the_model_is_as_it_was(family: str, how: str) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS)
    plain = model.forward(batch, read=SITES, logits=True)
    weights, hooked, config = _state(model)

    def edit(h: Tensor) -> Tensor:
        if how != "returns":
            raise ZeroDivisionError("in the edit")
        return h * 2

    edits = {Site(0): lambda h: h * 2, Site(2): edit} if how == "raises midway" else {Site(0): edit}
    if how == "returns":
        model.forward(batch, edit=edits, logits=True)
    else:
        with pytest.raises(ZeroDivisionError, match="in the edit"):
            model.forward(batch, edit=edits, logits=True)
    after, hooked_after, config_after = _state(model)
    assert (hooked_after, config_after) == (hooked, config)
    assert weights.keys() == after.keys()
    assert all(torch.equal(weights[key], after[key]) for key in weights)
    again = model.forward(batch, read=SITES, logits=True)
    assert all(torch.equal(plain[site], again[site]) for site in SITES)


def test_an_error_in_an_edit_keeps_its_type_and_its_sentence() -> None:
    model = tiny("llama")

    def edit(h: Tensor) -> Tensor:
        raise SteerlabError("one sentence.")

    with pytest.raises(SteerlabError) as caught:
        model.forward(model.encode(["a"]), edit={Site(1): edit})
    assert str(caught.value) == "one sentence."


def test_two_models_in_one_process_do_not_interfere() -> None:
    one, two = wrap(hf_model("llama"), tokenizer()), wrap(hf_model("llama", seed=5), tokenizer())
    batch = one.encode(TEXTS)
    plain_one, plain_two = one.forward(batch, read=SITES), two.forward(batch, read=SITES)
    assert far(plain_one[Site(2)], plain_two[Site(2)], batch.real) > 0.1
    inside: list[Tensor] = []

    def edit(h: Tensor) -> Tensor:
        inside.append(two.forward(batch, read=[Site(2)])[Site(2)])  # a pass of the other within an edit of this
        return h + 5

    edited = one.forward(batch, read=[Site(2)], edit={Site(1): edit})
    assert not torch.equal(edited[Site(2)], plain_one[Site(2)])
    assert torch.equal(inside[0], plain_two[Site(2)])
    assert torch.equal(two.forward(batch, read=[Site(2)])[Site(2)], plain_two[Site(2)])
    assert torch.equal(one.forward(batch, read=[Site(2)])[Site(2)], plain_one[Site(2)])


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site(4), "layer 4 does not exist: tiny-llama has layers 0 to 3"),
        (Site(-1), "layer -1 does not exist"),
        (Site(0, "resid_mid"), "stream 'resid_mid' is not known: give one of resid_pre, "),  # pyright: ignore[reportArgumentType]
    ],
)
def test_a_site_the_model_does_not_have_is_refused(site: Site, message: str) -> None:
    model = tiny("llama")
    batch = model.encode(["a"])
    with pytest.raises(SteerlabError, match=message):
        model.forward(batch, read=[site])
    with pytest.raises(SteerlabError, match=message):
        model.forward(batch, edit={site: lambda h: h})


def test_answers_are_generated_text() -> None:
    model = tiny("llama")
    batch = model.encode(["ab", "c"], answers=["xyz", "t"], chat=True)
    assert batch.relative[0, -3:].tolist() == [0, 1, 2]
    assert batch.relative[1, -1:].tolist() == [0]
    assert batch.input_ids[0, -4] == model.tokenizer.convert_tokens_to_ids("<|assistant|>")
    assert int((batch.input_ids == 1).sum()) == 2
    with pytest.raises(SteerlabError, match="1 answers were given for 2 texts"):
        model.encode(["a", "b"], answers=["x"])


def test_texts_that_cannot_be_encoded_are_refused() -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="no texts were given"):
        model.encode([])
    with pytest.raises(SteerlabError, match=r"a text of 257 tokens .* does not fit the 256 positions of tiny-llama"):
        model.encode(["ok", "x" * 256])
    assert model.encode(["x" * 255]).input_ids.shape == (1, 256)
    with pytest.raises(SteerlabError, match="the text '' has no tokens: give a non-empty text"):
        tiny("llama", bos=False).encode(["a", ""])
    assert left_pad(model.token_rows([""]), 0).input_ids.tolist() == [[1]]  # BOS alone is a text
