"""Tables in, figures out: the one module that draws. Every figure is written beside the table and the settings
it was drawn from.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram, leaves_list

from steerlab.disk import replace, told
from steerlab.records import encode_text

# Okabe and Ito's colours: told apart under every common colour blindness, and in grey by order of lightness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 7.0  # inches; text stays legible when set to a 3.3 inch column


def style() -> None:
    """Fonts and lines that survive a column width."""
    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "legend.fontsize": 8.5,
            "figure.constrained_layout.use": True,
            "savefig.dpi": 150,
            "svg.hashsalt": "steerlab",
        }
    )


def dots(
    axes: Axes,
    table: pd.DataFrame,
    *,
    place: str,
    series: str,
    order: Sequence[str],
    series_order: Sequence[str],
    names: Mapping[str, str] | None = None,
    percent: bool = False,
) -> None:
    """Points with intervals, one group of marks per `place`, side by side by `series`; missing values leave a
    gap, never a zero.
    """
    scale = 100.0 if percent else 1.0
    offsets = np.linspace(-0.3, 0.3, len(series_order)) if len(series_order) > 1 else np.zeros(1)
    for k, (name, offset) in enumerate(zip(series_order, offsets, strict=True)):
        own = table[table[series] == name].set_index(place).reindex(list(order))
        x = np.arange(len(order)) + offset
        value = own["value"].to_numpy(float) * scale
        low = np.clip(value - own["low"].to_numpy(float) * scale, 0, None)
        high = np.clip(own["high"].to_numpy(float) * scale - value, 0, None)
        axes.errorbar(
            x, value, yerr=np.vstack([low, high]), fmt=MARKERS[k % len(MARKERS)], color=COLOURS[k % len(COLOURS)], ms=5, lw=1.3, capsize=2,
            label=(names or {}).get(name, name),
        )  # fmt: skip
    axes.set_xticks(np.arange(len(order)), list(order))
    axes.grid(axis="x", visible=False)


def lines(
    axes: Axes,
    table: pd.DataFrame,
    *,
    x: str,
    series: str,
    series_order: Sequence[str],
    names: Mapping[str, str] | None = None,
) -> None:
    """A line per series over a numeric `x`, with its interval as a band."""
    for k, name in enumerate(series_order):
        own: Any = table[table[series] == name]
        own = own.sort_values(x)
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(
            own[x],
            own["value"],
            marker=MARKERS[k % len(MARKERS)],
            color=colour,
            lw=1.5,
            ms=4.5,
            label=(names or {}).get(name, name),
        )
        axes.fill_between(own[x], own["low"], own["high"], color=colour, alpha=0.15, lw=0)


def scatter(
    axes: Axes,
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    series: str,
    series_order: Sequence[str],
    names: Mapping[str, str] | None = None,
) -> None:
    """One mark per row, by series, with lines at zero: which quarter of the plane a row is in can be read off."""
    for k, name in enumerate(series_order):
        own = table[table[series] == name]
        axes.scatter(
            own[x], own[y], s=14, alpha=0.6, color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)], lw=0,
            label=(names or {}).get(name, name),
        )  # fmt: skip
    axes.axhline(0, color="black", lw=0.8)
    axes.axvline(0, color="black", lw=0.8)


def heat(
    axes: Axes, matrix: pd.DataFrame, *, low: float | int, high: float | int, label: str, fmt: str = "{:.0f}"
) -> None:
    """A labelled matrix in a perceptually even map, every cell with its number."""
    image = axes.imshow(matrix.to_numpy(float), vmin=low, vmax=high, cmap="viridis", aspect="auto")
    axes.set_xticks(range(matrix.shape[1]), [str(c) for c in matrix.columns])
    axes.set_yticks(range(matrix.shape[0]), [str(r) for r in matrix.index])
    axes.grid(visible=False)
    for r in range(matrix.shape[0]):
        for c in range(matrix.shape[1]):
            value = float(matrix.iat[r, c])
            shade = "black" if value > (low + high) / 2 else "white"
            axes.text(
                c,
                r,
                "–" if np.isnan(value) else fmt.format(value),
                ha="center",
                va="center",
                color=shade,
                fontsize=8,
            )
    axes.figure.colorbar(image, ax=axes, label=label)


def null_band(axes: Axes, table: pd.DataFrame, *, x: str, label: str, colour: str = "grey") -> None:
    """What chance shows at each `x`, from the columns null, null_low and null_high: a band and its dotted middle."""
    own: Any = table.sort_values(x)
    axes.fill_between(own[x], own["null_low"], own["null_high"], color=colour, alpha=0.22, lw=0, label=label)
    axes.plot(own[x], own["null"], color=colour, ls=":", lw=1.2)


def clustered(
    matrix: pd.DataFrame, tree: np.ndarray, groups: Mapping[str, str], *, low: float, high: float, label: str
) -> tuple[Figure, Axes]:
    """A tree (scipy's linkage) beside the matrix in its order, each row marked by its group; one-member groups are grey.

    Returns the figure and the panel of the matrix.
    """
    style()
    figure, (left, strip, panel) = plt.subplots(1, 3, figsize=(WIDTH, WIDTH * 0.95), width_ratios=(1, 0.1, 4))
    order = [str(matrix.index[k]) for k in leaves_list(tree)]
    k = len(order)
    dendrogram(tree, orientation="left", ax=left, no_labels=True, color_threshold=0, above_threshold_color="black")
    left.set(ylim=(0, 10 * k), xlabel="1 − cosine")  # scipy sets its leaves at 5, 15, 25, ...
    left.spines["left"].set_visible(False)
    left.grid(axis="y", visible=False)
    common = [group for group, n in Counter(groups[name] for name in order).most_common() if n > 1]
    for place, name in enumerate(order):
        i = common.index(groups[name]) if groups[name] in common else -1
        shape, colour = (MARKERS[i % len(MARKERS)], COLOURS[i % len(COLOURS)]) if i >= 0 else (".", "#999999")
        strip.plot(
            [0],
            [place],
            marker=shape,
            color=colour,
            ls="",
            ms=5,
            label=groups[name] if i >= 0 else "alone in its group",
        )
    strip.set(ylim=(-0.5, k - 0.5), xlim=(-1, 1), xticks=[])
    strip.set_yticks(range(k), order, fontsize=8 if k > 20 else 10)
    strip.tick_params(length=0)
    strip.spines[:].set_visible(False)
    strip.grid(visible=False)
    cells = matrix.loc[order, order].to_numpy(float)
    image = panel.imshow(cells, vmin=low, vmax=high, cmap="viridis", origin="lower", aspect="auto")
    panel.set_xticks(range(k), order, fontsize=7 if k > 20 else 10, rotation=90 if k > 20 else 0)
    panel.set_yticks([])
    panel.grid(visible=False)
    figure.colorbar(image, ax=panel, label=label, shrink=0.6)
    handles, words = strip.get_legend_handles_labels()
    keys = dict(zip(words[::-1], handles[::-1], strict=True))  # one each, from the top row down
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=min(len(keys), 7), columnspacing=1)
    return figure, panel


def save(figure: Figure, table: pd.DataFrame, folder: Path, name: str, record: Mapping[str, object]) -> list[Path]:
    """Write NAME.png, NAME.pdf, NAME.csv (the table) and NAME.json (settings) to `folder`; return the paths.

    Closes the figure. Raises `SteerlabError` where the folder cannot be written or the disk is full.
    """
    paths = [folder / f"{name}.{ending}" for ending in ("csv", "json")]
    settings = json.dumps(dict(record), indent=2, ensure_ascii=False, default=str) + "\n"
    images = write_images(figure, folder, name)
    rows = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    with told(folder):
        for path, text in zip(paths, (rows, settings), strict=True):
            replace(path, encode_text(text))
    return [*images, *paths]


def write_images(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.pdf to `folder`; return the paths. Closes the figure. Raises as `save` does."""
    facts = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None}}
    paths = [folder / f"{name}.{ending}" for ending in facts]
    try:
        with told(folder):
            for path, (ending, own) in zip(paths, facts.items(), strict=True):
                drawn = io.BytesIO()
                figure.savefig(drawn, format=ending, metadata=own)
                replace(path, drawn.getvalue())
    finally:
        plt.close(figure)
    return paths


def new(columns: int = 1, rows: int = 1, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure with `rows` x `columns` panels, and the panels in reading order."""
    style()
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False)
    return figure, [a for row in axes for a in row]
