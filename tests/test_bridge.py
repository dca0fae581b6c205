"""The TransformerLens twin sees the same weights, the same activations and, steered in a loop of its own, writes the same tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab.bridge import activations, hook_name, twin
from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.steering import Intervention, Plan
from steerlab.types import STREAMS, Site, Stream
from tests.tiny import CORE, FAMILIES, HEAD, LAYERS, far, stranger, tiny, tokenizer, vector

TEXTS = ["a", "bcdefgh ijk", "Hello wörld, this is a longer text.", "xyz"]
SITES = [Site(layer, stream) for layer in range(LAYERS) for stream in STREAMS]
NEW = 6


@cache
def other(family: str) -> Any:
    """One twin per family for the whole session."""
    return twin(tiny(family))


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_four_streams_and_the_logits_are_those_of_the_twin(family: str, chat: bool) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS, chat=chat)
    ours = model.forward(batch, read=SITES, logits=True)
    theirs, logits = activations(other(family), batch, SITES)
    assert set(theirs) == set(SITES)
    for site in SITES:
        assert far(ours[site], theirs[site], batch.real) < 1e-5, site
    assert ours.logits is not None
    assert far(ours.logits, logits, batch.real) < 1e-5
    assert far(ours[Site(1)], theirs[Site(1, "resid_pre")], batch.real) > 0.1


def _loop(bridge: Any, prompt: list[int], deltas: dict[Site, Tensor]) -> list[int]:
    """Greedy with TransformerLens' hooks, no cache: the whole text again at every step."""

    def adder(delta: Tensor) -> Any:
        def add(value: Tensor, hook: Any) -> Tensor:
            return value + delta

        return add

    hooks, row = [(hook_name(site), adder(delta)) for site, delta in deltas.items()], list(prompt)
    for _ in range(NEW):
        with torch.no_grad():
            logits = bridge.run_with_hooks(torch.tensor([row]), fwd_hooks=hooks, return_type="logits")
        row.append(int(logits[0, -1].argmax()))
    return row[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_is_steered_as_in_a_greedy_loop_of_transformer_lens(family: str) -> None:
    model = tiny(family)
    streams: tuple[Stream, ...] = ("resid_post", "attn_out", "mlp_out")
    change = tuple(Intervention(vector(i, stream), (0, 2), strength=2.0) for i, stream in enumerate(streams))
    deltas = {Site(layer, i.vector.stream): 2 * i.vector.at(layer) for i in change for layer in (0, 2)}
    texts = ["abc", "Hello wörld."]
    plan = Plan.uniform(change, len(texts))
    out = model.decode(
        model.encode(texts, chat=True),
        lambda rows, history, logits, step: logits.argmax(-1),
        lambda rows, tokens: torch.zeros(len(rows), dtype=torch.bool),
        NEW,
        plan,
    )
    for i, prompt in enumerate(model.token_rows(texts, chat=True)):
        assert out.row(i) == _loop(other(family), prompt, deltas)
        assert out.row(i) != _loop(other(family), prompt, {})


@pytest.mark.parametrize("family", CORE)
def test_the_twin_shares_the_weights_and_leaves_the_model_alone(family: str) -> None:
    model = tiny(family)
    batch = model.encode(TEXTS)
    before, attention = model.forward(batch, read=SITES, logits=True), model.hf.config._attn_implementation
    hooked = [len(module._forward_hooks) for module in model.hf.modules()]
    bridge = twin(model)
    activations(bridge, batch, SITES)
    theirs = {p.data_ptr() for p in bridge.original_model.parameters()}
    assert {p.data_ptr() for p in model.hf.parameters()} <= theirs
    after = model.forward(batch, read=SITES, logits=True)
    assert all(torch.equal(before[site], after[site]) for site in SITES)
    assert model.hf.config._attn_implementation == attention
    assert [len(module._forward_hooks) for module in model.hf.modules()] == hooked


def test_a_hook_of_the_twin_is_not_one_of_the_model() -> None:
    model = tiny("llama")
    batch = model.encode(TEXTS)
    plain = model.forward(batch, logits=True).logits
    inside: list[Tensor] = []

    def wreck(value: Tensor, hook: Any) -> Tensor:
        seen = model.forward(batch, logits=True).logits
        assert seen is not None
        inside.append(seen)
        return value * 0

    other("llama").run_with_hooks(batch.input_ids, fwd_hooks=[(hook_name(Site(1)), wreck)])
    assert plain is not None
    assert torch.equal(inside[0], plain)


@pytest.mark.parametrize("stream", STREAMS)
def test_names_of_hooks(stream: Stream) -> None:
    assert hook_name(Site(3, stream)) == f"blocks.3.hook_{stream}"
    assert hook_name(Site(3, stream)) in other("llama").hook_dict


def test_an_architecture_transformer_lens_does_not_know_is_one_sentence() -> None:
    model = wrap(stranger("Helium", **HEAD), tokenizer(), name="helium")
    with pytest.raises(
        SteerlabError, match="TransformerLens has no twin for HeliumForCausalLM .*use model.forward"
    ) as caught:
        twin(model)
    assert "\n" not in str(caught.value)
