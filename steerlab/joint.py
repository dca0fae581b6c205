"""Several contexts of one model whose next tokens are read in one forward, so that its weights are fetched once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.compiled import Act, CompiledPlan, Shift, TokenContext
from steerlab.streams import RoomyLayer, Stream, grouped_forward
from steerlab.types import Site

# A shorter context is padded to the longest, and attending to padding costs too. In units of the model's width: at 0.2 a decode of
# three streams takes 0.89 of the time (0.77 for a single row), at 0.9 1.13 (12 layers of 512, 16 rows, two cores).
MOST_PADDING = 0.25


class Joint:
    """What `Stream` is, for streams that have read their contexts and go on together; each keeps its rows, and its plan acts on them.

    Takes the streams' caches over: columns of zeros, which the mask hides, stand before the shorter contexts.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = tuple(streams)
        self.model, self.switch = streams[0].model, streams[0].switch
        widths = [stream.mask.shape[1] for stream in streams]
        self.missing = [max(widths) - width for width in widths]
        self.owned = [stream.own for stream in streams]
        self.cache = streams[0].cache
        for layers in zip(*(stream.cache.layers for stream in streams), strict=True):
            layers[0].take(layers, self.missing)
        for stream in streams:
            stream.cache = None
        self._plans: tuple[CompiledPlan, ...] = ()
        self.plan, self.context = CompiledPlan({}, 0), streams[0].context  # what `read` is about to say

    def __len__(self) -> int:
        return sum(map(len, self.streams))

    def read(self) -> list[Float[Tensor, "b v"]]:
        """Logits of the next token of every stream's rows, after their current tokens."""
        self._follow()
        masks = [
            torch.nn.functional.pad(stream.mask, (n, 0)) for stream, n in zip(self.streams, self.missing, strict=True)
        ]
        logits = grouped_forward(
            self.model,
            self.switch,
            self.cache,
            torch.cat([stream.current for stream in self.streams]),
            torch.cat(masks),
            torch.cat([stream.position for stream in self.streams]),
        )
        return list(logits.split([len(stream) for stream in self.streams]))

    def _follow(self) -> None:
        """Rows that left a stream leave the cache, and plans that changed are put together anew."""
        if any(len(before) != len(stream) for before, stream in zip(self.owned, self.streams, strict=True)):
            kept, start = [], 0
            for before, stream in zip(self.owned, self.streams, strict=True):
                kept.append(start + torch.searchsorted(before, stream.own))
                start += len(before)
            self.cache.batch_select_indices(torch.cat(kept))
            self.owned = [stream.own for stream in self.streams]
        plans = tuple(stream.plan for stream in self.streams)
        if len(plans) != len(self._plans) or any(a is not b for a, b in zip(plans, self._plans, strict=True)):
            self._plans, self.plan = plans, side_by_side(plans)
        self.context = _context(self.streams)


def together(streams: Sequence[Stream]) -> list[Stream | Joint]:
    """The streams, in their order, with those of the same weights joined where that pays: all have read their contexts, remember
    nothing but keys and values, and are of similar length.
    """
    groups: dict[object, list[Stream]] = {}
    for stream in streams:
        roomy = stream.cache is not None and all(isinstance(layer, RoomyLayer) for layer in stream.cache.layers)
        same = (id(stream.model), stream.weights) if roomy and len(stream) else id(stream)
        groups.setdefault(same, []).append(stream)
    found: list[Stream | Joint] = []
    for group in groups.values():
        longest = max(stream.mask.shape[1] for stream in group)
        most = MOST_PADDING * group[0].model.config.get_text_config().hidden_size
        near = [stream for stream in group if longest - stream.mask.shape[1] <= most]
        if len(near) < 2:
            found += group
        else:
            found += [Joint(near), *(stream for stream in group if stream not in near)]
    return found


def side_by_side(plans: Sequence[CompiledPlan]) -> CompiledPlan:
    """One plan for the rows of all of them, below each other: every row is edited as its own plan does, bitwise."""
    total, start = sum(plan.n_rows for plan in plans), 0
    groups: dict[Site, tuple[Shift | Act, ...]] = {}
    for plan in plans:
        for site, own in plan.groups.items():
            groups[site] = (*groups.get(site, ()), *(_moved(group, start, plan.n_rows, total) for group in own))
        start += plan.n_rows
    return CompiledPlan(groups, total)


def _moved(group: Shift | Act, start: int, rows: int, total: int) -> Shift | Act:
    """A group of a plan as it acts on rows `start` and further of a batch of `total`."""
    if isinstance(group, Act):
        return replace(group, rows=group.rows + start, whole=group.whole and rows == total)
    delta = group.delta.new_full((total, *group.delta.shape[1:]), -0.0)
    delta[start : start + rows] = group.delta
    return replace(group, delta=delta)


def _context(streams: Sequence[Stream]) -> TokenContext:
    """The tokens that the streams read next, below each other."""
    own = [stream.context for stream in streams]
    return TokenContext(*(torch.cat([getattr(one, name) for one in own]) for name in ("relative", "ids", "real")))
