"""Attention of one new token over a cache whose heads are shared (GQA), without copying the cache for every head.

transformers repeats keys and values once per query head at every step, which at long prompts costs more than the model. One
query against a shared head is the same sum whether the queries of a group are heads or positions, so they go in as positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "steerlab_grouped"


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' `sdpa` for query (b h s e) over key and value (b g t e); one query position takes the short way."""
    heads, shared = query.shape[1], key.shape[1]
    plain = query.shape[2] != 1 or heads == shared or options.get("position_bias") is not None
    if plain or (attention_mask is not None and attention_mask.shape[1] != 1):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    b, _, _, e = query.shape
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(b, shared, heads // shared, e), key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(b, 1, heads, value.shape[-1]), None


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def grouped(model: Any) -> Iterator[None]:
    """Inside, a transformers model that uses `sdpa` attends as above; other kinds of attention stay what they are."""
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    if before != "sdpa" or getattr(config, "num_key_value_heads", None) in (None, config.num_attention_heads):
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
