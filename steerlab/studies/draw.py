"""The figures of a low-resource study, drawn from its tables alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab import figures
from steerlab.studies.claims import correlation, gains

ORDER = ("language", "quality", "language+quality", "random")
NAMES = {
    "language": "language vector",
    "quality": "quality vector",
    "language+quality": "language + quality",
    "random": "random direction (control)",
}
GROUP_ORDER = ("early", "middle", "late")
PAPER_SHARE = "79.54 %"  # Cegin et al.: cases in which quality vectors at early blocks raise macro-F1, zero-shot


def _kinds(table: Any) -> list[str]:
    there = set(table["kind"])
    return [kind for kind in ORDER if kind in there] + sorted(there - {*ORDER, "none"})


def _groups(table: Any) -> list[str]:
    there = [str(g) for g in table["group"].unique() if g]
    return [g for g in GROUP_ORDER if g in there] + sorted(set(there) - set(GROUP_ORDER))


def _head(figure: Any, text: str) -> None:
    figure.suptitle(text, fontsize=10.5, fontweight="bold", x=0.01, ha="left")


def claim(table: pd.DataFrame, metric: str = "macro_f1", label: str = "macro-F1") -> tuple[Any, pd.DataFrame]:
    """Share of cases in which steering beats its unsteered counterpart, by layer group and vector kind, one panel per prompt mode."""
    own: Any = table[(table["metric"] == metric) & (table["strengths"] == "every")]
    modes = [str(m) for m in own["mode"].unique()]
    shown = own.rename(columns={"share": "value", "share_low": "low", "share_high": "high"})
    figure, panels = figures.new(columns=len(modes), height=3.6)
    for axes, mode in zip(panels, modes, strict=True):
        figures.dots(
            axes, shown[shown["mode"] == mode], place="group", series="kind", order=_groups(own), series_order=_kinds(own), names=NAMES,
            percent=True,
        )  # fmt: skip
        axes.axhline(50, color="black", lw=0.8, ls="--", label="half of the cases")
        axes.set_ylim(-4, 104)
        axes.set_title(mode)
        axes.set_xlabel("block steered at")
        axes.set_ylabel(f"cases with higher {label} (%)")
    _head(figure, _claimed(own, modes[0], metric, label))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, own


def _claimed(own: Any, mode: str, metric: str, label: str) -> str:
    """The title: what became of the paper's claim, or, in a study without that cell, of the first in the figure's order; never the best."""
    there: Any = own[own["mode"] == mode]
    cells = [(kind, group) for kind in _kinds(there) if kind != "random" for group in _groups(there)]
    kind, group = ("quality", "early") if ("quality", "early") in cells else cells[0]

    def share(of: str) -> Any:
        return there[(there["kind"] == of) & (there["group"] == group)]

    (row,) = share(kind).head(1).to_dict("records")
    told = [f"[{100 * row['share_low']:.0f}, {100 * row['share_high']:.0f}] of cases"]
    told += [f"a random direction in {100 * value:.0f} %" for value in share("random")["share"].head(1)]
    if (mode, kind, group, metric) == ("zero-shot", "quality", "early", "macro_f1"):
        told.append(f"the paper reports {PAPER_SHARE}")
    return f"{mode}: {kind} vectors at {group} blocks raise {label} in {100 * row['share']:.0f} %\n" + "; ".join(told)


def strengths(
    table: pd.DataFrame, metrics: Sequence[tuple[str, str]], mode: str, unit: str
) -> tuple[Any, pd.DataFrame]:
    """Mean gain over unsteered against strength: one row of panels per metric, one column per layer group."""
    own: Any = table[(table["mode"] == mode) & table["metric"].isin([m for m, _ in metrics])]
    groups, kinds = _groups(own), _kinds(own)
    figure, panels = figures.new(columns=len(groups), rows=len(metrics), height=2.3 * len(metrics) + 1.0)
    for r, (metric, label) in enumerate(metrics):
        part = own[own["metric"] == metric]
        bounds = 100 * part[["low", "value", "high"]]  # one pair of language and task alone has no interval
        low, high = np.nanmin([0.0, *bounds.min()]), np.nanmax([0.0, *bounds.max()])
        room = max(0.05 * (high - low), 0.5)
        for c, group in enumerate(groups):
            axes = panels[r * len(groups) + c]
            shown = part[part["group"] == group].copy()
            shown[["value", "low", "high"]] *= 100
            figures.lines(axes, shown, x="strength", series="kind", series_order=kinds, names=NAMES)
            axes.axhline(0, color="black", lw=0.8)
            axes.set_ylim(low - room, high + room)
            if r == 0:
                axes.set_title(f"{group} block")
            if c == 0:
                axes.set_ylabel(f"gain in {label} (points)", fontsize=8.5)
    panels[-1 - len(groups) // 2].set_xlabel(f"strength ({unit})")
    f1 = (
        own[(own["metric"] == metrics[0][0]) & (own["kind"] != "random")]
        .sort_values("value", ascending=False, kind="stable")
        .iloc[0]
    )
    above = "above zero" if f1["low"] > 0 else "not above zero with 95 % confidence"
    _head(
        figure,
        f"{mode}: the largest mean gain in {metrics[0][1]} is {100 * f1['value']:+.1f} points\n"
        f"({f1['kind']}, {f1['group']} block, strength {f1['strength']:g}), {above}",
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure, own


def trade(
    cells: pd.DataFrame, mode: str, diversity: str = "distinct_2", label: str = "distinct-2"
) -> tuple[Any, pd.DataFrame]:
    """Gain in macro-F1 against gain in diversity, one mark per case and arm, with Spearman's rank correlation."""
    keys = ["model", "language", "task", "mode", "kind", "group", "strength"]
    both = gains(cells, "macro_f1").merge(gains(cells, diversity), on=keys, suffixes=("_f1", "_diversity"))
    own: Any = both[both["mode"] == mode].copy()
    places = list(zip(own["language"], own["task"], strict=True))
    found = correlation(own["gain_diversity"].to_numpy(float), own["gain_f1"].to_numpy(float), places)
    own[["gain_f1", "gain_diversity"]] *= 100
    figure, (axes,) = figures.new(height=4.2)
    figures.scatter(axes, own, x="gain_diversity", y="gain_f1", series="kind", series_order=_kinds(own), names=NAMES)
    axes.set_xlabel(f"gain in {label} (points)")
    axes.set_ylabel("gain in macro-F1 (points)")
    axes.legend(loc="best")
    linked = "go together" if found.low > 0 else "trade off" if found.high < 0 else "are not linked"
    _head(figure, f"{mode}: gains in diversity and in macro-F1 {linked}\n(Spearman {found})")
    return figure, own


