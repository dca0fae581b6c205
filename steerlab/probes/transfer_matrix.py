"""Transfer: fit a probe on one set of rows, test it on another. Sets are languages, domains, models' layers, anything of one
width and the same labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab import scoring
from steerlab.errors import SteerlabError
from steerlab.probes.comparison import measures, summary, trial
from steerlab.probes.layers import slice_of
from steerlab.probes.linear import Kind, check_kind, fit
from steerlab.probes.result import Metric, Scores


@dataclass(frozen=True, eq=False)
class Labelled:
    """Activations "n d" with their labels and groups. A group number means the same in every set that is compared: rows of one
    sentence in two languages share it.
    """

    x: Float[Tensor, "n d"]
    y: Int[Tensor, "n"]
    groups: Int[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """The scores of every pair (trained on, tested on); where both are the same set it is plain cross-validation."""

    kind: str
    names: tuple[str, ...]
    cells: Mapping[tuple[str, str], Scores]
    metric: Metric

    def frame(self, metric: Metric | None = None) -> pd.DataFrame:
        """Rows: trained on; columns: tested on."""
        values = [[self.cells[a, b].of(metric or self.metric).value for b in self.names] for a in self.names]
        return pd.DataFrame(values, index=pd.Index(self.names), columns=pd.Index(self.names))

    def table(self) -> pd.DataFrame:
        """One row per pair: train, test, kind, and the columns of `Scores.row`."""
        rows = [
            {"train": a, "test": b, "kind": self.kind, **own.row(self.metric)} for (a, b), own in self.cells.items()
        ]
        return pd.DataFrame(rows)


def transfer(
    sets: Mapping[str, Labelled],
    kind: Kind = "logistic_cv",
    folds: int = 5,
    seed: int = 0,
    *,
    c: float = 1.0,
    shuffles: int = 1,
    resamples: int = 1000,
) -> TransferMatrix:
    """Fit on each set, test on each set, on the same folds: no group is ever on both sides, within a set or between two.

    Folds are laid over the groups of all sets together, and every cell is fitted on the other folds' rows of one set and scored
    on the held-out rows of the other, so that the cells of a row come from the same fits and differ by the test alone. For two
    classes AUROC, which a shift or stretch of the activations leaves as it is. Raises `SteerlabError` for sets of other widths
    or labels, and where a set has too few rows for the folds.
    """
    check_kind(kind)
    _check_sets(sets)
    whole = trial(
        torch.cat([own.y for own in sets.values()]), torch.cat([own.groups for own in sets.values()]),
        folds=folds, seed=seed, shuffles=0, resamples=1,
    )  # fmt: skip
    ends = np.cumsum([0, *(len(own.y) for own in sets.values())])
    own_fold = {name: whole.fold[a:b] for name, a, b in zip(sets, ends[:-1], ends[1:], strict=True)}
    k = len(whole.classes)
    data = {name: slice_of(own.x[:, None], 0) for name, own in sets.items()}
    labels = {name: np.searchsorted(whole.classes, own.y.cpu().numpy()) for name, own in sets.items()}
    groups = {name: own.groups.cpu().numpy() for name, own in sets.items()}
    _check_folds(own_fold, labels, folds, k)
    weight = {name: scoring.group_resamples(groups[name], resamples, seed) for name in sets}
    cells: dict[tuple[str, str], Scores] = {}
    for name in sets:
        given = [labels[name], *_shuffled(labels[name], own_fold[name], k, seed, shuffles)]
        drawn = [{other: np.empty((len(data[other]), k if k > 2 else 1)) for other in sets} for _ in given]
        for fold in range(folds):
            train = own_fold[name] != fold
            for scores, y in zip(drawn, given, strict=True):
                found = fit(kind, data[name][train], y[train], groups[name][train], c=c, seed=seed)
                for other in sets:
                    test = own_fold[other] == fold
                    scores[other][test] = found.scores(data[other][test])
        for other in sets:
            at, once = own_fold[other], np.ones((1, len(labels[other])))
            control = [measures(k, labels[other], scores[other], at, once) for scores in drawn[1:]]
            cells[name, other] = summary(k, labels[other], [drawn[0][other]], at, weight[other], control)
    return TransferMatrix(kind, tuple(sets), cells, "auroc" if k == 2 else "macro_f1")


def _check_sets(sets: Mapping[str, Labelled]) -> None:
    if not sets:
        raise SteerlabError("no sets were given to transfer between: give at least one.")
    for name, own in sets.items():
        if not len(own.x) == len(own.y) == len(own.groups):
            raise SteerlabError(
                f"set {name!r} has {len(own.x)} rows, {len(own.y)} labels and {len(own.groups)} groups: one of each per row is needed."
            )
    widths = {name: own.x.shape[1] for name, own in sets.items()}
    kinds = {name: tuple(sorted(set(own.y.tolist()))) for name, own in sets.items()}
    for what, facts in (("widths", widths), ("labels", kinds)):
        if len(set(facts.values())) > 1:
            raise SteerlabError(f"the sets have different {what} ({facts}): a probe transfers between equal ones only.")


def _check_folds(fold: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], folds: int, k: int) -> None:
    for name, own in fold.items():
        if any(len(np.unique(labels[name][own != number])) < k for number in range(folds)):
            raise SteerlabError(
                f"set {name!r} lacks a class on the training side of a fold: give more groups per class, or fewer folds."
            )


def _shuffled(labels: np.ndarray, fold: np.ndarray, k: int, seed: int, times: int) -> list[Int[np.ndarray, "n"]]:
    """The labels of a set in other orders, those that leave every class on every training side."""
    drawn = [np.random.default_rng([seed, draw]).permutation(labels) for draw in range(times)]
    return [own for own in drawn if all(len(np.unique(own[fold != n])) == k for n in np.unique(fold))]
