"""Bake a constant push into a checkpoint: the steered model as plain weights, which any engine serves at no cost.

Adding a vector to the stream at every token is what a bias does where its module's output is added straight to the stream: the
output bias of an MLP moves `resid_post` and `mlp_out` of its block and `resid_pre` of the next, that of an attention moves
`attn_out`. Where there is no such bias, or where steering is more than a constant, it is refused with the reason.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from steerlab.ablation.forced import steered_logits
from steerlab.architecture import ATTENTION_NAMES, MLP_NAMES
from steerlab.batch import Batch, left_pad
from steerlab.disk import replace, told
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.operators import name_of
from steerlab.records import pretty
from steerlab.steering import Intervention, Plan
from steerlab.types import Site

RECORD = "steering.json"
# Of the effect of steering on the logits, how much the checkpoint may miss; rounding alone leaves less.
_SHARE = {torch.float32: 1e-3}
_SHARE_HALF = 0.1


@dataclass(frozen=True)
class Biases:
    """Where the blocks of a family have, or can be given, biases behind which nothing but the stream stands: the parameter's
    path in a block, and the field of the config that gives every block one ("" where all have it).
    """

    mlp: str
    attention: str
    mlp_switch: str = ""
    attention_switch: str = ""


LLAMA = Biases("mlp.down_proj.bias", "self_attn.o_proj.bias", "mlp_bias", "attention_bias")
FAMILIES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "gpt2": Biases("mlp.c_proj.bias", "attn.c_proj.bias"),
    "gpt_neox": Biases("mlp.dense_4h_to_h.bias", "attention.dense.bias", "", "attention_bias"),
}
# The same arithmetic as Llama's without a sliding window, but their own configs know no MLP bias: written as Llama.
WRITTEN_AS_LLAMA = ("mistral", "qwen2")


@dataclass(frozen=True)
class Exported:
    """A checkpoint that steers by itself. `biases` are the parameters that hold the push, `architecture` the class that reads
    them. `difference` and `effect` are root mean squares over logits: of the checkpoint, read back, against the steered model,
    and of the steered against the unsteered model.
    """

    folder: Path
    architecture: str
    biases: tuple[str, ...]
    difference: float
    effect: float


def export(model: TracedModel, interventions: Sequence[Intervention], folder: str | Path) -> Exported:
    """Write the model, with the interventions in its biases, as a checkpoint that plain transformers loads.

    The folder is whole or not there, and is put in place only after the checkpoint was read back and gave the logits of the
    steered model (needs room for the model twice). The model itself stays as it is.

    Raises `SteerlabError` where a bias cannot do exactly what the interventions do: another operator than add, positions other
    than all, a gate, an architecture without such a bias or with a norm behind it, an adapter, quantized weights; and where the
    folder holds something.
    """
    out = Path(folder)
    deltas = biases(model, interventions)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SteerlabError(f"{out} holds something already: give a folder that is empty or not there.")
    staged = out.with_name(f".{out.name}.part")
    try:
        with told(out):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            architecture = _write(model, deltas, staged)
            difference, effect = _compare(model, interventions, staged)
            _check_close(model, difference, effect)
            found = Exported(out, architecture, tuple(deltas), difference, effect)
            replace(staged / RECORD, pretty(_record(model, interventions, found)))
            if out.exists():
                out.rmdir()
            staged.rename(out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return found


def biases(model: TracedModel, interventions: Sequence[Intervention]) -> dict[str, Float[Tensor, " d"]]:
    """What is added to which bias, by parameter name, in float64. Raises `SteerlabError` as `export` does."""
    Plan((tuple(interventions),)).check(model.d_model, model.n_layers)
    for one in interventions:
        _check_constant(one)
    family = _family(model)
    found: dict[str, Tensor] = {}
    for one in interventions:
        for layer in one.at:
            name = _parameter(model, family, Site(layer, one.vector.stream))
            delta = one.vector.at(layer).double().cpu() * one.numbers(layer)[0]
            found[name] = found[name] + delta if name in found else delta
    if not any(bool(delta.any()) for delta in found.values()):
        raise SteerlabError("the interventions add nothing: give at least one with a strength other than 0.")
    return found


def _check_constant(one: Intervention) -> None:
    what = f"the intervention along {one.vector.name!r}"
    if one.operator != "add":
        raise SteerlabError(
            f"{what} is {name_of(one.operator)!r}, which depends on the stream, and a bias is constant: only add can be exported."
        )
    if not one.positions.everywhere:
        raise SteerlabError(
            f"{what} acts on positions {one.positions}, and a bias acts on every token: only positions all can be exported."
        )
    if one.gate is not None:
        raise SteerlabError(
            f"{what} has a gate, which depends on the stream, and a bias is constant: only ungated ones can be exported."
        )


def _family(model: TracedModel) -> Biases:
    """The biases of the model's family. Raises `SteerlabError` where there are none, or the weights are not plain ones."""
    kind, layout = str(model.hf.config.model_type), model.layout
    if model.adapter is not None:
        raise SteerlabError(
            f"{model.name} carries the adapter {model.adapter.name}: merge it into the weights and load those."
        )
    if getattr(model.hf, "hf_quantizer", None) is not None:
        raise SteerlabError(f"the weights of {model.name} are quantized: export from the unquantized checkpoint.")
    if any(weight.is_meta for weight in model.hf.parameters()):
        raise SteerlabError(f"parts of {model.name} are offloaded: load it where it fits, such as device='cpu'.")
    if layout.attn_out not in ATTENTION_NAMES or layout.mlp_out not in MLP_NAMES:
        raise SteerlabError(
            f"the blocks of {model.name} ({kind}) put a norm behind attention and MLP, which would rescale a bias with every "
            "token: it cannot be exported exactly, so steer it while it runs."
        )
    if kind not in FAMILIES or not layout.adds:
        raise SteerlabError(
            f"the blocks of {model.name} ({kind}) have no bias that is added straight to the stream; "
            f"it can be exported for {', '.join(FAMILIES)}."
        )
    if kind in WRITTEN_AS_LLAMA and "sliding_attention" in _layer_types(model.hf.config):
        raise SteerlabError(
            f"{model.name} ({kind}) has no MLP bias, and its sliding window keeps it from being written as a Llama, which has "
            "one: steer it while it runs."
        )
    return FAMILIES[kind]


