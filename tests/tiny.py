"""Tiny models of every supported shape, made from configs: random weights, under a million parameters, no download."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from steerlab.loading import wrap
from steerlab.model import TracedModel
from steerlab.types import Stream
from steerlab.vectors import SteeringVector

D, LAYERS, VOCAB = 32, 4, 262
COMMON = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDE = {
    "hidden_size": D,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GROUPED = {**WIDE, "num_key_value_heads": 2}
HEAD = {"head_dim": 8}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED),
    "gemma2": ("Gemma2", {**GROUPED, **HEAD, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", {**GROUPED, **HEAD, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", {**GROUPED, **HEAD}),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": None}),
    "phi3": ("Phi3", {**GROUPED}),
    "gpt2": ("GPT2", {"n_embd": D, "n_layer": LAYERS, "n_head": 4, "n_positions": 256}),
    "neox": ("GPTNeoX", WIDE),
}
CORE = ("llama", "gemma2", "qwen2")
CHAT = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


@cache
def _byte_tokenizer() -> Tokenizer:
    specials = ["<|pad|>", "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|unk|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*specials, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens(specials)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def tokenizer(bos: bool = True, chat: bool = True, pad: bool = True) -> PreTrainedTokenizerFast:
    """A byte tokenizer; `bos` puts BOS before plain text as Llama's does, without `pad` there is no pad token."""
    core = Tokenizer.from_str(_byte_tokenizer().to_str())
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", 1)]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        **({"pad_token": "<|pad|>"} if pad else {}),
    )
    if chat:
        made.chat_template = CHAT
    return made


def hf_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """The transformers model of one family with random weights large enough that layers matter."""
    prefix, fields = FAMILIES[family]
    config = getattr(transformers, f"{prefix}Config")(**{**COMMON, **fields, **changes})
    suffix = "LMHeadModel" if family == "gpt2" else "ForCausalLM"
    name = "Gemma3ForCausalLM" if family == "gemma3" else prefix + suffix
    torch.manual_seed(seed)
    model = getattr(transformers, name)(config)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.15)
    assert sum(w.numel() for w in model.parameters()) < 1_000_000
    return model.to(dtype).eval()


def stranger(name: str, **changes: Any) -> PreTrainedModel:
    """A tiny model of a Llama-like family outside the list, by the prefix of its classes."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**COMMON, **GROUPED, **changes})
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.15)
    return model.eval()


@cache
def tiny(
    family: str,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    bos: bool = True,
    chat: bool = True,
    **changes: Any,
) -> TracedModel:
    """A traced tiny model, one for the whole session: leave it as it is, or make your own with `wrap(hf_model(...), tokenizer())`."""
    return wrap(hf_model(family, dtype, seed, **changes), tokenizer(bos, chat), name=f"tiny-{family}")


def vector(seed: int, stream: Stream = "resid_post", layers: int = LAYERS, width: int = D) -> SteeringVector:
    """A random direction for every layer; the residual norm it records at layer l is l + 1."""
    raw = torch.randn(layers, width, generator=torch.Generator().manual_seed(seed))
    norm = torch.arange(1.0, layers + 1)
    return SteeringVector.from_raw(f"v{seed}", raw, tuple(range(layers)), residual_norm=norm, stream=stream)


def far(got: Tensor, want: Tensor, real: Tensor) -> float:
    """Largest distance of a real token's vector (b s d) from the wanted one, relative to its norm."""
    gap = (got - want)[real].detach().float().norm(dim=-1)
    return float((gap / want[real].detach().float().norm(dim=-1)).max())
