"""Where the residual stream lives in a Hugging Face causal LM: found once, checked once, then trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from steerlab.errors import SteerlabError
from steerlab.types import Site, Stream

LAYER_PATHS = (
    "model.layers",
    "transformer.h",
    "gpt_neox.layers",
    "model.language_model.layers",
    "model.decoder.layers",
    "backbone.layers",
)
ATTENTION_NAMES = ("self_attn", "attn", "attention")
MLP_NAMES = ("mlp", "feed_forward", "ffn")
# Norms behind attention and MLP, by the names they have in Gemma-2/3, OLMo-2/3, EXAONE-4, and in GLM-4.
POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
STREAM_ORDER: dict[Stream, int] = {"resid_pre": 0, "attn_out": 1, "mlp_out": 2, "resid_post": 3}


@dataclass(frozen=True)
class Layout:
    """Module paths of one architecture. `attn_out` and `mlp_out` name the module whose output is *added to the
    stream*: in Gemma-2 and Gemma-3 that is the norm behind the attention or MLP, not the attention or MLP
    itself. `adds` is False where a block was seen to add something else than these two (Granite scales them),
    so that they cannot be read or edited as streams.
    """

    layers: str
    n_layers: int
    attn_out: str
    mlp_out: str
    adds: bool = True

    def order(self, sites: Sequence[Site]) -> list[Site]:
        """The sites in the order the forward pass reaches them."""
        return sorted(set(sites), key=lambda s: (s.layer, STREAM_ORDER[s.stream]))


def submodule(root: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path, or None."""
    here: Any = root
    for name in path.split("."):
        here = getattr(here, name, None)
        if here is None:
            return None
    return here if isinstance(here, nn.Module) else None


def find_layout(model: nn.Module, layers_path: str | None = None) -> Layout:
    """Find the decoder blocks and, inside them, what attention and MLP add to the stream.

    Raises `SteerlabError` with the module tree when the blocks cannot be told for certain; `layers_path` then
    names them by hand.
    """
    expected = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    paths = (layers_path,) if layers_path else LAYER_PATHS
    for path in paths:
        blocks = submodule(model, path)
        if isinstance(blocks, nn.ModuleList) and len(blocks) and (expected is None or len(blocks) == expected):
            block = blocks[0]
            attention = _first(block, ATTENTION_NAMES)
            mlp = _first(block, MLP_NAMES)
            if attention and mlp:
                for behind_attention, behind_mlp in POST_NORMS:
                    if submodule(block, behind_mlp) is not None:
                        attention, mlp = behind_attention, behind_mlp
                return Layout(path, len(blocks), attention, mlp)
    tried = ", ".join(paths)
    raise SteerlabError(
        f"the decoder blocks of {type(model).__name__} were not found (tried {tried}; "
        f"expected a ModuleList of {expected} blocks with attention and MLP):"
        f" give layers_path=..., one of the paths in this module tree:\n{module_tree(model)}"
    )


def adds_up(model: nn.Module, layout: Layout, input_ids: Int[Tensor, "b s"]) -> bool:
    """Whether every block puts out its input plus `attn_out` plus `mlp_out`, up to rounding, as seen by plain
    hooks in one forward.
    """
    blocks = submodule(model, layout.layers)
    assert isinstance(blocks, nn.ModuleList)
    seen: dict[tuple[int, str], Tensor] = {}

    def keep(key: tuple[int, str]) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            seen[key] = output if isinstance(output, Tensor) else output[0]
            if key[1] == "out":
                seen[key[0], "in"] = args[0] if args else kwargs["hidden_states"]

        return hook

    handles = []
    for i, block in enumerate(blocks):
        for name, path in (("out", ""), ("attn", layout.attn_out), ("mlp", layout.mlp_out)):
            handles.append(block.get_submodule(path).register_forward_hook(keep((i, name)), with_kwargs=True))
    try:
        with torch.no_grad():
            model(input_ids=input_ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return all(_sums(seen, i) for i in range(len(blocks)))


def _sums(seen: Mapping[tuple[int, str], Tensor], block: int) -> bool:
    if (block, "attn") not in seen or (block, "mlp") not in seen:
        return False
    parts = [seen[block, name].double() for name in ("in", "attn", "mlp")]
    out = seen[block, "out"]
    if any(part.shape != out.shape for part in parts):
        return False
    rounding = torch.finfo(out.dtype).eps * sum(part.abs() for part in parts)  # two additions, each half an eps off
    return bool(((out.double() - sum(parts)).abs() <= 4 * rounding).all())


def _first(block: nn.Module, names: Sequence[str]) -> str | None:
    return next((name for name in names if submodule(block, name) is not None), None)


def module_tree(model: nn.Module, depth: int = 3) -> str:
    """A short listing of module names and types, lists shown with their length."""
    lines: list[str] = []

    def walk(module: nn.Module, name: str, level: int) -> None:
        size = f" x{len(module)}" if isinstance(module, nn.ModuleList) else ""
        lines.append("  " * level + f"{name}: {type(module).__name__}{size}")
        if level < depth:
            children = list(module.named_children())
            for child_name, child in children[:1] if isinstance(module, nn.ModuleList) else children:
                walk(child, child_name, level + 1)

    walk(model, "model", 0)
    return "\n".join(lines)
