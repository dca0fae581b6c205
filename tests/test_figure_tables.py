"""Every committed table of the figures: an estimate lies within the interval that stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.walls import ROOT

TABLES = sorted((ROOT / "figures").rglob("*.csv"))
# What a plain `low` and `high` belong to: the first of these columns a table has.
VALUES = ("ratio", "value", "rate", "auroc", "difference", "share")


def intervals(columns: list[str]) -> list[tuple[str, str, str]]:
    """The columns (estimate, low, high) of every interval of a table; raises where an interval has no estimate."""
    found = []
    for low in columns:
        if low == "low":
            found.append((next(name for name in VALUES if name in columns), low, "high"))
        elif low.endswith("_low"):
            name = low.removesuffix("_low")
            found.append((name if name in columns else f"{name}_value", low, f"{name}_high"))
    return found


def outside(table: Any) -> list[int]:
    """The rows with an estimate outside its own interval; what is missing is not compared."""
    wrong: set[int] = set()
    for names in intervals(list(table.columns)):
        value, low, high = (table[name].to_numpy(float) for name in names)
        wrong |= {i for i, bad in enumerate((value < low - 1e-9) | (value > high + 1e-9)) if bad}
    return sorted(wrong)


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.relative_to(ROOT / "figures").as_posix())
def test_every_estimate_lies_within_its_interval(path: Path) -> None:
    table: Any = pd.read_csv(path)
    assert outside(table) == []


def test_there_are_tables_with_intervals_and_an_estimate_outside_is_seen() -> None:
    assert sum(bool(intervals(list(pd.read_csv(path, nrows=0).columns))) for path in TABLES) > 20
    table = pd.DataFrame(
        {"value": [0.5, 0.984, 0.1], "low": [0.4, 0.959, None], "high": [0.6, 0.977, 0.0], "f1": 0.5, "f1_low": [0.5, 0.4, 0.6],
         "f1_high": 0.9}
    )  # fmt: skip
    assert outside(table.drop(columns=["f1", "f1_low", "f1_high"])) == [1, 2] and outside(table) == [1, 2]
    assert outside(table[["f1", "f1_low", "f1_high"]]) == [2]
