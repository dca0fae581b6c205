"""Dose-response: layer x strength x vector as one mixed batch, beside the unsteered model and random directions of equal norm."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from steerlab import data
from steerlab.ablation.calibrate import dosed
from steerlab.ablation.forced import forced_kl
from steerlab.ablation.outcomes import MEASURES, Cell, Judge, score_texts, summarise
from steerlab.ablation.sweeps import Arm, sweep
from steerlab.errors import SteerlabError
from steerlab.estimators import random_like
from steerlab.generation import Settings
from steerlab.model import TracedModel
from steerlab.steering import Intervention, OperatorName, Unit
from steerlab.types import ALL, Positions
from steerlab.vectors import SteeringVector

Strengths = Sequence[float | int] | Mapping[OperatorName, Sequence[float | int]]
_SHOWN = ("in_target", "kl", "log_perplexity", "repetition", "distinct_2", "agreement")


class Place(NamedTuple):
    """One arm of the design: a cell, which arm of it, and what is done to the model."""

    cell: Cell
    arm: str
    direction: int
    interventions: tuple[Intervention, ...]


@dataclass(frozen=True)
class Design:
    """What is tried: every vector at every layer and strength, and `directions` random directions of equal norm beside each.

    `strengths`: of `add`, or by operator, each in the operator's own dose (see `calibrate.dosed`); `unit` is that of the
    lengths. `ablate` takes the strength 1.
    """

    vectors: Mapping[str, SteeringVector]
    layers: tuple[int, ...]
    strengths: Strengths
    unit: Unit = "residual"
    positions: Positions = ALL
    directions: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        by = self.strengths if isinstance(self.strengths, Mapping) else {"add": self.strengths}
        if not self.vectors or not self.layers or not any(len(own) for own in by.values()) or self.directions < 0:
            raise SteerlabError(
                f"{len(self.vectors)} vectors, layers {self.layers}, strengths {self.strengths} and {self.directions} random directions "
                "were given: give at least one vector, layer and strength, and 0 or more directions."
            )
        object.__setattr__(self, "layers", tuple(dict.fromkeys(self.layers)))
        object.__setattr__(
            self, "strengths", {operator: tuple(dict.fromkeys(map(float, own))) for operator, own in by.items()}
        )

    def places(self) -> list[Place]:
        """All arms, vector by vector: unsteered, then the vector and its controls at every cell."""
        found = []
        by = self.strengths if isinstance(self.strengths, Mapping) else {}
        for name, vector in self.vectors.items():
            found.append(Place(Cell(name, "none", -1, 0.0), "unsteered", 0, ()))
            controls = [random_like(vector, self.seed + k) for k in range(self.directions)]
            for operator, own in by.items():
                for layer in self.layers:
                    for strength in own:
                        cell = Cell(name, operator, layer, strength)
                        found.append(Place(cell, "vector", 0, self._do(vector, cell)))
                        found += [Place(cell, "random", k, self._do(v, cell)) for k, v in enumerate(controls)]
        return found

    def _do(self, vector: SteeringVector, cell: Cell) -> tuple[Intervention, ...]:
        if cell.operator == "ablate":
            return (Intervention(vector, cell.layer, "ablate", cell.strength, positions=self.positions),)
        operator: Any = cell.operator
        return tuple(dosed(vector, cell.layer, operator, self.unit, self.positions)(cell.strength))


def distinct_arms(places: Sequence[Place]) -> tuple[list[Arm], list[int]]:
    """The arms that differ, and which of them each place is. The unsteered model, and random directions added at equal
    length, are the same for all vectors and written once.
    """
    arms: list[Arm] = []
    number: dict[object, int] = {}
    which = []
    for place in places:
        key = tuple(
            (i.operator, i.at, i.vector.stream, str(i.positions), [i.numbers(n) for n in i.at].__repr__(),
             b"".join(i.vector.at(n).cpu().numpy().tobytes() for n in i.at))
            for i in place.interventions if i.strength != 0
        )  # fmt: skip
        if key not in number:
            number[key] = len(arms)
            interventions = place.interventions if key else ()
            arms.append(Arm(str(len(arms)), interventions, place.cell.layer, place.cell.strength))
        which.append(number[key])
    return arms, which


@dataclass(frozen=True, eq=False)
class DoseResponse:
    """What every dose did. `table`: one row per cell, measure (`outcomes.MEASURES`), arm and comparison, see `outcomes.summarise`.
    `texts`: every text with its outcomes. `prompts`: by number. `targets`: the language each vector is meant to give.
    """

    table: pd.DataFrame
    texts: pd.DataFrame
    prompts: tuple[str, ...]
    targets: Mapping[str, str]
    design: Design

    def map(
        self,
        measure: str,
        vector: str | None = None,
        arm: str = "vector",
        against: str = "nothing",
        operator: str = "add",
    ) -> pd.DataFrame:
        """Layers x strengths: one measure of an arm, the mean over vectors unless one is named."""
        own: Any = self.table[(self.table["measure"] == measure) & (self.table["arm"] == arm)]
        own = own[(own["against"] == against) & (own["operator"] == operator)]
        own = own if vector is None else own[own["vector"] == vector]
        if own.empty:
            raise SteerlabError(
                f"there is no {measure!r} of arm {arm!r} against {against!r} for {vector or 'any vector'} and {operator!r}: "
                f"measures are {', '.join(dict.fromkeys(self.table['measure']))}."
            )
        return own.pivot_table("value", "layer", "strength", aggfunc="mean")

    def subset(self, prompts: Sequence[int], seed: int = 0) -> DoseResponse:
        """The same for some of the prompts only; KL, which does not depend on them, stays."""
        texts: Any = self.texts[self.texts["prompt"].isin(list(prompts))]
        if texts.empty:
            raise SteerlabError(f"prompts {list(prompts)} were asked for: give some of 0 to {len(self.prompts) - 1}.")
        kl = self.table[self.table["measure"].isin(["kl", "kl_95"])]
        return replace(self, table=pd.concat([summarise(texts, seed=seed), kl], ignore_index=True), texts=texts)

    def _repr_html_(self) -> str:
        """For every vector and measure the map of values, beside the unsteered model."""
        parts = []
        for vector in self.design.vectors:
            parts.append(f"<h4>{html.escape(vector)}</h4>")
            for operator in dict.fromkeys(self.texts["operator"]) if len(self.texts) else ():
                for measure in _SHOWN if operator != "none" else ():
                    own = self.table.query("vector == @vector and measure == @measure and against == 'nothing'")
                    if own.query("arm == 'vector' and operator == @operator").empty:
                        continue
                    plain = own.query("arm == 'unsteered'")["value"]
                    beside = f"; unsteered {plain.iloc[0]:.2f}" if len(plain) else ""
                    cells = self.map(measure, vector, operator=operator).to_html(float_format="{:.2f}".format, border=0)
                    parts.append(f"<p>{MEASURES[measure]}, {operator}{beside}</p>{cells}")
        return "".join(parts)


def dose_response(
    model: TracedModel,
    design: Design,
    prompts: Sequence[str],
    samples: int = 3,
    settings: Settings | None = None,
    *,
    targets: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    judge: Judge | None = None,
    texts: Sequence[str] = (),
    batch_rows: int = 64,
    progress: bool = False,
) -> DoseResponse:
    """Write `samples` texts per prompt and arm, measure them, and compare each arm in pairs with the unsteered model and with
    random directions of equal norm.

    `targets`: vector -> language code its texts should be in. `labels`, `judge`: see `outcomes.score_texts`. `texts`:
    given texts along which KL is measured (none: no KL), best not those the vectors were fitted on. Outcomes that
    nothing was given for are left out.
    """
    if not prompts:
        raise SteerlabError("no prompts were given: give at least one.")
    arms, _ = distinct_arms(design.places())
    written = sweep(model, arms, prompts, samples, settings or Settings(), batch_rows=batch_rows, progress=progress)
    scored = score_texts(model, written, prompts, labels, judge)
    return respond(model, design, scored, prompts, targets or {}, texts, progress)


def respond(
    model: TracedModel,
    design: Design,
    scored: pd.DataFrame,
    prompts: Sequence[str],
    targets: Mapping[str, str],
    texts: Sequence[str] = (),
    progress: bool = False,
) -> DoseResponse:
    """The second half of `dose_response`, from scored texts of `distinct_arms`."""
    unknown = sorted(set(targets) - set(design.vectors))
    if unknown:
        raise SteerlabError(f"targets were given for {unknown}: the vectors are {', '.join(design.vectors)}.")
    places = design.places()
    arms, which = distinct_arms(places)
    by_arm: dict[str, Any] = {str(arm): own for arm, own in scored.groupby("arm", sort=False)}
    parts, columns = (
        [],
        ["prompt", "sample", "text", "tokens", "ended", "language", "log_perplexity", "repetition", "agreement"],
    )
    for place, number in zip(places, which, strict=True):
        own = by_arm[str(number)][columns]
        lid = data.language(targets[place.cell.vector]).lid if place.cell.vector in targets else None
        hit: Any = float("nan") if lid is None else (own["language"] == lid).astype(float)
        parts.append(own.assign(**place.cell._asdict(), arm=place.arm, direction=place.direction, in_target=hit))
    table = pd.concat(parts, ignore_index=True)
    kl = {}
    if texts:
        changes = [arm.interventions for arm in arms]
        found = forced_kl(model, changes, texts, progress=progress)
        for place, number in zip(places, which, strict=True):
            if place.arm != "unsteered":
                kl.setdefault((place.cell, place.arm), (found, []))[1].append(number)
    return DoseResponse(summarise(table, kl, design.seed), table, tuple(prompts), dict(targets), design)
