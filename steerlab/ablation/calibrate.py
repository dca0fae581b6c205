"""How strong is "equally strong": the strength at which an intervention moves the next token as far as asked for.

Operators and vectors are compared at equal effect, not at equal numbers: 0.3 of `add` and 0.3 radians of `rotate` have
nothing in common but the digits. The effect is KL(unsteered || steered) of the next token along given texts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from steerlab.ablation.forced import ForcedKL, forced_kl
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.model import TracedModel
from steerlab.steering import Intervention, OperatorName, Unit
from steerlab.types import ALL, Positions
from steerlab.vectors import SteeringVector

Factory = Callable[[float], Sequence[Intervention]]  # a dose in, what to do out; dose 0 should do nothing
Measure = Callable[[Sequence[float]], Sequence[float]]  # doses in, their effects out
_ROUNDS = 8
_HIGHEST = {"add": 4.0, "match": 4.0, "rotate": math.pi, "scale": 64.0}  # residual norms, radians, and fractions


def dosed(
    vector: SteeringVector,
    layers: tuple[int, ...] | int,
    operator: OperatorName = "add",
    unit: Unit = "residual",
    positions: Positions = ALL,
) -> Factory:
    """The one number an operator is made stronger by: the length that is added, the target of `match`, the angle of
    `rotate` in radians, the fraction of `scale`.

    `unit` is that of the lengths. `match` at dose 0 takes the direction out, so its effect does not start at 0. Raises
    `SteerlabError` for `ablate`, which has no dose.
    """
    if operator == "ablate":
        raise SteerlabError(
            "operator 'ablate' takes a direction out whole and has no dose: measure it as it is, "
            "or calibrate 'scale' (whose strength -1 is ablation)."
        )

    def make(dose: float) -> tuple[Intervention, ...]:
        if operator == "match":
            return (Intervention(vector, layers, operator, 1.0, unit, dose, positions),)
        return (Intervention(vector, layers, operator, dose, unit if operator == "add" else "raw", 0.0, positions),)

    return make


@dataclass(frozen=True, eq=False)
class Solution:
    """The dose whose effect is the target, NaN where `reason` says there is none to name.

    `curve`: (dose, effect) of all that was measured, by dose. `monotone`: whether it nowhere falls. `crossings`: the
    neighbouring doses between which it passes the target.
    """

    dose: float
    curve: tuple[tuple[float, float], ...]
    monotone: bool
    crossings: tuple[tuple[float, float], ...]
    reason: str = ""


def solve(
    measure: Measure, target: float, highest: float, tolerance: float = 0.02, first: int = 8, each: int = 4
) -> Solution:
    """The dose in (0, highest] whose effect is within `tolerance` (a fraction) of the target, if it can be named.

    Each round measures several doses at once: first `first` of them, doubling up to `highest`, then `each` inside
    the bracket. A curve that passes the target more than once, or from above, is reported and not searched further: any
    answer would hang on where the search happened to start.
    """
    slack = tolerance * target
    doses = [0.0, *(highest / 2**k for k in range(first - 1, -1, -1))]
    curve: dict[float, float] = {}
    for _ in range(_ROUNDS):
        curve.update(zip(doses, map(float, measure(doses)), strict=True))
        points = sorted(curve.items())
        pairs = list(itertools.pairwise(points))
        monotone = all(b[1] >= a[1] - slack for a, b in pairs)
        crossings = [(a, b) for a, b in pairs if (a[1] < target) != (b[1] < target)]
        passed = tuple((a[0], b[0]) for a, b in crossings)
        verdict = _verdict(points, crossings, target, slack)
        if verdict is not None:
            return Solution(verdict[0], tuple(points), monotone, passed, verdict[1])
        low, high = crossings[0]
        doses = [float(x) for x in np.linspace(low[0], high[0], each + 2)[1:-1]]
    reason = f"it jumps from {low[1]:.3g} to {high[1]:.3g} at dose {low[0]:.6g}"
    return Solution(math.nan, tuple(points), monotone, passed, reason)


_Point = tuple[float, float]


def _verdict(
    points: Sequence[_Point], crossings: Sequence[tuple[_Point, _Point]], target: float, slack: float
) -> tuple[float, str] | None:
    """The dose, or NaN and why there is none; None where the one bracket is to be searched further."""
    if points[0][1] >= target:
        return math.nan, f"it is {points[0][1]:.3g} at dose 0 already"
    if len(crossings) > 1:
        where = ", ".join(f"{(a[0] + b[0]) / 2:.3g}" for a, b in crossings)
        return math.nan, f"it passes the target {len(crossings)} times (near doses {where})"
    near = min(points, key=lambda point: abs(point[1] - target))
    if abs(near[1] - target) <= slack:
        return near[0], ""
    if not crossings:
        top = max(points, key=lambda point: point[1])
        return math.nan, f"it reaches {top[1]:.3g} at most (dose {top[0]:.3g}), up to dose {points[-1][0]:.3g}"
    return None


@dataclass(frozen=True, eq=False)
class Calibration:
    """The strength that was solved for (NaN, with a reason, where there is none), and what it rests on.

    `effect`: the quantile of per-token KL that was measured there, with a bootstrap interval over texts. `mean`: the mean
    KL there. `curve`: dose and value (that quantile in nats) of everything measured. `monotone`: whether the curve
    nowhere falls by more than the tolerance. `interventions`: at that strength; none where there is none.
    """

    strength: float
    effect: Estimate
    mean: Estimate
    target: float
    quantile: float
    curve: pd.DataFrame
    monotone: bool
    crossings: tuple[tuple[float, float], ...]
    interventions: tuple[Intervention, ...] = field(repr=False, default=())
    reason: str = ""

    @property
    def reached(self) -> bool:
        """Whether there is a strength."""
        return not math.isnan(self.strength)

    def __str__(self) -> str:
        shape = "" if self.monotone else "; the curve is not monotone"
        if not self.reached:
            return f"no strength gives {self.target:g} nats: {self.reason}{shape}"
        return (
            f"strength {self.strength:.4g}: {self.quantile:.0%} of tokens move by at most {self.effect:.2f} nats{shape}"
        )

    def _repr_html_(self) -> str:
        rows = self.curve.to_html(index=False, float_format=lambda x: f"{x:.3g}", border=0)
        return f"<p>{self}</p><details><summary>{len(self.curve)} measured doses</summary>{rows}</details>"


def calibrate_strength(
    model: TracedModel,
    vector: SteeringVector | Factory,
    layers: tuple[int, ...] | int,
    texts: Sequence[str],
    target_kl: float | int = 1.0,
    quantile: float | int = 0.95,
    *,
    operator: OperatorName = "add",
    unit: Unit = "residual",
    positions: Positions = ALL,
    prompts: Sequence[str] | None = None,
    highest: float | int | None = None,
    tolerance: float | int = 0.02,
    token_budget: int = 4096,
    seed: int = 0,
) -> Calibration:
    """The strength at which the `quantile` of KL(unsteered || steered) per token of the texts is `target_kl` nats.

    `vector`: with `operator`, `unit` and `positions` as in `dosed`, or a function from a dose to interventions, which
    then decides everything, the layers too. Many doses are measured in one mixed batch, up to `highest` (default: four
    residual norms, pi radians, a fraction of 64; a function of your own: 4). Where the curve passes the target more than once no
    strength is named: look at `curve`.

    Raises `SteerlabError` for `ablate`, a target or quantile out of range, and raw units without a residual norm or `highest`.
    """
    if not (0 < target_kl < math.inf and 0 < quantile < 1 and 0 < tolerance < 1):
        raise SteerlabError(
            f"target_kl {target_kl}, quantile {quantile} and tolerance {tolerance} were given: "
            "the target is above 0, the other two lie between 0 and 1."
        )
    if isinstance(vector, SteeringVector):
        make = dosed(vector, layers, operator, unit, positions)
        top = _top(vector, layers, operator, unit) if highest is None else float(highest)
    else:
        make, top = vector, 4.0 if highest is None else float(highest)
    if not 0 < top < math.inf:
        raise SteerlabError(f"highest is {top}: give a finite dose above 0.")
    seen: dict[float, tuple[ForcedKL, int]] = {}

    def measure(doses: Sequence[float]) -> list[float]:
        found = forced_kl(model, [make(dose) for dose in doses], texts, prompts, token_budget=token_budget)
        seen.update({dose: (found, i) for i, dose in enumerate(doses)})
        return [float(np.quantile(row, quantile)) for row in found.kl]

    solution = solve(measure, float(target_kl), top, float(tolerance))
    effect = mean = Estimate.missing(solution.reason or "no strength")
    if not math.isnan(solution.dose):
        found, row = seen[solution.dose]
        effect, mean = found.quantile(row, quantile, seed), found.mean(row, seed)
    return Calibration(
        solution.dose, effect, mean, float(target_kl), float(quantile), pd.DataFrame(solution.curve, columns=["dose", "value"]),
        solution.monotone, solution.crossings, tuple(make(solution.dose)) if not math.isnan(solution.dose) else (), solution.reason,
    )  # fmt: skip


def _top(vector: SteeringVector, layers: tuple[int, ...] | int, operator: OperatorName, unit: Unit) -> float:
    """The highest dose that is tried."""
    if unit == "residual" or operator not in ("add", "match"):
        return _HIGHEST[operator]
    at = (layers,) if isinstance(layers, int) else layers
    return _HIGHEST[operator] * max(vector.norm_at(layer) for layer in at)
