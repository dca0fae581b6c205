"""What does steering cost, how does the cost grow, and what do the packages one would take instead cost?

Reads what the benchmarks left in benchmarks/results/ (`make bench`, `python -m benchmarks.peers`): every ratio was measured within one run
against the plain thing. Draws the growth and the comparison with peers, and writes docs/results/speed.md.

    python -m analyses.26_speed            # at once
    python -m analyses.26_speed --redraw   # from figures/*.csv
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analyses._harness import ROOT, NotThere, Result, main
from benchmarks.growth import SECONDS
from benchmarks.peers.__main__ import table_of
from benchmarks.peers.picture import draw as draw_peers
from steerlab import figures

RATIOS, GROWTH, PEERS = "speed", "speed_growth", "speed_peers"
RESULTS = ROOT / "benchmarks" / "results"
SIDES = {"ours": "steerlab", "plain": "transformers alone, same size"}


@dataclass(frozen=True)
class Config:
    """Nothing to set: everything was measured before."""


def reports() -> dict[str, dict[str, Any]]:
    """The result files by benchmark. Raises `NotThere` where one that is drawn is missing."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    for name, command in (("growth", "benchmarks.growth"), ("peers", "benchmarks.peers")):
        if name not in found:
            raise NotThere(f"{RESULTS / name}.json is not there yet: run python -m {command} first.")
    return found


def compute(config: Config) -> Result:
    """All ratios; seconds along every axis of growth with their range; the comparison with peers."""
    found = reports()
    ratios = pd.DataFrame(
        [
            {"benchmark": name, **row}
            for name, one in found.items()
            if name not in ("growth", "peers")
            for row in one["rows"]
        ]
    )
    facts = {
        "machine": {name: one["machine"] for name, one in found.items()},
        "peers": found["peers"]["facts"],
        "config": {name: found[name]["config"] for name in ("growth", "peers")},
    }
    tables = {RATIOS: ratios, GROWTH: pd.DataFrame(growth(found["growth"])), PEERS: table_of(found["peers"]["rows"])}
    return Result(tables, facts)


