"""Results as a tidy table, and the table as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.records import encode_text

KEYS = ("language", "task", "condition", "metric")
COLUMNS = (*KEYS, "value", "low", "high", "n", "reason")


def metrics_table(results: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> pd.DataFrame:
    """One row per estimate, in the order given: language, task, condition, metric, value, low, high, n, reason.

    `results`: rows with the four keys and `estimate`, or mappings language -> task -> condition -> metric -> `Estimate`. Missing numbers
    are NaN. Raises `SteerlabError` for anything else, a key that stands twice, and half a character.
    """
    rows = list(_nested(results, ())) if isinstance(results, Mapping) else [_row(row) for row in results]
    seen: set[tuple[str, ...]] = set()
    for key, _ in rows:
        encode_text("".join(key))  # refuses half a character, which no table can hold
        if key in seen:
            raise SteerlabError(f"{' / '.join(key)} has two estimates: give each metric once.")
        seen.add(key)
    records = [(*key, e.value, e.low, e.high, e.n, e.reason) for key, e in rows]
    table = pd.DataFrame(records, columns=list(COLUMNS))
    return table.astype({"value": float, "low": float, "high": float, "n": int})


def estimates(table: pd.DataFrame) -> dict[tuple[str, str, str, str], Estimate]:
    """The estimates of a table by (language, task, condition, metric); the inverse of `metrics_table`, also after a trip through CSV."""
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise SteerlabError(f"a table without the columns {missing} was given: it needs {', '.join(COLUMNS)}.")
    found = {}
    for row in table.to_dict("records"):
        key = tuple(str(row[name]) for name in KEYS)
        value, low, high = (float(row[name]) for name in ("value", "low", "high"))
        reason = "" if pd.isna(row["reason"]) else str(row["reason"])
        found[key] = Estimate(value, low, high, int(row["n"]), reason)
    return found


def markdown(table: pd.DataFrame, spec: str = ".2f", metrics: Sequence[str] | None = None) -> str:
    """A Markdown table: one line per language, task and condition, one column per metric, `0.83 [0.79, 0.87]` in the cells.

    A number without an interval stands alone and a missing one is a dash; both point to a footnote with the reason. A note beside a full
    interval is a footnote too. `metrics` chooses and orders the columns. Raises `SteerlabError` for a metric the table lacks.
    """
    found = estimates(table)
    have = list(dict.fromkeys(key[3] for key in found))
    if unknown := [name for name in metrics or () if name not in have]:
        raise SteerlabError(f"metrics {unknown} are not in the table: choose among {', '.join(have)}.")
    columns = list(metrics or have)
    notes: dict[str, int] = {}

    def cell(key: tuple[str, str, str], metric: str) -> str:
        estimate = found.get((*key, metric))
        return "" if estimate is None else _cell(estimate, spec, notes)

    lines = [_line((*KEYS[:3], *columns)), _line(["---"] * 3 + ["---:"] * len(columns))]
    lines += [
        _line((*key, *(cell(key, metric) for metric in columns))) for key in dict.fromkeys(key[:3] for key in found)
    ]
    if notes:
        lines += ["", *(f"({number}) {_escape(reason)}  " for reason, number in notes.items())]
    return "\n".join(lines) + "\n"


def _cell(estimate: Estimate, spec: str, notes: dict[str, int]) -> str:
    mark = f" ({notes.setdefault(estimate.reason, len(notes) + 1)})" if estimate.reason else ""
    if not estimate.known:
        return f"–{mark}"
    if pd.isna(estimate.low) or pd.isna(estimate.high):
        return f"{estimate.value:{spec}}{mark}"
    return f"{estimate:{spec}}{mark}"


def _nested(results: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Estimate]]:
    if isinstance(results, Estimate) and len(path) == len(KEYS):
        yield path, results
    elif isinstance(results, Mapping) and len(path) < len(KEYS):
        for name, inner in results.items():
            yield from _nested(inner, (*path, str(name)))
    else:
        expected = "an Estimate" if len(path) == len(KEYS) else f"a mapping by {KEYS[len(path)]}"
        raise SteerlabError(
            f"{type(results).__name__} was given at {' / '.join(path) or 'the top'}: expected {expected}."
        )


def _row(row: Mapping[str, Any]) -> tuple[tuple[str, ...], Estimate]:
    missing = [name for name in (*KEYS, "estimate") if name not in row]
    if missing or not isinstance(row["estimate"], Estimate):
        raise SteerlabError(
            f"a row with the keys {sorted(row)} was given: it needs {', '.join(KEYS)} and an Estimate as estimate."
        )
    return tuple(str(row[name]) for name in KEYS), row["estimate"]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
