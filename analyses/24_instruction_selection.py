"""Which rule chooses where to steer? Ours against the paper's, on the same trials and budgets, judged on base queries with no say.

The trials are those of analyses/22_instructions.py: every instruction at every layer and strength, for prompts with and without the
instruction. A budget of subjects is drawn, each rule chooses on their prompts alone, and the subjects left over say what the choice is
worth; ten draws, the same for all rules. "8, one a language" is the paper's budget. Rules: never steer; the paper's on the paper's
candidates (every second layer from a fifth of the depth on, strength 1) and on all; ours on all. "in hindsight" is the best cell of
the very subjects that judge: no rule can be better. Intervals over subjects.

    python -m analyses.24_instruction_selection              # a minute or two; reads figures/instructions_trials.csv, needs no model
    python -m analyses.24_instruction_selection --redraw
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses import _instruct
from analyses._harness import Result, committed, main
from steerlab import figures
from steerlab.evaluation.stats import bootstrap, paired_bootstrap
from steerlab.following import Cell, TrialTable, candidate_layers, paper_rule, shrunken_rule
from steerlab.following.crossfit import Rule

NAME, CHOSEN = "instruction_selection", "instruction_selection_chosen"
LAYERS = 6  # of polyglot-mini-it
BUDGETS: Mapping[str, tuple[int, int]] = {"4": (4, 4), "8, one a language": (8, 1), "8": (8, 8)}
NEVER, PAPER, PAPER_ALL, OURS, BEST = (
    "never steer", "paper's rule, paper's cells", "paper's rule, all cells", "our rule, all cells", "in hindsight",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Draws of each budget."""

    draws: int = 10
    seed: int = 0


def _some_cells(table: TrialTable, keep: list[int]) -> TrialTable:
    """The table with these of its cells."""
    cells = tuple(table.cells[i] for i in keep)
    return TrialTable(
        table.instruction, table.prompts, table.groups, cells, table.followed[:, keep], table.perplexity[:, keep]
    )


def paper_cells(tables: Mapping[str, TrialTable]) -> dict[str, Cell | None]:
    """The paper's rule on the paper's candidates."""
    there = [None, *(Cell(layer) for layer in candidate_layers(LAYERS))]
    fewer = {n: _some_cells(t, [i for i, cell in enumerate(t.cells) if cell in there]) for n, t in tables.items()}
    return paper_rule(fewer)


RULES: Mapping[str, Rule] = {
    NEVER: lambda tables: dict.fromkeys(tables),
    PAPER: paper_cells,
    PAPER_ALL: paper_rule,
    OURS: shrunken_rule,
}


def judged(tables: Mapping[str, TrialTable], budget: tuple[int, int], config: Config) -> pd.DataFrame:
    """One row per draw, instruction, rule and judging subject: followed, and the cell."""
    groups = sorted({group for own in tables.values() for group in own.groups})
    rows = []
    for draw in range(config.draws):
        order = np.random.default_rng([config.seed, draw]).permutation(len(groups))
        chosen = [groups[i] for i in order[: budget[0]]]
        training, testing = {}, {}
        for name, own in tables.items():
            few = set(chosen[: budget[1]] if _instruct.kind(name) == "language" else chosen)
            training[name] = own.rows([i for i, g in enumerate(own.groups) if g in few])
            testing[name] = own.rows([i for i, g in enumerate(own.groups) if g not in chosen])
        for rule, choose in (*RULES.items(), (BEST, None)):
            cells = choose(training) if choose else {}
            for name, own in testing.items():
                at = own.cells.index(cells[name]) if choose else int(own.followed.mean(axis=0).argmax())
                cell = own.cells[at]
                where = (-1, 0.0) if cell is None else (cell.layer, cell.strength)
                rows += [(draw, name, rule, g, float(own.followed[i, at]), *where) for i, g in enumerate(own.groups)]
    return pd.DataFrame(rows, columns=["draw", "instruction", "rule", "group", "followed", "layer", "strength"])


def summary(rows: Any, seed: int) -> pd.DataFrame:
    """Held-out follow rate of every rule, and the difference of ours to each, with intervals over subjects."""
    mean = rows.groupby(["rule", "group"])["followed"].mean().unstack("rule")
    found = []
    for rule in mean.columns:
        own = bootstrap(mean[rule].to_numpy(float), groups=list(mean.index), seed=seed)
        gap = paired_bootstrap(mean[OURS].to_numpy(float), mean[rule].to_numpy(float), list(mean.index), seed=seed)
        first: Any = rows[rows["rule"] == rule].drop_duplicates(["draw", "instruction"])
        steered = float((first["layer"] >= 0).mean())
        found.append((rule, own.value, own.low, own.high, gap.value, gap.low, gap.high, steered))
    columns = ["rule", "value", "low", "high", "ours_over", "ours_over_low", "ours_over_high", "steered"]
    return pd.DataFrame(found, columns=columns)


def compute(config: Config) -> Result:
    """Every budget, for prompts without the instruction (shown 0) and with it (shown 1)."""
    before = committed("instructions")
    trials: Any = before.tables["instructions_trials"]
    tables, picks = [], []
    for shown in (0, 1):
        own = _instruct.tables_from(trials[trials["shown"] == shown])
        for budget, sizes in BUDGETS.items():
            rows = judged(own, sizes, config)
            tables.append(summary(rows, config.seed).assign(budget=budget, shown=shown))
            first: Any = rows.drop_duplicates(["draw", "instruction", "rule"])
            counts: Any = first.groupby(["rule", "layer"]).size().reset_index(name="times")
            picks.append(counts.assign(budget=budget, shown=shown))
    chosen = pd.concat(picks, ignore_index=True)
    return Result({NAME: pd.concat(tables, ignore_index=True), CHOSEN: chosen}, {}, before.model_revision, before.data)


def draw(result: Result) -> Mapping[str, Figure]:
    """Held-out follow rate by rule and budget, prompts without and with the instruction."""
    table: Any = result.tables[NAME]
    figure, panels = figures.new(columns=2, height=4.0)
    for shown, axes in enumerate(panels):
        own = table[table["shown"] == shown]
        figures.dots(
            axes, own, place="budget", series="rule", order=list(BUDGETS), series_order=[*RULES, BEST], percent=True
        )
        axes.set_xticks(range(len(BUDGETS)), [textwrap.fill(name, 8) for name in BUDGETS])
        axes.set(xlabel="subjects to choose by", ylabel="followed, held out (%)" if not shown else "")
        at = own[own["budget"] == "8, one a language"].set_index("rule")
        ours, theirs = (100 * at.at[rule, "value"] for rule in (OURS, PAPER_ALL))
        told = f"{'With' if shown else 'Without'} the instruction, one prompt per language: "
        told += f"ours {ours:.0f}\u00a0%, the paper's {theirs:.0f}\u00a0%"
        axes.set_title(textwrap.fill(told, 32))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return {NAME: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
