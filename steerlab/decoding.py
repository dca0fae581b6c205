"""The decode loop: cached, batched, greedy in its forwards and indifferent to who watches them.

It drives Hugging Face causal LMs and knows neither nnsight nor plans: every `Stream` says, before each of its forwards,
what its positions mean, and whoever edits the residual stream reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.joint import Joint, together
from steerlab.streams import Stream

# (rows (b,) of the original batch, tokens so far (b t) prompt included, logits (b v), step) -> next token (b)
Pick = Callable[[Tensor, Tensor, Tensor, int], Tensor]
# (rows (b,), generated tokens (b n)) -> which rows are finished
Finished = Callable[[Tensor, Tensor], Tensor]
# (rows (b,), logits (b v), per side stream its rows (m) of the original batch and logits (m v), None where no row of it is left,
#  step) -> logits (b v)
Mix = Callable[[Tensor, Tensor, Sequence[tuple[Tensor, Tensor] | None], int], Tensor]
# (rows (b,), generated tokens (b n), which rows still write (b,), step) -> each original row's share of its strength, None: as before
Watch = Callable[[Tensor, Tensor, Tensor, int], Tensor | None]


@dataclass
class Decoded:
    """Generated tokens (b n), cut per row: `tokens[i, :lengths[i]]`; `ended[i]` is False where the token limit
    stopped the row. `row_steps` counts rows over the main stream's forwards.
    """

    tokens: Int[Tensor, "b n"]
    lengths: Int[Tensor, " b"]
    ended: Bool[Tensor, " b"]
    steps: int = 0
    row_steps: int = 0

    def row(self, i: int) -> list[int]:
        """The generated token ids of row `i`."""
        return self.tokens[i, : int(self.lengths[i])].tolist()


class DecodeLoop:
    """One run of the loop: the main stream, and side streams whose logits `mix` takes into account (guidance).

    Rows that have finished leave all streams once at least a quarter of the rows is done, so the tail is not paid for. Streams of
    the same weights advance in one forward once each has read its context. `current` is the stream whose forward runs. `watch`
    sees every token of the main stream and may weaken its rows' steering.
    """

    def __init__(
        self,
        main: Stream,
        pick: Pick,
        finished: Finished,
        max_new_tokens: int,
        retire: bool = True,
        sides: Sequence[Stream] = (),
        mix: Mix | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.main, self.sides, self.mix, self.watch = main, tuple(sides), mix, watch
        self.pick, self.finished, self.max_new_tokens, self.retire = pick, finished, max_new_tokens, retire
        self.current: Stream | Joint = main
        self.readers: list[Stream | Joint] = [main, *self.sides]
        n, device = len(main), main.everyone.device
        self.tokens = torch.zeros((n, max_new_tokens), dtype=torch.int64, device=device)
        self.lengths = torch.zeros(n, dtype=torch.int64, device=device)
        self.ended = torch.zeros(n, dtype=torch.bool, device=device)
        self.row_steps = self.steps = 0

    def run(self) -> Decoded:
        """Decode until every row has finished or `max_new_tokens` is reached."""
        main, history = self.main, self.main.batch.input_ids
        for step in range(self.max_new_tokens):
            found = self._read_all()
            rows, logits = main.rows, found[main]
            if self.mix is not None:
                others = [(side.rows, found[side]) if len(side) else None for side in self.sides]
                logits = self.mix(rows, logits, others, step)
            self.steps, self.row_steps = step + 1, self.row_steps + len(rows)
            chosen = self.pick(rows, history, logits, step)
            self._record(chosen, step)
            done = self.ended[rows]
            share = None if self.watch is None else self.watch(rows, self.tokens[rows, : step + 1], ~done, step)
            if share is not None:
                main.weaken(share)
            n_done = int(done.sum())
            if n_done == len(done) or step + 1 == self.max_new_tokens:
                break
            if step == 0 and self.sides:
                self.readers = together((main, *self.sides))
            history = torch.cat([history, chosen[:, None]], dim=1)
            everywhere = chosen.new_zeros(len(self.ended)).index_copy_(0, rows, chosen)
            for stream in (main, *self.sides):
                stream.write(everywhere[stream.rows])
            if self.retire and 4 * n_done >= len(done):
                history = history[~done]
                for stream in (main, *self.sides):
                    stream.keep((~self.ended[stream.rows]).nonzero()[:, 0])
        return Decoded(self.tokens[:, : max(self.steps, 1)], self.lengths, self.ended, self.steps, self.row_steps)

    def _read_all(self) -> dict[Stream, Float[Tensor, "b v"]]:
        """The logits of every stream that has rows left."""
        found: dict[Stream, Tensor] = {}
        for reader in self.readers:
            if not len(reader):
                continue
            if isinstance(reader, Joint):
                self.current = reader
                found.update(zip(reader.streams, reader.read(), strict=True))
            else:
                found[reader] = self._read(reader)
        return found

    def _read(self, stream: Stream) -> Float[Tensor, "b v"]:
        self.current = stream
        return stream.read()

    def _record(self, chosen: Tensor, step: int) -> None:
        """Keep the token of every row that is still writing. Rows that are done but not yet retired decode into
        the void.
        """
        writing = ~self.ended[self.main.rows]
        rows = self.main.rows[writing]
        self.tokens[rows, step] = chosen[writing]
        self.lengths[rows] = step + 1
        self.ended[rows] = self.finished(rows, self.tokens[rows, : step + 1])