def _layer_types(config: Any) -> Sequence[str]:
    """What the blocks attend to; Mistral has one window for all and no list."""
    window = getattr(config, "sliding_window", None)
    short = window is not None and window < config.max_position_embeddings
    return getattr(config, "layer_types", None) or (["sliding_attention"] if short else [])


def _parameter(model: TracedModel, family: Biases, site: Site) -> str:
    """The bias that moves the stream at this site and nowhere before it."""
    if site.stream == "resid_pre" and site.layer == 0:
        raise SteerlabError(
            "resid_pre of layer 0 stands before the first block, where no bias is: use resid_post, or another layer."
        )
    block = site.layer - 1 if site.stream == "resid_pre" else site.layer
    return f"{model.layout.layers}.{block}.{family.attention if site.stream == 'attn_out' else family.mlp}"


def _write(model: TracedModel, deltas: dict[str, Tensor], folder: Path) -> str:
    """Save the model with the deltas in its biases, tokenizer included; returns the class that reads it."""
    family, hf = FAMILIES[str(model.hf.config.model_type)], model.hf
    config, kind = copy.deepcopy(hf.config), type(hf)
    if config.model_type in WRITTEN_AS_LLAMA:
        config, kind = _as_llama(config), LlamaForCausalLM
    for suffix, switch in ((family.mlp, family.mlp_switch), (family.attention, family.attention_switch)):
        if switch and any(name.endswith(suffix) for name in deltas):
            setattr(config, switch, True)
    with torch.device("meta"):
        twin: Any = kind(config)
    state = dict(hf.state_dict())
    for name, empty in twin.state_dict().items():
        if name not in state:  # a bias that the switch gave every block
            state[name] = torch.zeros(empty.shape, dtype=model.dtype)
    for name, delta in deltas.items():
        there = state[name]
        state[name] = (there.double().cpu() + delta).to(there.dtype)
        if not bool(state[name].isfinite().all()):
            raise SteerlabError(f"{name} overflows {there.dtype}: lower the strength, or load in a wider dtype.")
    twin.load_state_dict(state, strict=True, assign=True)
    twin.tie_weights()
    twin.generation_config = hf.generation_config
    twin.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return kind.__name__


def _as_llama(config: Any) -> LlamaConfig:
    known = LlamaConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    fields = {name: value for name, value in config.to_dict().items() if name in known}
    return LlamaConfig(**{**fields, "attention_bias": config.model_type == "qwen2"})


def _compare(model: TracedModel, interventions: Sequence[Intervention], folder: Path) -> tuple[float, float]:
    """(difference, effect), as `Exported` has them, on two rows of tokens from all over the vocabulary."""
    spread = [(7919 * i + 13) % model.vocab_size for i in range(24)]
    batch: Batch = left_pad([spread[:16], spread[16:]], model.pad_id).to(model.device)
    steered = steered_logits(model, batch, Plan.uniform(interventions, 2))
    plain = model.forward(batch, logits=True).logits
    assert plain is not None
    twin: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype, use_safetensors=True)
    twin.to(model.device).eval()
    with torch.no_grad():
        baked = twin(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids
        ).logits
    real = batch.real

    def apart(a: Tensor, b: Tensor) -> float:
        return float((a[real].double() - b[real].double()).pow(2).mean().sqrt())

    return apart(baked, steered), apart(steered, plain)


def _check_close(model: TracedModel, difference: float, effect: float) -> None:
    share = _SHARE.get(model.dtype, _SHARE_HALF)
    if not difference <= share * effect:
        raise SteerlabError(
            f"the checkpoint, read back, gives logits {difference:.2g} from those of the steered model (root mean square), where "
            f"steering moves them by {effect:.2g}: {model.name} computes something else than this bias, or {model.dtype} is too "
            "coarse for a push this small."
        )


def _record(model: TracedModel, interventions: Sequence[Intervention], found: Exported) -> dict[str, Any]:
    """What `steering.json` in the folder says: what was baked in, from where, and how well it was seen to agree."""
    vectors = {one.vector.name: one.vector.provenance.to_json() for one in interventions}
    return {
        "kind": "steerlab export",
        "base": {"model": model.name, "revision": model.revision, "dtype": str(model.dtype).removeprefix("torch.")},
        "architecture": found.architecture,
        "interventions": [one.to_json() for one in interventions],
        "vectors": vectors,
        "biases": list(found.biases),
        "check": {"difference": found.difference, "effect": found.effect},
    }
