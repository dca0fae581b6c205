"""Where the two sides of a contrast lie along its directions: `Projections`, a plain record that travels in a vector's header."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from steerlab.errors import SteerlabError


@dataclass(frozen=True)
class Projections:
    """One number per layer of the vector, in the order of its layers, in activation units.

    `instructed`: the mean of h.v over prompts with the instruction, the target of projection matching (Stolfo et al. 2025). `bare`: the
    same over the prompts without it. `reliability`: what `steerlab.instructions` found for split halves, empty where it was not asked.
    Raises `SteerlabError` for sides of unequal length, and numbers that are not finite (a reliability may be NaN).
    """

    instructed: tuple[float, ...]
    bare: tuple[float, ...]
    reliability: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        sizes = {len(self.instructed), len(self.bare), len(self.reliability) or len(self.bare)}
        if len(sizes) != 1 or not all(math.isfinite(x) for x in (*self.instructed, *self.bare)):
            raise SteerlabError(
                f"projections of {len(self.instructed)} and {len(self.bare)} layers, reliabilities of {len(self.reliability)} were given: "
                "give one finite number per layer and side."
            )

    def __len__(self) -> int:
        return len(self.bare)

    def rows(self, rows: Sequence[int]) -> Projections:
        """Those of these rows, in this order."""
        pick = (
            tuple(own[row] for row in rows) if own else () for own in (self.instructed, self.bare, self.reliability)
        )
        return Projections(*pick)

    def flipped(self) -> Projections:
        """Those of the opposite direction, the two sides having changed places."""
        return Projections(tuple(-x for x in self.bare), tuple(-x for x in self.instructed), self.reliability)

    def to_json(self) -> dict[str, list[float | None]]:
        """Plain JSON values, NaN as None; the inverse of `from_json`."""
        return {
            f.name: [None if math.isnan(x) else float(x) for x in getattr(self, f.name)] for f in fields(Projections)
        }

    @staticmethod
    def from_json(record: object) -> Projections:
        """Read what `to_json` wrote. Raises `SteerlabError` on unknown or missing fields or values of another type."""
        names = {f.name for f in fields(Projections)}
        if not isinstance(record, Mapping) or set(record) != names:
            raise SteerlabError(
                "the record of projections has unknown or missing fields: it was written by another version."
            )
        try:
            return Projections(
                **{name: tuple(math.nan if x is None else float(x) for x in record[name]) for name in names}
            )
        except (TypeError, ValueError) as error:
            raise SteerlabError(
                f"the record of projections holds values of the wrong type ({error}): it was edited."
            ) from error
