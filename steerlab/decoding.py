"""The decode loop: cached, batched, greedy in its forwards and indifferent to who watches them.

It drives a Hugging Face causal LM and knows neither nnsight nor plans: a `Chunk` says, before every forward,
what its positions mean, and whoever edits the residual stream reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from steerlab.attention import grouped
from steerlab.batch import Batch
from steerlab.steering import TokenContext

# (rows (b,) of the original batch, tokens so far (b t) prompt included, logits (b v), step) -> next token (b)
Pick = Callable[[Tensor, Tensor, Tensor, int], Tensor]
# (rows (b,), generated tokens (b n)) -> which rows are finished
Finished = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Chunk:
    """What the current forward holds: the meaning of its positions, and which rows of the original batch are
    still in it.
    """

    context: TokenContext
    rows: Int[Tensor, " b"]
    step: int = 0


@dataclass
class Decoded:
    """Generated tokens (b n), cut per row: `tokens[i, :lengths[i]]`; `ended[i]` is False where the token limit
    stopped the row.
    """

    tokens: Int[Tensor, "b n"]
    lengths: Int[Tensor, " b"]
    ended: Bool[Tensor, " b"]
    steps: int = 0
    row_steps: int = 0

    def row(self, i: int) -> list[int]:
        """The generated token ids of row `i`."""
        return self.tokens[i, : int(self.lengths[i])].tolist()


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


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """transformers' cache for this model, with room for `room` more tokens in every block that attends to everything.

    Blocks with a sliding window or another memory keep transformers' own layer.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _firsts(same: Int[Tensor, " b"]) -> tuple[Int[Tensor, " u"], Int[Tensor, " b"] | None]:
    """The first row of every group, and for each row the place of its group's among them (None where all rows differ)."""
    groups, copy = same.unique(return_inverse=True)
    first = copy.new_full((len(groups),), len(same))
    first.scatter_reduce_(0, copy, torch.arange(len(same), device=same.device), "amin")
    return first, None if len(groups) == len(same) else copy


class DecodeLoop:
    """One run of the loop. Rows that have finished leave the batch once at least a quarter of it is done, so the
    tail is not paid for; rows with the same number in `same` (the same prompt under the same plan) are read once,
    and their keys and values copied. `on_rows` is told which rows of the batch the next forward holds.
    """

    def __init__(
        self,
        model: Any,
        batch: Batch,
        pick: Pick,
        finished: Finished,
        max_new_tokens: int,
        on_rows: Callable[[Tensor], None],
        retire: bool = True,
        same: Int[Tensor, " b"] | None = None,
    ) -> None:
        self.model, self.pick, self.finished, self.max_new_tokens = model, pick, finished, max_new_tokens
        self.on_rows, self.retire = on_rows, retire
        n = len(batch)
        device = batch.input_ids.device
        self.batch = batch
        self.everyone = torch.arange(n, device=device)
        self.first, self.copy = (self.everyone, None) if same is None else _firsts(same.to(device))
        read = batch.select(self.first)
        self.chunk = Chunk(TokenContext(read.relative, read.input_ids, read.real), self.first)
        self.tokens = torch.zeros((n, max_new_tokens), dtype=torch.int64, device=device)
        self.lengths = torch.zeros(n, dtype=torch.int64, device=device)
        self.ended = torch.zeros(n, dtype=torch.bool, device=device)
        self.row_steps = self.steps = 0

    def run(self) -> Decoded:
        """Decode until every row has finished or `max_new_tokens` is reached."""
        batch, chunk = self.batch, self.chunk
        cache = roomy_cache(self.model.config, self.max_new_tokens)
        read = batch.select(self.first)
        history, relative = batch.input_ids, batch.relative[:, -1:]
        mask, current, position = read.attention_mask, read.input_ids, read.position_ids
        self.on_rows(self.first)
        for step in range(self.max_new_tokens):
            with grouped(self.model):
                out = self.model(
                    input_ids=current, attention_mask=mask, position_ids=position, past_key_values=cache,
                    use_cache=True, logits_to_keep=1,
                )  # fmt: skip
            logits: Float[Tensor, "b v"] = out.logits[:, -1]
            if step == 0 and self.copy is not None:
                cache.batch_select_indices(self.copy)
                logits, mask, position = logits[self.copy], batch.attention_mask, batch.position_ids
                chunk.rows = self.everyone
                self.on_rows(chunk.rows)
            self.steps, self.row_steps = step + 1, self.row_steps + len(chunk.rows)
            chosen = self.pick(chunk.rows, history, logits, step)
            self._record(chosen, step)
            done = self.ended[chunk.rows]
            if bool(done.all()) or step + 1 == self.max_new_tokens:
                break
            history = torch.cat([history, chosen[:, None]], dim=1)
            mask = torch.cat([mask, mask.new_ones(len(chunk.rows), 1)], dim=1)
            position, relative, current = position[:, -1:] + 1, relative + 1, chosen[:, None]
            if self.retire and 4 * int(done.sum()) >= len(done):
                keep = (~done).nonzero()[:, 0]
                cache.batch_select_indices(keep)
                history, mask, position, relative, current = (
                    x[keep] for x in (history, mask, position, relative, current)
                )
                chunk.rows = chunk.rows[keep]
                self.on_rows(chunk.rows)
            chunk.context = TokenContext(relative, current, torch.ones_like(current, dtype=torch.bool))
            chunk.step = step + 1
        return Decoded(self.tokens[:, : max(self.steps, 1)], self.lengths, self.ended, self.steps, self.row_steps)

    def _record(self, chosen: Tensor, step: int) -> None:
        """Keep the token of every row that is still writing. Rows that are done but not yet retired decode into
        the void.
        """
        rows = self.chunk.rows[~self.ended[self.chunk.rows]]
        self.tokens[rows, step] = chosen[~self.ended[self.chunk.rows]]
        self.lengths[rows] = step + 1
        self.ended[rows] = self.finished(rows, self.tokens[rows, : step + 1])
