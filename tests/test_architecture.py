"""The residual stream is found in every supported shape, and what is not recognised is refused with its module tree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steerlab.architecture import Layout, adds_up, find_layout, module_tree, submodule
from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.types import STREAMS, Site
from tests.reference import hooks
from tests.tiny import FAMILIES, HEAD, LAYERS, hf_model, stranger, tiny, tokenizer

IDS = torch.tensor([[1, 40, 50, 60, 41, 42]])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layout_of_every_family(family: str) -> None:
    want = hooks.PATHS[family]
    assert find_layout(hf_model(family)) == Layout(want.blocks, LAYERS, want.attn, want.mlp)
    assert tiny(family).layout.adds


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_adds_attn_out_and_mlp_out_to_its_input(family: str) -> None:
    """Holds for parallel blocks (NeoX) too; for Gemma only because attn_out is what the norm behind the attention gives."""
    model = tiny(family)
    batch = model.encode(["a longer text", "short"])
    for layer in range(LAYERS):
        got = model.forward(batch, read=[Site(layer, stream) for stream in STREAMS])
        parts = [got[Site(layer, stream)] for stream in ("resid_pre", "attn_out", "mlp_out")]
        assert all(part[batch.real].abs().max() > 0.01 for part in parts)
        total, post = sum(parts, torch.zeros(())), got[Site(layer)]
        torch.testing.assert_close(total[batch.real], post[batch.real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_the_attention_of_gemma_itself_is_not_what_is_added(family: str) -> None:
    hf = hf_model(family)
    assert adds_up(hf, find_layout(hf), IDS)
    assert not adds_up(hf, Layout("model.layers", LAYERS, "self_attn", "mlp"), IDS)
    assert not adds_up(hf, Layout("model.layers", LAYERS, "self_attn", "post_feedforward_layernorm"), IDS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_rounding_of_half_precision_is_no_other_architecture(family: str, dtype: torch.dtype) -> None:
    hf = hf_model(family, dtype)
    assert adds_up(hf, find_layout(hf), IDS)


@pytest.mark.parametrize(
    ("name", "attn", "mlp"),
    [
        ("Olmo2", "post_attention_layernorm", "post_feedforward_layernorm"),
        ("Glm4", "post_self_attn_layernorm", "post_mlp_layernorm"),
    ],
)
def test_post_norms_by_other_names(name: str, attn: str, mlp: str) -> None:
    hf = stranger(name, **HEAD)
    layout = find_layout(hf)
    assert (layout.attn_out, layout.mlp_out) == (attn, mlp)
    assert adds_up(hf, layout, IDS)


def test_blocks_that_scale_what_they_add_refuse_attn_out_and_mlp_out() -> None:
    model = wrap(stranger("Granite", residual_multiplier=0.22), tokenizer(), name="granite")
    assert not model.layout.adds
    batch = model.encode(["abc"])
    assert model.forward(batch, read=[Site(1), Site(1, "resid_pre")])[Site(1)].shape == (1, 4, 32)
    for stream in ("attn_out", "mlp_out"):
        with pytest.raises(SteerlabError, match=f"{stream} of granite is not what its blocks add"):
            model.forward(batch, read=[Site(1, stream)])
    assert wrap(stranger("Granite", residual_multiplier=1.0), tokenizer()).layout.adds


def test_adds_up_leaves_no_hook_behind_even_when_the_model_fails() -> None:
    hf = hf_model("llama")
    layout = find_layout(hf)
    assert adds_up(hf, layout, IDS)
    with pytest.raises(IndexError):
        adds_up(hf, layout, torch.tensor([[10**6]]))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules())


class _Nest(nn.Module):
    """Blocks at a path nobody knows."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.config: Any = SimpleNamespace(num_hidden_layers=3)
        self.tower = nn.Module()
        self.tower.floors = nn.ModuleList(self._floor() for _ in range(blocks))

    @staticmethod
    def _floor() -> nn.Module:
        floor = nn.Module()
        floor.attn, floor.mlp = nn.Linear(2, 2), nn.Linear(2, 2)
        return floor


def test_an_unrecognised_architecture_lists_its_module_tree_and_takes_layers_path() -> None:
    with pytest.raises(SteerlabError, match=r"the decoder blocks of _Nest were not found") as caught:
        find_layout(_Nest())
    text = str(caught.value)
    assert "give layers_path" in text
    assert "tower: Module" in text
    assert "floors: ModuleList x3" in text
    assert "0: Module" in text
    assert find_layout(_Nest(), "tower.floors") == Layout("tower.floors", 3, "attn", "mlp")


def test_another_number_of_blocks_than_the_config_says_is_refused() -> None:
    with pytest.raises(SteerlabError, match="expected a ModuleList of 3 blocks"):
        find_layout(_Nest(blocks=2), "tower.floors")


@pytest.mark.parametrize("path", ["tower", "tower.nothing", "config"])
def test_a_path_that_is_no_list_of_blocks_is_refused(path: str) -> None:
    with pytest.raises(SteerlabError, match="were not found"):
        find_layout(_Nest(), path)


def test_submodule_gives_modules_only() -> None:
    hf = hf_model("llama")
    assert submodule(hf, "model.layers.2.mlp") is hf.model.layers[2].mlp
    assert submodule(hf, "model.nothing") is None
    assert submodule(hf, "config.hidden_size") is None


def test_the_tree_shows_one_block_of_a_list() -> None:
    tree = module_tree(hf_model("llama"))
    assert "layers: ModuleList x4" in tree
    assert tree.count("LlamaDecoderLayer") == 1


def test_sites_come_in_the_order_the_forward_pass_reaches_them() -> None:
    layout = tiny("llama").layout
    sites = [Site(layer, stream) for layer in range(2) for stream in STREAMS]
    order = layout.order([*reversed(sites), sites[0]])
    assert order == [Site(i, s) for i in range(2) for s in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    model = tiny("llama")
    seen: list[Site] = []

    def visit(site: Site, h: Tensor) -> None:
        seen.append(site)

    model.forward(model.encode(["ab"]), read=list(reversed(sites)), visit=visit)
    assert seen == order
