"""Contrastive search: the likeliest of k tokens less what it repeats of the context, judged by hidden states (Su et al. 2022).

Every step scores (1 - penalty) p(v) - penalty max_j cos(h_v, h_j) for the k most likely tokens v, where h_v is the model's
last hidden state (behind its final norm) when v is appended and h_j are those of all tokens so far, the prompt's included
(arXiv 2202.06417, equation 5). It is deterministic. transformers no longer has it without code from the hub.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize, pad

from steerlab.batch import left_pad
from steerlab.decoding import Decoded, DecodeLoop, Finished
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Sample, Settings, plan_requests
from steerlab.model import Side, TracedModel
from steerlab.steering import Plan
from steerlab.stopping import Stopper, cut
from steerlab.streams import Stream


@dataclass(frozen=True)
class Contrastive:
    """k candidates and the degeneration penalty. The defaults are what STEER's authors gave their "contrastive" baseline, which
    ran as top-k sampling all the same; Su et al. use k of 5 to 8 and a penalty of 0.6. Penalty 0, or k 1, is greedy decoding.

    Raises `SteerlabError` for k below 1 and a penalty outside 0 to 1.
    """

    k: int = 10
    penalty: float = 0.35

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 <= self.penalty <= 1:
            raise SteerlabError(
                f"k is {self.k} and the penalty {self.penalty}: give at least 1 candidate and a penalty from 0 to 1."
            )


class ContrastiveLoop(DecodeLoop):
    """The decode loop over a stream that holds every row k times, next to each other: one forward reads all candidates of a step.

    What is returned has a row for each of the k copies; the first one is the row.
    """

    def __init__(
        self, model: Any, main: Stream, finished: Finished, max_new_tokens: int, how: Contrastive, retire: bool = True
    ) -> None:
        super().__init__(main, _no_pick, finished, max_new_tokens, retire)
        self.model, self.how = model, how
        self.longest = max_new_tokens
        self.max_new_tokens = max_new_tokens + 1  # forwards: the last token's candidates are read as well

    def run(self) -> Decoded:
        """Decode until every row has finished or the limit is reached."""
        main, k = self.main, self.how.k
        with _last_states(self.model) as seen:
            copy = main.everyone if main.copy is None else main.copy  # rows with one context are read once
            logits = self._read(main)[::k]
            past, real = normalize(seen.pop().float(), dim=-1)[copy[::k]], main.batch.real[::k]
            for step in range(self.longest):
                p, candidates = torch.softmax(logits.float(), -1).topk(k, dim=-1)
                main.write(candidates.flatten())
                after = self._read(main)
                h = normalize(seen.pop()[:, -1].float(), dim=-1).unflatten(0, (-1, k))
                best = scores(p, h, past, real, self.how.penalty).argmax(-1)
                row = torch.arange(len(best), device=best.device)
                self.steps, self.row_steps = step + 1, self.row_steps + len(best)
                self._record(candidates[row, best].repeat_interleave(k), step)
                done = self.ended[main.rows][::k]
                if bool(done.all()) or step + 1 == self.longest:
                    break
                main.cache.batch_select_indices((row * k + best).repeat_interleave(k))
                logits = after.unflatten(0, (-1, k))[row, best]
                past = torch.cat([past, h[row, best][:, None]], dim=1)
                real = pad(real, (0, 1), value=True)
                if self.retire and 4 * int(done.sum()) >= len(done):
                    logits, past, real = logits[~done], past[~done], real[~done]
                    main.keep((~done).repeat_interleave(k).nonzero()[:, 0])
        return Decoded(self.tokens[:, : self.steps], self.lengths, self.ended, self.steps, self.row_steps)


def scores(
    p: Float[Tensor, "b k"],
    h: Float[Tensor, "b k d"],
    past: Float[Tensor, "b s d"],
    real: Bool[Tensor, "b s"],
    penalty: float,
) -> Float[Tensor, "b k"]:
    """(1 - penalty) p - penalty times the largest cosine of each candidate's state with a real state before it; unit rows in."""
    alike = torch.einsum("bkd,bsd->bks", h, past).masked_fill(~real[:, None], -math.inf).amax(-1)
    return (1 - penalty) * p - penalty * alike


def contrastive_search(
    model: TracedModel,
    requests: Sequence[Request],
    settings: Settings | None = None,
    how: Contrastive | None = None,
    *,
    batch_rows: int = 32,
) -> list[Sample]:
    """Write every request, in order; of the settings only `max_new_tokens` and `stop` matter. A batch holds `batch_rows` / k
    requests. Requests may be steered; guidance is refused with a `SteerlabError`, as is what `generate` refuses.
    """
    settings, how = settings or Settings(), how or Contrastive()
    if any(request.guided is not None for request in requests):
        raise SteerlabError("a guided request was given to contrastive search: write it with generate instead.")
    if how.k > model.vocab_size:
        raise SteerlabError(f"k is {how.k} and {model.name} has {model.vocab_size} tokens: give a smaller k.")
    if not requests:
        return []
    rows, batches = plan_requests(model, requests, max(1, batch_rows // how.k) if batch_rows >= 1 else batch_rows)
    stopper = Stopper(model, settings.stop)
    found: dict[int, Sample] = {}
    for members in batches:
        plan = Plan(tuple(requests[i].interventions for i in members))
        ids = [rows[i] for i in members]
        for i, (tokens, ended) in zip(members, _decode(model, ids, plan, stopper, settings, how), strict=True):
            text = cut(model.decode_text(tokens), settings.stop)
            found[i] = Sample(text, tuple(tokens), ended, len(rows[i]))
    return [found[i] for i in range(len(requests))]


def _decode(
    model: TracedModel, ids: list[list[int]], plan: Plan, stopper: Stopper, settings: Settings, how: Contrastive
) -> list[tuple[list[int], bool]]:
    """The tokens of every row, and whether it ended."""
    copies = torch.arange(len(ids)).repeat_interleave(how.k)
    seen: dict[tuple[int, ...], int] = {}
    same = torch.tensor([seen.setdefault((id(own), *row), len(seen)) for own, row in zip(plan.rows, ids, strict=True)])
    chosen = Plan(tuple(plan.rows[i] for i in copies.tolist())) if any(plan.rows) else None
    side = Side(left_pad(ids, model.pad_id).select(copies), plan=chosen, same=same[copies])
    main = model.stream(side, settings.max_new_tokens)
    loop = ContrastiveLoop(model.hf, main, stopper, settings.max_new_tokens, how)
    out = model.run_traced(loop, [main], loop.run)
    return [(out.row(i), bool(out.ended[i])) for i in range(0, len(copies), how.k)]


@contextmanager
def _last_states(hf: Any) -> Iterator[list[Tensor]]:
    """Inside, what the model's body gives its head (b s d) is put on the list at every forward; the model is left as it was."""
    kept: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        kept.append(output[0])

    handle = hf.base_model.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def _no_pick(rows: Tensor, history: Tensor, logits: Tensor, step: int) -> Tensor:
    raise AssertionError("contrastive search picks for itself")
