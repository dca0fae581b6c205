"""How a vector is best used, and what that rests on: `Choice`, a plain record that travels in the vector's own header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from steerlab.errors import SteerlabError
from steerlab.types import Positions


@dataclass(frozen=True)
class Choice:
    """The layers, operator and strength found best for a vector, and the evidence for it.

    `layers` to `positions` are those of an `Intervention` (positions as text). `rule` says in words how the choice was
    made, `evidence` what was then measured on other prompts: (measure, value, low, high), NaN where there is no number.
    Raises `SteerlabError` for no layers, numbers that are not finite, and positions that are not known.
    """

    layers: tuple[int, ...]
    strength: float | int
    operator: str = "add"
    unit: str = "residual"
    target: float | int = 0.0
    positions: str = "all"
    rule: str = ""
    evidence: tuple[tuple[str, float, float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", float(self.strength))
        object.__setattr__(self, "target", float(self.target))
        if not self.layers or not (math.isfinite(self.strength) and math.isfinite(self.target)):
            raise SteerlabError(
                f"a choice of layers {self.layers}, strength {self.strength} and target {self.target} was given: "
                "name at least one layer, and finite numbers."
            )
        Positions.parse(self.positions)

    def to_json(self) -> dict[str, object]:
        """Plain JSON values, NaN as None; the inverse of `from_json`."""
        rows = [[None if isinstance(x, float) and math.isnan(x) else x for x in row] for row in self.evidence]
        return {**asdict(self), "layers": list(self.layers), "evidence": rows}

    @staticmethod
    def from_json(record: object) -> Choice:
        """Read what `to_json` wrote. Raises `SteerlabError` on unknown or missing fields or values of another type."""
        names = {f.name for f in fields(Choice)}
        if not isinstance(record, Mapping) or set(record) != names:
            raise SteerlabError(
                "the record of a choice has unknown or missing fields: it was written by another version."
            )
        try:
            evidence = tuple((str(name), *(_number(x) for x in numbers)) for name, *numbers in record["evidence"])
            layers = tuple(layer for layer in record["layers"] if isinstance(layer, int))
            texts = [record[name] for name in ("operator", "unit", "positions", "rule")]
            if len(layers) != len(record["layers"]) or not all(isinstance(text, str) for text in texts):
                raise TypeError("a layer is no number or a word no text")
            if any(len(row) != 4 for row in evidence):
                raise TypeError("evidence needs a value and two bounds")
            numbers = {name: _number(record[name]) for name in ("strength", "target")}
            return Choice(**{**record, **numbers, "layers": layers, "evidence": evidence})
        except (TypeError, ValueError) as error:
            raise SteerlabError(
                f"the record of a choice holds values of the wrong type ({error}): it was edited."
            ) from error


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)
