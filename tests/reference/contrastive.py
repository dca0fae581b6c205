"""Contrastive search the slow, obvious way: one row, no cache, one forward for every candidate, as the paper writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steerlab.steering import Plan
from tests.reference import hooks, steering


def _read(hf: Any, family: str, row: Sequence[int], prompt: int, plan: Plan) -> tuple[Tensor, Tensor]:
    """Probabilities (v) of the next token, and the last hidden state (s d) of every token."""
    ids = torch.tensor([list(row)])
    relative = torch.arange(len(row))[None] - prompt
    real = torch.ones_like(ids, dtype=torch.bool)
    changes = {
        site: (lambda h, site=site: steering.edit(plan, site, h, relative, ids, real).to(h.dtype))
        for site in plan.sites
    }
    with torch.no_grad(), hooks.hooked(hf, family, changes):
        out = hf(input_ids=ids, use_cache=False, output_hidden_states=True)
    return out.logits[0, -1].float().softmax(-1), out.hidden_states[-1][0].float()


def search(
    hf: Any, family: str, prompt: Sequence[int], k: int, penalty: float, new: int, plan: Plan | None = None
) -> list[int]:
    """The tokens of one answer of `new` tokens."""
    plan = plan or Plan(((),))
    row = list(prompt)
    for _ in range(new):
        p, _ = _read(hf, family, row, len(prompt), plan)
        best, found = -torch.inf, -1
        for v in p.topk(k).indices.tolist():
            _, h = _read(hf, family, [*row, v], len(prompt), plan)
            cosines = torch.nn.functional.cosine_similarity(h[-1:], h[:-1])
            score = float((1 - penalty) * p[v] - penalty * cosines.max())
            if score > best:
                best, found = score, v
        row.append(found)
    return row[len(prompt) :]
