"""Trials of a selection: the same prompts at every candidate layer and strength, and unsteered, as one table per instruction."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.following.registry import check_all
from steerlab.following.verdict import Mode


class Cell(NamedTuple):
    """Where and how strongly to steer. For projection matching, which has no strength, 1."""

    layer: int
    strength: float = 1.0


@dataclass(frozen=True)
class Trial:
    """One answer of a selection: was the instruction followed, and how surprised is a reference model by the text (NaN if none)?

    `cell` None: unsteered. `group`: the base query, which no other fold may hold.
    """

    instruction: str
    prompt: str
    group: str
    cell: Cell | None
    followed: bool
    perplexity: float = math.nan


@dataclass(frozen=True, eq=False)
class TrialTable:
    """The trials of one instruction: prompts x cells, unsteered (None) first, then by layer, then by size of strength."""

    instruction: str
    prompts: tuple[str, ...]
    groups: tuple[str, ...]
    cells: tuple[Cell | None, ...]
    followed: Bool[np.ndarray, "n c"]
    perplexity: Float[np.ndarray, "n c"]

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, keep: Sequence[int]) -> TrialTable:
        """The same table with some prompts only, perhaps none."""
        at = np.array(keep, dtype=np.int64)
        names, groups = (tuple(own[i] for i in keep) for own in (self.prompts, self.groups))
        return TrialTable(self.instruction, names, groups, self.cells, self.followed[at], self.perplexity[at])

    def degenerate(self, threshold: float) -> Bool[np.ndarray, "n c"]:
        """Texts whose perplexity lies below the threshold: repetitive ones surprise no model. Without a perplexity, none is."""
        with np.errstate(invalid="ignore"):
            return self.perplexity < threshold


def perplexities(
    texts: Sequence[str], perplexity: Callable[[Sequence[str]], Float[np.ndarray, "n"]] | None
) -> Float[np.ndarray, "n"]:
    """The reference model's perplexities, NaN of blank texts and without a model. Raises `SteerlabError` unless there is one per text."""
    found = np.full(len(texts), np.nan)
    there = [number for number, text in enumerate(texts) if text.strip()]
    if perplexity is not None and there:
        values = np.asarray(perplexity([texts[number] for number in there]), dtype=float)
        if values.shape != (len(there),):
            raise SteerlabError(f"the perplexities of {len(there)} texts came as {values.shape}: give one per text.")
        found[there] = values
    return found


def tried(
    prompts: Sequence[InstructedPrompt],
    cell: Cell | None,
    texts: Sequence[str],
    perplexity: Callable[[Sequence[str]], Float[np.ndarray, "n"]] | None = None,
    mode: Mode = "loose",
) -> list[Trial]:
    """The trials of one cell (None: unsteered) from what the model wrote there, checked, with the reference model's perplexities.

    A prompt with several instructions is one trial of all of them. A blank text has no perplexity. Raises `SteerlabError` unless
    there is one text per prompt and one perplexity per text.
    """
    if len(prompts) != len(texts):
        raise SteerlabError(f"{len(prompts)} prompts and {len(texts)} answers were given: give one answer per prompt.")
    surprise = perplexities(texts, perplexity)
    found = []
    for row, text, own in zip(prompts, texts, surprise.tolist(), strict=True):
        followed = all(verdict.passed for verdict in check_all(row.instructions, row.kwargs, text, mode))
        found.append(Trial("+".join(row.cells), row.id, row.group, cell, followed, own))
    return found


def candidate_layers(n_layers: int, step: int = 2) -> tuple[int, ...]:
    """The layers tried in Stolfo et al.: from a fifth of the depth in steps of 2 (3 for Gemma-2-9b in the released code)."""
    if n_layers < 1 or step < 1:
        raise SteerlabError(f"{n_layers} layers in steps of {step} were asked for: both must be at least 1.")
    return tuple(range(n_layers // 5, n_layers, step))


def trial_tables(trials: Sequence[Trial]) -> dict[str, TrialTable]:
    """One table per instruction, in order of appearance.

    Raises `SteerlabError` unless every prompt of an instruction was tried once at every cell of it, and once unsteered.
    """
    by_name: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        by_name[trial.instruction].append(trial)
    return {name: _table(name, own) for name, own in by_name.items()}


def _table(name: str, trials: Sequence[Trial]) -> TrialTable:
    steered = {trial.cell for trial in trials if trial.cell is not None}
    cells = (None, *sorted(steered, key=lambda cell: (cell.layer, abs(cell.strength), cell.strength)))
    group = {trial.prompt: trial.group for trial in trials}
    prompts = tuple(group)
    found = {(trial.prompt, trial.cell): trial for trial in trials}
    if len(found) < len(trials):
        raise SteerlabError(f"{name}: a prompt was tried twice at one cell; give every prompt, cell and answer once.")
    lacking = [(prompt, cell) for prompt in prompts for cell in cells if (prompt, cell) not in found]
    if lacking:
        prompt, cell = lacking[0]
        place = "unsteered" if cell is None else f"at {cell}"
        raise SteerlabError(
            f"{name}: prompt {prompt!r} was not tried {place}; try all prompts at all cells and unsteered."
        )
    rows = [[found[prompt, cell] for cell in cells] for prompt in prompts]
    return TrialTable(
        name,
        prompts,
        tuple(group[prompt] for prompt in prompts),
        cells,
        np.array([[trial.followed for trial in row] for row in rows], dtype=bool),
        np.array([[trial.perplexity for trial in row] for row in rows], dtype=float),
    )


def group_folds(tables: Mapping[str, TrialTable], k: int, seed: int = 0) -> dict[str, int]:
    """Every base query's fold, the same in all instructions, folds of equal size give or take one.

    Raises `SteerlabError` for fewer than two folds, or fewer base queries than folds.
    """
    groups = list(dict.fromkeys(group for table in tables.values() for group in table.groups))
    if not 2 <= k <= len(groups):
        raise SteerlabError(f"{k} folds of {len(groups)} base queries were asked for: give 2 to as many as there are.")
    order = np.random.default_rng(seed).permutation(len(groups))
    return {groups[place]: number % k for number, place in enumerate(order.tolist())}
