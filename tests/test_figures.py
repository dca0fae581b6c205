"""A figure is four files, the same bytes each time, with its numbers beside it; what is missing is a gap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from steerlab import figures
from steerlab.errors import SteerlabError


def _table() -> pd.DataFrame:
    rows = [
        ("jv", "plain", 0.25, 0.125, 0.5),
        ("su", "plain", 0.5, 0.25, 0.625),
        ("am", "plain", 0.75, 0.5, 0.875),
        ("jv", "steered", 0.875, 0.75, 1.0),
        ("am", "steered", np.nan, np.nan, np.nan),
    ]
    return pd.DataFrame(rows, columns=["language", "condition", "value", "low", "high"])


ORDER, SERIES = ["am", "jv", "su"], ["plain", "steered"]


def _figure(table: pd.DataFrame) -> tuple[Any, Any]:
    figure, (axes,) = figures.new()
    how = {"place": "language", "series": "condition", "order": ORDER, "series_order": SERIES}
    figures.dots(axes, table, **how, names={"plain": "unsteered"}, percent=True)
    axes.legend()
    return figure, axes


def test_save_writes_four_files_and_the_table_round_trips(tmp_path: Path) -> None:
    table = _table()
    figure, _ = _figure(table)
    paths = figures.save(figure, table, tmp_path / "new" / "figures", "one", {"seed": 3, "where": Path("runs")})
    assert [path.name for path in paths] == ["one.png", "one.pdf", "one.csv", "one.json"]
    assert paths[0].read_bytes().startswith(b"\x89PNG") and paths[1].read_bytes().startswith(b"%PDF")
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), table)
    assert json.loads(paths[3].read_text()) == {"seed": 3, "where": "runs"}
    assert not plt.fignum_exists(figure.number)


def test_the_same_table_draws_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name, table in (("a", _table()), ("b", _table()), ("other", _table().assign(value=0.5))):
        paths = figures.save(_figure(table)[0], table, tmp_path / name, "f", {})
        made.append([path.read_bytes() for path in paths[:2]])
    assert made[0] == made[1]
    assert made[0][0] != made[2][0] and made[0][1] != made[2][1]


def test_a_folder_that_cannot_be_written_is_said_and_the_figure_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    figure, _ = _figure(_table())
    with pytest.raises(SteerlabError, match="a file stands in the way"):
        figures.save(figure, _table(), tmp_path / "file" / "figures", "f", {})
    assert not plt.fignum_exists(figure.number)


def _points(container: ErrorbarContainer) -> tuple[np.ndarray, np.ndarray]:
    line: Any = container.lines[0]
    return np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)


def test_dots_stand_where_the_table_says_and_missing_ones_are_gaps() -> None:
    figure, axes = _figure(_table())
    plain, steered = axes.containers
    np.testing.assert_allclose(_points(plain)[1], [75, 25, 50])
    np.testing.assert_allclose(_points(steered)[1], [np.nan, 87.5, np.nan])  # NaN in the table, and no row at all
    apart = _points(steered)[0] - _points(plain)[0]
    assert (apart > 0.3).all() and np.allclose(_points(plain)[0] + apart / 2, [0, 1, 2])
    ends = np.array([segment[:, 1] for segment in plain.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, [[50, 87.5], [12.5, 50], [25, 62.5]])
    assert [text.get_text() for text in axes.get_xticklabels()] == ORDER
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["unsteered", "steered"]
    plt.close(figure)


def test_a_line_has_its_interval_and_a_gap_where_the_table_has_one() -> None:
    figure, (axes,) = figures.new()
    values = [0.25, 0.5, np.nan, 0.75]
    rows = [(s, x, v, v - 0.125, v + 0.125) for s in SERIES for x, v in zip((0, 1, 2, 3), values, strict=True)]
    table = pd.DataFrame(rows[::-1], columns=["condition", "layer", "value", "low", "high"])
    figures.lines(axes, table, x="layer", series="condition", series_order=SERIES)
    assert len(axes.lines) == 2
    for line in axes.lines:
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), [0, 1, 2, 3])  # sorted by x
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), values)
    band: Any = axes.collections[0]
    (low, high), pieces = (0.125, 0.875), band.get_paths()
    spans = [(p.vertices[:, 0].min(), p.vertices[:, 0].max()) for p in pieces]
    assert spans == [(0, 1), (3, 3)] or spans == [(0, 1)]  # nothing is shaded across the gap
    assert min(p.vertices[:, 1].min() for p in pieces) == low
    assert max(p.vertices[:, 1].max() for p in pieces) <= high
    plt.close(figure)


def test_a_heat_map_says_every_number() -> None:
    figure, (axes,) = figures.new()
    matrix = pd.DataFrame([[1.0, 9.0], [np.nan, 5.0]], index=["a", "b"], columns=[0, 1])
    figures.heat(axes, matrix, low=0.0, high=10.0, label="%")
    assert [text.get_text() for text in axes.texts] == ["1", "9", "–", "5"]
    assert [to_hex(text.get_color()) for text in axes.texts[:2]] == ["#ffffff", "#000000"]  # legible on dark and light
    plt.close(figure)


def test_panels_come_in_reading_order_and_series_look_different() -> None:
    figure, panels = figures.new(columns=3, rows=2)
    assert len(panels) == 6
    tops = [(round(-axes.get_position().y0, 3), round(axes.get_position().x0, 3)) for axes in panels]
    assert tops == sorted(tops) and len(set(tops)) == 6
    plt.close(figure)
    assert len(set(figures.COLOURS)) == len(figures.COLOURS) == len(set(figures.MARKERS)) == len(figures.MARKERS)
