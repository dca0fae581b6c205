"""Guided generation: what stands beside a sample while it is written (base, negatives) and how their logits are mixed, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.backoff import BackOff, Watcher
from steerlab.batch import left_pad
from steerlab.decoding import Mix
from steerlab.errors import SteerlabError
from steerlab.guidance import Guide, Schedule, combine
from steerlab.model import Side, TracedModel
from steerlab.steering import Intervention, Plan


@dataclass(frozen=True)
class Guided:
    """What guides one sample: the weights, the text the expert reads instead of the prompt in the negative stream ("" = there is
    nothing to move away from, and eta does not act), and what the base reads (None: the sample's own prompt).

    With no other model, another `base_prompt` (say, without the instruction) makes classifier-free guidance of scale
    1 + gamma. Each stream takes interventions of its own; those of the sample act in the expert's stream alone.
    """

    guide: Guide
    negative: str = ""
    base_prompt: str | None = None
    base_interventions: tuple[Intervention, ...] = ()
    negative_interventions: tuple[Intervention, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Plain values, for a run's record; texts are kept by whoever chose them."""
        return {
            **self.guide.to_json(),
            "base_interventions": [i.to_json() for i in self.base_interventions],
            "negative_interventions": [i.to_json() for i in self.negative_interventions],
        }


@dataclass(frozen=True)
class Asked:
    """One row of a batch: its prompt as the user gave it, whether it goes behind the template, and its guidance."""

    prompt: str
    chat: bool
    guided: Guided | None


class Mixer:
    """Combines the streams' logits of every row with its own weights; rows without guidance keep their logits bitwise."""

    def __init__(self, guides: Sequence[Guide | None], device: torch.device) -> None:
        off = Guide(0.0, 0.0)
        self.guides = [guide or off for guide in guides]
        self.guided = torch.tensor([guide is not None for guide in guides], device=device)
        self.balanced = torch.tensor([guide.form == "balanced" for guide in self.guides], device=device)
        self.gamma, self.eta, self.alpha = (
            torch.tensor([value(guide) for guide in self.guides], dtype=torch.float32, device=device)
            for value in (lambda g: g.gamma, lambda g: g.eta, lambda g: g.cutoff)
        )

    def __call__(
        self,
        rows: Int[Tensor, " b"],
        logits: Float[Tensor, "b v"],
        others: Sequence[tuple[Tensor, Tensor] | None],
        step: int,
    ) -> Float[Tensor, "b v"]:
        expert = torch.log_softmax(logits.float(), -1)
        base, negative = (self._beside(rows, expert, other) for other in others)
        gamma = self.gamma[rows] * self._factor(rows, expert, step, [g.gamma_when for g in self.guides])
        eta = self.eta[rows] * self._factor(rows, expert, step, [g.eta_when for g in self.guides])
        if negative is None or others[1] is None:
            eta = torch.zeros_like(eta)
        else:
            eta = eta * torch.isin(rows, others[1][0])
        mixed = combine(expert, base, negative, gamma, eta, self.balanced[rows], self.alpha[rows])
        return torch.where(self.guided[rows][:, None], mixed, logits.float())

    @staticmethod
    def _beside(rows: Tensor, like: Tensor, other: tuple[Tensor, Tensor] | None) -> Tensor | None:
        """The other stream's logits at their rows; zeros, whose weight is 0, where it does not read."""
        if other is None:
            return None
        return torch.zeros_like(like).index_copy_(0, torch.searchsorted(rows, other[0]), other[1].to(like))

    def _factor(self, rows: Tensor, expert: Tensor, step: int, schedules: Sequence[Schedule]) -> Tensor:
        mine = [schedules[row] for row in rows.tolist()]
        if set(mine) == {Schedule()}:
            return expert.new_ones(len(rows))
        found = {schedule: schedule.factor(step, expert) for schedule in set(mine)}
        return torch.stack([found[schedule][i] for i, schedule in enumerate(mine)])


def watched(
    model: TracedModel, asked: Sequence[Asked], rules: Sequence[BackOff | None], sides: Sequence[Side], mix: Mix | None
) -> tuple[tuple[Side, ...], Mix | None, Watcher | None]:
    """The streams, their mixer and the watcher of a batch whose rows may back off; rows that ask for plausibility are read a
    second time, unsteered. What was given comes back where no row has a rule.
    """
    if all(rule is None for rule in rules):
        return tuple(sides), mix, None
    rows = [i for i, rule in enumerate(rules) if rule is not None and rule.alpha]
    watcher = Watcher(rules, model.device, mix, len(sides) if rows else None)
    if not rows:
        return tuple(sides), mix, watcher
    plain = _side(model, [asked[i].prompt for i in rows], [asked[i].chat for i in rows], rows, [()] * len(rows))
    return (*sides, plain), watcher.mix, watcher


def streams_of(
    model: TracedModel, base: TracedModel | None, asked: Sequence[Asked]
) -> tuple[tuple[Side, Side] | tuple[()], Mixer | None]:
    """The base's and the negatives' streams beside the rows that need them, and their mixer; nothing where no row is guided.

    The base is the other model where one is given, else the model with its adapter off. Raises `SteerlabError` where gamma
    is not 0 and there is neither, nor another prompt for the base.
    """
    if all(row.guided is None for row in asked):
        return (), None
    plain: list[int] = []
    negative: list[int] = []
    for i, row in enumerate(asked):
        if row.guided is None:
            continue
        if row.guided.guide.gamma:
            plain.append(i)
            if base is None and model.adapter is None and row.guided.base_prompt is None:
                raise SteerlabError(
                    f"gamma is {row.guided.guide.gamma} and there is no base to contrast {model.name} with: give base=, "
                    "an expert with an adapter, or another base_prompt (classifier-free guidance), or gamma=0."
                )
        if row.guided.guide.eta and row.guided.negative:
            negative.append(i)
    reader = base or model
    prompts = [_base_prompt(asked[i]) for i in plain]
    first = _side(
        reader, prompts, [asked[i].chat for i in plain], plain, [_g(asked[i]).base_interventions for i in plain]
    )
    first = Side(first.batch, first.rows, first.plan, first.same, base, adapter=base is not None)
    texts = [_g(asked[i]).negative for i in negative]
    plans = [_g(asked[i]).negative_interventions for i in negative]
    second = _side(model, texts, [False] * len(negative), negative, plans)
    return (first, second), Mixer([None if row.guided is None else row.guided.guide for row in asked], model.device)


def check_vocabulary(expert: TracedModel, base: TracedModel) -> None:
    """Raises `SteerlabError` unless both models give the same tokens the same ids: only then can their logits be combined."""
    mine, theirs = expert.tokenizer.get_vocab(), base.tokenizer.get_vocab()
    if mine != theirs:
        other = sorted(token for token in {*mine, *theirs} if mine.get(token) != theirs.get(token))
        raise SteerlabError(
            f"{expert.name} and {base.name} differ in {len(other)} tokens of their vocabularies, for example {other[0]!r}: "
            "expert and base must share one tokenizer."
        )
    if expert.vocab_size != base.vocab_size:
        raise SteerlabError(
            f"{expert.name} gives {expert.vocab_size} logits and {base.name} {base.vocab_size}: "
            "expert and base must have embeddings of one size."
        )


def _g(row: Asked) -> Guided:
    assert row.guided is not None
    return row.guided


def _base_prompt(row: Asked) -> str:
    other = _g(row).base_prompt
    return row.prompt if other is None else other


def _side(
    model: TracedModel,
    texts: Sequence[str],
    chat: Sequence[bool],
    rows: Sequence[int],
    interventions: Sequence[tuple[Intervention, ...]],
) -> Side:
    """A stream over these texts; it may have no rows."""
    ids: list[list[int]] = [[] for _ in texts]
    for kind in (True, False):
        members = [i for i, own in enumerate(chat) if own == kind]
        if members:
            for i, row in zip(members, model.token_rows([texts[i] for i in members], kind), strict=True):
                ids[i] = row
    seen: dict[tuple[int, ...], int] = {}
    same = [seen.setdefault((id(own), *row), len(seen)) for own, row in zip(interventions, ids, strict=True)]
    plan = Plan(tuple(interventions))
    return Side(
        left_pad(ids or [[model.pad_id]], model.pad_id).select(torch.arange(len(ids))),
        torch.tensor(rows, dtype=torch.int64),
        plan if any(plan.rows) else None,
        torch.tensor(same, dtype=torch.int64),
    )
