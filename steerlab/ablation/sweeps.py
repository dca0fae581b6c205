"""Steering sweeps: vector x layer x strength as one mixed batch, with common random numbers between the arms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.generation import Request, Sample, Settings, generate
from steerlab.model import TracedModel
from steerlab.steering import Intervention, Unit
from steerlab.types import ALL, Positions
from steerlab.vectors import SteeringVector


@dataclass(frozen=True)
class Arm:
    """One column of a sweep: a name, the facts that go into the table, and the interventions (none for a
    control).
    """

    name: str
    interventions: tuple[Intervention, ...] = ()
    layer: int | None = None
    strength: float = 0.0


def grid(
    vectors: Mapping[str, SteeringVector],
    layers: Sequence[int],
    strengths: Sequence[float],
    unit: Unit = "residual",
    positions: Positions = ALL,
) -> list[Arm]:
    """One arm for every vector, layer and strength. Strengths are fractions of the layer's mean residual norm
    unless unit="raw".
    """
    return [
        Arm(
            name,
            (Intervention(vector, layer, strength=strength, unit=unit, positions=positions),),
            layer,
            strength,
        )
        for name, vector in vectors.items()
        for layer in layers
        for strength in strengths
    ]


def sweep(
    model: TracedModel,
    arms: Sequence[Arm],
    prompts: Sequence[str],
    samples: int,
    settings: Settings,
    *,
    chat: bool = True,
    batch_rows: int = 64,
    progress: bool = False,
) -> pd.DataFrame:
    """Write `samples` texts for every arm and prompt, all arms together in mixed batches.

    The sampling key is (prompt number, sample number), the same in every arm, so differences between arms are
    paired. Columns: arm, layer, strength, prompt, sample, text, tokens, ended.

    Raises `SteerlabError` for no arms, no prompts, or samples below 1.
    """
    requests, row = plan_sweep(arms, prompts, samples, chat)
    texts = generate(model, requests, settings, batch_rows=batch_rows, progress=progress)
    return pd.DataFrame([row(i, text) for i, text in enumerate(texts)])


def plan_sweep(
    arms: Sequence[Arm], prompts: Sequence[str], samples: int, chat: bool = True
) -> tuple[list[Request], Callable[[int, Sample], dict[str, Any]]]:
    """The requests of a sweep, and what makes a row of its table from the number of a request and its sample, for runs that
    keep their texts as they go. Raises as `sweep` does.
    """
    if not arms or not prompts or samples < 1:
        raise SteerlabError(
            f"{len(arms)} arms, {len(prompts)} prompts and {samples} samples were given: give at least one of each."
        )
    places = [(arm, p, s) for arm in arms for p in range(len(prompts)) for s in range(samples)]

    def row(i: int, t: Sample) -> dict[str, Any]:
        arm, p, s = places[i]
        facts = {"arm": arm.name, "layer": arm.layer, "strength": arm.strength, "prompt": p, "sample": s}
        return {**facts, "text": t.text, "tokens": len(t.tokens), "ended": t.ended}

    return [Request(prompts[p], ("sweep", p, s), arm.interventions, chat) for arm, p, s in places], row


def score_arms(table: pd.DataFrame, score: Callable[[str, list[str]], Estimate]) -> pd.DataFrame:
    """One row per (arm, layer, strength) with `score(arm, texts)` as value, low, high and n."""
    rows = []
    groups: Any = table.groupby(["arm", "layer", "strength"], sort=False, dropna=False)
    for (arm, layer, strength), part in groups:
        estimate = score(str(arm), [str(t) for t in part["text"]])
        rows.append(
            {
                "arm": arm,
                "layer": layer,
                "strength": strength,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "n": estimate.n,
            }
        )
    return pd.DataFrame(rows)


def best_arm(scores: pd.DataFrame) -> pd.DataFrame:
    """Per arm the row with the highest value; ties go to the smaller strength, then the earlier layer."""
    order = scores.sort_values(["value", "strength", "layer"], ascending=[False, True, True], kind="stable")
    return order.groupby("arm", sort=False).head(1).reset_index(drop=True)
