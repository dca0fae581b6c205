"""Token batches: left-padded ids with what every position means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Left-padded token ids (b s), their mask (1 real, 0 padding), and how many real tokens of each row are
    prompt (b).

    The mask, never the pad id, says what is padding: with pad = eos a comparison of ids would drop real tokens.
    """

    input_ids: Int[Tensor, "b s"]
    attention_mask: Int[Tensor, "b s"]
    prompt_lengths: Int[Tensor, " b"]

    @property
    def real(self) -> Bool[Tensor, "b s"]:
        """True on real tokens."""
        return self.attention_mask.bool()

    @property
    def position_ids(self) -> Int[Tensor, "b s"]:
        """Position of each real token within its row, from 0; 0 on padding. Without these, left padding shifts
        rotary positions.
        """
        return (self.attention_mask.cumsum(1) - 1).clamp(min=0)

    @property
    def relative(self) -> Int[Tensor, "b s"]:
        """Position counted from the end of the prompt: -1 is the last prompt token, 0 the first generated one."""
        return self.attention_mask.cumsum(1) - 1 - self.prompt_lengths[:, None]

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def select(self, rows: Int[Tensor, " m"]) -> Batch:
        """These rows, in this order, as wide as before."""
        return Batch(self.input_ids[rows], self.attention_mask[rows], self.prompt_lengths[rows])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.prompt_lengths.to(device))


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, prompt_lengths: Sequence[int] | None = None) -> Batch:
    """Pad rows of token ids on the left to one length. Without `prompt_lengths` the whole row is prompt."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), length), dtype=torch.int64)
    for i, row in enumerate(rows):
        if row:
            ids[i, length - len(row) :] = torch.tensor(list(row), dtype=torch.int64)
            mask[i, length - len(row) :] = 1
    lengths = [len(row) for row in rows] if prompt_lengths is None else list(prompt_lengths)
    return Batch(ids, mask, torch.tensor(lengths, dtype=torch.int64))


def plan_batches(lengths: Sequence[int], token_budget: int, max_rows: int | None = None) -> list[list[int]]:
    """Group example numbers into batches of similar length whose padded size stays within `token_budget` tokens.

    Depends on `lengths` alone (stable sort by length, then by number), so that a resumed run plans the same
    batches. An example longer than the budget gets a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        full = not batches or (len(batches[-1]) + 1) * max(lengths[i], 1) > token_budget
        if full or (max_rows is not None and len(batches[-1]) >= max_rows):
            batches.append([])
        batches[-1].append(i)
    return batches
