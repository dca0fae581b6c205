"""Equal effect: the strength that is solved for has the effect that was asked for, and curves that fold back are not solved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from steerlab.ablation.calibrate import calibrate_strength, dosed, solve
from steerlab.ablation.forced import forced_kl
from steerlab.errors import SteerlabError
from steerlab.steering import Intervention
from steerlab.types import GENERATED
from steerlab.vectors import SteeringVector
from tests.tiny import CORE, tiny, vector

TEXTS = ("the river is wide", "no", "seven small stones lay there", "and it rained")
PROMPTS = ("Tell me.", "Say it.", "Again, and more of it.", "Go on.")


class Curve:
    """A planted effect, and the doses it was asked for, round by round."""

    def __init__(self, of: Callable[[float], float]) -> None:
        self.of, self.rounds = of, list[list[float]]()

    def __call__(self, doses: Sequence[float]) -> list[float]:
        self.rounds.append(list(doses))
        return [self.of(dose) for dose in doses]


@pytest.mark.parametrize(
    ("of", "want"),
    [
        (lambda x: x * x, 1.0),
        (lambda x: 5 * x, 0.2),
        (lambda x: x**4 / 81, 3.0),
        (lambda x: 1 + math.tanh(20 * (x - 1.7)), 1.7),
        (lambda x: x / 4, 4.0),
    ],
)
def test_a_rising_curve_is_solved(of: Callable[[float], float], want: float) -> None:
    curve = Curve(of)
    found = solve(curve, 1.0, 4.0, tolerance=0.01)
    assert abs(of(found.dose) - 1.0) <= 0.01 and found.dose == pytest.approx(want, rel=0.02)
    assert found.monotone and found.reason == ""
    assert max(map(len, curve.rounds)) > 1  # doses go into batches together, not one by one
    assert found.curve == tuple(sorted((d, of(d)) for own in curve.rounds for d in own))


def test_a_curve_that_passes_the_target_several_times_is_reported_and_not_searched() -> None:
    curve = Curve(lambda x: 2 * math.sin(math.pi * x / 1.6) ** 2)  # up at 0.4, down at 1.2, up again at 2
    found = solve(curve, 1.0, 4.0)
    assert math.isnan(found.dose) and not found.monotone
    assert len(curve.rounds) == 1 and len(found.crossings) > 1
    assert "passes the target" in found.reason and len(found.curve) == len(curve.rounds[0])


def test_a_fold_that_only_shows_inside_the_bracket_stops_the_search() -> None:
    curve = Curve(lambda x: 0.0 if x <= 2 else 3.0 if x >= 4 else 1.5 if x < 2.9 else 0.2)
    found = solve(curve, 1.0, 4.0)
    assert math.isnan(found.dose) and len(found.crossings) == 3 and not found.monotone and len(curve.rounds) == 2


def test_a_dip_on_one_side_of_the_target_is_flagged_and_the_one_crossing_solved() -> None:
    found = solve(Curve(lambda x: (x - 0.5) ** 2), 1.0, 4.0)
    assert found.dose == pytest.approx(1.5, rel=0.02) and not found.monotone and len(found.crossings) == 1
    late = solve(Curve(lambda x: 2 * x if x < 2 else 6 - x), 1.0, 4.0)
    assert late.dose == pytest.approx(0.5, rel=0.02) and not late.monotone


def test_a_target_that_is_never_reached_says_how_far_the_curve_gets() -> None:
    found = solve(Curve(lambda x: 0.7 * math.tanh(x)), 1.0, 4.0)
    assert math.isnan(found.dose) and found.reason == "it reaches 0.7 at most (dose 4), up to dose 4"
    high = solve(Curve(lambda x: 2 + x), 1.0, 4.0)
    assert math.isnan(high.dose) and high.reason == "it is 2 at dose 0 already"
    jump = solve(Curve(lambda x: 0.0 if x < 1 / 3 else 5.0), 1.0, 4.0)
    assert math.isnan(jump.dose) and jump.reason.startswith("it jumps from 0 to 5 at dose 0.3333")


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("operator", ["add", "match", "scale", "rotate"])
def test_the_strength_reproduces_its_kl(family: str, operator: str) -> None:
    model, v = tiny(family), vector(0)
    found = calibrate_strength(model, v, 1, TEXTS, 0.4, 0.9, operator=operator, prompts=PROMPTS, tolerance=0.05)  # pyright: ignore
    assert found.reached, found.reason
    again = forced_kl(model, [found.interventions], TEXTS, PROMPTS)
    assert np.quantile(again.kl[0], 0.9) == pytest.approx(0.4, rel=0.06)
    assert found.effect.value == pytest.approx(0.4, rel=0.05) and found.mean.value < found.effect.value
    (one,) = found.interventions
    assert one.operator == operator and found.strength in (one.strength, one.target)
    assert list(found.curve.columns) == ["dose", "value"] and found.curve["dose"].is_monotonic_increasing


def test_stronger_effects_take_stronger_pushes() -> None:
    strengths = [calibrate_strength(tiny("llama"), vector(0), (1, 2), TEXTS, kl).strength for kl in (0.05, 0.2, 0.5)]
    assert 0 < strengths[0] < strengths[1] < strengths[2]
    raw = calibrate_strength(tiny("llama"), vector(0), 2, TEXTS, 0.4, unit="raw")
    residual = calibrate_strength(tiny("llama"), vector(0), 2, TEXTS, 0.4)
    assert raw.strength == pytest.approx(3 * residual.strength, rel=0.1)  # the vector records 3 as the norm at layer 2


def test_a_function_of_the_dose_decides_everything() -> None:
    """A push that grows and shrinks again: the curve folds back, and no strength is named."""

    def fold(dose: float) -> tuple[Intervention, ...]:
        return (Intervention(vector(0), 1, strength=6 * abs(math.sin(2 * dose)), positions=GENERATED),)

    found = calibrate_strength(tiny("llama"), fold, 0, TEXTS, 0.4, prompts=PROMPTS)
    assert not found.reached and not found.monotone and found.interventions == ()
    assert "passes the target" in str(found) and "not monotone" in str(found)
    assert "measured doses" in found._repr_html_() and not found.effect.known
    weak = calibrate_strength(tiny("llama"), lambda d: dosed(vector(0), 1)(d / 1000), 0, TEXTS, 0.4)
    assert not weak.reached and "at most" in weak.reason and weak.monotone


def test_what_has_no_dose_or_no_sense_is_refused() -> None:
    model, v = tiny("llama"), vector(0)
    with pytest.raises(SteerlabError, match="takes a direction out whole and has no dose"):
        calibrate_strength(model, v, 1, TEXTS, operator="ablate")
    for wrong in ({"target_kl": 0.0}, {"quantile": 1.0}, {"tolerance": 0.0}, {"highest": -1.0}):
        with pytest.raises(SteerlabError, match="give|lie between"):
            calibrate_strength(model, v, 1, TEXTS, **wrong)  # pyright: ignore
    bare = SteeringVector.from_raw("bare", v.direction, v.layers)
    with pytest.raises(SteerlabError, match="does not record the residual norm"):
        calibrate_strength(model, bare, 1, TEXTS, unit="raw")
    assert calibrate_strength(model, bare, 1, TEXTS, 0.4, unit="raw", highest=16).reached
