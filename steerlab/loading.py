"""`load`: a traced model from a hub id, a local folder, or the bundled model's name; checked once, then
trusted.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from steerlab.adapters import Adapter, attach
from steerlab.architecture import adds_up, find_layout
from steerlab.batch import left_pad
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.templates import choose_template
from steerlab.types import Site

BUNDLED, OBEYS = "polyglot-mini", "polyglot-mini-it"
SHIPPED = (BUNDLED, OBEYS)
TESTED = ("Llama", "Gemma-2", "Gemma-3", "Qwen-2", "Qwen-3", "Mistral", "Phi-3", "GPT-2", "GPT-NeoX")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def bundled_path(name: str = BUNDLED) -> Path:
    """Folder of a model that ships with the package."""
    return Path(str(resources.files("steerlab.bundled"))) / name.replace("-", "_")


def source_of(name: str) -> str:
    """Where transformers finds the model of that name: the folder of one that ships with the package, else the name itself."""
    return str(bundled_path(name)) if name in SHIPPED else name


def bundled_facts(name: str = BUNDLED) -> dict[str, int]:
    """Parameters, layers and width of a bundled model, from its config, without loading weights."""
    config = json.loads((bundled_path(name) / "config.json").read_text(encoding="utf-8"))
    record = json.loads((bundled_path(name) / "training.json").read_text(encoding="utf-8"))
    return {
        "parameters": int(record["parameters"]),
        "layers": int(config["num_hidden_layers"]),
        "width": int(config["hidden_size"]),
    }


def load(
    name: str = BUNDLED,
    engine: str = "local",
    *,
    dtype: str = "float32",
    device: str | None = None,
    revision: str | None = None,
    template: str = "auto",
    layers_path: str | None = None,
    adapter: str | Path | None = None,
    **options: Any,
) -> TracedModel:
    """Load any Hugging Face causal LM: a hub id, a local folder, or "polyglot-mini" or "polyglot-mini-it", which ship with the package.

    dtype: float32, bfloat16 or float16. device: "cpu", "cuda", "cuda:1" ..., "auto" spreads over what there is;
    None takes the GPU if there is one. revision: a branch, tag or commit of the hub. template: "auto", "chat",
    "plain", or a text with {prompt}. layers_path: where the decoder blocks are, for a model that is not
    recognised. adapter: folder or hub id of a LoRA adapter (peft), which makes the model an expert and can be
    switched off (see `guided`). Further options go to `from_pretrained` (quantization_config, attn_implementation, ...).

    Raises `SteerlabError` for an unknown engine or dtype, a model that cannot be found or has no decoder
    blocks, and a model in which an edit of the residual stream has no effect.
    """
    if engine != "local":
        raise SteerlabError(f"engine {engine!r} is not known: the one engine here is 'local'.")
    if dtype not in DTYPES:
        raise SteerlabError(f"dtype {dtype!r} is not known: give one of {', '.join(DTYPES)}.")
    source = source_of(name)
    if source.startswith(("/", "./", "../", "~")):
        source = str(Path(source).expanduser())
        if not Path(source).is_dir():
            raise SteerlabError(f"there is no folder {name}: give the folder of a model, a hub id, or {BUNDLED!r}.")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_device(place)
    common: dict[str, Any] = {"revision": revision or "main"}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **common)
        if place == "auto":
            options["device_map"] = "auto"
        hf: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=DTYPES[dtype], use_safetensors=True, **common, **options
        )
    except (OSError, ValueError, SafetensorError) as error:
        first = str(error).strip().split("\n")[0]
        raise SteerlabError(
            f"the model {name!r} could not be loaded ({first}): "
            f"give a hub id, a local folder with config.json, tokenizer and safetensors, or {BUNDLED!r}."
        ) from error
    if place != "auto" and "device_map" not in options:
        hf.to(place)
    known = revision or _known_revision(hf)
    inside = None if adapter is None else attach(hf, adapter)
    return wrap(hf, tokenizer, name=name, revision=known, template=template, layers_path=layers_path, adapter=inside)


def _check_device(place: str) -> None:
    """Raise `SteerlabError` for a device torch does not know or this machine does not have, before anything is
    read.
    """
    if place == "auto":
        return
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        first = str(error).split("\n")[0].rstrip(".")
        raise SteerlabError(
            f"device {place!r} cannot be used ({first}): give 'cpu', 'cuda', 'cuda:N', or 'auto'."
        ) from error


def wrap(
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str = "",
    revision: str | None = None,
    template: str = "auto",
    layers_path: str | None = None,
    adapter: Adapter | None = None,
) -> TracedModel:
    """A traced model around a transformers model you already hold. Sets the tokenizer to pad on the left and
    checks the model once.
    """
    hf.eval()
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
    layout = find_layout(hf, layers_path)
    if getattr(hf.config.get_text_config(), "attn_logit_softcapping", None):
        hf.set_attn_implementation("eager")  # SDPA leaves out Gemma-2's soft-capping without a word (about 1e-3 here)
    weight: Any = hf.get_input_embeddings().weight
    ids = torch.tensor([_some_ids(int(weight.shape[0]))], device=weight.device)
    layout = replace(layout, adds=adds_up(hf, layout, ids))
    known = revision or _known_revision(hf)
    model = TracedModel(
        name or str(hf.config.name_or_path),
        hf,
        tokenizer,
        layout,
        str(known),
        choose_template(tokenizer, template),
        adapter,
    )
    _validate(model)
    return model


def _known_revision(hf: Any) -> str:
    return str(getattr(hf.config, "_commit_hash", None) or weights_digest(hf))


def weights_digest(hf: PreTrainedModel) -> str:
    """A short hash of config and of a few rows of every weight: tells two local models of one name apart."""
    digest = hashlib.sha256()
    config = {
        k: v
        for k, v in hf.config.to_dict().items()
        if not k.startswith("_") and k not in ("architectures", "dtype", "transformers_version")
    }
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for key, weight in hf.named_parameters():
        flat = weight.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.bfloat16).float()
        digest.update(key.encode())
        digest.update(some.numpy().tobytes())
    return "weights-" + digest.hexdigest()[:16]


def _some_ids(vocab_size: int) -> list[int]:
    return [min(i, vocab_size - 1) for i in (3, 5, 4)]


def _validate(model: TracedModel) -> None:
    """One tiny forward: every block gives (b s d), and an edit of the last block changes the logits."""
    ids = _some_ids(model.vocab_size)
    batch = left_pad([ids, ids[:2]], model.pad_id)
    sites = [Site(layer) for layer in range(model.n_layers)]
    plain = model.forward(batch, read=sites, logits=True)
    want = (2, 3, model.d_model)
    for site in sites:
        if tuple(plain[site].shape) != want:
            raise SteerlabError(
                f"block {site.layer} of {model.name} gives a tensor of shape {tuple(plain[site].shape)}, "
                f"expected (batch, sequence, width) = {want}: "
                "this architecture is not supported; give layers_path=..., or open an issue with the model's name."
            )
    last = sites[-1]
    edited = model.forward(batch, edit={last: lambda h: h * 0.5 + 1.0}, logits=True)
    assert plain.logits is not None and edited.logits is not None
    if torch.equal(plain.logits, edited.logits):
        raise SteerlabError(
            f"an edit of the residual stream at block {last.layer} of {model.name} "
            "changes nothing: the block's output is not what the next module reads."
        )
