"""The control of a steered arm: a push of the same length in a random direction, which tells what any push does to a text."""

from __future__ import annotations

from dataclasses import replace

from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.estimators import random_like
from steerlab.instructions.application import Pushes, projections
from steerlab.instructions.asking import pushed
from steerlab.steering import Intervention


def randomised(push: Intervention, seed: int) -> Intervention:
    """The same intervention along a random direction; matching, whose target is the vector's own, becomes adding the length by which
    it moves a bare prompt's mean.

    Raises `SteerlabError` for matching at several layers at once, and with a vector that has no projections.
    """
    made = random_like(push.vector, seed)
    if push.operator not in ("match", "match_up"):
        return replace(push, vector=made)
    if len(push.at) != 1:
        raise SteerlabError(f"{push.vector.name!r} is matched at layers {push.at}: give an intervention for each.")
    (layer,) = push.at
    length = push.strength * (push.numbers(layer)[1] - projections(push.vector).bare[push.vector.row(layer)])
    return Intervention(made, layer, "add", length, positions=push.positions, cap=push.cap)


def random_pushes(pushes: Pushes, seed: int = 0) -> Pushes:
    """The control of every push, the same random direction for all prompts of an instruction."""
    if not callable(pushes):
        return {name: tuple(randomised(one, seed) for one in own) for name, own in pushes.items()}

    def act(row: InstructedPrompt) -> tuple[Intervention, ...]:
        return tuple(randomised(one, seed) for one in pushed(row, pushes))

    return act
