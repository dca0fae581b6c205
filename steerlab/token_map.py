"""Which tokens are read for a vector and which are steered how strongly: a map of any plan over any text.

It is measured in the forward pass itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.batch import Batch
from steerlab.compiled import CompiledPlan, TokenContext
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.operators import name_of
from steerlab.pieces import readable
from steerlab.steering import Intervention, Plan
from steerlab.templates import leading_bos
from steerlab.token_view import MappedText, Mark, Token, TokenMap
from steerlab.types import Positions, Site

__all__ = ["MappedText", "Mark", "Token", "TokenMap", "map_batch", "token_map"]


def token_map(
    model: TracedModel,
    texts: Sequence[str],
    plan: Plan | Sequence[Intervention] = (),
    answers: Sequence[str] | None = None,
    *,
    chat: bool = False,
    read: Positions | str | None = None,
) -> TokenMap:
    """The map of a plan over texts, or over prompts with their answers; interventions alone go to every text.

    chat=True puts the texts behind the model's template. `read`: the positions a vector is fitted on, counted from the end
    of the prompt, BOS left out as in capture; None takes those the plan's vectors record. Without a plan give `read`.

    Raises `SteerlabError` as `TracedModel.encode` does, for another number of rows than of texts, and for a vector of
    another width or layers the model does not have.
    """
    batch = model.encode(texts, answers, chat)
    rows = plan if isinstance(plan, Plan) else Plan.uniform(tuple(plan), len(texts))
    return map_batch(model, rows, batch, read)


def map_batch(model: TracedModel, plan: Plan, batch: Batch, read: Positions | str | None = None) -> TokenMap:
    """The map of token ids that are there already, such as a prompt with the tokens that were generated behind it."""
    if len(plan) != len(batch):
        raise SteerlabError(f"the plan has {len(plan)} rows, but there are {len(batch)} texts: give one row per text.")
    batch = batch.to(model.device)
    seen = _measure(model, plan, batch)
    chosen = Positions.parse(read) if isinstance(read, str) else read
    texts = []
    for row, interventions in enumerate(plan.rows):
        reads = _reads(model, batch, row, interventions, chosen)
        steps = [step for step in seen.steps if step.number < len(interventions) and step.meant[row].any()]
        tokens = []
        for s in batch.real[row].nonzero()[:, 0].tolist():
            marks = tuple(_mark(step, interventions[step.number], row, s) for step in steps if step.meant[row, s])
            id = int(batch.input_ids[row, s])
            names = tuple(name for name, mask in reads.items() if mask[s])
            position, moved = int(batch.relative[row, s]), float(seen.moved[row, s])
            tokens.append(Token(id, readable(model.tokenizer, id), position, names, marks, moved))
        texts.append(MappedText(tuple(tokens), tuple(map(in_words, interventions))))
    return TokenMap(tuple(texts), model.name)


def in_words(one: Intervention) -> str:
    """An intervention in a few words: its vector, operator, layers, strength and positions."""
    unit = " of the residual norm" if one.unit == "residual" and one.operator == "add" else ""
    gate = (
        ""
        if one.gate is None
        else f", where the cosine is {'above' if one.gate.above else 'below'} {one.gate.threshold:g}"
    )
    layers = ", ".join(map(str, one.at))
    where = f"layer{'s' if len(one.at) > 1 else ''} {layers}"
    if one.vector.stream != "resid_post":
        where += f" ({one.vector.stream})"
    return (
        f"{one.vector.name}, {name_of(one.operator)} {one.strength:g}{unit} at {where}, positions {one.positions}{gate}"
    )


@dataclass(frozen=True, eq=False)
class _Step:
    """Intervention `number` of every row at one site. `meant`: positions and rows say so; `open`: no gate is in the way."""

    number: int
    site: Site
    meant: Bool[Tensor, "b s"]
    open: Bool[Tensor, "b s"]
    cosine: Float[Tensor, "b s"]
    size: Float[Tensor, "b s"]


@dataclass(frozen=True, eq=False)
class _Seen:
    steps: list[_Step]
    moved: Float[Tensor, "b s"]


def _measure(model: TracedModel, plan: Plan, batch: Batch) -> _Seen:
    """One forward pass under the plan. Beside it, at every site, its interventions one after another, to tell them apart."""
    compiled = model.compile(plan)
    moved = torch.zeros(batch.input_ids.shape)
    if not compiled.sites:  # strength 0 everywhere
        return _Seen([], moved)
    context = TokenContext(batch.relative, batch.input_ids, batch.real)
    most = max((len(row) for row in plan.rows), default=0)
    singles = [
        model.compile(Plan(tuple(row[k : k + 1] for row in plan.rows))) for k in range(most)
    ]  # k-th of every row
    steps: list[_Step] = []

    def edit(site: Site) -> Callable[[Tensor], Tensor]:
        def apply(h: Tensor) -> Tensor:
            new, here = compiled.edit(site, h, context), h
            torch.maximum(moved, _relative(new, h), out=moved)
            for k, single in enumerate(singles):
                members = {r: row[k] for r, row in enumerate(plan.rows) if len(row) > k and _at(row[k], site)}
                if members:
                    step, here = _one(k, site, members, single, here, context)
                    steps.append(step)
            return new

        return apply

    model.forward(batch, edit={site: edit(site) for site in compiled.sites})
    return _Seen(steps, moved)


def _at(one: Intervention, site: Site) -> bool:
    return site.layer in one.at and site.stream == one.vector.stream


def _one(
    number: int,
    site: Site,
    members: dict[int, Intervention],
    single: CompiledPlan,
    h: Float[Tensor, "b s d"],
    context: TokenContext,
) -> tuple[_Step, Float[Tensor, "b s d"]]:
    new = single.edit(site, h, context)
    meant, open = (torch.zeros(h.shape[:2], dtype=torch.bool) for _ in range(2))
    cosine = torch.full(h.shape[:2], math.nan)
    for row, one in members.items():
        wide, v = h[row].float(), one.vector.at(site.layer).to(h.device)
        along, norm = (wide * v).sum(-1), wide.norm(dim=-1)
        cosine[row] = (along / norm).cpu()
        meant[row] = context.mask(one.positions)[0][row].cpu() & (one.strength != 0)
        open[row] = meant[row]
        if one.gate is not None:
            reached = along > one.gate.threshold * norm if one.gate.above else along < one.gate.threshold * norm
            open[row] &= reached.cpu()
    return _Step(number, site, meant, open, cosine, _relative(new, h)), new


def _relative(new: Float[Tensor, "b s d"], h: Float[Tensor, "b s d"]) -> Float[Tensor, "b s"]:
    """|new - h| / |h| token by token, 0 where nothing changed."""
    change = (new.float() - h.float()).norm(dim=-1)
    # Padding may hold NaN, and a stream of zeros has no norm: unchanged is unchanged.
    return torch.where(change > 0, change / h.float().norm(dim=-1), torch.zeros_like(change)).cpu()


def _mark(step: _Step, one: Intervention, row: int, s: int) -> Mark:
    layer = step.site.layer
    strength, target = one.numbers(layer)
    norm = float(one.vector.residual_norm[one.vector.row(layer)])
    length = {"add": strength, "match": target}.get(name_of(one.operator), math.nan)
    share = length / norm if 0 < norm < math.inf else math.nan
    cosine, size = float(step.cosine[row, s]), float(step.size[row, s])
    return Mark(step.number, layer, strength, share, cosine, bool(step.open[row, s]), size)


def _reads(
    model: TracedModel, batch: Batch, row: int, interventions: Sequence[Intervention], read: Positions | None
) -> dict[str, list[bool]]:
    """For each vector (or for "the vector", without one) which tokens of the row are read."""
    names = {one.vector.name: one.vector.provenance.positions for one in interventions} or {"the vector": ""}
    bos = leading_bos(model.tokenizer)
    found = {}
    for name, recorded in names.items():
        if read is None and not recorded:
            continue
        where = read if read is not None else _recorded(name, recorded)
        if bos is not None and bos not in where.only_ids:
            where = Positions(where.start, where.stop, where.only_ids, (*where.skip_ids, bos))
        found[name] = where.mask(batch.relative, batch.input_ids, batch.real)[row].tolist()
    return found


def _recorded(name: str, positions: str) -> Positions:
    try:
        return Positions.parse(positions)
    except SteerlabError as error:
        raise SteerlabError(
            f"vector {name!r} was fitted at positions {positions!r}, which depend on token ids: say where with read=..."
        ) from error
