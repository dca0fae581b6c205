"""How an instruction vector acts: projection matching, one-sided or capped, a fixed push, or a fixed push away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell
from steerlab.projections import Projections
from steerlab.steering import Gate, Intervention, Unit
from steerlab.types import ALL, Positions
from steerlab.vectors import SteeringVector

Kind = Literal["match", "match_up", "add", "subtract"]
KINDS: tuple[Kind, ...] = ("match", "match_up", "add", "subtract")
# What is done for a prompt: per instruction, or as a function of the prompt (where its arguments matter, as for words).
Pushes = Mapping[str, tuple[Intervention, ...]] | Callable[[InstructedPrompt], tuple[Intervention, ...]]
Placing = Callable[[InstructedPrompt, Cell | None], tuple[Intervention, ...]]  # the same at any cell


@dataclass(frozen=True)
class Application:
    """What a cell (layer, strength) means for a vector.

    "match" sets every position's projection to the mean with the instruction (strength 1), or, at strength s, to
    bare + s (instructed - bare): 0.5 is half way, 2 twice as far. "match_up" does so where the projection lies below that, so that
    nothing is pushed down. "add" adds strength * v, "subtract" takes it away, which is how an *inclusion* vector excludes a word
    (vectors made of "do not use w" hardly do: Stolfo et al. 2025, section 5); `unit` is theirs, "residual" for fractions of the
    stream's norm. `cap` bounds any change by a fraction of the activation's norm, `gate` acts only where the cosine to the vector
    says so, `positions` as for every intervention (Stolfo et al.: all, prompt included).
    """

    kind: Kind = "match"
    unit: Unit = "raw"
    cap: float | int | None = None
    gate: Gate | None = None
    positions: Positions = ALL

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SteerlabError(f"application {self.kind!r} is not known: give one of {', '.join(KINDS)}.")
        if self.unit != "raw" and self.matches:
            raise SteerlabError(
                f"unit {self.unit!r} was given for {self.kind!r}, whose target the vector knows: use unit 'raw'."
            )

    @property
    def matches(self) -> bool:
        """Whether a projection is set, so that a strength says how far towards the instructed mean."""
        return self.kind in ("match", "match_up")

    def at(self, vector: SteeringVector, cell: Cell | None) -> tuple[Intervention, ...]:
        """The interventions of a cell: none for None and for strength 0, which leave a row bitwise unsteered.

        Raises `SteerlabError` for a layer the vector does not have, and for matching with a vector that has no projections.
        """
        if cell is None or cell.strength == 0:
            return ()
        common: dict[str, Any] = {"positions": self.positions, "gate": self.gate, "cap": self.cap}
        if self.matches:
            goal = target(vector, cell.layer, cell.strength)
            operator: Any = self.kind
            return (Intervention(vector, cell.layer, operator, target=goal, **common),)
        strength = -cell.strength if self.kind == "subtract" else cell.strength
        return (Intervention(vector, cell.layer, "add", strength, self.unit, **common),)

    def to_json(self) -> dict[str, object]:
        """Plain values, for a run's config."""
        return {
            "kind": self.kind,
            "unit": self.unit,
            "cap": self.cap,
            "gate": None if self.gate is None else asdict(self.gate),
            "positions": str(self.positions),
        }


def target(vector: SteeringVector, layer: int, strength: float = 1.0) -> float:
    """The projection that matching sets at a layer: bare + strength (instructed - bare), in activation units."""
    own, row = projections(vector), vector.row(layer)
    return own.bare[row] + strength * (own.instructed[row] - own.bare[row])


def projections(vector: SteeringVector) -> Projections:
    """The vector's projections. Raises `SteerlabError` where it has none."""
    if vector.projections is None:
        raise SteerlabError(
            f"vector {vector.name!r} has no projections to match: fit it with fit_instructions, or add it."
        )
    return vector.projections
