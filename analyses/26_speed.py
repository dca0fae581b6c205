"""What does steering cost, and what do the packages one would take instead cost?

Reads what the benchmarks left in benchmarks/results/ (`make bench`, `python -m benchmarks.peers`): every ratio was measured within one run
against the plain thing. Draws the comparison with peers and how cost grows, and writes docs/results/speed.md.

    python -m analyses.26_speed            # a second
    python -m analyses.26_speed --redraw   # from figures/*.csv
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from analyses._harness import ROOT, NotThere, Result, main
from benchmarks.peers.__main__ import table_of
from benchmarks.peers.picture import draw as draw_peers
from steerlab import figures

RATIOS, PEERS, GROWTH = "speed", "speed_peers", "speed_growth"
OURS, PLAIN = "steerlab", "transformers alone"
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Config:
    """Nothing to set: everything was measured before."""


def reports() -> dict[str, dict[str, Any]]:
    """The result files by benchmark. Raises `NotThere` where one that is drawn is missing."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    for name in ("peers", "growth"):
        if name not in found:
            raise NotThere(f"{RESULTS / name}.json is not there yet: run python -m benchmarks.{name} first.")
    return found


def compute(config: Config) -> Result:
    """All ratios, and the comparison with peers."""
    found = reports()
    ratios = pd.DataFrame(
        [{"benchmark": name, **row} for name, one in found.items() if name != "peers" for row in one["rows"]]
    )
    facts = {
        "machine": {name: one["machine"] for name, one in found.items()},
        "peers": found["peers"]["facts"],
    }
    data = {name: sha256((RESULTS / f"{name}.json").read_bytes()).hexdigest() for name in found}
    tables = {RATIOS: ratios, PEERS: table_of(found["peers"]["rows"]), GROWTH: growth_of(found["growth"]["rows"])}
    return Result(tables, facts, data=data)


def growth_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Seconds by axis, size and who worked; the interval of ours is the range of the ratio, times what the plain thing took."""
    found: list[dict[str, Any]] = []
    for row in rows:
        axis, n = row["case"].rsplit(": ", 1)
        base = row["base_value"]
        ours = {"value": row["value"], "low": row["low"] * base, "high": row["high"] * base}
        found.append({"axis": axis, "n": int(n), "who": OURS, **ours, "over_plain": row["ratio"]})
        found.append(
            {"axis": axis, "n": int(n), "who": PLAIN, "value": base, "low": base, "high": base, "over_plain": 1.0}
        )
    return pd.DataFrame(found)


def draw(result: Result) -> dict[str, Figure]:
    """The comparison with peers, and how cost grows."""
    return {PEERS: draw_peers(result.tables[PEERS]), GROWTH: draw_growth(result.tables[GROWTH])}


def draw_growth(table: pd.DataFrame) -> Figure:
    """Seconds against size, axis by axis, both logarithmic; the ratio stands over each point."""
    axes_of = list(dict.fromkeys(table["axis"]))
    figure, panels = figures.new(3, 2, 5.2)
    for panel, axis in zip(panels, axes_of, strict=True):
        own: Any = table[table["axis"] == axis]
        figures.lines(panel, own, x="n", series="who", series_order=(OURS, PLAIN))
        for row in own[own["who"] == OURS].to_dict("records"):
            above = (row["n"], max(row["high"], row["value"] / row["over_plain"]))
            panel.annotate(
                f"{row['over_plain']:.2f}", above, (0, 5), textcoords="offset points", ha="center", fontsize=8
            )
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.xaxis.set_major_locator(FixedLocator(sorted(set(own["n"]))))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.margins(x=0.15)
        low, high = panel.get_ylim()
        panel.set_ylim(low / 1.3, high * 1.6)  # room for the ratios
        panel.set_xlabel(axis)
    for panel in panels[::3]:
        panel.set_ylabel("seconds")
    panels[0].legend(loc="lower right")
    figure.suptitle(growth_finding(table), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def growth_finding(table: pd.DataFrame) -> str:
    """The title: how far the ratio moves over all sizes."""
    ours = table[table["who"] == OURS]["over_plain"]
    return (
        f"Whatever grows, steerlab takes {ours.min():.2f} to {ours.max():.2f} times as long as transformers alone\n"
        "(the ratio stands over each point; band: range over repetitions)"
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
        "make bench                     # everything but the peers",
        "python -m benchmarks.peers     # these",
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
        "## Beside the packages you would take instead",
        "",
        "How it is measured, and what each package can do: [Beyond one process](../scale.md#beside-the-packages-you-would-take-instead).",
        "",
        f"![What every package costs over plain transformers](../../figures/{PEERS}.png)",
        "",
        *peer_lines(result.tables[PEERS]),
        "",
        "Off from hooks by hand: how far captured means are away, relative, and how many rows have other tokens.",
        "",
        *(f"- {name}: {_told(value)}" for name, value in result.facts["peers"].items()),
        "",
        "## How cost grows",
        "",
        "Captured: texts of 32 tokens through a forward pass. Written: 32 tokens each to 16 prompts of 32, unless rows grow; a sweep "
        "writes to one prompt. Beside it transformers alone, on as much text.",
        "",
        f"![Seconds by size, axis by axis](../../figures/{GROWTH}.png)",
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
    return "; ".join(f"{k}: {v:.2g}" if isinstance(v, float) else f"{k}: {v}" for k, v in value.items())


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw, pages, keep=False)
