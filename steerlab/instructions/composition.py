"""Several instructions at once: vectors at several layers, orthogonalised or not, and how much they get in each other's way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.ablation.selection import recommended
from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import wilson
from steerlab.following.registry import check_all
from steerlab.following.trials import Cell
from steerlab.following.verdict import Mode
from steerlab.generation import Request, Settings, generate
from steerlab.instructions.application import Application, projections, target
from steerlab.instructions.asking import GREEDY, ask
from steerlab.instructions.forms import CHAT, Form
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.vectors import SteeringVector

NONE, TOGETHER, ORTHOGONAL, ALL = "none", "together", "together, orthogonal", "all"
_PARALLEL = 1e-3  # less than this share of a direction beside the others is no direction


@dataclass(frozen=True, eq=False)
class Placed:
    """A vector at its cell: one instruction of a composition."""

    vector: SteeringVector
    cell: Cell
    application: Application

    @staticmethod
    def as_chosen(vector: SteeringVector) -> Placed:
        """The vector at the cell that its header recommends; one that is not to be steered with has strength 0.

        Raises `SteerlabError` where nothing was chosen, or more than one layer.
        """
        one = recommended(vector)
        if len(one.at) != 1:
            raise SteerlabError(f"vector {vector.name!r} is chosen for the layers {one.at}: give a layer for it.")
        (layer,), operator = one.at, str(one.operator)
        common: dict[str, Any] = {"cap": one.cap, "gate": one.gate, "positions": one.positions}
        if operator in ("match", "match_up"):
            bare = target(vector, layer, 0.0)
            strength = (one.target - bare) / (target(vector, layer) - bare)
            return Placed(vector, Cell(layer, strength), Application(operator, **common))
        kind: Any = "subtract" if one.strength < 0 else operator
        return Placed(vector, Cell(layer, abs(one.strength)), Application(kind, one.unit, **common))

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """What it does alone."""
        return self.application.at(self.vector, self.cell)


def compose(placed: Sequence[Placed], orthogonal: bool = False) -> tuple[Intervention, ...]:
    """What several vectors do together, by layer, those of one layer in the order given.

    orthogonal: each vector is taken orthogonal, at its own layer, to all that act at or before it there (Gram-Schmidt), so that it moves
    nothing along them. Targets of matching follow: at one layer all vectors then reach their own targets exactly, whatever their
    cosines; without it, only the last is sure to. An earlier vector is taken to be at its target (one that is added: at its
    instructed mean). Raises `SteerlabError` for parallel vectors, and where a projection that is needed was not kept.
    """
    order = sorted((own for own in placed if own.cell.strength != 0), key=lambda own: own.cell.layer)
    if not orthogonal:
        return tuple(i for own in order for i in own.interventions)
    return tuple(_beside(own, order[:number]) for number, own in enumerate(order))


def _beside(own: Placed, earlier: Sequence[Placed]) -> Intervention:
    """The placed vector without what it shares with the earlier ones."""
    layer = own.cell.layer
    (push,) = own.interventions
    there = [other for other in earlier if layer in other.vector.layers]
    if not there:
        return push
    rows = torch.stack([one.vector.at(layer).double() for one in (*there, own)])
    q, r = torch.linalg.qr(rows.T)  # rows.T = q r: column k of q spans what vector k adds to the ones before it
    q, r = q * r.diagonal().sign(), r * r.diagonal().sign()[:, None]
    if float(r.diagonal().min()) < _PARALLEL:
        names = ", ".join(one.vector.name for one in (*there, own))
        raise SteerlabError(
            f"the vectors {names} are parallel at layer {layer}: leave one out, or do not orthogonalise."
        )
    made = replace(
        own.vector.select([layer]), name=f"{own.vector.name} beside {', '.join(o.vector.name for o in there)}",
        direction=q[:, -1:].T.float(), choice=None, projections=None,
    )  # fmt: skip
    goal = float(_targets(own, there, r)[-1]) if own.application.matches else 0.0
    return replace(push, vector=made, target=goal)


def _targets(own: Placed, there: Sequence[Placed], r: Float[Tensor, "k k"]) -> Float[Tensor, "k"]:
    """The targets along the orthogonal directions, from those along the vectors: r.T t = z."""
    layer = own.cell.layer
    z = [_goal(one, layer) for one in (*there, own)]
    return torch.linalg.solve_triangular(r.T, torch.tensor(z, dtype=torch.float64)[:, None], upper=False)[:, 0]


def _goal(one: Placed, layer: int) -> float:
    if one.application.matches:
        return target(one.vector, layer, one.cell.strength)
    return projections(one.vector).instructed[one.vector.row(layer)]


@dataclass(frozen=True, eq=False)
class Interference:
    """`cosines`: instruction, other, layer (of the later one), cosine. `rates`: instruction (or "all"), acting, n, followed, rate, low,
    high: how often each was followed when nothing acts, each vector alone, all together, and all made orthogonal.
    """

    cosines: pd.DataFrame
    rates: pd.DataFrame

    def _repr_html_(self) -> str:
        wide = self.rates.pivot(index="instruction", columns="acting", values="rate")
        wide = wide[list(dict.fromkeys(self.rates["acting"]))]
        options = {"border": 0, "float_format": lambda x: f"{x:.2f}"}
        return self.cosines.to_html(index=False, **options) + wide.to_html(**options)


def cosines(placed: Mapping[str, Placed]) -> pd.DataFrame:
    """The cosine of every two vectors at the later one's layer, NaN where one has no direction there."""
    rows = []
    for (a, one), (b, other) in combinations(placed.items(), 2):
        layer = max(one.cell.layer, other.cell.layer)
        both = layer in one.vector.layers and layer in other.vector.layers
        value = float(one.vector.at(layer).double() @ other.vector.at(layer).double()) if both else float("nan")
        rows.append((a, b, layer, value))
    return pd.DataFrame(rows, columns=["instruction", "other", "layer", "cosine"])


