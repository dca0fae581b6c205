"""What a rule of choice is worth: its follow rate on base queries that had no say in the choice, by folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from steerlab.evaluation.stats import Estimate, bootstrap, paired_bootstrap
from steerlab.following.trials import Cell, TrialTable, group_folds

Rule = Callable[[Mapping[str, TrialTable]], Mapping[str, Cell | None]]


@dataclass(frozen=True, eq=False)
class CrossFit:
    """A rule's held-out results. `items`: one row per prompt: instruction, prompt, group, fold, layer (-1 unsteered), strength, chosen
    (followed at the cell chosen without the prompt's base query), unsteered, promised (followed at the cell, as the choosing folds had
    it), degenerate.
    """

    items: pd.DataFrame

    def _columns(self, instruction: str | None) -> Any:
        return self.items if instruction is None else self.items[self.items["instruction"] == instruction]

    def rate(self, instruction: str | None = None, seed: int = 0) -> Estimate:
        """Follow rate under the rule on held-out prompts, bootstrap interval over base queries."""
        own = self._columns(instruction)
        return bootstrap(own["chosen"].to_numpy(float), groups=own["group"].tolist(), seed=seed)

    def gain(self, instruction: str | None = None, seed: int = 0) -> Estimate:
        """Held-out follow rate under the rule minus unsteered."""
        own = self._columns(instruction)
        a, b = own["chosen"].to_numpy(float), own["unsteered"].to_numpy(float)
        return paired_bootstrap(a, b, own["group"].tolist(), seed=seed)

    def optimism(self) -> float:
        """How much higher the rate was on the prompts the rule chose by than on the held-out ones."""
        items: Any = self.items
        return float(items["promised"].mean() - items["chosen"].mean())

    def table(self, seed: int = 0) -> pd.DataFrame:
        """instruction (and "all"), n, rate, low, high, unsteered, gain, gain_low, gain_high, degenerate, cells (chosen, by fold)."""
        rows = []
        for name in (None, *dict.fromkeys(self.items["instruction"])):
            own = self._columns(name)
            rate, gain = self.rate(name, seed), self.gain(name, seed)
            cells = own.drop_duplicates("fold").sort_values("fold")["layer"] if name else []
            rows.append((name or "all", len(own), rate.value, rate.low, rate.high, float(own["unsteered"].mean())))
            rows[-1] += (gain.value, gain.low, gain.high, float(own["degenerate"].mean()))
            rows[-1] += (" ".join("none" if layer < 0 else str(layer) for layer in cells),)
        columns = [
            "instruction",
            "n",
            "rate",
            "low",
            "high",
            "unsteered",
            "gain",
            "gain_low",
            "gain_high",
            "degenerate",
        ]
        return pd.DataFrame(rows, columns=[*columns, "layers"])

    def _repr_html_(self) -> str:
        return self.table().to_html(index=False, float_format=lambda x: f"{x:.2f}", border=0)


def cross_fit(
    tables: Mapping[str, TrialTable], rule: Rule, k: int = 5, seed: int = 0, threshold: float = 2.5
) -> CrossFit:
    """Choose by the rule on all folds but one, look up that fold's prompts at what was chosen, and so for every fold.

    Folds divide base queries, the same way for all instructions: a base query that chooses for one is held out for none. Two rules
    with the same `k` and `seed` have the same folds, the same trials and so the same budget. Raises `SteerlabError` as `group_folds`.
    """
    fold = group_folds(tables, k, seed)
    rows = []
    for number in range(k):
        inside = {name: [i for i, g in enumerate(own.groups) if fold[g] != number] for name, own in tables.items()}
        training = {name: own.rows(inside[name]) for name, own in tables.items()}
        chosen = rule(training)
        for name, own in tables.items():
            cell = chosen[name]
            at = own.cells.index(cell)
            broken = own.degenerate(threshold)[:, at]
            promised = float(training[name].followed[:, at].mean()) if len(training[name]) else np.nan
            for i in sorted(set(range(len(own))) - set(inside[name])):
                where = (-1, np.nan) if cell is None else (cell.layer, cell.strength)
                rows.append((name, own.prompts[i], own.groups[i], number, *where))
                rows[-1] += (bool(own.followed[i, at]), bool(own.followed[i, 0]), promised, bool(broken[i]))
    columns = ["instruction", "prompt", "group", "fold", "layer", "strength", "chosen", "unsteered", "promised"]
    return CrossFit(pd.DataFrame(rows, columns=[*columns, "degenerate"]))


def compare_rules(
    tables: Mapping[str, TrialTable], rules: Mapping[str, Rule], k: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Held-out follow rates of several rules on the same folds: rule, rate, low, high, gain over the first rule with its interval."""
    fits = {name: cross_fit(tables, rule, k, seed).items for name, rule in rules.items()}
    rows = []
    first = next(iter(fits.values()))
    for name, items in fits.items():
        own, groups = items["chosen"].to_numpy(float), items["group"].tolist()
        rate = bootstrap(own, groups=groups, seed=seed)
        gap = paired_bootstrap(own, first["chosen"].to_numpy(float), groups, seed=seed)
        rows.append((name, rate.value, rate.low, rate.high, gap.value, gap.low, gap.high))
    return pd.DataFrame(
        rows, columns=["rule", "rate", "low", "high", "over_first", "over_first_low", "over_first_high"]
    )
