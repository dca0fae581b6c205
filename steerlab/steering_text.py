"""Interventions in words, from the plain records that samples carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def described(interventions: Sequence[Mapping[str, Any]]) -> str:
    """Interventions in words: "add 0.6 of the residual norm of language-am at block 0"; "none" where there are none."""
    parts = []
    for one in interventions:
        blocks = ", ".join(str(layer) for layer in one.get("layers", ()))
        unit = " of the residual norm" if one.get("unit") == "residual" else ""
        where = "" if one.get("positions", "all") == "all" else f", positions {one['positions']}"
        parts.append(
            f"{one.get('operator', 'add')} {one.get('strength', 1.0):g}{unit} of {one.get('vector')} at block {blocks}{where}"
        )
    return "; ".join(parts) or "none"
