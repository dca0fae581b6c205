"""Our rule of choice: each cell's gain over not steering, shrunk towards what the cell does for the other instructions.

A layer search on eight prompts mostly picks noise. Here the gain of instruction i at cell c is m + s_c + t_i + e_ic: a mean, the cell's
effect on all instructions, the instruction's ease at all cells, and what is left, each normal around 0. Effects of neighbouring layers
(and strengths) are alike: their correlation falls by 1/e over a reach. The spread of m is 0.3; the other spreads and the reach are
those that make the trials likeliest (empirical Bayes). The noise of the cells of one instruction is correlated, because
all are compared with the same unsteered answers. Where little was tried the estimate is the shared one, where much was tried the
instruction's own, and where nothing helps all gains shrink to about 0 and the model is not steered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import linalg, stats

from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell, TrialTable

GRID = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.45)
REACHES = (0.0, 1.0, 2.0, 4.0)
MEAN_SPREAD = 0.3
CONFIDENCE = 0.8  # less finds weaker gains, and steers more often for nothing


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of the gains before any trial: between cells, between instructions, and of the rest; and the reach of
    likeness between neighbouring cells, in steps of the search.
    """

    shared: float = 0.1
    instruction: float = 0.1
    own: float = 0.1
    reach: float = 1.0

    def covariance(self, instructions: int, cells: Sequence[Cell]) -> Float[np.ndarray, "g g"]:
        """Of all gains, instruction by instruction, cell by cell."""
        steps = np.zeros((len(cells), len(cells)))
        for values in ([cell.layer for cell in cells], [cell.strength for cell in cells]):
            place = np.unique(values, return_inverse=True)[1]
            steps += abs(place[:, None] - place[None])
        alike = np.exp(-steps / self.reach) if self.reach else (steps == 0).astype(float)
        same = np.eye(instructions)
        every, flat = np.ones((instructions, instructions)), np.ones_like(alike)
        shared, ease = np.kron(every, self.shared**2 * alike), np.kron(same, self.instruction**2 * flat)
        return MEAN_SPREAD**2 + shared + ease + np.kron(same, self.own**2 * alike)


@dataclass(frozen=True, eq=False)
class ShrunkenChoices:
    """What was chosen for every instruction. `cells`: None for not steering. `gains`: instruction, layer, strength, n, raw (the gain
    measured), gain, low, high (after shrinkage, 95 %), above (probability that it is above 0).
    """

    cells: Mapping[str, Cell | None]
    gains: pd.DataFrame
    spreads: Spreads

    def __str__(self) -> str:
        told = (f"{n}: {'not steered' if c is None else f'layer {c.layer}'}" for n, c in self.cells.items())
        return "; ".join(told)

    def _repr_html_(self) -> str:
        best = self.gains.sort_values("gain", ascending=False, kind="stable").drop_duplicates("instruction")
        best = best.assign(chosen=["none" if self.cells[name] is None else "this cell" for name in best["instruction"]])
        table = best.to_html(index=False, float_format=lambda x: f"{x:.2f}", border=0)
        return f"<p>Best cell of each instruction; {self.spreads}</p>{table}"


def shrunken_choices(
    tables: Mapping[str, TrialTable], threshold: float = 2.5, confidence: float = CONFIDENCE
) -> ShrunkenChoices:
    """For every instruction the cell with the highest shrunken gain, if it is above 0 with this probability, else None.

    An answer of perplexity below `threshold` counts as not followed, in every arm alike, so a cell pays for what it breaks and not
    more. Of equal cells the first is taken. An instruction without prompts gets what the others share. The intervals rest on the
    model; the held-out rate of `cross_fit` does not. Raises `SteerlabError` when instructions were tried at different cells, and for
    a confidence outside [0.5, 1).
    """
    if not 0.5 <= confidence < 1:
        raise SteerlabError(f"a confidence of {confidence} was given: give one from 0.5 to below 1.")
    if not tables:
        raise SteerlabError("no trials were given: try prompts of at least one instruction.")
    names, own = list(tables), list(tables.values())
    odd = [table.instruction for table in own if table.cells != own[0].cells]
    if odd:
        raise SteerlabError(
            f"{names[0]} and {odd[0]} were tried at different cells: try all instructions at the same ones."
        )
    steered = [cell for cell in own[0].cells if cell is not None]
    if not steered:
        return ShrunkenChoices(dict.fromkeys(names), _frame([]), Spreads(0.0, 0.0, 0.0, 0.0))
    measured = _measure(own, threshold)
    spreads = _likeliest(measured)
    mean, sd = _posterior(measured, spreads)
    above = stats.norm.cdf(mean / sd)
    chosen: dict[str, Cell | None] = {}
    rows: list[tuple[object, ...]] = []
    for i, name in enumerate(names):
        best = int(np.flatnonzero(mean[i] >= mean[i].max() - 1e-9)[0])
        chosen[name] = steered[best] if above[i, best] >= confidence else None
        for c, cell in enumerate(steered):
            raw, reach = measured.gains[i, c] if len(own[i]) else np.nan, 1.96 * sd[i, c]
            shrunk = mean[i, c], mean[i, c] - reach, mean[i, c] + reach, above[i, c]
            rows.append((name, cell.layer, cell.strength, len(own[i]), raw, *shrunk))
    return ShrunkenChoices(chosen, _frame(rows), spreads)


