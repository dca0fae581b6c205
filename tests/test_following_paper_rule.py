"""The paper's choice of layer on tables made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerlab.following.paper_rule import paper_choice, paper_rule
from steerlab.following.trials import Cell, Trial, TrialTable, trial_tables

LAYERS = (6, 8, 10)


def table(followed: list[list[int]], perplexity: list[list[float]] | None = None) -> TrialTable:
    """Rows are prompts; columns are not steering and the layers 6, 8, 10."""
    surprise = perplexity or [[10.0] * 4] * len(followed)
    cells = (None, *(Cell(layer) for layer in LAYERS))
    return trial_tables(
        [
            Trial("i", f"p{r}", f"g{r}", cell, bool(row[c]), surprise[r][c])
            for r, row in enumerate(followed)
            for c, cell in enumerate(cells)
        ]
    )["i"]


def test_the_most_accurate_layer_wins() -> None:
    assert paper_choice(table([[0, 0, 1, 0], [0, 1, 1, 0]])).cell == Cell(8)


@pytest.mark.parametrize(
    ("followed", "cell"),
    [
        ([[1, 1, 1, 0]], None),  # a tie with not steering
        ([[0, 0, 0, 0]], None),  # nothing works
        ([[0, 0, 1, 1]], Cell(8)),  # a tie of layers: the earlier
        ([[0, 1, 0, 1], [0, 0, 1, 1], [1, 0, 1, 0]], Cell(8)),
    ],
)
def test_ties_go_to_not_steering_then_to_the_earlier_layer(followed: list[list[int]], cell: Cell | None) -> None:
    assert paper_choice(table(followed)).cell == cell


def test_one_degenerate_answer_zeroes_a_layer_and_low_is_what_counts() -> None:
    followed = [[0, 1, 1, 1], [0, 0, 1, 1]]
    low = [[9.0, 9.0, 2.4, 9.0], [9.0, 9.0, 9.0, 2.5]]  # 2.5 itself is not below 2.5
    choice = paper_choice(table(followed, low))
    assert choice.cell == Cell(10)
    assert choice.candidates["counted"].tolist() == [0, 0.5, 0, 1] and choice.candidates["layer"].tolist() == [
        -1,
        *LAYERS,
    ]
    high = [[9.0, 9.0, 1e6, 1e6], [9.0, 9.0, 1e6, 1e6]]
    assert paper_choice(table(followed, high)).cell == Cell(8)
    assert paper_choice(table(followed, low), threshold=2.0).cell == Cell(8)
    nothing = [[9.0, 9.0, math.nan, 9.0]] * 2  # an empty answer has no perplexity
    assert paper_choice(table(followed, nothing)).cell == Cell(8)


def test_degenerate_unsteered_answers_lose_to_any_layer_as_in_the_code() -> None:
    """The code restores the unsteered accuracy and then sets it to 0 again."""
    followed, low = [[1, 0, 0, 0], [1, 1, 0, 0]], [[2.0, 9.0, 9.0, 9.0], [9.0] * 4]
    assert paper_choice(table(followed, low)).cell == Cell(6)
    assert paper_choice(table(followed, low), spare_unsteered=True).cell is None
    nothing_left = paper_choice(table([[1, 0, 0, 0]], [[2.0, 9.0, 9.0, 9.0]]))
    assert nothing_left.cell is None  # all count 0: a tie


def test_relative_counts_only_what_exceeds_the_unsteered_share() -> None:
    followed, low = [[0, 1, 1, 0], [0, 0, 1, 0]], [[2.0, 2.0, 2.0, 9.0], [9.0, 9.0, 2.0, 9.0]]
    assert paper_choice(table(followed, low)).cell is None
    assert paper_choice(table(followed, low), relative=True).cell == Cell(6)


def test_the_same_rule_over_layers_and_strengths() -> None:
    cells = [None, Cell(24, 40.0), Cell(24, 100.0), Cell(26, 40.0), Cell(26, -40.0)]
    accuracy = {None: 0, cells[1]: 1, cells[2]: 1, cells[3]: 1, cells[4]: 1}
    low = {cells[1]: 2.0}
    own = trial_tables([Trial("w", "p", "g", c, bool(accuracy[c]), low.get(c, 9.0)) for c in cells])
    assert paper_rule(own) == {"w": Cell(24, 100.0)}
    assert "layer 24, strength 100" in str(paper_choice(own["w"])) and "100" in paper_choice(own["w"])._repr_html_()


def test_an_instruction_without_prompts_is_not_steered() -> None:
    assert paper_rule({"i": table([[0, 1, 1, 1]]).rows([])}) == {"i": None}
    assert np.isnan(paper_choice(table([[0, 1, 1, 1]])).candidates["strength"][0])