def cosine(cells: pd.DataFrame, cosines: pd.DataFrame, mode: str) -> tuple[Any, pd.DataFrame]:
    """Cosine between language and quality vector against the mean gain in macro-F1 of steering with both, or with quality."""
    own: Any = gains(cells, "macro_f1")
    own = own[(own["mode"] == mode) & own["kind"].isin(["quality", "language+quality"])]
    table = own.groupby(["model", "language", "task", "kind", "group"], sort=False)["gain"].mean().reset_index()
    table = table.merge(cosines, on=["model", "language", "group"])
    places = list(zip(table["language"], table["task"], strict=True))
    found = correlation(table["cosine"].to_numpy(float), table["gain"].to_numpy(float), places)
    table["gain"] *= 100
    figure, (axes,) = figures.new(height=4.0)
    figures.scatter(axes, table, x="cosine", y="gain", series="kind", series_order=_kinds(table), names=NAMES)
    axes.set_xlabel("cosine of language and quality vector")
    axes.set_ylabel("gain in macro-F1 (points)")
    axes.legend(loc="best")
    per = cosines[["language", "group", "cosine"]].drop_duplicates()
    _head(
        figure,
        f"Language and quality vectors are opposed in {100 * (per['cosine'] < 0).mean():.0f} % of places\n"
        f"(rank correlation of cosine and gain {found})",
    )
    return figure, table


def worth(curves: pd.DataFrame, table: pd.DataFrame) -> tuple[Any, pd.DataFrame]:
    """Macro-F1 against human texts per label, with and without the synthetic ones; the title says what these are worth."""
    figure, (axes,) = figures.new(height=3.8)
    shown = curves.copy()
    shown[["value", "low", "high"]] *= 100
    order = [str(s) for s in shown["series"].unique()]
    figures.lines(axes, shown, x="per_label", series="series", series_order=order)
    axes.set_xscale("symlog", linthresh=1)
    ticks = sorted({int(k) for k in shown["per_label"]})
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set_xlabel("human training texts per label")
    axes.set_ylabel("macro-F1 on human test texts (%)")
    axes.legend(loc="lower right")
    own: Any = table[table["measure"] == "worth"]
    median = own.groupby("what")["value"].median()
    known = ", ".join(
        f"{what} {median[what]:.0f}"
        for what in ("unsteered", "steered")
        if what in median and median[what] == median[what]
    )
    _head(
        figure,
        f"Synthetic texts alone are worth so many human texts (median of pairs):\n{known or 'cannot be told'}",
    )
    return figure, shown
