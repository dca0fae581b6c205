"""Will it fit? Weights, key-value cache and logits of a model plan beside the memory of this machine, and a refusal when not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, BitsAndBytesConfig

from steerlab.errors import SteerlabError
from steerlab.loading import source_of
from steerlab.studies.config import ModelPlan

GB = 1e9
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
QUANTIZED = {"8bit": 1.05, "4bit": 0.56}  # bytes per weight: with the scales of LLM.int8() and of NF4 in blocks of 64
ROOM = 1.1  # allocator slack and what nobody counts


@dataclass(frozen=True)
class Shape:
    """What of a model decides its memory: parameters in all and in the (never quantized) embeddings, blocks, key-value width."""

    parameters: int
    embeddings: int
    layers: int
    kv_width: int  # key-value heads x head size
    vocab: int


# From the models' own configs and cards, so that a plan can be made where the model is not at hand.
SHAPES: Mapping[str, Shape] = {
    "google/gemma-2-9b-it": Shape(9_240_000_000, 256_000 * 3584, 42, 8 * 256, 256_000),
    "google/gemma-2-27b-it": Shape(27_230_000_000, 256_000 * 4608, 46, 16 * 128, 256_000),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(8_030_000_000, 2 * 128_256 * 4096, 32, 8 * 128, 128_256),
    "meta-llama/Llama-3.1-70B-Instruct": Shape(70_550_000_000, 2 * 128_256 * 8192, 80, 8 * 128, 128_256),
}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes a plan needs: weights, key-value cache of a full batch, and logits with what sampling makes of them."""

    weights: float
    cache: float
    logits: float

    @property
    def total(self) -> float:
        """Bytes in all, with `ROOM` for what nobody counts."""
        return ROOM * (self.weights + self.cache + self.logits)


def shape_of(plan: ModelPlan) -> Shape | None:
    """The model's shape: from the table above, a local folder, or the hub's cache; None where nothing is known."""
    if plan.name in SHAPES:
        return SHAPES[plan.name]
    folder = Path(source_of(plan.name)).expanduser()
    try:
        config: Any = AutoConfig.from_pretrained(
            folder if folder.is_dir() else plan.name, revision=plan.revision or None
        )
    except (OSError, ValueError):
        return None
    config = getattr(config, "text_config", config)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    return Shape(
        _parameters(folder) or _estimate(config), embeddings, config.num_hidden_layers, heads * size, config.vocab_size
    )


def _parameters(folder: Path) -> int | None:
    """Parameters counted from the safetensors headers of a local folder."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                total += int(torch.Size(entry["shape"]).numel())
    return total or None


def _estimate(config: Any) -> int:
    """Gated MLP, attention and embeddings of a Llama-like block: within a few percent for the models named here."""
    d, layers, mlp = (
        config.hidden_size,
        config.num_hidden_layers,
        getattr(config, "intermediate_size", 4 * config.hidden_size),
    )
    return int(layers * (3 * d * mlp + 4 * d * d) + config.vocab_size * d * (1 if config.tie_word_embeddings else 2))


def memory_plan(plan: ModelPlan, positions: int) -> MemoryPlan | None:
    """Bytes for batches of the plan's rows with `positions` tokens each (prompt and answer); None for an unknown shape."""
    shape = shape_of(plan)
    if shape is None:
        return None
    size = BYTES.get(plan.dtype, 4.0)
    inside = shape.parameters - shape.embeddings
    weights = shape.embeddings * size + inside * QUANTIZED.get(plan.quantize, size)
    cache = 2 * shape.layers * shape.kv_width * size * plan.batch_rows * positions
    logits = 4 * 4.0 * shape.vocab * plan.batch_rows  # float32, and three copies while a token is chosen
    return MemoryPlan(weights, cache, logits)


def available(device: str) -> tuple[float, str]:
    """Bytes there are on the device ("" = a GPU if there is one, "auto" = all GPUs and, beyond them, nothing) and its name."""
    if device != "cpu" and torch.cuda.is_available():
        cards = range(torch.cuda.device_count()) if device in ("", "auto") else [torch.device(device).index or 0]
        cards = list(cards)[:1] if device == "" else cards
        total = sum(torch.cuda.get_device_properties(card).total_memory for card in cards)
        return float(total), f"{len(list(cards))} GPU(s)"
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return float(pages * page), "this machine's main memory"


def check_memory(plan: ModelPlan, positions: int = 1024) -> None:
    """Raises `SteerlabError` where the plan cannot fit, with the numbers and the smallest change that would help."""
    wanted = memory_plan(plan, positions)
    if wanted is None:
        return
    have, where = available(plan.device)
    if wanted.total <= have:
        return
    lower = [
        (q, _with(plan, q, positions)) for q in ("8bit", "4bit") if plan.quantize == "" and torch.cuda.is_available()
    ]
    fits = [f"quantize = '{q}' needs {size / GB:.0f} GB" for q, size in lower if size <= have]
    raise SteerlabError(
        f"{plan.name} in {plan.quantize or plan.dtype} needs about {wanted.total / GB:.0f} GB ({wanted.weights / GB:.0f} for weights, "
        f"{(wanted.cache + wanted.logits) / GB:.0f} for {plan.batch_rows} rows of {positions} tokens) and {where} has {have / GB:.0f} GB: "
        f"{fits[0] if fits else 'lower batch_rows, quantize, or use a larger machine'}."
    )


def _with(plan: ModelPlan, quantize: str, positions: int) -> float:
    found = memory_plan(replace(plan, quantize=quantize), positions)
    return found.total if found else 0.0


def load_options(plan: ModelPlan) -> dict[str, Any]:
    """What `steerlab.load` passes on for quantized loading. Raises `SteerlabError` without a GPU: bitsandbytes needs one."""
    if not plan.quantize:
        return {}
    if not torch.cuda.is_available():
        raise SteerlabError(
            f"{plan.name} has quantize = {plan.quantize!r}, which needs a CUDA GPU: use one, or leave quantize empty."
        )
    if plan.quantize == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    }
