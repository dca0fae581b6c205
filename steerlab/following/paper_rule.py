"""The layer Stolfo et al. (ICLR 2025) choose: the most accurate one without a single degenerate answer, ties going to not steering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerlab.following.trials import Cell, TrialTable

THRESHOLD = 2.5


@dataclass(frozen=True, eq=False)
class PaperChoice:
    """`cell`: what was chosen, None for not steering. `candidates`: layer, strength (NaN unsteered), followed, degenerate (shares) and
    counted, the accuracy the choice was made by.
    """

    instruction: str
    cell: Cell | None
    candidates: pd.DataFrame

    def __str__(self) -> str:
        where = "not steered" if self.cell is None else f"layer {self.cell.layer}, strength {self.cell.strength:g}"
        return f"{self.instruction}: {where}"

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.candidates.to_html(index=False, float_format=lambda x: f'{x:.2f}', border=0)}"


def paper_choice(
    table: TrialTable, threshold: float = THRESHOLD, relative: bool = False, spare_unsteered: bool = False
) -> PaperChoice:
    """The rule of the released code, on any reference model's perplexities.

    A cell with an answer of perplexity below `threshold` counts as accuracy 0; the highest accuracy wins; of equal ones the first,
    and not steering is first. Mind the direction: it is *low* perplexity, repetition, that counts against a cell.

    `relative`: a cell counts 0 only where its share of degenerate answers exceeds the unsteered share (used for base Gemma).
    `spare_unsteered`: not steering keeps its accuracy whatever its answers. The code means to do that, in a line that restores the
    unsteered accuracy, but the next line sets it to 0 again; so by default a model whose unsteered answers are degenerate loses to
    any layer with an accuracy above 0. The same rule over (layer, strength) chooses for words.
    """
    followed = _shares(table.followed)
    degenerate = _shares(table.degenerate(threshold))
    out = degenerate > (degenerate[0] if relative else 0.0)
    if spare_unsteered:
        out[0] = False
    counted = np.where(out, 0.0, followed)
    best = int(np.argmax(counted))  # the first of the highest
    candidates = pd.DataFrame(
        {
            "layer": [-1 if cell is None else cell.layer for cell in table.cells],
            "strength": [np.nan if cell is None else cell.strength for cell in table.cells],
            "followed": followed,
            "degenerate": degenerate,
            "counted": counted,
        }
    )
    return PaperChoice(table.instruction, table.cells[best], candidates)


def paper_rule(
    tables: Mapping[str, TrialTable],
    threshold: float = THRESHOLD,
    relative: bool = False,
    spare_unsteered: bool = False,
) -> dict[str, Cell | None]:
    """`paper_choice` of every instruction for itself; one without prompts is not steered."""
    return {name: paper_choice(own, threshold, relative, spare_unsteered).cell for name, own in tables.items()}


def _shares(flags: np.ndarray) -> np.ndarray:
    return flags.mean(axis=0) if len(flags) else np.zeros(flags.shape[1])
