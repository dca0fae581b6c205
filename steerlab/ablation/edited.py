"""Given texts read by an edited model: loss, KL to the unedited model and projections, text by text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.batch import Batch, left_pad, plan_batches
from steerlab.capture import passes, select
from steerlab.compiled import TokenContext
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import bootstrap
from steerlab.model import Edit, TracedModel
from steerlab.steering import Intervention, Plan
from steerlab.templates import leading_bos
from steerlab.types import ALL, Site

# (a batch, the numbers of its texts) -> what to do in its forward pass, by site
Editor = Callable[[Batch, Sequence[int]], Mapping[Site, Edit]]
# name -> (where, a direction "d"): the text's mean projection on it is a column of that name
Readouts = Mapping[str, tuple[Site, Tensor]]
UNEDITED = "unedited"
_LOGITS = 1 << 25  # logits of one pass, which bounds the memory with a large vocabulary


@dataclass(frozen=True, eq=False)
class Pass:
    """One batch under one condition: `loss` and `kl` "m" in nats at every token that has one before it, row by row, how
    many of them each row has, and its mean projections by name.
    """

    condition: str
    members: list[int]
    sizes: list[int]
    loss: Float[Tensor, "m"]
    kl: Float[Tensor, "m"]
    projections: dict[str, Float[Tensor, " b"]]


def plan_edits(model: TracedModel, plan: Plan, batch: Batch) -> dict[Site, Edit]:
    """The plan as edits of one forward pass over the whole batch, as `TracedModel.forward` takes them."""
    compiled, batch = model.compile(plan), batch.to(model.device)
    context = TokenContext(batch.relative, batch.input_ids, batch.real)
    return {site: partial(compiled.edit, site, context=context) for site in compiled.sites}


def steered(model: TracedModel, interventions: Sequence[Intervention]) -> Editor:
    """The same interventions in every row."""
    return lambda batch, members: plan_edits(model, Plan.uniform(interventions, len(batch)), batch)


def text_rows(model: TracedModel, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of every text, cut at the context. Raises `SteerlabError` for a text without a token to predict."""
    rows = [row[: model.context_length] for row in model.token_rows(texts)]
    for text, row in zip(texts, rows, strict=True):
        if len(row) < 2:
            raise SteerlabError(f"the text {text[:40]!r} has {len(row)} token and nothing to predict: leave it out.")
    return rows


def own_tokens(model: TracedModel, batch: Batch) -> Bool[Tensor, "b s"]:
    """Every real token but BOS, which is the same in every text and so are its activations."""
    bos = leading_bos(model.tokenizer)
    return batch.real if bos is None else batch.real & (batch.input_ids != bos)


