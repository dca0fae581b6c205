"""The shapes of published models with random weights: from a config, no download, made on the device in half precision."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.peers.subject import SPECIALS, word_tokenizer
from steerlab.loading import wrap
from steerlab.model import TracedModel

LLAMA: dict[str, Any] = {"config": LlamaConfig, "model": LlamaForCausalLM}
GEMMA2: dict[str, Any] = {"config": Gemma2Config, "model": Gemma2ForCausalLM}
SHAPES: Mapping[str, dict[str, Any]] = {
    "Llama-3.1-8B": LLAMA | {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
    "Gemma-2-9B": GEMMA2 | {
        "vocab_size": 256000, "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "query_pre_attn_scalar": 256,
    },
    "Gemma-2-27B": GEMMA2 | {
        "vocab_size": 256000, "hidden_size": 4608, "intermediate_size": 36864, "num_hidden_layers": 46,
        "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 144,
    },
}  # fmt: skip
TINY = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
CONTEXT = 4096


def build(name: str, device: str, tiny: bool = False) -> tuple[TracedModel, PreTrainedModel]:
    """The traced model of a shape in bfloat16, and transformers' own on the same weights, which nnsight has not touched.

    `tiny`: the same architecture, small enough for a test. Nothing ends a text.
    """
    fields: dict[str, Any] = dict(SHAPES[name]) | (TINY if tiny else {})
    config_class, model_class = fields.pop("config"), fields.pop("model")
    config = config_class(
        **fields,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=SPECIALS.index("<pad>"),
    )
    with torch.random.fork_rng(devices=[0] if device == "cuda" else []), torch.device(device):
        torch.random.manual_seed(0)
        hf = model_class._from_config(config, dtype=torch.bfloat16)
    hf.generation_config.eos_token_id = None
    shared: dict[int, Any] = {id(p): p for p in hf.parameters()}
    plain = copy.deepcopy(hf, shared).eval()
    model = wrap(hf, word_tokenizer(config.vocab_size), name=name)
    plain.set_attn_implementation(model.hf.config._attn_implementation)
    return model, plain


def block_parameters(hf: PreTrainedModel) -> int:
    """Weights a forward pass without LM head multiplies with: those of the blocks."""
    return sum(p.numel() for p in hf.base_model.layers.parameters())  # type: ignore[union-attr]


def cache_bytes(hf: PreTrainedModel) -> int:
    """Bytes of keys and values for one token of one row in bfloat16."""
    config = hf.config
    return 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
