"""Trials as tables, candidate layers, and folds that share no base query."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell, Trial, candidate_layers, group_folds, trial_tables, tried


@pytest.mark.parametrize(
    ("n_layers", "step", "first", "last"),
    [(32, 2, 6, 30), (26, 2, 5, 25), (42, 2, 8, 40), (42, 3, 8, 41), (6, 2, 1, 5), (4, 2, 0, 2)],
)
def test_candidate_layers_are_the_paper_s(n_layers: int, step: int, first: int, last: int) -> None:
    """Phi-3 and Mistral 6..30, Gemma-2-2b 5..25, Gemma-2-9b 8..40."""
    layers = candidate_layers(n_layers, step)
    assert (layers[0], layers[-1]) == (first, last) and set(np.diff(layers).tolist()) == {step}


def trials() -> list[Trial]:
    cells = [Cell(8, -2.0), None, Cell(8, 1.0), Cell(4)]
    return [Trial("i", p, f"g-{p}", cell, p == "a" and cell == Cell(4), 3.0) for p in "ab" for cell in cells]


def test_cells_stand_unsteered_first_then_by_layer_and_strength() -> None:
    table = trial_tables(trials())["i"]
    assert table.cells == (None, Cell(4), Cell(8, 1.0), Cell(8, -2.0))
    assert table.followed.tolist() == [[False, True, False, False], [False] * 4]
    assert table.prompts == ("a", "b") and table.groups == ("g-a", "g-b")
    assert table.rows([1]).prompts == ("b",) and len(table.rows([])) == 0
    assert table.degenerate(3.0).sum() == 0 and table.degenerate(3.1).all()


def test_without_a_perplexity_nothing_is_degenerate() -> None:
    table = trial_tables([Trial("i", "a", "g", None, True)])["i"]
    assert not table.degenerate(1e9).any()


def test_every_prompt_must_be_tried_everywhere_once() -> None:
    with pytest.raises(SteerlabError, match="prompt 'b' was not tried at Cell"):
        trial_tables(trials()[:-1])
    with pytest.raises(SteerlabError, match="was not tried unsteered"):
        trial_tables([trial for trial in trials() if trial.cell is not None])
    with pytest.raises(SteerlabError, match="tried twice"):
        trial_tables([*trials(), trials()[0]])


def test_folds_hold_whole_base_queries_and_are_the_same_for_all_instructions() -> None:
    given = [Trial(name, f"{name}{i}", f"g{i // 2}", None, True) for name in "xy" for i in range(22)]
    tables = trial_tables(given)
    folds = group_folds(tables, 4, seed=3)
    assert set(folds) == {f"g{i}" for i in range(11)}
    sizes = np.bincount(list(folds.values()))
    assert len(sizes) == 4 and sizes.max() - sizes.min() <= 1
    assert group_folds(tables, 4, seed=3) == folds != group_folds(tables, 4, seed=4)
    for k in (1, 12):
        with pytest.raises(SteerlabError, match=f"{k} folds of 11 base queries"):
            group_folds(tables, k)


def test_answers_become_trials() -> None:
    rows = [
        InstructedPrompt("a", "q", "q", "g", ("simple:lowercase",), ({},), ("simple:lowercase",), "valid"),
        InstructedPrompt(
            "b", "r", "r", "h", ("simple:quotes", "simple:max_words"), ({}, {"n": 2}), ("x", "y"), "valid"
        ),
    ]

    def surprise(texts: Sequence[str]) -> np.ndarray:
        return np.array([float(len(text)) for text in texts])

    found = tried(rows, Cell(3), ["Sure:\nall small", '"two words"'], surprise)
    assert found == [
        Trial("simple:lowercase", "a", "g", Cell(3), True, 15.0),
        Trial("x+y", "b", "h", Cell(3), True, 11.0),
    ]
    strict = tried(rows, None, ["Sure:\nall small", " "], surprise, "strict")
    assert [own.followed for own in strict] == [False, False] and math.isnan(strict[1].perplexity)
    assert math.isnan(tried(rows, None, ["a", "b"])[0].perplexity)
    with pytest.raises(SteerlabError, match="2 prompts and 1 answers"):
        tried(rows, None, ["a"])
    with pytest.raises(SteerlabError, match="one per text"):
        tried(rows, None, ["a", "b"], lambda texts: np.ones(3))
