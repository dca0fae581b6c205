"""Guided decoding the slow, obvious way: one sample, every stream read from the start at every token, as the authors of STEER do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerlab.guidance import Guide
from steerlab.steering import Intervention, Plan
from tests.reference import hooks


@dataclass(frozen=True)
class Context:
    """What one stream reads before the answer: a model, tokens, and interventions."""

    hf: Any
    ids: Sequence[int]
    interventions: tuple[Intervention, ...] = ()

    def log_p(self, family: str, answer: Sequence[int]) -> Tensor:
        """Log-probabilities (v) of the token after the answer so far."""
        plan = Plan((self.interventions,))
        return hooks.logits(self.hf, family, [*self.ids, *answer], len(self.ids), plan)[-1].float().log_softmax(-1)


def scores(
    family: str, guide: Guide, expert: Context, base: Context | None, negative: Context | None, answer: Sequence[int]
) -> Tensor:
    """Scores (v) of the token after the answer, by the formula written out."""
    e = expert.log_p(family, answer)
    total = e.clone()
    if base is not None:
        total += guide.gamma * (e - base.log_p(family, answer))
    if negative is not None:
        total -= guide.eta * negative.log_p(family, answer)
        if guide.form == "balanced":
            total += guide.eta * e
    if guide.cutoff:
        total[e.exp() < guide.cutoff * e.exp().max() * (1 - 1e-6)] = -torch.inf
    return total