def shrunken_rule(
    tables: Mapping[str, TrialTable], threshold: float = 2.5, confidence: float = CONFIDENCE
) -> dict[str, Cell | None]:
    """`shrunken_choices` as a rule: instruction -> cell or None."""
    return dict(shrunken_choices(tables, threshold, confidence).cells)


def _frame(rows: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["instruction", "layer", "strength", "n", "raw", "gain", "low", "high", "above"])


@dataclass(frozen=True, eq=False)
class _Measured:
    """Gains over unsteered, the variances of their noise, its correlation between cells, and which instructions have prompts."""

    cells: tuple[Cell, ...]
    gains: Float[np.ndarray, "i c"]
    noise: Float[np.ndarray, "i c"]
    correlation: float
    there: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """The places of what was measured in the list of all gains."""
        return np.flatnonzero(np.repeat(self.there, self.gains.shape[1]))

    def covariance(self) -> Float[np.ndarray, "m m"]:
        """Of the noise of what was measured."""
        deviation = np.sqrt(self.noise[self.there])
        blocks = deviation[:, :, None] * deviation[:, None, :] * self.correlation
        blocks[:, np.arange(deviation.shape[1]), np.arange(deviation.shape[1])] = deviation**2
        return np.asarray(linalg.block_diag(*blocks))


def _measure(tables: Sequence[TrialTable], threshold: float) -> _Measured:
    """One prompt that gains and loses as all trials do is added to each variance, so that eight prompts that all change, or none,
    are not taken as certain.
    """
    cells = len(tables[0].cells) - 1
    n, gained, lost = np.array([len(own) for own in tables])[:, None], *np.zeros((2, len(tables), cells))
    spread = np.zeros((cells, cells))
    for i, own in enumerate(tables):
        good = (own.followed & ~own.degenerate(threshold)).astype(float)
        change = good[:, 1:] - good[:, :1]
        gained[i], lost[i] = (change > 0).sum(axis=0), (change < 0).sum(axis=0)
        centred = change - change.mean(axis=0) if len(own) else change
        spread += centred.T @ centred
    typical = [(total.sum() + 0.5) / (int(n.sum()) * cells + 1) for total in (gained, lost)]
    up, down = ((total + usual) / (n + 1) for total, usual in zip((gained, lost), typical, strict=True))
    noise = (up + down - (up - down) ** 2) / np.maximum(n, 1)
    own_part, all_parts = float(np.trace(spread)), float(spread.sum())
    mixed = (all_parts - own_part) / (own_part * (cells - 1)) if cells > 1 and own_part > 0 else 0.5
    steered = tuple(cell for cell in tables[0].cells if cell is not None)
    return _Measured(steered, (gained - lost) / np.maximum(n, 1), noise, float(np.clip(mixed, 0.0, 0.9)), n[:, 0] > 0)


def _likeliest(measured: _Measured) -> Spreads:
    """The spreads on the grid that make the gains likeliest, one after the other until none changes; smaller ones win ties."""
    if not measured.there.any():
        return Spreads(0.0, 0.0, 0.0, 0.0)
    grids = {"own": GRID, "shared": GRID, "instruction": GRID, "reach": REACHES}
    best = Spreads()
    if measured.there.sum() == 1:  # one instruction cannot tell what is its own
        best, grids = Spreads(0.0, 0.0), {"own": GRID, "reach": REACHES}
    noise = measured.covariance()
    for _ in range(6):
        before = best
        for name, grid in grids.items():
            found = [(_likelihood(measured, noise, replace(best, **{name: value})), -value) for value in grid]
            best = replace(best, **{name: -max(found)[1]})
        if best == before:
            break
    return best


def _likelihood(measured: _Measured, noise: Float[np.ndarray, "m m"], spreads: Spreads) -> float:
    y, size = measured.gains[measured.there].ravel(), int(measured.there.sum())
    factor = linalg.cholesky(spreads.covariance(size, measured.cells) + noise, lower=True)
    white = linalg.solve_triangular(factor, y, lower=True)
    return float(-0.5 * white @ white - np.log(np.diag(factor)).sum())


def _posterior(measured: _Measured, spreads: Spreads) -> tuple[Float[np.ndarray, "i c"], Float[np.ndarray, "i c"]]:
    """Mean and standard deviation of every gain given the trials."""
    prior, rows = spreads.covariance(len(measured.gains), measured.cells), measured.rows
    mean, variance = np.zeros(len(prior)), np.diag(prior).copy()
    if len(rows):
        inner = prior[np.ix_(rows, rows)] + measured.covariance()
        weight = linalg.solve(inner, prior[rows], assume_a="pos")
        mean = weight.T @ measured.gains[measured.there].ravel()
        variance -= (weight * prior[rows]).sum(axis=0)
    shape = measured.gains.shape
    return mean.reshape(shape), np.sqrt(np.maximum(variance, 1e-12)).reshape(shape)
