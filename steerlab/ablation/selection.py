"""Which layer, operator and strength to use: chosen by rule on some prompts, measured on others, kept in the vector's header."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.ablation.dose import DoseResponse
from steerlab.ablation.outcomes import MEASURES, Cell
from steerlab.choice import Choice
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.steering import Gate, Intervention
from steerlab.types import Positions
from steerlab.vectors import SteeringVector

# How much worse than unsteered an arm may be, and which way worse is.
LIMITS: Mapping[str, float] = {"log_perplexity": 1.0, "repetition": 0.05, "distinct_2": 0.1}
_UP_IS_WORSE = {"log_perplexity", "repetition", "kl", "kl_95", "tokens"}


@dataclass(frozen=True)
class Rule:
    """Among the arms whose side effects stay within the limits, those within `slack` of the best target effect are as good;
    of them the one at whose texts the unsteered model is least surprised is taken, ties going to the weaker, then the
    earlier layer.

    `effect`: the measure that should be high. `limits`: measure -> by how much it may be worse than unsteered.
    """

    effect: str = "in_target"
    slack: float = 0.05
    limits: Mapping[str, float] = field(default_factory=lambda: dict(LIMITS))
    cost: str = "log_perplexity"

    def __post_init__(self) -> None:
        unknown = [name for name in (self.effect, self.cost, *self.limits) if name not in MEASURES]
        if unknown:
            raise SteerlabError(f"measures {unknown} are not known: choose among {', '.join(MEASURES)}.")

    def __str__(self) -> str:
        side = ", ".join(f"{name} at most {limit:g} worse than unsteered" for name, limit in self.limits.items())
        return f"{self.effect} within {self.slack:g} of the best, with {side}; of these the lowest {self.cost}"


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen for one vector. `evidence`: measure -> its estimate on the prompts that had no say, and "x - unsteered",
    "x - random" for the paired differences of the target effect. `candidates`: every arm on the choosing prompts, with what
    ruled it out. `choosing`, `checking`: the numbers of the prompts.
    """

    vector: str
    cell: Cell
    choice: Choice
    evidence: Mapping[str, Estimate]
    candidates: pd.DataFrame
    choosing: tuple[int, ...]
    checking: tuple[int, ...]

    def __str__(self) -> str:
        facts = "; ".join(f"{name} {found}" for name, found in self.evidence.items())
        return f"{self.vector}: {self.cell.operator} {self.cell.strength:g} at layer {self.cell.layer} ({facts})"

    def _repr_html_(self) -> str:
        table = self.candidates.to_html(index=False, float_format=lambda x: f"{x:.2f}", border=0)
        return f"<p>{self}</p>{table}"


