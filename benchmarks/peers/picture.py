"""The figure of a comparison with peers: every package's cost over plain transformers, workload by workload."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from benchmarks.peers.worker import OURS
from benchmarks.peers.workloads import BATCH, LOOP
from steerlab import figures


def draw(table: Any) -> Figure:
    """Ratios to plain transformers with their range over repetitions, on a logarithmic scale; memory in a panel of its own."""
    plain = table[table["base"] == "plain transformers"].drop(columns="value").rename(columns={"ratio": "value"})
    memory = plain["workload"].str.startswith("memory")
    peers = list(dict.fromkeys(plain["peer"]))
    times, held = plain[~memory], plain[memory]
    figure, panels = figures.new(1, 2 if len(held) else 1, 7.2 if len(held) else 4.6)
    for panel, part, what in zip(panels, (times, held), ("time", "peak memory"), strict=False):
        order = list(dict.fromkeys(part["workload"]))
        figures.dots(panel, part, place="workload", series="peer", order=order, series_order=peers)
        panel.set_xticks(range(len(order)), [_wrap(name) for name in order], fontsize=8)
        panel.axhline(1, color="black", lw=0.8)
        if what == "time":
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(ScalarFormatter())
            panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_ylabel(f"{what} / plain transformers")
    panels[0].set_title(finding(table))
    panels[0].legend(ncols=4, loc="upper left", fontsize=7.5)
    if len(held):
        panels[1].set_title("Peak memory of a fresh process")
    return figure


def finding(table: Any) -> str:
    """The title: what a sweep and rows of their own cost a package that loops, and what they cost here."""
    plain = table[table["base"] == "plain transformers"]
    looped = plain[plain["workload"].str.endswith(LOOP)]["ratio"]
    ours = plain[(plain["peer"] == OURS) & plain["workload"].str.endswith(BATCH)]["ratio"]
    if looped.empty or ours.empty:
        return "Cost over plain transformers"
    return (
        f"Many settings at once cost {ours.min():.2f} to {ours.max():.2f} times plain text in steerlab,\n"
        f"{looped.min():.1f} to {looped.max():.1f} where each is a run of its own"
    )


def _wrap(name: str) -> str:
    return name.replace("memory, ", "").replace("a vector per row", "a vector\nper row").replace(", ", "\n")
