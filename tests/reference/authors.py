"""The procedure of STEER's authors, as their program runs it: one sample at a time, prompt and answer read anew at every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from steerlab.guidance import Guide


def authors(
    expert: Any, base: Any, prompts: Sequence[Tensor], negatives: Sequence[Tensor], guide: Guide, new: int
) -> list[tuple[int, ...]]:
    """Greedy answers, one sample after the other, in the four passes a token that the authors of STEER make.

    generate() reads the token with its cache, and its scores are left unused; expert and base read prompt and answer from the
    start; the expert reads the token behind the negatives with a cache.
    """
    found = []
    for prompt, negative in zip(prompts, negatives, strict=True):
        answer = torch.zeros(0, dtype=torch.int64)
        unused, away = _Cached(expert, prompt), _Cached(expert, negative)
        for _ in range(new):
            unused.log_p(answer)
            whole = torch.cat([prompt, answer])
            l_e, l_b, l_n = _log_p(expert, whole), _log_p(base, whole), away.log_p(answer)
            scores = (1 + guide.gamma) * l_e - guide.gamma * l_b - guide.eta * l_n
            answer = torch.cat([answer, scores.argmax()[None]])
        found.append(tuple(answer.tolist()))
    return found


@torch.no_grad()
def _log_p(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids[None], use_cache=False, logits_to_keep=1).logits[0, -1].log_softmax(-1)


class _Cached:
    """A context read once, and then a token at a time."""

    def __init__(self, model: Any, context: Tensor) -> None:
        self.model, self.context, self.cache = model, context, DynamicCache(config=model.config)

    @torch.no_grad()
    def log_p(self, answer: Tensor) -> Tensor:
        new = answer[-1:] if len(answer) else self.context
        out = self.model(input_ids=new[None], past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].log_softmax(-1)
