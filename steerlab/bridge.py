"""The TransformerLens twin of a loaded model: a second, agreeing view on the same weights. The only module that
imports transformer_lens.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from steerlab.batch import Batch
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.types import Site


def twin(model: TracedModel) -> TransformerBridge:
    """A `TransformerBridge` with the very weights of `model`: `blocks.L.hook_resid_post` equals
    `model.forward`'s `Site(L)`.

    The bridge rewires the modules it wraps and forces eager attention, so it gets a copy of the module tree
    that shares the parameters; `model` stays as it is and no memory is doubled.

    Raises `SteerlabError` for an architecture TransformerLens has no adapter for.
    """
    shared: dict[int, Any] = {id(p): p for p in model.hf.parameters()}
    shared.update({id(b): b for b in model.hf.buffers()})
    hf = copy.deepcopy(model.hf, shared)
    hf.config.architectures = [type(hf).__name__]  # models made from a config have none, and TransformerLens goes by it
    with tempfile.TemporaryDirectory() as folder:  # TransformerLens loads the tokenizer a second time, by its path
        model.tokenizer.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        try:
            bridge = TransformerBridge.boot_transformers(model.name, hf_model=hf, tokenizer=tokenizer)
        except (ValueError, KeyError, NotImplementedError) as error:
            kind = type(model.hf).__name__
            raise SteerlabError(
                f"TransformerLens has no twin for {kind} ({str(error)[:80]}): use model.forward, which needs none."
            ) from error
    bridge.eval()
    return bridge


def hook_name(site: Site) -> str:
    """TransformerLens' name of a site: `blocks.3.hook_resid_post`."""
    return f"blocks.{site.layer}.hook_{site.stream}"


def activations(
    bridge: TransformerBridge, batch: Batch, sites: list[Site]
) -> tuple[dict[Site, Tensor], Float[Tensor, "b s v"]]:
    """Activations (b s d) at the sites and the logits (b s v), as TransformerLens sees them, for the same
    left-padded batch.
    """
    kept: dict[Site, Tensor] = {}

    def keeper(site: Site) -> Callable[..., None]:
        def keep(value: Tensor, hook: Any) -> None:
            kept[site] = value.detach()

        return keep

    hooks: Any = [
        (hook_name(site), keeper(site)) for site in sites
    ]  # by site, since TransformerLens renames aliased hooks
    with torch.no_grad():
        logits = bridge.run_with_hooks(
            batch.input_ids, attention_mask=batch.attention_mask, fwd_hooks=hooks, return_type="logits"
        )
    return kept, logits
