"""LoRA layers inside a model: put in, taken out again without a trace, and written as an adapter that peft and steerlab load."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.evaluation.classifier import _seeded
from steerlab.experts.config import ALL_LINEAR, ExpertConfig
from steerlab.model import TracedModel
from steerlab.sampling import row_key

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def base_options(config: ExpertConfig) -> dict[str, Any]:
    """What `load` needs beside its own options to load the base as the config wants it: 4-bit weights for "nf4", else nothing.

    Raises `SteerlabError` for "nf4" without a CUDA GPU or without bitsandbytes.
    """
    if not config.quantise:
        return {}
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        missing = "a CUDA GPU" if not torch.cuda.is_available() else "the package bitsandbytes"
        raise SteerlabError(
            f"quantise 'nf4' (QLoRA) needs a CUDA GPU and bitsandbytes, and there is no {missing.removeprefix('a ')} here: train"
            " with quantise='' (--quantise none), or where there is one."
        )
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16)
    return {"quantization_config": four}


def check_trainable(model: TracedModel, config: ExpertConfig) -> None:
    """Raises `SteerlabError` without peft, for a model with an adapter, a base not in the wanted precision, and unknown targets."""
    if importlib.util.find_spec("peft") is None:
        raise SteerlabError(
            "training an expert needs the package peft: run pip install -e '.[finetune]' in the checkout."
        )
    if model.adapter is not None:
        raise SteerlabError(f"{model.name} already has the adapter {model.adapter.name}: load the base without one.")
    base_options(config)
    if config.quantise and not getattr(model.hf, "is_loaded_in_4bit", False):
        raise SteerlabError(
            f"quantise is 'nf4' and {model.name} is loaded in {model.dtype}: load it with load(..., **base_options(config))."
        )
    if config.targets != (ALL_LINEAR,):
        names = sorted({name.rsplit(".", 1)[-1] for name, _ in linear_layers(model.hf)})
        if wrong := [name for name in config.targets if name not in names]:
            raise SteerlabError(
                f"{model.name} has no linear layers named {', '.join(wrong)}: give some of {', '.join(names)}, or {ALL_LINEAR}."
            )


def linear_layers(hf: Any) -> list[tuple[str, Any]]:
    """Name and module of every linear layer but the output head."""
    head = hf.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)
    return [(name, module) for name, module in hf.named_modules() if isinstance(module, kinds) and module is not head]


@contextmanager
def lora_inside(model: TracedModel, config: ExpertConfig) -> Iterator[Any]:
    """peft's model around `model.hf` with new, trainable LoRA layers, which begin as the base: their product is zero.

    The seed decides their first weights. Afterwards `model.hf` is as it was, bit for bit, also when the body raised.
    """
    from peft import LoraConfig, get_peft_model

    check_trainable(model, config)
    hf = model.hf
    learning = {name: weight.requires_grad for name, weight in hf.named_parameters()}
    targets: Any = ALL_LINEAR if config.targets == (ALL_LINEAR,) else list(config.targets)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for _, module in linear_layers(hf)),
    )
    with _seeded(row_key(config.seed, "expert", "init"), model.device):
        inside: Any = get_peft_model(hf, lora)
    try:
        if config.checkpointing:
            hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        yield inside
    finally:
        if config.checkpointing:
            hf.gradient_checkpointing_disable()
        inside.unload()
        hf.eval()
        for name, weight in hf.named_parameters():
            weight.requires_grad_(learning[name])


def trainable(inside: Any) -> dict[str, Tensor]:
    """The LoRA weights by name, in a fixed order."""
    return {name: weight for name, weight in sorted(inside.named_parameters()) if weight.requires_grad}


def write_adapter(inside: Any, folder: Path, base: str, revision: str) -> None:
    """Write weights and configuration as peft does, each whole or not at all, with the same bytes for the same weights."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(inside, save_embedding_layers=False)
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    fields: dict[str, Any] = inside.peft_config["default"].to_dict()
    fields |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in sorted(fields.items())}
    with disk.told(folder):
        disk.replace(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={"format": "pt"}))
        disk.replace(folder / CONFIG, (json.dumps(plain, indent=2, sort_keys=True) + "\n").encode())
