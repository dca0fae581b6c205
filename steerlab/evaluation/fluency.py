"""Fluency by proxy: how surprising a text is to the unsteered model that wrote it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from steerlab.batch import left_pad, plan_batches
from steerlab.errors import SteerlabError
from steerlab.halving import Halving
from steerlab.model import TracedModel
from steerlab.types import Site


def log_likelihood(
    model: TracedModel,
    texts: Sequence[str],
    prompts: Sequence[str] | None = None,
    token_budget: int = 4096,
    chat: bool = True,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Sum of natural-log probabilities of each text's tokens under the unsteered model, and their number.

    Without prompts a text stands behind BOS alone (a tokenizer without BOS leaves the first token out); with
    prompts, behind its instruction in the model's template (chat=False: behind the prompt as it is). What does not
    fit the context is cut off at the end; a text without a token of its own has NaN and 0.
    """
    if prompts is not None and len(prompts) != len(texts):
        raise SteerlabError(f"{len(texts)} texts and {len(prompts)} prompts were given: give one prompt per text.")
    total = np.full(len(texts), math.nan)
    count = np.zeros(len(texts))
    filled = [i for i, text in enumerate(texts) if text]
    if not filled:
        return total, count
    if prompts is None:
        rows = model.token_rows([texts[i] for i in filled])
        heads = [1] * len(rows)
    else:
        rendered = model.token_rows([prompts[i] for i in filled], chat)
        tails = [model.tokenizer(texts[i], add_special_tokens=False)["input_ids"] for i in filled]
        rows = [head + list(tail) for head, tail in zip(rendered, tails, strict=True)]
        heads = [len(head) for head in rendered]
    rows = [row[: model.context_length] for row in rows]
    memory = Halving("texts")

    def score(members: list[int]) -> None:
        batch = left_pad([rows[m] for m in members], model.pad_id).to(model.device)
        logits = model.forward(batch, logits=True).logits
        assert logits is not None
        scores = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        picked = scores.gather(2, batch.input_ids[:, 1:, None])[..., 0]
        for r, m in enumerate(members):
            n = len(rows[m]) - heads[m]  # of a text that was cut at the context, what is left of it
            if n > 0:
                total[filled[m]] = float(picked[r, -n:].sum())
                count[filled[m]] = n

    for members in plan_batches([len(row) for row in rows], token_budget):
        memory.run(members, score)
    return total, count


def perplexity(
    model: TracedModel, texts: Sequence[str], prompts: Sequence[str] | None = None, chat: bool = True
) -> Float[np.ndarray, " n"]:
    """exp of the mean negative log-likelihood per token, text by text; NaN for an empty text."""
    total, count = log_likelihood(model, texts, prompts, chat=chat)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.exp(-total / np.where(count > 0, count, np.nan))


def embeddings(
    model: TracedModel, texts: Sequence[str], layer: int | None = None, token_budget: int = 4096
) -> Float[np.ndarray, "n d"]:
    """Mean-pooled residual stream of each text (default: the middle block), for similarity measures such as the
    Vendi score.
    """
    site = Site(model.n_layers // 2 if layer is None else layer)
    rows = [row[: model.context_length] for row in model.token_rows([text or " " for text in texts])]
    found = np.zeros((len(texts), model.d_model))
    memory = Halving("texts")

    def embed(members: list[int]) -> None:
        batch = left_pad([rows[m] for m in members], model.pad_id).to(model.device)
        h = model.forward(batch, read=[site])[site].float()
        mask = batch.real[..., None]
        mean = torch.where(mask, h, 0.0).sum(1) / mask.sum(1)
        found[members] = mean.cpu().numpy()

    for members in plan_batches([len(row) for row in rows], token_budget):
        memory.run(members, embed)
    return found