def edited_passes(
    model: TracedModel,
    texts: Sequence[str],
    conditions: Mapping[str, Editor],
    *,
    readouts: Readouts | None = None,
    token_budget: int = 4096,
) -> Iterator[Pass]:
    """Every batch unedited and then under every condition. Projections are means over all tokens but BOS."""
    rows = text_rows(model, texts)
    budget = max(1, min(token_budget, _LOGITS // model.vocab_size))
    gauges = dict(readouts or {})
    sites = list(dict.fromkeys(site for site, _ in gauges.values()))
    for members in plan_batches([len(row) for row in rows], budget):
        batch = left_pad([rows[i] for i in members], model.pad_id).to(model.device)
        own = own_tokens(model, batch)
        scored = torch.zeros_like(own)
        # A position predicts the next token; the first token of a row stands behind nothing.
        scored[:, :-1] = own[:, 1:] & batch.real[:, :-1]
        target, base = batch.input_ids.roll(-1, 1)[scored], None
        for name, editor in {UNEDITED: None, **conditions}.items():
            edits = {} if editor is None else editor(batch, members)
            seen = model.forward(batch, read=sites, edit=edits, logits=True)
            assert seen.logits is not None
            scores = torch.log_softmax(seen.logits[scored].float(), dim=-1)
            base = scores if base is None else base
            kl = (base.exp() * (base - scores)).sum(-1).clamp(min=0)
            loss = -scores.gather(1, target[:, None])[:, 0]
            found = {n: _mean_projection(seen[site], own, v) for n, (site, v) in gauges.items()}
            yield Pass(name, members, scored.sum(1).tolist(), loss.cpu(), kl.cpu(), found)


def _mean_projection(h: Float[Tensor, "b s d"], own: Bool[Tensor, "b s"], v: Float[Tensor, "d"]) -> Float[Tensor, " b"]:
    along = h.double() @ v.to(h.device, torch.float64)
    return (torch.where(own, along, 0.0).sum(1) / own.sum(1)).cpu()


def edited_texts(
    model: TracedModel,
    texts: Sequence[str],
    conditions: Mapping[str, Editor],
    *,
    readouts: Readouts | None = None,
    token_budget: int = 4096,
) -> pd.DataFrame:
    """One row per condition (the first is "unedited") and text: tokens, loss and kl (means over its tokens, in nats),
    loss_change against unedited, and the mean projection on every readout's direction.

    kl is KL(unedited || edited) of the next token. Raises `SteerlabError` as `text_rows` does, and for a condition named
    "unedited".
    """
    if UNEDITED in conditions:
        raise SteerlabError(f"a condition is named {UNEDITED!r}, which is always measured: rename it.")
    found: list[dict[str, Any]] = []
    for own in edited_passes(model, texts, conditions, readouts=readouts, token_budget=token_budget):
        parts = zip(own.members, own.loss.split(own.sizes), own.kl.split(own.sizes), strict=True)
        for r, (i, loss, kl) in enumerate(parts):
            row = {"condition": own.condition, "text": i, "tokens": len(loss)}
            row |= {"loss": float(loss.double().mean()), "kl": float(kl.double().mean())}
            found.append(row | {name: float(values[r]) for name, values in own.projections.items()})
    order = {name: place for place, name in enumerate((UNEDITED, *conditions))}
    found.sort(key=lambda row: (order[row["condition"]], row["text"]))
    table = pd.DataFrame(found)
    loss = table["loss"].to_numpy(float)
    table.insert(5, "loss_change", loss - np.tile(loss[: len(texts)], len(order)))
    return table


def edited_means(
    model: TracedModel,
    texts: Sequence[str],
    sites: Sequence[Site],
    interventions: Sequence[Intervention] = (),
    *,
    token_budget: int = 4096,
) -> Float[Tensor, "n k d"]:
    """The mean activation of every text at every site, under the interventions, in one pass without the LM head. BOS is
    left out; texts beyond the context are cut.
    """
    picked = select(model, texts, ALL, False, True, model.context_length)
    found = torch.full((len(texts), len(sites), model.d_model), float("nan"))
    for members, batch, mask in passes(model, picked, token_budget, False, "edited"):

        def keep(site: Site, h: Tensor, members: list[int] = members, mask: Tensor = mask) -> None:
            total = torch.where(mask[..., None], h.float(), 0.0).sum(1)
            found[members, sites.index(site)] = (total / mask.sum(1, keepdim=True)).cpu()

        plan = Plan.uniform(interventions, len(batch))
        model.forward(batch, read=sites, edit=plan_edits(model, plan, batch), visit=keep)
    return found


def summary(
    table: pd.DataFrame, by: Sequence[str], measures: Sequence[str], group: str = "text", seed: int = 0
) -> pd.DataFrame:
    """One row per combination of `by` and measure: the mean over rows with its bootstrap interval over `group`s."""
    found = []
    parts: Any = table.groupby(list(by), sort=False, dropna=False)
    for key, part in parts:
        facts = dict(zip(by, key, strict=True))
        for measure in measures:
            own = bootstrap(part[measure].to_numpy(float), groups=part[group].to_numpy(), seed=seed)
            bounds = {"value": own.value, "low": own.low, "high": own.high, "n": own.n, "reason": own.reason}
            found.append({**facts, "measure": measure, **bounds})
    return pd.DataFrame(found)
