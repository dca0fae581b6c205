"""The TransformerLens twin of a loaded model, and its `Readout` from the residual stream to logits.

A second, agreeing view on the same weights. The only module that imports transformer_lens.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from steerlab.batch import Batch, left_pad
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.types import Site

_ROWS = 16_384  # of the unembedding in float32 at a time, where the model is in half precision


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


@dataclass(frozen=True, eq=False)
class Readout:
    """From the stream behind the last block to logits: the final norm, the unembedding and what comes after it.

    norm(h) = gain * (h - mean) / scale(h) + shift; the mean is taken out in a LayerNorm only (`centred`), and the
    gain of Gemma is 1 + its weight. `unembedding` "v d" is the model's own tensor. `after` is what the model does to
    its logits: a scale (Cohere), a soft cap (Gemma-2), or nothing. Everything is computed in float32.
    """

    gain: Float[Tensor, "d"]
    shift: Float[Tensor, "d"]
    centred: bool
    eps: float
    unembedding: Float[Tensor, "v d"]
    bias: Float[Tensor, "v"]
    after: Callable[[Tensor], Tensor]

    def normalise(self, h: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """What the final norm makes of `h`."""
        h = self._centre(h.detach().to(self.gain))
        return self.gain * h * (h.square().mean(-1, keepdim=True) + self.eps).rsqrt() + self.shift

    def logits(self, h: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """The logits the model would put out, were `h` the stream behind its last block."""
        return self.after(self._unembed(self.normalise(h)) + self.bias)

    def direction(self, v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """The unembedding with the norm's gain (and centring) folded in, times `v`: up to the positive factor
        1 / scale(h), and before a soft cap, how fast each logit rises along `v` while the scale stays.
        """
        return self._unembed(self.gain * self._centre(v.detach().to(self.gain)))

    def _centre(self, h: Tensor) -> Tensor:
        return h - h.mean(-1, keepdim=True) if self.centred else h

    def _unembed(self, x: Tensor) -> Tensor:
        if self.unembedding.dtype == x.dtype:
            return x @ self.unembedding.T
        return torch.cat([x @ rows.to(x.dtype).T for rows in self.unembedding.split(_ROWS)], dim=-1)


def readout(model: TracedModel) -> Readout:
    """The readout of `model`, told by TransformerLens and checked once against the model's own logits.

    Raises `SteerlabError` for an architecture TransformerLens does not know, or whose logits come about otherwise.
    """
    bridge: Any = twin(model)
    norm, head = bridge.ln_final, bridge.unembed
    plain = norm.original_component
    weight, shift = getattr(plain, "weight", None), getattr(plain, "bias", None)
    one = torch.ones(model.d_model, device=head.W_U.device)
    gain = one if weight is None else weight.detach().to(one)
    eps = getattr(plain, "eps", getattr(plain, "variance_epsilon", bridge.cfg.eps))
    made = Readout(
        gain=1 + gain if norm.uses_weight_offset else gain,
        shift=torch.zeros_like(one) if shift is None else shift.detach().to(one),
        centred=not norm.uses_rms_norm,
        eps=float(eps),
        unembedding=head.W_U.T.detach(),
        bias=head.b_U.detach().to(one),
        after=bridge.adapter.apply_output_logits_transform,
    )
    last = Site(model.n_layers - 1)
    batch = left_pad([[min(i, model.vocab_size - 1) for i in (3, 5, 4)]], model.pad_id)
    seen = model.forward(batch, read=[last], logits=True)
    assert seen.logits is not None
    gap, size = (made.logits(seen[last]) - seen.logits.to(one)).abs().max(), seen.logits.float().abs().max()
    if not float(gap) <= (1e-4 if model.dtype == torch.float32 else 3e-2) * float(size):
        raise SteerlabError(
            f"the final norm and unembedding of {model.name} do not give its logits (they are {float(gap):.2g} off): "
            "this architecture does more behind its last block, so use model.forward(..., logits=True)."
        )
    return made
