"""Metrics as drawings that answer: one mark with its interval per language, task and condition, placed for SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steerlab.report.gather import Seen

# Okabe and Ito's colours, each with a shape of its own, so that neither alone has to be told apart.
STYLES = tuple(
    zip(
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#767676", "#9A6324"),
        ("circle", "square", "triangle", "diamond", "cross", "down", "ring", "box"),
        strict=True,
    )
)
FIRST = ("language_share", "distinct_2", "macro_f1", "faithfulness")
LEFT, RIGHT, WIDTH, TOP, ROW, GAP = 150, 20, 720, 26, 13, 12
SHAPES = {
    "circle": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "ring": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0zM-2,0a2,2 0 1,1 4,0a2,2 0 1,1 -4,0z",
    "square": "M-4.5,-4.5h9v9h-9z",
    "box": "M-5,-3h10v6h-10z",
    "triangle": "M0,-5.5L5.5,4.5H-5.5z",
    "down": "M0,5.5L5.5,-4.5H-5.5z",
    "diamond": "M0,-6L6,0L0,6L-6,0z",
    "cross": "M-5,-2h3v-3h4v3h3v4h-3v3h-4v-3h-3z",
}


@dataclass(frozen=True)
class Mark:
    """One estimate in its place: pixel coordinates, NaN-free; `low` and `high` are the ends of its interval, if it has one."""

    x: float
    y: float
    low: float | None
    high: float | None
    series: int
    said: str
    group: dict[str, str]


@dataclass(frozen=True)
class Chart:
    """One metric: marks, the labels of its rows, the ticks of its axis, and what could not be computed."""

    metric: str
    title: str
    height: float
    marks: list[Mark] = field(default_factory=list)
    rows: list[tuple[float, str]] = field(default_factory=list)
    ticks: list[tuple[float, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def series_of(runs: Sequence[Seen]) -> list[str]:
    """What the colours stand for: conditions, under the name of their run where there are several runs."""
    return list(dict.fromkeys(_series(run, row, len(runs)) for run in runs for row in run.metrics))


def charts(runs: Sequence[Seen]) -> list[Chart]:
    """One chart per metric of the runs, the headline metrics first."""
    series = series_of(runs)
    found = [(run, row) for run in runs for row in run.metrics]
    names = list(dict.fromkeys(str(row.get("metric")) for _, row in found))
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return [
        _chart(name, [(run, row) for run, row in found if str(row.get("metric")) == name], series, len(runs))
        for name in names
    ]


def _chart(name: str, rows: Sequence[tuple[Seen, Mapping[str, Any]]], series: Sequence[str], n_runs: int) -> Chart:
    known = [(run, row) for run, row in rows if _finite(row.get("value")) is not None]
    missing = [
        f"{_where(row)}, {_series(run, row, n_runs)}: {row.get('reason') or 'no number'}"
        for run, row in rows
        if _finite(row.get("value")) is None
    ]
    values = [v for _, row in known for key in ("value", "low", "high") if (v := _finite(row.get(key))) is not None]
    places = list(dict.fromkeys(_where(row) for _, row in known))
    band = ROW * max(1, len({_series(run, row, n_runs) for run, row in known})) + GAP
    height = float(TOP + band * len(places) + 8)
    chart = Chart(name, name.replace("_", " "), height, missing=missing)
    if not values:
        return chart
    low, high, step = _axis(min(values), max(values))

    def place(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    chart.ticks.extend((place(low + i * step), f"{low + i * step:.6g}") for i in range(round((high - low) / step) + 1))
    order = [s for s in series if any(_series(run, row, n_runs) == s for run, row in known)]
    chart.rows.extend((float(TOP + band * i), text) for i, text in enumerate(places))
    for run, row in known:
        own = _series(run, row, n_runs)
        y = TOP + band * places.index(_where(row)) + GAP / 2 + ROW * (order.index(own) + 0.5)
        ends = [_finite(row.get(key)) for key in ("low", "high")]
        value = _finite(row["value"])
        assert value is not None
        both = all(end is not None for end in ends)
        spread = f" [{ends[0]:.3g}, {ends[1]:.3g}]" if both else ""
        said = f"{_where(row)}, {own}: {value:.3g}{spread}, n {row.get('n', '?')}"
        said += f" ({row['reason']})" if row.get("reason") else ""
        drawn = [place(end) if both and end is not None else None for end in ends]
        group = {key: str(row.get(key, "")) for key in ("language", "task", "condition")} | {"run": run.name}
        chart.marks.append(Mark(place(value), round(y, 1), drawn[0], drawn[1], series.index(own), said, group))
    return chart


def _axis(low: float | int, high: float | int) -> tuple[float, float, float]:
    """Ends and step of an axis over these values: 0 to 1 for shares, else round numbers around them."""
    if low >= 0 and 0.05 < high <= 1:
        return 0.0, 1.0, 0.2
    width = max(high - low, abs(high) * 1e-6, 1e-9)
    step = 10.0 ** math.floor(math.log10(width / 4))
    step *= next(f for f in (1, 2, 5, 10) if width / (step * f) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    first -= first * step > low or first == last  # rounding, or a single value
    last += last * step < high
    return first * step, last * step, step


def _series(run: Seen, row: Mapping[str, Any], n_runs: int) -> str:
    condition = str(row.get("condition", ""))
    return f"{run.name}: {condition}" if n_runs > 1 else condition


def _where(row: Mapping[str, Any]) -> str:
    return " · ".join(filter(None, (str(row.get("language", "")), str(row.get("task", "")))))


def _finite(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None
