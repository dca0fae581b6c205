"""One comparison of probes: labels, folds that never split a group, bootstrap weights, and the scoring that all share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from steerlab import scoring
from steerlab.errors import SteerlabError
from steerlab.probes.result import ProbeResult, Score, Scores

# (training rows, their labels 0..k-1, test rows) -> scores of the test rows, one column for two classes, else one per class
Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Trial:
    """What all probes of one comparison share: labels 0..k-1, groups, folds and bootstrap weights."""

    classes: tuple[int, ...]
    labels: Int[np.ndarray, "n"]
    group: Int[np.ndarray, "n"]
    fold: Int[np.ndarray, "n"]
    weight: Float[np.ndarray, "r n"]
    seed: int
    shuffles: int

    def complete(self, labels: Int[np.ndarray, "m"]) -> bool:
        """Every class is among the training rows of every fold."""
        return all(len(np.unique(labels[self.fold != k])) == len(self.classes) for k in np.unique(self.fold))


def trial(
    y: Int[Tensor, "n"],
    groups: Int[Tensor, "m"],
    *,
    folds: int = 5,
    seed: int = 0,
    shuffles: int = 3,
    resamples: int = 1000,
) -> Trial:
    """Lay out one comparison. Rows with the same group stay together; folds are balanced by label as far as
    groups allow.

    Raises `SteerlabError` with fewer than two classes, or too few rows of a class or groups for the folds.
    """
    if len(y) != len(groups):
        raise SteerlabError(f"{len(y)} labels and {len(groups)} groups were given: one of each per row is needed.")
    classes, labels = np.unique(y.cpu().numpy(), return_inverse=True)
    if len(classes) < 2:
        raise SteerlabError(
            f"labels with {len(classes)} distinct values were given: a probe needs at least two classes."
        )
    group = groups.cpu().numpy()
    if folds < 2:
        raise SteerlabError(f"{folds} folds were given: at least 2 are needed.")
    if np.bincount(labels).min() < folds or len(np.unique(group)) < folds:
        raise SteerlabError(
            f"{len(np.unique(group))} groups and {np.bincount(labels).min()} rows in the smallest class were given: "
            f"{folds} folds need at least {folds} of each, so give more texts or fewer folds."
        )
    fold = np.full(len(labels), -1)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for k, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, group)):
        fold[held_out] = k
    weight = scoring.group_resamples(group, resamples, seed)
    found = Trial(tuple(int(c) for c in classes), labels, group, fold, weight, seed, shuffles)
    if not found.complete(labels):
        raise SteerlabError("a class lies in a single fold because its rows share a group: give more groups per class.")
    return found


def evaluate(kind: str, shared: Trial, score: Scorer, direction: Float[Tensor, "r d"] | None = None) -> ProbeResult:
    """Run a scorer over the folds of a trial, on the labels and on shuffled labels."""
    scores = held_out(shared, shared.labels, score)
    control: list[dict[str, np.ndarray]] = []
    for labels in shuffled(shared):
        other = held_out(shared, labels, score)
        control.append(measures(len(shared.classes), labels, other, shared.fold, _once(len(labels))))
    return ProbeResult(
        kind=kind,
        measured=summary(len(shared.classes), shared.labels, [scores], shared.fold, shared.weight, control),
        n=len(shared.labels),
        groups=len(np.unique(shared.group)),
        classes=shared.classes,
        counts=tuple(int(count) for count in np.bincount(shared.labels)),
        scores=torch.from_numpy(scores),
        fold=torch.from_numpy(shared.fold),
        direction=direction,
    )


def shuffled(shared: Trial) -> list[Int[np.ndarray, "n"]]:
    """The labels in other orders, those that leave every class among the training rows of every fold."""
    drawn = [np.random.default_rng([shared.seed, k]).permutation(shared.labels) for k in range(shared.shuffles)]
    return [labels for labels in drawn if shared.complete(labels)]


def held_out(shared: Trial, labels: np.ndarray, score: Scorer) -> np.ndarray:
    """Scores "n r" of every row by a model fitted on the other folds."""
    parts = {}
    for k in np.unique(shared.fold):
        train, test = np.flatnonzero(shared.fold != k), np.flatnonzero(shared.fold == k)
        parts[k] = test, score(train, labels[train], test)
    scores = np.empty((len(labels), next(iter(parts.values()))[1].shape[1]))
    for test, values in parts.values():
        scores[test] = values
    return scores


def measures(
    k: int, labels: np.ndarray, scores: np.ndarray, fold: np.ndarray, weight: np.ndarray
) -> dict[str, np.ndarray]:
    """Accuracy, macro-F1 and AUROC for each row of weights. AUROC compares scores of one fold only; for more than two classes
    it is the plain mean over the classes of each against the rest.
    """
    guess = predicted(scores)
    total = weight.sum(1)
    hits = weight @ (guess == labels).astype(float)
    sides = [(scores[:, 0], labels == 1)] if k == 2 else [(scores[:, c], labels == c) for c in range(k)]
    return {
        "accuracy": np.divide(hits, total, out=np.full(len(weight), np.nan), where=total > 0),
        "macro_f1": scoring.macro_f1(guess, labels, k, weight),
        "auroc": np.mean([scoring.auroc(own, positive, fold, weight) for own, positive in sides], axis=0),
    }


def summary(
    k: int,
    labels: np.ndarray,
    runs: Sequence[np.ndarray],
    fold: np.ndarray,
    weight: np.ndarray,
    control: Sequence[dict[str, np.ndarray]],
) -> Scores:
    """The scores of runs (mean over them) with their intervals over the bootstrap weights, beside the mean of the controls."""
    own = [measures(k, labels, scores, fold, _once(len(labels))) for scores in runs]
    drawn = [measures(k, labels, scores, fold, weight) for scores in runs]
    found = {}
    for name in ("accuracy", "macro_f1", "auroc"):
        low, high = scoring.interval(np.mean([one[name] for one in drawn], axis=0))
        null = float(np.mean([one[name][0] for one in control])) if control else float("nan")
        found[name] = Score(float(np.mean([one[name][0] for one in own])), low, high, null)
    return Scores(**found)


def predicted(scores: Float[np.ndarray, "n r"]) -> Int[np.ndarray, "n"]:
    """The class 0..k-1 that scores speak for."""
    return scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(np.int64)


def check_rows(n: int, shared: Trial) -> None:
    """Raise `SteerlabError` unless there is one label per row."""
    if n != len(shared.labels):
        raise SteerlabError(f"{n} rows and {len(shared.labels)} labels were given: one label per row is needed.")


def _once(n: int) -> np.ndarray:
    return np.ones((1, n))