def interference(
    model: TracedModel,
    placed: Mapping[str, Placed],
    prompts: Sequence[InstructedPrompt],
    *,
    shown: bool = False,
    form: Form = CHAT,
    settings: Settings = GREEDY,
    mode: Mode = "loose",
    batch_rows: int = 64,
    progress: bool = False,
) -> Interference:
    """Write every prompt with nothing acting, with each vector alone, with all, and with all orthogonal, and check every instruction.

    Raises `SteerlabError` unless there are at least two vectors, and every prompt has exactly their instructions.
    """
    planned = plan_interference(placed, prompts, shown=shown, form=form)
    requests = [request for _, _, request in planned]
    samples = generate(model, requests, form.ends(settings), batch_rows=batch_rows, progress=progress)
    return read_interference(placed, planned, [sample.text for sample in samples], mode)


def plan_interference(
    placed: Mapping[str, Placed], prompts: Sequence[InstructedPrompt], *, shown: bool = False, form: Form = CHAT
) -> list[tuple[str, InstructedPrompt, Request]]:
    """What acts, the prompt, and the request that writes its answer, for all that `interference` compares. Raises as it does."""
    odd = [row.id for row in prompts if set(row.cells) != set(placed)]
    if len(placed) < 2 or not prompts or odd:
        raise SteerlabError(
            f"{len(placed)} vectors and {len(prompts)} prompts were given ({odd[:1]} with other instructions): "
            "give at least two vectors, and prompts with exactly their instructions."
        )
    acting = {NONE: (), **{name: own.interventions for name, own in placed.items()}}
    acting |= {TOGETHER: compose(list(placed.values())), ORTHOGONAL: compose(list(placed.values()), orthogonal=True)}
    return [(told, row, ask(row, form, shown, own)) for told, own in acting.items() for row in prompts]


def read_interference(
    placed: Mapping[str, Placed],
    planned: Sequence[tuple[str, InstructedPrompt, Request]],
    texts: Sequence[str],
    mode: Mode = "loose",
) -> Interference:
    """The answers to what was planned, checked for every instruction."""
    kept: dict[tuple[str, str], list[bool]] = {}
    for (acting, row, _), text in zip(planned, texts, strict=True):
        flags = [verdict.passed for verdict in check_all(row.instructions, row.kwargs, text, mode)]
        told = dict(zip(row.cells, flags, strict=True))
        for name in (*placed, ALL):
            kept.setdefault((name, acting), []).append(all(flags) if name == ALL else told[name])
    rows = []
    for (name, acting), flags in kept.items():
        rate = wilson(sum(flags), len(flags))
        rows.append((name, acting, len(flags), sum(flags), rate.value, rate.low, rate.high))
    columns = ["instruction", "acting", "n", "followed", "rate", "low", "high"]
    return Interference(cosines(placed), pd.DataFrame(rows, columns=columns))
