"""One context and its key-value cache, read a token at a time: what a decode has one of, and guided decoding several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from steerlab.attention import grouped
from steerlab.batch import Batch
from steerlab.steering import CompiledPlan, TokenContext


class RoomyLayer(DynamicLayer):
    """Keys and values of one block with room for the whole answer: a step writes its own column and copies nothing.

    transformers' own layer concatenates, that is, copies everything so far at every step.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (b h s e) behind those there are; returns views of all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if start == 0:
            self.store = [
                x.new_empty((*x.shape[:-2], end + self.room, x.shape[-1])) for x in (key_states, value_states)
            ]
        for store, new in zip(self.store, (key_states, value_states), strict=True):
            store[..., start:end, :] = new
        self.keys, self.values = (store[..., :end, :] for store in self.store)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only keep these rows."""
        end = self.get_seq_length()
        self.store = [store[indices] for store in self.store]
        self.keys, self.values = (store[..., :end, :] for store in self.store)

    def take(self, layers: Sequence[RoomyLayer], missing: Sequence[int]) -> None:
        """Hold the rows of all these layers, below each other: `missing[i]` columns of zeros before those of layer i."""
        end = layers[0].get_seq_length() + missing[0]
        room = max(layer.store[0].shape[-2] - layer.get_seq_length() for layer in layers)
        stores = []
        for which in (0, 1):
            parts = [layer.store[which] for layer in layers]
            rows = sum(len(part) for part in parts)
            store, start = parts[0].new_zeros((rows, parts[0].shape[1], end + room, parts[0].shape[-1])), 0
            for part, layer, gap in zip(parts, layers, missing, strict=True):
                store[start : start + len(part), :, gap:end] = part[..., : layer.get_seq_length(), :]
                start += len(part)
            stores.append(store)
        self.store = stores
        self.keys, self.values = (store[..., :end, :] for store in stores)


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """transformers' cache for this model, with room for `room` more tokens in every block that attends to everything.

    Blocks with a sliding window or another memory keep transformers' own layer.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


@dataclass(frozen=True)
class Past:
    """What was read before: keys and values of `mask` "b p" tokens per row (left-padded), for a forward over what follows them."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    mask: Int[Tensor, "b p"]

    @staticmethod
    def read(model: Any, batch: Batch) -> Past:
        """Read the batch's tokens with a transformers model."""
        # Every block keeps everything, so that rows can be taken; a sliding window is the mask's business then.
        cache: Any = DynamicCache()
        model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        return Past(tuple((layer.keys, layer.values) for layer in cache.layers), batch.attention_mask)

    def rows(self, index: Int[Tensor, " m"]) -> Past:
        """These rows, in this order."""
        return Past(tuple((keys[index], values[index]) for keys, values in self.layers), self.mask[index])

    def before(self, batch: Batch) -> dict[str, Any]:
        """The inputs of a forward over the batch, whose rows follow these and may be padded on the right only."""
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, number)
        place = self.mask.sum(1, keepdim=True) + torch.arange(batch.input_ids.shape[1], device=self.mask.device)
        mask = torch.cat([self.mask, batch.attention_mask], dim=1)
        return {
            "input_ids": batch.input_ids, "attention_mask": mask, "position_ids": place, "past_key_values": cache,
            "use_cache": True,
        }  # fmt: skip


def shareable(config: Any) -> bool:
    """Whether all a model of this configuration remembers are keys and values, so that rows can share what they begin with."""
    return all(isinstance(layer, DynamicLayer) for layer in DynamicCache(config=config).layers)


