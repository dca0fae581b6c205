"""Residual streams and steered decoding by raw forward hooks on the transformers model: no tracer, no cache of ours, no compiled plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from steerlab.steering import Plan
from steerlab.types import Site
from tests.reference import steering

Change = Callable[[Tensor], Tensor]


class Paths(NamedTuple):
    """Where the blocks are, and in a block the module whose output is added to the stream after attention and after the MLP."""

    blocks: str
    attn: str
    mlp: str


SEQUENTIAL = Paths("model.layers", "self_attn", "mlp")
NORMED = Paths("model.layers", "post_attention_layernorm", "post_feedforward_layernorm")
PATHS = {
    "llama": SEQUENTIAL,
    "gemma2": NORMED,
    "gemma3": NORMED,
    "qwen2": SEQUENTIAL,
    "qwen3": SEQUENTIAL,
    "mistral": SEQUENTIAL,
    "phi3": SEQUENTIAL,
    "gpt2": Paths("transformer.h", "attn", "mlp"),
    "neox": Paths("gpt_neox.layers", "attention", "mlp"),
}


def positions(mask: Tensor) -> Tensor:
    """Position of every real token in its row, 0 on padding, counted by hand."""
    rows = []
    for row in mask.tolist():
        seen, out = 0, []
        for real in row:
            out.append(seen if real else 0)
            seen += real
        rows.append(out)
    return torch.tensor(rows)


@contextmanager
def hooked(hf: Any, family: str, changes: Mapping[Site, Change]) -> Iterator[None]:
    """Within the context every activation at these sites is replaced by what its function makes of it."""
    paths = PATHS[family]
    handles = []
    for site, change in changes.items():
        block = hf.get_submodule(paths.blocks)[site.layer]
        if site.stream == "resid_pre":
            handles.append(block.register_forward_pre_hook(_before(change), with_kwargs=True))
        else:
            inner = {"attn_out": paths.attn, "mlp_out": paths.mlp, "resid_post": ""}[site.stream]
            handles.append(block.get_submodule(inner).register_forward_hook(_after(change)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(change: Change) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return hook


def _after(change: Change) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    return hook


def capture(hf: Any, family: str, ids: Tensor, mask: Tensor, sites: Sequence[Site]) -> tuple[dict[Site, Tensor], Any]:
    """Activations (b s d) at the sites, and transformers' own output with its hidden states."""
    kept: dict[Site, Tensor] = {}

    def keeper(site: Site) -> Change:
        def keep(h: Tensor) -> Tensor:
            kept[site] = h.clone()
            return h

        return keep

    with torch.no_grad(), hooked(hf, family, {site: keeper(site) for site in sites}):
        out = hf(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions(mask),
            use_cache=False,
            output_hidden_states=True,
        )
    return kept, out


def generate(
    hf: Any, family: str, ids: Tensor, mask: Tensor, changes: Mapping[Site, Change], new: int
) -> list[list[int]]:
    """transformers' own greedy `generate` with the changes made in every forward of it; EOS ends no row."""
    with torch.no_grad(), hooked(hf, family, changes):
        out = hf.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
    return out[:, ids.shape[1] :].tolist()


def logits(hf: Any, family: str, row: Sequence[int], prompt: int, plan: Plan) -> Tensor:
    """Logits (s v) of one unpadded forward over prompt and answer, the one row of the plan applied token by token."""
    ids = torch.tensor([list(row)])
    relative = torch.arange(len(row))[None] - prompt
    real = torch.ones_like(ids, dtype=torch.bool)

    def changer(site: Site) -> Change:
        return lambda h: steering.edit(plan, site, h, relative, ids, real).to(h.dtype)

    with torch.no_grad(), hooked(hf, family, {site: changer(site) for site in plan.sites}):
        return hf(input_ids=ids, use_cache=False).logits[0]


def uncached(hf: Any, family: str, prompt: Sequence[int], plan: Plan, new: int) -> list[int]:
    """Greedy tokens of one row, the whole text run again at every step."""
    row = list(prompt)
    for _ in range(new):
        row.append(int(logits(hf, family, row, len(prompt), plan)[-1].argmax()))
    return row[len(prompt) :]
