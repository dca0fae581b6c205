"""Learning curves: the held-out score of a probe, or of a text baseline, against the number of groups it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from steerlab.errors import SteerlabError
from steerlab.probes.comparison import Scorer, Trial, held_out, summary
from steerlab.probes.result import METRICS, Scores


@dataclass(frozen=True)
class LearningPoint:
    """Scores of probes fitted on `groups` groups (`rows` rows, the mean over folds), the mean over random subsets."""

    groups: int
    rows: float
    measured: Scores


def learning_curve(shared: Trial, score: Scorer, sizes: Sequence[int], *, repeats: int = 5) -> list[LearningPoint]:
    """The score with `sizes` training groups per fold, everything held out as in the trial.

    A smaller subset is part of the larger ones of the same repeat, and begins with groups that together hold every class.
    Intervals are over groups of held-out rows. Raises `SteerlabError` for a size that is smaller than those first groups, or
    larger than a fold's training side.
    """
    if not sizes or repeats < 1:
        raise SteerlabError(f"{len(sizes)} sizes and {repeats} repeats were given: give at least one of each.")
    orders = [{int(k): _order(shared, int(k), repeat) for k in np.unique(shared.fold)} for repeat in range(repeats)]
    most = min(len(own) for order in orders for own in order.values())
    if min(sizes) < 1 or max(sizes) > most:
        raise SteerlabError(
            f"sizes {min(sizes)} to {max(sizes)} were given: a fold of this trial trains on 1 to {most} groups."
        )
    points = []
    for size in sizes:
        used: list[int] = []
        runs = [held_out(shared, shared.labels, _on_subset(shared, score, order, size, used)) for order in orders]
        measured = summary(len(shared.classes), shared.labels, runs, shared.fold, shared.weight, [])
        points.append(LearningPoint(size, float(np.mean(used)), measured))
    return points


def learning_table(points: Sequence[LearningPoint], kind: str) -> pd.DataFrame:
    """One row per size and score: kind, groups, rows, metric, value, low, high."""
    rows = []
    for point in points:
        for metric in METRICS:
            own = point.measured.of(metric)
            facts = {"kind": kind, "groups": point.groups, "rows": point.rows, "metric": metric}
            rows.append({**facts, "value": own.value, "low": own.low, "high": own.high})
    return pd.DataFrame(rows)


def _on_subset(shared: Trial, score: Scorer, order: Mapping[int, np.ndarray], size: int, used: list[int]) -> Scorer:
    """The scorer, fitted on the first `size` groups of the fold's order only; `used` is told how many rows these had."""

    def part(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        kept = np.isin(shared.group[train], order[int(shared.fold[test[0]])][:size])
        if len(np.unique(labels[kept])) < len(shared.classes):
            raise SteerlabError(f"{size} groups do not hold all {len(shared.classes)} classes: give larger sizes.")
        used.append(int(kept.sum()))
        return score(train[kept], labels[kept], test)

    return part


def _order(shared: Trial, fold: int, repeat: int) -> Int[np.ndarray, "g"]:
    """The training groups of a fold at random, those that bring a class for the first time ahead of the rest."""
    rows = shared.fold != fold
    groups = np.random.default_rng([shared.seed, repeat, fold]).permutation(np.unique(shared.group[rows]))
    seen: set[int] = set()
    first = []
    for group in groups:
        own = set(shared.labels[rows & (shared.group == group)].tolist())
        if own - seen:
            first.append(group)
            seen |= own
        if len(seen) == len(shared.classes):
            break
    return np.array([*first, *(g for g in groups if g not in set(first))])