def growth(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row per axis, size and side: the median second and its range, and the ratio of the two sides with its own range."""
    for row in report["rows"]:
        axis, n = row["case"].rsplit(": ", 1)
        for side, seconds in zip(SIDES, report["facts"][SECONDS][row["case"]], strict=True):
            yield {
                "axis": axis, "n": int(n), "side": side, "value": float(np.median(seconds)), "low": min(seconds), "high": max(seconds),
                "ratio": row["ratio"], "ratio_low": row["low"], "ratio_high": row["high"],
            }  # fmt: skip


def draw(result: Result) -> dict[str, Figure]:
    """Growth, a panel per axis; and the peers."""
    return {GROWTH: draw_growth(result.tables[GROWTH]), PEERS: draw_peers(result.tables[PEERS])}


def draw_growth(table: Any) -> Figure:
    """Seconds over size on logarithmic axes, ours and the plain thing's, with the range over repetitions."""
    axes_of = list(dict.fromkeys(table["axis"]))
    figure, panels = figures.new(columns=3, rows=2, height=4.6)
    number = FuncFormatter(lambda x, _: f"{x:g}")
    for panel, axis in zip(panels, axes_of, strict=True):
        own = table[table["axis"] == axis]
        figures.lines(panel, own, x="n", series="side", series_order=list(SIDES), names=SIDES)
        sizes = sorted(set(own["n"]))
        panel.set(xscale="log", yscale="log", ylim=(own["low"].min() / 2, own["high"].max() * 2))
        panel.set_xticks(sizes, [str(n) for n in sizes])
        panel.xaxis.minorticks_off()
        panel.yaxis.set_major_formatter(number)
        panel.yaxis.set_minor_formatter(FuncFormatter(lambda x, _: ""))
        panel.set_xlabel(axis)
        last = own[own["n"] == max(sizes)].iloc[0]
        panel.text(
            0.97, 0.05, f"×{last['ratio']:.2f} at {max(sizes)}", transform=panel.transAxes, ha="right", fontsize=9
        )
    for panel in panels[::3]:
        panel.set_ylabel("seconds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(finding(table), x=0.01, ha="left", fontweight="bold", fontsize=10.5)
    return figure


def finding(table: Any) -> str:
    """The title: what the largest size costs over the plain thing, and where fewer seconds are needed than it."""
    largest = table[table["n"] == table.groupby("axis")["n"].transform("max")].drop_duplicates("axis").set_index("axis")
    ratio = largest["ratio"]
    sweep = ratio["strengths of a sweep"]
    rest = ratio.drop("strengths of a sweep")
    return (
        f"At every largest size steerlab takes {rest.min():.2f} to {rest.max():.2f} of plain transformers' time, "
        f"a sweep of one prompt {sweep:.2f}"
    )


def pages(result: Result) -> dict[str, str]:
    """docs/results/speed.md."""
    ratios, machine = result.tables[RATIOS], result.facts["machine"]["peers"]
    parts = [
        "# Speed and memory",
        "",
        "Written by `python -m analyses.26_speed` from `benchmarks/results/`. A ratio is the median over repetitions of two things run "
        "one after the other in one process, so that what else the machine does meets both; the range over repetitions stands beside it. "
        f"Measured on {machine['cores']} cores ({machine['vector_instructions']}), Python {machine['python']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}, nnsight {machine['nnsight']}, random weights unless a model is named.",
        "",
        "```bash",
        "make bench                     # everything but the peers, about an hour and a half",
        "python -m analyses.26_speed    # this page",
        "```",
        "",
        "## Promises",
        "",
        *table_lines(ratios[ratios["target"].notna()]),
        "",
        "## Also measured",
        "",
        *table_lines(ratios[ratios["target"].isna()]),
        "",
        "## How cost grows",
        "",
        f"![{finding(result.tables[GROWTH])}](../../figures/{GROWTH}.png)",
        "",
        *growth_lines(result.tables[GROWTH]),
        "",
        "## Beside the packages you would take instead",
        "",
        "How it is measured, and what each package can do: [Beyond one process](../scale.md#beside-the-packages-you-would-take-instead).",
        "",
        f"![What every package costs over plain transformers](../../figures/{PEERS}.png)",
        "",
        *peer_lines(result.tables[PEERS]),
        "",
        *(f"- {name}: {_told(value)}" for name, value in result.facts["peers"].items()),
        "",
    ]
    return {"docs/results/speed.md": "\n".join(parts)}


def table_lines(rows: Any) -> list[str]:
    """Ratios as a table in markdown."""
    lines = ["| benchmark | case | over | ratio | range | promised | kept |", "|---|---|---|---|---|---|---|"]
    for row in rows.to_dict("records"):
        promised = "" if pd.isna(row["target"]) else f"{row['sense']} {row['target']:.3g}"
        kept = {"True": "yes", "False": "**no**"}.get(str(row["met"]), "")
        between = f"{row['low']:.2f} to {row['high']:.2f}"
        cells = (row["benchmark"], row["case"], row["base"], f"{row['ratio']:.2f}", between, promised, kept)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def growth_lines(table: Any) -> list[str]:
    """Ratio to the plain thing at every size, and how many times the seconds of the smallest size the largest takes."""
    lines = [
        "| what grows | size: ratio to transformers alone of the same size | the largest over the smallest |",
        "|---|---|---|",
    ]
    ours = table[table["side"] == "ours"]
    for axis in dict.fromkeys(ours["axis"]):
        own = ours[ours["axis"] == axis].sort_values("n").to_dict("records")
        sizes = ", ".join(f"{row['n']}: {row['ratio']:.2f}" for row in own)
        first, last = own[0], own[-1]
        more = f"{last['n'] / first['n']:g} times as many, {last['value'] / first['value']:.2f} times the seconds"
        lines.append(f"| {axis} | {sizes} | {more} |")
    return lines


def peer_lines(table: Any) -> list[str]:
    """A row per workload, a column per package: its ratio to plain transformers."""
    plain = table[table["base"] == "plain transformers"]
    peers, workloads = list(dict.fromkeys(plain["peer"])), list(dict.fromkeys(plain["workload"]))
    found = {(row["peer"], row["workload"]): row["ratio"] for row in plain.to_dict("records")}
    lines = ["| workload | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for workload in workloads:
        cells = (f"{found[peer, workload]:.2f}" if (peer, workload) in found else "" for peer in peers)
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    return lines


def _told(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw, pages, keep=False)
