"""How a vector is best used, and what that rests on: `Choice`, a plain record that travels in the vector's own header."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from steerlab.errors import SteerlabError
from steerlab.types import Positions

_LATER = {"cap", "gate"}  # not in records of choices that have none


@dataclass(frozen=True)
class Choice:
    """The layers, operator and strength found best for a vector, and the evidence for it.

    `layers` to `positions` are those of an `Intervention` (positions as text). `rule` says in words how the choice was
    made, `evidence` what was then measured on other prompts: (measure, value, low, high), NaN where there is no number. `cap` and
    `gate` (threshold, above) are those of the intervention, where it has any.
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
    cap: float | int | None = None
    gate: tuple[float, bool] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", float(self.strength))
        object.__setattr__(self, "target", float(self.target))
        object.__setattr__(self, "cap", None if self.cap is None else float(self.cap))
        numbers = (
            self.strength,
            self.target,
            *(() if self.gate is None else self.gate[:1]),
            *(() if self.cap is None else (self.cap,)),
        )
        if not self.layers or not all(math.isfinite(number) for number in numbers):
            raise SteerlabError(
                f"a choice of layers {self.layers}, strength {self.strength}, target {self.target}, cap {self.cap} and gate "
                f"{self.gate} was given: name at least one layer, and finite numbers."
            )
        Positions.parse(self.positions)

    def to_json(self) -> dict[str, object]:
        """Plain JSON values, NaN as None; the inverse of `from_json`."""
        rows = [[None if isinstance(x, float) and math.isnan(x) else x for x in row] for row in self.evidence]
        record = {**asdict(self), "layers": list(self.layers), "evidence": rows}
        record["gate"] = None if self.gate is None else list(self.gate)
        return {name: value for name, value in record.items() if name not in _LATER or value is not None}

    @staticmethod
    def from_json(record: object) -> Choice:
        """Read what `to_json` wrote. Raises `SteerlabError` on unknown or missing fields or values of another type."""
        names = {f.name for f in fields(Choice)}
        if not isinstance(record, Mapping) or not names - _LATER <= set(record) <= names:
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
            cap, gate = record.get("cap"), record.get("gate")
            later = {
                "cap": None if cap is None else _number(cap),
                "gate": None if gate is None else (_number(gate[0]), bool(gate[1])),
            }
            return Choice(**{**record, **numbers, **later, "layers": layers, "evidence": evidence})
        except (TypeError, ValueError, LookupError) as error:
            raise SteerlabError(
                f"the record of a choice holds values of the wrong type ({error}): it was edited."
            ) from error


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def spans(layers: Sequence[int]) -> str:
    """Layers as text: 0-3, 7."""
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and parts[-1][-1] == layer - 1:
            parts[-1][1:] = [layer]
        else:
            parts.append([layer])
    return ", ".join("-".join(map(str, part)) for part in parts)
