"""What interventions do to the next token along given texts: KL from the unsteered model, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from steerlab.batch import Batch, left_pad, plan_batches
from steerlab.compiled import TokenContext
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate, bootstrap
from steerlab.model import TracedModel
from steerlab.steering import Intervention, Plan
from steerlab.types import WRITING

_LOGITS = 1 << 25  # logits held at a time, which bounds the memory with a large vocabulary


@dataclass(frozen=True, eq=False)
class ForcedKL:
    """KL(unsteered || steered) of the next token in nats: `kl` "c n" of every change at every token, whose text is `text` "n"."""

    kl: Float[np.ndarray, "c n"]
    text: Int[np.ndarray, "n"]

    def mean(self, change: int, seed: int = 0) -> Estimate:
        """The mean over tokens under one change, with a bootstrap interval over texts."""
        return bootstrap(self.kl[change], groups=self.text, seed=seed)

    def quantile(self, change: int, q: float, seed: int = 0) -> Estimate:
        """A quantile over tokens under one change, with a bootstrap interval over texts."""
        return bootstrap(self.kl[change], partial(np.quantile, q=q), groups=self.text, seed=seed)

    def by_text(self) -> Float[np.ndarray, "c t"]:
        """The mean over the tokens of each text."""
        sizes = np.bincount(self.text)
        return np.stack([np.bincount(self.text, weights=row) / sizes for row in self.kl])


def forced_kl(
    model: TracedModel,
    changes: Sequence[Sequence[Intervention]],
    texts: Sequence[str],
    prompts: Sequence[str] | None = None,
    *,
    chat: bool = True,
    token_budget: int = 4096,
    progress: bool = False,
) -> ForcedKL:
    """How far each change moves the model's next-token distribution while it reads the texts as if it had written them.

    `prompts`: one instruction per text, rendered by the model's template; without, a text stands behind its first token
    (BOS, where the tokenizer has one). Every position from the last one of the prompt on counts: each token of a text is
    predicted once, and so is what follows it. All changes run in mixed batches with the unsteered model. Strength 0
    gives 0 up to float32 rounding (1e-6).

    Raises `SteerlabError` for another number of prompts than of texts, a text that is empty or does not fit, and a
    steered distribution that is not finite.
    """
    rows, heads = _rows(model, texts, prompts, chat)
    spans = np.cumsum([0, *(len(row) - head + 1 for row, head in zip(rows, heads, strict=True))])
    kl = np.zeros((len(changes), int(spans[-1])))
    runs = [(), *(tuple(change) for change in changes)]
    size = min(token_budget, max(1, _LOGITS // model.vocab_size))
    with tqdm(total=len(rows), unit="text", desc="KL", disable=not progress) as bar:
        for members in plan_batches([len(row) for row in rows], max(1, size // len(runs))):
            batch = left_pad([rows[m] for m in members], model.pad_id, [heads[m] for m in members]).to(model.device)
            found = _one_batch(model, batch, runs, size).numpy()
            start = 0
            for m in members:
                n = int(spans[m + 1] - spans[m])
                kl[:, spans[m] : spans[m + 1]] = found[:, start : start + n]
                start += n
            bar.update(len(members))
    if not np.isfinite(kl).all():
        first = int((~np.isfinite(kl)).any(axis=1).argmax())
        raise SteerlabError(f"the next-token distribution under change {first} is not finite: lower its strength.")
    return ForcedKL(kl, np.repeat(np.arange(len(rows)), np.diff(spans)))


def steered_logits(model: TracedModel, batch: Batch, plan: Plan) -> Float[Tensor, "b s v"]:
    """Logits of one forward pass in which row i gets the plan's row i; positions count from the end of its prompt."""
    batch = batch.to(model.device)
    compiled = model.compile(plan)
    context = TokenContext(batch.relative, batch.input_ids, batch.real)
    logits = model.forward(batch, edit=compiled.edits(context), logits=True).logits
    assert logits is not None
    return logits


def _rows(
    model: TracedModel, texts: Sequence[str], prompts: Sequence[str] | None, chat: bool
) -> tuple[list[list[int]], list[int]]:
    """Token ids of every text behind its prompt, and how many of them are prompt."""
    if prompts is None:
        rows = model.token_rows(texts)
        heads = [1] * len(rows)
    else:
        if len(prompts) != len(texts):
            raise SteerlabError(f"{len(texts)} texts and {len(prompts)} prompts were given: give one prompt per text.")
        tops = model.token_rows(prompts, chat)
        tails = [list(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        rows, heads = [top + tail for top, tail in zip(tops, tails, strict=True)], [len(top) for top in tops]
    for text, row, head in zip(texts, rows, heads, strict=True):
        if len(row) <= head or len(row) > model.context_length:
            what = (
                "has no tokens of its own" if len(row) <= head else f"of {len(row)} tokens is longer than the context"
            )
            raise SteerlabError(
                f"the text {text[:40]!r} {what} (1 to {model.context_length} with its prompt are possible): leave it out."
            )
    return rows, heads


def _one_batch(
    model: TracedModel, batch: Batch, runs: Sequence[tuple[Intervention, ...]], size: int
) -> Float[Tensor, "c n"]:
    """KL of every run but the first from the first, at the measured tokens of the batch, row by row."""
    mask = WRITING.mask(batch.relative, batch.input_ids, batch.real)
    some = max(1, size // batch.input_ids.numel())
    plain: Tensor | None = None
    found = []
    for start in range(0, len(runs), some):
        own = runs[start : start + some]
        ids, real = (x.repeat(len(own), 1) for x in (batch.input_ids, batch.attention_mask))
        tiled = Batch(ids, real, batch.prompt_lengths.repeat(len(own)))
        logits = steered_logits(model, tiled, Plan(tuple(run for run in own for _ in range(len(batch)))))
        scores = torch.log_softmax(logits.unflatten(0, (len(own), len(batch)))[:, mask].float(), dim=-1)
        if plain is None:
            plain, scores = scores[0], scores[1:]
        found.append((plain.exp() * (plain - scores)).sum(-1).clamp(min=0).cpu())
    return torch.cat(found)
