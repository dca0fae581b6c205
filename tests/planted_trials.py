"""Trials drawn from planted follow rates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from steerlab.following.trials import Cell, TrialTable

CELLS = (None, *(Cell(layer) for layer in range(6, 28, 2)))


def planted(rates: Mapping[str, np.ndarray], n: int, seed: int, per_group: int = 1) -> dict[str, TrialTable]:
    """One table per instruction: `rates[name]` has the follow rate unsteered and at every layer."""
    rng = np.random.default_rng(seed)
    tables = {}
    for name, p in rates.items():
        prompts = tuple(f"{name}-{j}" for j in range(n))
        groups = tuple(f"g{j // per_group}" for j in range(n))
        followed = rng.random((n, len(CELLS))) < p
        tables[name] = TrialTable(name, prompts, groups, CELLS, followed, np.full((n, len(CELLS)), np.nan))
    return tables


def shared_peak(
    instructions: int, peak: int, height: float = 0.7, base: float = 0.1, seed: int = 0
) -> dict[str, np.ndarray]:
    """Every instruction is followed most at about the same layer: a hump over layers, a little different for each."""
    rng = np.random.default_rng(seed)
    places = np.arange(len(CELLS) - 1)
    rates = {}
    for i in range(instructions):
        own = base + (height - base) * np.exp(-0.5 * ((places - peak) / 1.5) ** 2) * rng.uniform(0.8, 1.0)
        rates[f"i{i}"] = np.concatenate([[base], own])
    return rates


def value(rates: Mapping[str, np.ndarray], chosen: Mapping[str, Cell | None]) -> float:
    """The mean true follow rate at what was chosen."""
    return float(np.mean([rates[name][CELLS.index(cell)] for name, cell in chosen.items()]))
