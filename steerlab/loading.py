"""`load`: a traced model from a hub id, a local folder, or the bundled model's name; checked once, then
trusted.
"""

from __future__ import annotations

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
from steerlab.engines import check_name
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.templates import choose_template
from steerlab.types import Site
from steerlab.weights import known_revision

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
    switched off (see `guided`). engine: where it runs, see `steerlab.engines` and docs/engines.md. Further options go to
    `from_pretrained` (quantization_config, attn_implementation, ...).

    Raises `SteerlabError` for an unknown engine or dtype, for what the engine cannot do, a model that cannot be found or has
    no decoder blocks, and a model in which an edit of the residual stream has no effect.
    """
    check_name(engine)
    source = _source(name, dtype)
    if engine in ("ndif", "vllm"):
        given = [what for what, value in (("device", device), ("adapter", adapter)) if value is not None]
        if given:
            raise SteerlabError(f"{given[0]} was given for engine {engine!r}, which knows none: leave it out.")
        elsewhere = _remote if engine == "ndif" else _vllm
        return elsewhere(name, source, dtype, revision, template, layers_path, options)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_device(place)
    common: dict[str, Any] = {"revision": revision or "main"}
    kind = TracedModel
    try:
        if engine == "tp":
            from steerlab.engines import tp

            kind = tp.TensorParallelModel
            options |= tp.placement(source, common["revision"], device, adapter, options)
        tokenizer = AutoTokenizer.from_pretrained(source, **common)
        if place == "auto":
            options["device_map"] = "auto"
        hf: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=DTYPES[dtype], use_safetensors=True, **common, **options
        )
    except SteerlabError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(name, error) from error
    if engine == "local" and place != "auto" and "device_map" not in options:
        hf.to(place)
    known = revision or known_revision(hf)  # before the adapter's weights stand among the model's
    return wrap(
        hf, tokenizer, name=name, revision=known, template=template, layers_path=layers_path, kind=kind,
        adapter=None if adapter is None else attach(hf, adapter),
    )  # fmt: skip


def _source(name: str, dtype: str) -> str:
    """A hub id, or the folder that is meant. Raises `SteerlabError` for a folder that is not there, and for an unknown dtype."""
    if dtype not in DTYPES:
        raise SteerlabError(f"dtype {dtype!r} is not known: give one of {', '.join(DTYPES)}.")
    source = source_of(name)
    if source.startswith(("/", "./", "../", "~")):
        source = str(Path(source).expanduser())
        if not Path(source).is_dir():
            raise SteerlabError(f"there is no folder {name}: give the folder of a model, a hub id, or {BUNDLED!r}.")
    return source


def _remote(
    name: str,
    source: str,
    dtype: str,
    revision: str | None,
    template: str,
    layers_path: str | None,
    options: dict[str, Any],
) -> TracedModel:
    """A model that NDIF hosts; options: remote="local" simulates the service here."""
    from steerlab.engines import ndif

    remote = options.pop("remote", True)
    if options:
        raise SteerlabError(
            f"{', '.join(options)} was given for engine 'ndif', which decides that itself: leave it out."
        )
    ndif.check(source, remote)
    try:
        tokenizer = _pad_left(AutoTokenizer.from_pretrained(source, revision=revision or "main"))
        hosted = ndif.connect(source, tokenizer, revision, DTYPES[dtype], remote)
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(name, error) from error
    hf = hosted._module
    _attend_eagerly(hf)
    known = revision or (
        known_revision(hf) if remote == "local" else getattr(hf.config, "_commit_hash", None) or "main"
    )
    chosen = choose_template(tokenizer, template)
    model = ndif.RemoteModel(name, hf, tokenizer, find_layout(hf, layers_path), str(known), chosen, nnsight=hosted)
    model.remote = remote
    return model


def _vllm(
    name: str,
    source: str,
    dtype: str,
    revision: str | None,
    template: str,
    layers_path: str | None,
    options: dict[str, Any],
) -> TracedModel:
    """A model inside vLLM; options are vLLM's own."""
    from steerlab.engines import vllm_start

    vllm_start.prepare()
    from steerlab.engines import vllm

    try:
        tokenizer = _pad_left(AutoTokenizer.from_pretrained(source, revision=revision or "main"))
        hf, known = vllm_start.skeleton(source, revision)
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(name, error) from error
    running = vllm_start.start(source, revision, dtype, options)
    chosen = choose_template(tokenizer, template)
    return vllm.VLLMModel(name, hf, tokenizer, find_layout(hf, layers_path), known, chosen, nnsight=running)


def _not_loaded(name: str, error: Exception) -> SteerlabError:
    first = str(error).strip().split("\n")[0]
    return SteerlabError(
        f"the model {name!r} could not be loaded ({first}): "
        f"give a hub id, a local folder with config.json, tokenizer and safetensors, or {BUNDLED!r}."
    )


def _pad_left(tokenizer: Any) -> Any:
    """The tokenizer, padding on the left, with something to pad with."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
    return tokenizer


def _attend_eagerly(hf: Any) -> None:
    """Gemma-2's soft-capping needs it: SDPA leaves it out without a word (about 1e-3 here)."""
    if getattr(hf.config.get_text_config(), "attn_logit_softcapping", None):
        hf.set_attn_implementation("eager")


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
    kind: type[TracedModel] = TracedModel,
) -> TracedModel:
    """A traced model around a transformers model you already hold. Sets the tokenizer to pad on the left and
    checks the model once. kind: the engine's own class.
    """
    hf.eval()
    _pad_left(tokenizer)
    layout = find_layout(hf, layers_path)
    _attend_eagerly(hf)
    weight: Any = hf.get_input_embeddings().weight
    ids = torch.tensor([_some_ids(int(weight.shape[0]))], device=weight.device)
    layout = replace(layout, adds=adds_up(hf, layout, ids))
    known = revision or known_revision(hf)
    model = kind(
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
