"""Could the probe have learnt anything? The control task of Hewitt and Liang (2019, arXiv 1909.03368): a random label per type.

A probe that scores as high on random labels of the types it was trained on reads the identity of the type; what the real task
gains over it is its selectivity. Shuffled labels, which every result carries, ask the other question: what chance scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from steerlab import scoring
from steerlab.errors import SteerlabError
from steerlab.probes.comparison import Trial, check_rows, evaluate, predicted, trial
from steerlab.probes.layers import probe, probe_scorer, slice_of
from steerlab.probes.linear import Kind, check_kind
from steerlab.probes.result import ProbeResult, Score

_DRAWS = 100  # random labellings tried until every class is among the training rows of every fold


@dataclass(frozen=True, eq=False)
class Selectivity:
    """A probe and the same probe on the control task; `selectivity` is real minus control accuracy, its interval over the same
    resamples of groups.
    """

    real: ProbeResult
    control: ProbeResult
    selectivity: Score


def control_labels(labels: Int[np.ndarray, "n"], types: Int[np.ndarray, "m"], seed: int) -> Int[np.ndarray, "n"]:
    """One random label per type, drawn as often as the real labels occur."""
    _, place = np.unique(types, return_inverse=True)
    own = np.random.default_rng([seed, 1909]).choice(labels, size=int(place.max()) + 1)
    return own[place]


def selectivity(
    x: Float[Tensor, "n l d"],
    y: Int[Tensor, "m"],
    groups: Int[Tensor, "g"],
    types: Int[Tensor, "t"],
    kind: Kind = "logistic",
    folds: int = 5,
    seed: int = 0,
    *,
    c: float = 1.0,
    shuffles: int = 3,
    resamples: int = 1000,
) -> list[Selectivity]:
    """`layerwise` beside the control task on the same folds, per layer.

    `types`: what could be known by heart, the token's id for single tokens. Types that never recur across groups (whole texts)
    can not be learnt by heart, and their control scores chance. Raises `SteerlabError` for too few types for the folds.
    """
    check_kind(kind)
    shared = trial(y, groups, folds=folds, seed=seed, shuffles=shuffles, resamples=resamples)
    check_rows(len(x), shared)
    if len(types) != len(x):
        raise SteerlabError(f"{len(x)} rows and {len(types)} types were given: one type per row is needed.")
    other = replace(shared, labels=_drawn(shared, types.cpu().numpy()), shuffles=0)
    found = []
    for row in range(x.shape[1]):
        data = slice_of(x, row)
        real = probe(data, shared, kind, c)
        control = evaluate(f"{kind}, control task", other, probe_scorer(data, other, kind, c))
        found.append(Selectivity(real, control, _difference(shared, other, real, control)))
    return found


def _drawn(shared: Trial, types: np.ndarray) -> np.ndarray:
    for draw in range(_DRAWS):
        labels = control_labels(shared.labels, types, shared.seed + draw)
        if len(np.unique(labels)) == len(shared.classes) and shared.complete(labels):
            return labels
    raise SteerlabError(
        f"{len(np.unique(types))} types were given: a control task with {len(shared.classes)} labels needs more of them."
    )


def _difference(shared: Trial, other: Trial, real: ProbeResult, control: ProbeResult) -> Score:
    hits = [
        (predicted(own.scores.numpy()) == labels).astype(float)
        for own, labels in ((real, shared.labels), (control, other.labels))
    ]
    gain = hits[0] - hits[1]
    low, high = scoring.interval(shared.weight @ gain / shared.weight.sum(1))
    return Score(float(gain.mean()), low, high, float("nan"))
