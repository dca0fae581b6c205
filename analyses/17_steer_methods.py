"""Contrastive experts and negative prompts beside baselines that are what they say: who writes like people, and who copies?

An expert per task (a LoRA adapter of polyglot-mini, `steerlab expert train --task TASK --steps 80 --out experts/TASK`)
writes as many texts by every method of `steerlab.baselines`, with one budget of new tokens; each set is held against
held-out real texts (valid and test splits). The row "real text" is held-out real text against itself. Frontier: diversity
against the surprise of the base model. Intervals over texts. Comments are offensive (their expert is trained with
--offensive) and take part only with --allow-offensive; no text is shown.

    python -m analyses.17_steer_methods --data DIR   # about 5 minutes a task on one quiet core; continues where it was stopped
    python -m analyses.17_steer_methods --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses._experts import trained
from analyses._harness import ROOT, Result, main
from steerlab import data, figures
from steerlab.baselines import BASELINES
from steerlab.comparison import REAL, Plan, Subject, compare, subject

NAME, FRONTIER = "steer_methods", "steer_frontier"
OFFENSIVE = "comments"
AXES = {"surprise": "surprise_base", "diversity": "diversity_2_4_ratio"}
SHORT = {
    REAL: "real text",
    "greedy": "greedy",
    "sampling": "sampling",
    "temperature 0.5 (the paper's 'greedy')": "temperature 0.5",
    "top-k 10, temperature 0.85 (the paper's 'top_k')": "top-k, temp. 0.85",
    "nucleus 0.92 (the paper's 'nucleus')": "nucleus 0.92",
    "beam search, 3 beams": "beam search",
    "beam sampling, 3 beams, temperature 0.94 (the paper's 'beam')": "beam sampling",
    "contrastive search, k 10, penalty 0.35": "contrastive search",
    "top-k 10 (the paper's 'contrastive')": "top-k 10",
    "guidance only, gamma 0.2": "guidance only",
    "negatives only, eta 0.6": "negatives only",
    "STEER, gamma 0.2, eta 0.6": "STEER",
    "balanced STEER, gamma 0.2, eta 0.6": "balanced STEER",
}
MEASURES = {
    "diversity_2_4_ratio": "diversity / real text's",
    "mauve_smoothed": "MAUVE, smoothed",
    "auroc_logistic_letters": "adversary's AUROC, letters",
    "auroc_logistic_meaning": "adversary's AUROC, embeddings",
    "copied_nearly": "copied from training texts (share)",
    "surprise_base": "surprise of the base (nats a token)",
}


@dataclass(frozen=True)
class Config:
    """Tasks with an expert in `experts`; `texts` per method, at most `max_new_tokens` new tokens each."""

    tasks: tuple[str, ...] = ("hypotheses", "commonsense")
    allow_offensive: bool = False
    experts: str = "experts"
    methods: tuple[str, ...] = tuple(BASELINES)
    texts: int = 48
    max_new_tokens: int = 60
    seed: int = 0


def compute(config: Config) -> Result:
    """The table of `compare` over all tasks, and the frontier in it."""
    tables, hashes, revision = [], {}, ""
    for name in (*config.tasks, *((OFFENSIVE,) if config.allow_offensive else ())):
        model, what = (
            trained(config.experts, name, asked_of(name)),
            subject(name, allow_offensive=config.allow_offensive),
        )
        plan = Plan(config.texts, config.seed, max_new_tokens=config.max_new_tokens)
        chosen = {method: BASELINES[method] for method in config.methods}
        tables.append(compare(model, what, chosen, plan, folder=ROOT / "runs" / NAME).table)
        hashes |= _hashes(what)
        revision = model.revision
    table = pd.concat(tables, ignore_index=True)
    return Result({NAME: table, FRONTIER: frontier(table)}, {"texts": config.texts}, revision, hashes)


def frontier(table: Any) -> pd.DataFrame:
    """Surprise and diversity of every method, and whether it is on the frontier: no other is both more diverse and less surprising."""
    parts = []
    for task, own in table.groupby("task", sort=False):
        sides = {
            side: own[own["metric"] == metric].set_index("method")[["value", "low", "high"]].add_prefix(f"{side}_")
            for side, metric in AXES.items()
        }
        both: Any = sides["surprise"].join(sides["diversity"], how="outer")
        rivals = both.drop(REAL, errors="ignore")
        best = _undominated(rivals["surprise_value"], rivals["diversity_value"])
        parts.append(both.assign(on_frontier=both.index.isin(best)).reset_index().assign(task=task))
    return pd.concat(parts, ignore_index=True)


def asked_of(name: str) -> str:
    """How the expert of a task is asked for."""
    return f"--task {name}" + (" --offensive" if name == OFFENSIVE else "")


def _hashes(what: Subject) -> dict[str, str]:
    return {f"{what.name} {side}": data.texts_sha256(list(getattr(what, side))) for side in ("train", "real")}


def draw(result: Result) -> Mapping[str, Figure]:
    """Methods by measures with intervals, and the frontier of diversity and surprise, task by task."""
    table: Any = result.tables[NAME]
    methods = [name for name in SHORT if name in set(table["method"])]
    tasks = list(dict.fromkeys(table["task"]))
    return {NAME: _methods(table, methods, tasks), FRONTIER: _frontier(result.tables[FRONTIER], methods, tasks)}


def _methods(table: Any, methods: list[str], tasks: list[str]) -> Figure:
    figure, panels = figures.new(columns=2, rows=3, height=10.0)
    for place, (axes, (measure, label)) in enumerate(zip(panels, MEASURES.items(), strict=True)):
        for k, task in enumerate(tasks):
            own = table[(table["metric"] == measure) & (table["task"] == task)].set_index("method").reindex(methods)
            y = np.arange(len(methods)) + 0.5 * (k - (len(tasks) - 1) / 2) / max(len(tasks), 1)
            _bars(axes, own["value"].to_numpy(float), y, x=own, colour=k, label=task)
        axes.set_yticks(range(len(methods)), [SHORT[name] for name in methods] if place % 2 == 0 else [])
        axes.set(ylim=(len(methods) - 0.4, -0.6), xlabel=label)
        axes.axhspan(-0.5, 0.5, color="grey", alpha=0.15, lw=0)
        axes.set_title(_nearest(table, measure, methods))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=max(len(tasks), 1))
    return figure


def _nearest(table: Any, measure: str, methods: list[str]) -> str:
    """Which method comes nearest to real text, on average over tasks."""
    own = table[table["metric"] == measure].pivot_table("value", "method", "task")
    if REAL not in own.index or len(own) < 2:
        return "no real text to compare with"
    away = (own.drop(REAL) - own.loc[REAL]).abs().mean(axis=1)
    if away.max() == away.min():
        return f"All as real text ({own.loc[REAL].mean():.2f})"
    best = away.idxmin()
    told = f"Nearest to real text ({own.loc[REAL].mean():.2f}): {SHORT[best]} ({own.loc[best].mean():.2f})"
    return textwrap.fill(told, 32)


def _frontier(table: Any, methods: list[str], tasks: list[str]) -> Figure:
    """Diversity against surprise; a method is on the frontier where no other is both more diverse and less surprising."""
    figure, panels = figures.new(columns=len(tasks), height=4.6)
    for axes, task in zip(panels, tasks, strict=True):
        own = table[table["task"] == task].set_index("method").reindex(methods)
        x, y = (own.filter(like=side).rename(columns=lambda name: name.split("_")[1]) for side in AXES)
        for i, name in enumerate(methods):
            _bars(axes, x["value"].iloc[[i]].to_numpy(float), y["value"].iloc[[i]].to_numpy(float),
                  x=x.iloc[[i]], y_bounds=y.iloc[[i]], colour=_kind(name), label=f"{i} {SHORT[name]}")  # fmt: skip
            axes.annotate(
                str(i), (x["value"].iloc[i], y["value"].iloc[i]), xytext=(4, 3), textcoords="offset points", fontsize=8
            )
        best = [name for name in methods if own["on_frontier"][name]]
        guided = sum(_kind(name) == 2 for name in best)
        told = f"{task}: {len(best)} of {len(methods) - 1} on the\nfrontier, {guided} of them guided"
        axes.set_title(told, fontsize=9)
        axes.set_xlabel("surprise of the base\n(nats a token)")
    panels[0].set_ylabel("diversity / real text's of the same length")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _undominated(x: Any, y: Any) -> list[str]:
    """The methods that no other beats in both, less surprise and more diversity; a missing value is no candidate."""
    known = x.notna() & y.notna()
    return [name for name in x.index[known] if not ((x[known] < x[name]) & (y[known] > y[name])).any()]


def _kind(name: str) -> int:
    """0 real text, 1 one distribution, 2 several (guided), 3 a search."""
    if name == REAL:
        return 6
    how = BASELINES[name]
    return 2 if how.guide is not None else 3 if how.deterministic or how.beam is not None else 1


def _bars(axes: Any, value: Any, place: Any, *, x: Any, colour: int, label: str, y_bounds: Any = None) -> None:
    """Points with their intervals to the sides, and with `y_bounds` upwards."""

    def reach(own: Any, middle: Any) -> Any:
        low, high = own["low"].to_numpy(float), own["high"].to_numpy(float)
        return np.nan_to_num(np.vstack([np.clip(middle - low, 0, None), np.clip(high - middle, 0, None)]))

    axes.errorbar(
        value, place, xerr=reach(x, value), yerr=None if y_bounds is None else reach(y_bounds, place), ls="",
        marker=figures.MARKERS[colour % 8], color=figures.COLOURS[colour % 8], ms=4.5, lw=1.1, capsize=1.5, label=label,
    )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
