"""Sites as nnsight sees them, and a whole decode inside one trace; `model` owns the nnsight objects these functions are given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Module

from steerlab.architecture import Layout, submodule
from steerlab.decoding import Decoded, DecodeLoop
from steerlab.errors import SteerlabError
from steerlab.streams import Stream
from steerlab.types import STREAMS, Site


def walk(envoy: Any, path: str) -> Any:
    """The module at a dotted path."""
    for name in path.split("."):
        envoy = getattr(envoy, name)
    return envoy


def get_site(blocks: Any, layout: Layout, site: Site) -> Tensor:
    """The activation at a site, inside a trace."""
    block = blocks[site.layer]
    if site.stream == "resid_pre":
        return block.input
    module = block if site.stream == "resid_post" else walk(block, getattr(layout, site.stream))
    value = module.output
    return value if isinstance(value, Tensor) else value[0]


def set_site(blocks: Any, layout: Layout, site: Site, new: Tensor) -> None:
    """Replace the activation at a site, inside a trace."""
    block = blocks[site.layer]
    if site.stream == "resid_pre":
        block.input = new
        return
    module = block if site.stream == "resid_post" else walk(block, getattr(layout, site.stream))
    old = module.output
    module.output = new if isinstance(old, Tensor) else (new, *old[1:])


def check_sites(layout: Layout, name: str, sites: Sequence[Site]) -> None:
    """Raise `SteerlabError` for a layer or stream the model does not have."""
    for site in sites:
        if site.stream not in STREAMS:
            raise SteerlabError(f"stream {site.stream!r} is not known: give one of {', '.join(STREAMS)}.")
        if not layout.adds and site.stream in ("attn_out", "mlp_out"):
            raise SteerlabError(
                f"{site.stream} of {name} is not what its blocks add to the stream, "
                "which scale or gate it: use resid_pre or resid_post."
            )
        if not 0 <= site.layer < layout.n_layers:
            raise SteerlabError(f"layer {site.layer} does not exist: {name} has layers 0 to {layout.n_layers - 1}.")


@contextmanager
def bare(hf: Module, watched: Collection[Module]) -> Iterator[None]:
    """Inside, modules outside of `watched` run the forward of their class: nnsight's, which reports every call of every module,
    takes up to a tenth of the time of a token in a small batch. The root keeps its own, and so do modules whose forward is also
    another's (accelerate's, tensor parallelism's, one that was sourced).
    """
    kept: list[tuple[Module, Any]] = []
    try:
        for module in hf.modules():
            forward = module.__dict__.get("forward")
            body = getattr(getattr(forward, "state", None), "body", None)
            if body is type(module).forward and not (
                module is hf or module in watched or "_hf_hook" in module.__dict__
            ):
                kept.append((module, module.__dict__.pop("forward")))
        yield
    finally:
        for module, forward in kept:
            module.__dict__["forward"] = forward


def modules_of(hf: Module, layout: Layout, sites: Sequence[Site]) -> set[Module]:
    """The modules whose input or output the sites are."""
    inside = {"resid_pre": "", "resid_post": "", "attn_out": f".{layout.attn_out}", "mlp_out": f".{layout.mlp_out}"}
    found = (submodule(hf, f"{layout.layers}.{site.layer}{inside[site.stream]}") for site in sites)
    return {module for module in found if module is not None}


def traced_run(
    nnsight: Any, blocks: Any, layout: Layout, loop: DecodeLoop, streams: Sequence[Stream], run: Callable[[], Decoded]
) -> Decoded:
    """`run()`, which is the loop, inside one trace of the model that the streams share, paused at each site their plans edit."""
    sites = layout.order(list(dict.fromkeys(site for stream in streams for site in stream.whole.sites)))
    hf = streams[0].model
    with bare(hf, modules_of(hf, layout, sites)):
        return _traced(nnsight, blocks, layout, loop, streams, sites, run) if sites else run()


def _traced(
    nnsight: Any,
    blocks: Any,
    layout: Layout,
    loop: DecodeLoop,
    streams: Sequence[Stream],
    sites: Sequence[Site],
    run: Callable[[], Decoded],
) -> Decoded:
    result: list[Decoded] = []

    def drive(*args: Any, **kwargs: Any) -> Tensor:
        result.append(run())
        return result[0].tokens

    batch = streams[0].batch
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    forwards = loop.max_new_tokens * len(streams)
    with nnsight.trace(**inputs, fn=drive) as tracer:
        for _ in tracer.iter[:forwards]:
            for site in sites:
                h = get_site(blocks, layout, site)  # waits for the forward pass of whichever stream is next
                stream = loop.current
                if site in stream.plan.groups:
                    set_site(blocks, layout, site, stream.plan.edit(site, h, stream.context))
    return result[0]
