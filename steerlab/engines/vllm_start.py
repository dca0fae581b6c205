"""Starting vLLM, and what is known of a model without its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from steerlab.decoding import Finished
from steerlab.errors import SteerlabError
from steerlab.weights import known_revision

# Read by vLLM when it is imported: one process, which starts in a third of the time, and threads left as they are.
_ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}


def prepare() -> None:
    """Settle what vLLM reads from the environment. Raises `SteerlabError` where it is not installed."""
    if find_spec("vllm") is None:
        raise SteerlabError(
            "engine 'vllm' needs vLLM, which is not installed here and pins torch and transformers: give it an environment of its "
            "own (`make test-vllm` builds .venv-vllm)."
        )
    if not torch.cuda.is_available():
        for name, value in _ON_CPU.items():
            os.environ.setdefault(name, value)


def start(source: str, revision: str | None, dtype: str, options: Mapping[str, Any]) -> Any:
    """The engine as nnsight's model, started. options: vLLM's own, tensor_parallel_size and max_model_len for example.

    Raises `SteerlabError` where it cannot start with this model.
    """
    accelerated = torch.cuda.is_available()
    if accelerated:
        from nnsight.modeling.vllm import VLLM as Engine
    else:
        from steerlab.engines.vllm_cpu import CPUEngine as Engine
    alone = not accelerated and options.get("tensor_parallel_size", 1) == 1
    chosen = {"dtype": dtype, **({"distributed_executor_backend": "uni"} if alone else {}), **options}
    try:
        return Engine(source, revision=revision, dispatch=True, **chosen)
    except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
        raise SteerlabError(f"vLLM could not start with {source} ({str(error).splitlines()[0]}).") from error


def skeleton(source: str, revision: str | None) -> tuple[Any, str]:
    """(the transformers model without weights, its revision): what facts and layout are read from.

    Weights in a folder are read once, for the digest that tells them apart, and dropped.
    """
    config = AutoConfig.from_pretrained(source, revision=revision)
    with torch.device("meta"):
        hf: Any = AutoModelForCausalLM.from_config(config)
    try:
        hf.generation_config = GenerationConfig.from_pretrained(source, revision=revision or "main")
    except OSError:
        hf.generation_config = None  # a checkpoint without one ends with its tokenizer's end of text
    known = revision or getattr(config, "_commit_hash", None)
    if known is None:
        known = known_revision(AutoModelForCausalLM.from_pretrained(source, use_safetensors=True))
    return hf, str(known)


def sampling(settings: Any, finished: Finished) -> dict[str, Any]:
    """The settings in vLLM's words. It stops at a stop string wherever that stands; see `VLLMModel._write`."""
    ends = getattr(finished, "eos", None)
    return {
        "temperature": 0.0 if settings.greedy else settings.temperature,
        "top_p": 1.0 if settings.greedy else settings.top_p,
        "top_k": 0 if settings.greedy else settings.top_k,
        "min_p": 0.0 if settings.greedy else settings.min_p,
        "repetition_penalty": settings.repetition_penalty,
        "frequency_penalty": settings.frequency_penalty,
        "stop": list(settings.stop),
        "stop_token_ids": [] if ends is None else ends.tolist(),
        "include_stop_str_in_output": True,
    }