class Stream:
    """Rows of one model that read their own contexts and then the same answer tokens as the decode's rows.

    `rows` (m): which row of the decode each stands beside. Rows with one number in `same` have the same context and the
    same plan: it is read once and its keys and values copied. `switch` is called before every forward (an adapter goes
    on or off there); streams of one model with the same `weights` have the same ones switched on. `context` and `plan` are
    those of the forward that runs: who edits the residual stream reads them.
    """

    def __init__(
        self,
        model: Any,
        batch: Batch,
        room: int,
        *,
        rows: Int[Tensor, " m"] | None = None,
        plan: CompiledPlan | None = None,
        same: Int[Tensor, " m"] | None = None,
        switch: Callable[[], None] | None = None,
        weights: object = None,
    ) -> None:
        device = batch.input_ids.device
        self.model, self.batch, self.switch, self.weights = model, batch, switch, weights
        self.everyone = torch.arange(len(batch), device=device)
        self.own = self.everyone  # rows of `batch` still here
        self.rows = self.everyone if rows is None else rows.to(device)
        self.cache: Any = roomy_cache(model.config, room)  # None once it is part of a joint one
        first, self.copy = (self.everyone, None) if same is None else _firsts(same.to(device))
        read = batch.select(first)
        self.mask, self.current, self.position = read.attention_mask, read.input_ids, read.position_ids
        self.relative = batch.relative[:, -1:]
        self.context = TokenContext(read.relative, read.input_ids, read.real)
        self.whole = self.asked = CompiledPlan({}, len(batch)) if plan is None else plan
        self.plan = self._plan_of(first)

    def __len__(self) -> int:
        return len(self.own)

    def read(self) -> Float[Tensor, "b v"]:
        """Logits of the next token of every row, after the current tokens."""
        logits = grouped_forward(self.model, self.switch, self.cache, self.current, self.mask, self.position)
        if self.copy is None:
            return logits
        self.cache.batch_select_indices(self.copy)
        self.mask, self.position = self.batch.attention_mask, self.batch.position_ids
        self.plan, copy, self.copy = self.whole, self.copy, None
        return logits[copy]

    def write(self, chosen: Int[Tensor, " b"]) -> None:
        """The tokens that the next `read` is about, one per row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self), 1)], dim=1)
        self.position, self.relative, self.current = self.position[:, -1:] + 1, self.relative + 1, chosen[:, None]
        self._seen()

    def keep(self, kept: Int[Tensor, " k"]) -> None:
        """Only these of the present rows stay."""
        if len(kept) == len(self):
            return
        if self.cache is not None:
            self.cache.batch_select_indices(kept)
        self.mask, self.position, self.relative, self.current, self.own, self.rows = (
            x[kept] for x in (self.mask, self.position, self.relative, self.current, self.own, self.rows)
        )
        self.plan = self._plan_of(self.own)
        self._seen()

    def weaken(self, share: Float[Tensor, " a"]) -> None:
        """From the next `read` on the strengths of row i of the batch are `share[i]` times those of the plan it was given."""
        self.whole = self.asked.scaled(share)
        self.plan = self._plan_of(self.own)

    def _seen(self) -> None:
        self.context = TokenContext(self.relative, self.current, torch.ones_like(self.current, dtype=torch.bool))

    def _plan_of(self, rows: Tensor) -> CompiledPlan:
        return self.whole if len(rows) == len(self.batch) else self.whole.select(rows)


def grouped_forward(
    model: Any,
    switch: Callable[[], None] | None,
    cache: Any,
    tokens: Int[Tensor, "b s"],
    mask: Int[Tensor, "b p"],
    position: Int[Tensor, "b s"],
) -> Float[Tensor, "b v"]:
    """Logits after the last of these tokens, whose keys and values join the cache."""
    if switch is not None:
        switch()
    with grouped(model):
        out = model(
            input_ids=tokens, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
    return out.logits[:, -1]


def _firsts(same: Int[Tensor, " b"]) -> tuple[Int[Tensor, " u"], Int[Tensor, " b"] | None]:
    """The first row of every group, and for each row the place of its group's among them (None where all rows differ)."""
    groups, copy = same.unique(return_inverse=True)
    first = copy.new_full((len(groups),), len(same))
    first.scatter_reduce_(0, copy, torch.arange(len(same), device=same.device), "amin")
    return first, None if len(groups) == len(same) else copy
