"""Beam search the slow, obvious way: one row, no cache, hypotheses as lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def search(hf: Any, prompt: Sequence[int], beams: int, new: int) -> list[int]:
    """The most likely answer of exactly `new` tokens that beam search finds."""
    held: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(new):
        grown = []
        for score, answer in held:
            with torch.no_grad():
                log_p = hf(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, -1].log_softmax(-1)
            grown += [(score + float(log_p[v]), [*answer, v]) for v in log_p.topk(beams).indices.tolist()]
        held = sorted(grown, key=lambda pair: -pair[0])[:beams]
    return held[0][1]