def split_prompts(n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Every other prompt chooses, the rest check."""
    if n < 2:
        raise SteerlabError(f"{n} prompts were given: choosing on some and checking on others needs at least two.")
    return tuple(range(0, n, 2)), tuple(range(1, n, 2))


def choose(
    response: DoseResponse,
    vector: str,
    rule: Rule | None = None,
    choosing: Sequence[int] | None = None,
    checking: Sequence[int] | None = None,
    seed: int = 0,
) -> Selection:
    """The arm of a vector that the rule takes on the choosing prompts, and what it does on the checking ones.

    Default: prompts 0, 2, 4, ... choose and the others check, since the numbers an arm was chosen by flatter it. Raises `SteerlabError`
    for an unknown vector, prompts on both sides, an effect that was not measured, and where no arm keeps the limits.
    """
    rule = rule or Rule()
    if vector not in response.design.vectors:
        raise SteerlabError(
            f"vector {vector!r} was not in the sweep: choose among {', '.join(response.design.vectors)}."
        )
    halves = split_prompts(len(response.prompts)) if choosing is None or checking is None else (choosing, checking)
    if set(halves[0]) & set(halves[1]):
        raise SteerlabError("some prompts choose and check: give each to one side.")
    own, other = (tuple(int(p) for p in half) for half in halves)
    candidates = _candidates(response.subset(own, seed).table, vector, rule)
    kept = candidates[candidates["ruled_out"] == ""]
    if kept.empty:
        top = candidates.sort_values(rule.effect, ascending=False).iloc[0]
        where = f"{top['operator']} {top['strength']:g} at layer {int(top['layer'])}"
        raise SteerlabError(
            f"no arm of {vector!r} keeps the limits: the one with the highest {rule.effect} ({where}) has {top['ruled_out']}; "
            "try weaker strengths, or give a Rule with other limits."
        )
    near: Any = kept[kept[rule.effect] >= kept[rule.effect].max() - rule.slack]
    best = near.sort_values([rule.cost, "strength", "layer"], kind="stable").iloc[0]
    cell = Cell(vector, str(best["operator"]), int(best["layer"]), float(best["strength"]))
    evidence = _evidence(response.subset(other, seed).table, cell, rule)
    return Selection(vector, cell, _choice(response, cell, rule, evidence), evidence, candidates, own, other)


def _candidates(table: pd.DataFrame, vector: str, rule: Rule) -> pd.DataFrame:
    """Every cell of the vector: the measures of the rule, the change of the side effects, and what rules it out."""
    own: Any = table[(table["vector"] == vector) & (table["arm"] == "vector")]
    if own[own["measure"] == rule.effect].empty:
        raise SteerlabError(
            f"{rule.effect} was not measured for {vector!r}: give targets, or a judge, or another effect."
        )
    cells = ["operator", "layer", "strength"]
    rows = []
    for cell, part in own.groupby(cells, sort=False):
        values = {(m, a): v for m, a, v in zip(part["measure"], part["against"], part["value"], strict=True)}
        row = {**dict(zip(cells, cell, strict=True)), rule.effect: values[rule.effect, "nothing"]}
        row[rule.cost] = values.get((rule.cost, "nothing"), math.nan)
        broken = []
        for name, limit in rule.limits.items():
            change = values.get((name, "unsteered"), math.nan)
            worse = change if name in _UP_IS_WORSE else -change
            row[f"{name} change"] = change
            if not worse <= limit:  # what is missing is not within its limit
                broken.append(f"{name} unknown" if math.isnan(change) else f"{name} {change:+.2f}")
        rows.append({**row, "ruled_out": ", ".join(broken)})
    return pd.DataFrame(rows)


def _evidence(table: pd.DataFrame, cell: Cell, rule: Rule) -> dict[str, Estimate]:
    rows: Any = table[table["arm"] == "vector"]
    for name, value in cell._asdict().items():
        rows = rows[rows[name] == value]
    found = {}
    for row in rows.to_dict("records"):
        name, against = str(row["measure"]), str(row["against"])
        value, low, high = (float(row[key]) for key in ("value", "low", "high"))
        estimate = Estimate(value, low, high, int(row["n"]), str(row["reason"]))
        if against == "nothing":
            found[name] = estimate
        elif name == rule.effect or (name in rule.limits and against == "unsteered"):
            found[f"{name} - {against}"] = estimate
    return found


def _choice(response: DoseResponse, cell: Cell, rule: Rule, evidence: Mapping[str, Estimate]) -> Choice:
    (place,) = (p for p in response.design.places() if p.cell == cell and p.arm == "vector")
    (one,) = place.interventions
    numbers = tuple((name, e.value, e.low, e.high) for name, e in evidence.items())
    return Choice(one.at, one.strength, cell.operator, one.unit, one.target, str(one.positions), str(rule), numbers)


def recommended(vector: SteeringVector) -> Intervention:
    """The intervention that the vector's own header recommends. Raises `SteerlabError` where nothing was chosen."""
    choice = vector.choice
    if choice is None:
        raise SteerlabError(
            f"no layer and strength were chosen for vector {vector.name!r}: run `steerlab sweep --choose`, or give them yourself."
        )
    operator: Any = choice.operator
    unit: Any = choice.unit
    gate = None if choice.gate is None else Gate(*choice.gate)
    return Intervention(
        vector, choice.layers, operator, choice.strength, unit, choice.target, Positions.parse(choice.positions), gate,
        choice.cap,
    )  # fmt: skip


def with_choice(vector: SteeringVector, selection: Selection) -> SteeringVector:
    """The vector with the choice in its header; save it to keep it."""
    return replace(vector, choice=selection.choice)


def save_choice(path: str | Path, selection: Selection) -> SteeringVector:
    """Write the choice into the header of a vector file; the file is replaced whole or not at all."""
    vector = with_choice(SteeringVector.load(path), selection)
    vector.save(path)
    return vector
