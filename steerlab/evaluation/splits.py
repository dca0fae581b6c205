"""Seeded, stratified choices among labelled texts: a held-out share, and an order whose every beginning is balanced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from steerlab.errors import SteerlabError

Labelled = tuple[Sequence[str], Sequence[str]]  # texts, and one label each


def balanced_order(labels: Sequence[str], seed: int) -> Int[np.ndarray, "n"]:
    """Every row once, shuffled, so that the first k rows hold every label equally often, give or take one, while it lasts.

    The first k rows are among the first k + 1: subsets of growing size are nested. Depends on the labels and the seed alone.
    """
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    queues = [rng.permutation([i for i, own in enumerate(labels) if own == name]) for name in names]
    found: list[int] = []
    for turn in range(max((len(queue) for queue in queues), default=0)):
        found += [int(queues[k][turn]) for k in rng.permutation(len(names)) if turn < len(queues[k])]
    return np.array(found, dtype=np.int64)


def held_out(labels: Sequence[str], share: float, seed: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
    """(rows kept, rows held out), both ascending: of every label the share, rounded, at least one row and never all of them.

    A label with a single row keeps it. Raises `SteerlabError` for a share outside (0, 1), and where no label has two rows.
    """
    if not 0 < share < 1:
        raise SteerlabError(f"a share of {share} was to be held out: give one above 0 and below 1.")
    rng = np.random.default_rng(seed)
    held: list[int] = []
    for name in sorted(set(labels)):
        rows = rng.permutation([i for i, own in enumerate(labels) if own == name])
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held += rows[:count].tolist()
    if not held:
        raise SteerlabError(
            f"{len(labels)} texts with the labels {sorted(set(labels))} were to be split: give at least two texts of a label."
        )
    out = np.sort(np.array(held, dtype=np.int64))
    return np.setdiff1d(np.arange(len(labels)), out), out
