"""Sites as nnsight sees them, and a whole decode inside one trace; `model` owns the nnsight objects these functions are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from steerlab.architecture import Layout
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


def traced_run(
    nnsight: Any, blocks: Any, layout: Layout, loop: DecodeLoop, streams: Sequence[Stream], run: Callable[[], Decoded]
) -> Decoded:
    """`run()`, which is the loop, inside one trace of the model that the streams share, paused at each site their plans edit."""
    sites = layout.order(list(dict.fromkeys(site for stream in streams for site in stream.whole.sites)))
    if not sites:
        return run()
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
