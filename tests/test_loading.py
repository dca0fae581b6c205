"""Loading: what is found is checked once, what is not found is one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from steerlab import loading
from steerlab.batch import left_pad
from steerlab.errors import SteerlabError
from steerlab.loading import load, wrap
from steerlab.types import Site
from steerlab.weights import weights_digest
from tests.tiny import FAMILIES, hf_model, tiny, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama as a folder on disk."""
    path = tmp_path_factory.mktemp("model")
    hf_model("llama").save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_local_folder_loads_and_is_the_model_that_was_saved(folder: Path) -> None:
    model, same = load(str(folder), device="cpu"), tiny("llama")
    batch = same.encode(["hello"])
    assert torch.equal(model.forward(batch, read=[Site(3)])[Site(3)], same.forward(batch, read=[Site(3)])[Site(3)])
    assert model.name == str(folder)
    assert (model.n_layers, model.d_model, model.vocab_size, model.context_length) == (4, 32, 262, 256)
    assert (model.dtype, model.device.type) == (torch.float32, "cpu")
    assert model.chat_template == same.chat_template
    assert not model.hf.training


def test_the_dtype_is_the_one_asked_for(folder: Path) -> None:
    assert load(str(folder), device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_options_reach_transformers(folder: Path) -> None:
    assert load(str(folder), device="cpu", attn_implementation="eager").hf.config._attn_implementation == "eager"


def test_the_bundled_model_is_looked_for_in_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "bundled_path", lambda name: folder)
    assert load("polyglot-mini", device="cpu").name == "polyglot-mini"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "warp"}, "engine 'warp' is not known"),
        ({"dtype": "int3"}, "dtype 'int3' is not known: give one of float32, bfloat16, float16"),
        ({"device": "quantum"}, "device 'quantum' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"template": "no place"}, r"has no \{prompt\} in it"),
        ({"layers_path": "model.nothing"}, "were not found .tried model.nothing"),
    ],
)
def test_a_wrong_argument_is_one_sentence(folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        load(str(folder), **{"device": "cpu", **given})


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model"])
def test_an_unknown_name_offline_is_one_sentence(name: str) -> None:
    with pytest.raises(
        SteerlabError, match=f"the model '{name}' could not be loaded .*give a hub id, a local folder"
    ) as e:
        load(name)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "~/no-such-folder", "../no-such-folder"])
def test_a_path_without_a_folder_is_not_asked_for_on_the_hub(name: str) -> None:
    with pytest.raises(SteerlabError, match=f"there is no folder {name}: give"):
        load(name)


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _truncate(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage",
    [
        _empty,
        _truncate,
        lambda path: (path / "config.json").unlink(),
        lambda path: (path / "config.json").write_text("{broken"),
        lambda path: (path / "config.json").write_text('{"model_type": "teapot"}'),
        lambda path: (path / "model.safetensors").unlink(),
        lambda path: (path / "model.safetensors").write_bytes(b"not a safetensors file"),
    ],
    ids=["empty", "truncated", "no config", "broken config", "unknown type", "no weights", "no safetensors"],
)
def test_a_folder_that_holds_no_whole_model_is_one_sentence(copy: Path, damage: Any) -> None:
    damage(copy)
    with pytest.raises(SteerlabError, match="could not be loaded .*give a hub id, a local folder") as caught:
        load(str(copy), device="cpu")
    assert "\n" not in str(caught.value)


def test_gemma_2_gets_eager_attention_because_sdpa_leaves_out_its_soft_capping() -> None:
    assert tiny("gemma2").hf.config._attn_implementation == "eager"
    assert {tiny(f).hf.config._attn_implementation for f in FAMILIES if f != "gemma2"} == {"sdpa"}
    batch = left_pad([[1, 40, 50, 60]], 0)
    logits = {}
    for attention in ("sdpa", "eager"):  # a small cap, so that it bites on activations this small
        hf = hf_model("gemma2", attn_logit_softcapping=0.5)
        hf.set_attn_implementation(attention)
        with torch.no_grad():
            logits[attention] = hf(batch.input_ids).logits
    model = wrap(hf_model("gemma2", attn_logit_softcapping=0.5), tokenizer())
    got = model.forward(batch, logits=True).logits
    assert got is not None
    assert torch.equal(got, logits["eager"])
    assert not torch.allclose(got, logits["sdpa"], rtol=1e-3)


class _Deaf(nn.Module):
    """A last norm that never listens to the residual stream."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(hidden_states)


def test_a_model_in_which_an_edit_has_no_effect_is_refused() -> None:
    hf = hf_model("llama")
    hf.model.norm = _Deaf()
    with pytest.raises(SteerlabError, match="an edit of the residual stream at block 3 of deaf changes nothing"):
        wrap(hf, tokenizer(), name="deaf")


class _Narrow(nn.Module):
    """A block whose output is not as wide as the stream."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.self_attn, self.mlp, self.attention_type = block.self_attn, block.mlp, "full_attention"
        self.narrow: Any = block.mlp

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.narrow(hidden_states)[:, -1:]


def test_a_block_of_another_shape_is_refused() -> None:
    hf = hf_model("llama")
    hf.model.layers[3] = _Narrow(hf.model.layers[3])
    with pytest.raises(
        SteerlabError, match=r"block 3 of narrow gives a tensor of shape \(2, 1, 32\), expected .* \(2, 3, 32\)"
    ):
        wrap(hf, tokenizer(), name="narrow")


def test_the_digest_tells_models_of_one_name_apart_and_nothing_else() -> None:
    one = weights_digest(hf_model("llama"))
    assert one == weights_digest(hf_model("llama"))
    assert one == weights_digest(hf_model("llama", torch.bfloat16).float().bfloat16())
    assert one != weights_digest(hf_model("llama", seed=1))
    assert one != weights_digest(hf_model("llama", rms_norm_eps=1e-3))
    hf = hf_model("llama")
    with torch.no_grad():
        hf.model.layers[2].mlp.up_proj.weight *= 1.5
    assert one != weights_digest(hf)


def test_revision_is_the_one_asked_for_else_the_hash_of_the_weights(folder: Path) -> None:
    assert load(str(folder), device="cpu").revision == tiny("llama").revision == weights_digest(hf_model("llama"))
    assert wrap(hf_model("llama"), tokenizer(), revision="abc").revision == "abc"
