"""Selection tries every cell in mixed batches, knows not steering, and writes what it chose into the vectors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell
from steerlab.generation import Settings, generate
from steerlab.instructions import (
    Application,
    Attempt,
    cells_of,
    choose_cells,
    fit_instructions,
    load_instruction_vectors,
    plan_trials,
    recommended_pushes,
    reference_perplexity,
    save_instructions,
    select_cells,
    tables_of,
)
from steerlab.steering import Gate
from steerlab.vectors import SteeringVector
from tests.instruct import FAMILIES, pairs, prompts
from tests.tiny import tiny

CELLS = cells_of(4, (1.0, 2.0), (1, 3))
SETTINGS = Settings(max_new_tokens=6, greedy=True, stop=())


def vectors() -> dict[str, SteeringVector]:
    return fit_instructions(tiny("llama"), pairs(4))


def attempts(n: int = 8, application: Application | None = None) -> list[Attempt]:
    return plan_trials(vectors(), prompts(n, split="test"), CELLS, application or Application())


def planted(tried: Sequence[Attempt], helps: Cell | None, everywhere: bool = False) -> list[str]:
    """Answers that obey at one cell only (or everywhere)."""
    good = {"simple:lowercase": "all small", "simple:quotes": '"quoted"', "simple:uppercase": "ALL CAPITALS"}
    return [
        good[a.prompt.cells[0]] if everywhere or (helps is not None and a.cell == helps) else "Neither of Them"
        for a in tried
    ]


def test_candidates_are_not_steering_and_the_paper_s_layers_with_every_strength() -> None:
    assert cells_of(6, (1, 2, 2, 0)) == [None, *(Cell(layer, s) for layer in (1, 3, 5) for s in (1.0, 2.0))]
    with pytest.raises(SteerlabError, match="0 strengths"):
        cells_of(6, ())


@pytest.mark.parametrize("rule", ["paper", "shrunken"])
def test_the_cell_that_helps_is_found_and_its_held_out_rate_told(rule: str) -> None:
    tried, goal = attempts(), Cell(3, 2.0)
    found = choose_cells(tables_of(tried, planted(tried, goal)), Application(), rule, folds=4)  # type: ignore[arg-type]
    assert found.cells == dict.fromkeys(found.cells, goal) and len(found.cells) == 3
    assert found.fit is not None and found.fit.rate("simple:quotes").value == 1.0
    assert found.fit.gain("simple:quotes").value == 1.0
    assert "layer 3 x 2" in str(found)


@pytest.mark.parametrize("rule", ["paper", "shrunken"])
@pytest.mark.parametrize("everywhere", [True, False])
def test_ties_choose_not_steering(rule: str, everywhere: bool) -> None:
    tried = attempts(4)
    tables = tables_of(tried, planted(tried, None, everywhere))
    found = choose_cells(tables, Application(), rule, folds=2)  # type: ignore[arg-type]
    assert set(found.cells.values()) == {None}
    assert found.pushes(vectors()) == dict.fromkeys(found.cells, ())


def test_a_cell_with_degenerate_answers_is_not_taken_by_the_paper_s_rule() -> None:
    tried, goal = attempts(4), Cell(3, 2.0)
    texts = planted(tried, goal)

    def surprise(given: Sequence[str]) -> np.ndarray:
        return np.array([9.0 if text == "Neither of Them" else 1.5 for text in given])

    free, filtered = (tables_of(tried, texts, perplexity) for perplexity in (None, surprise))
    assert set(choose_cells(free, Application(), "paper", folds=0).cells.values()) == {goal}
    assert set(choose_cells(filtered, Application(), "paper", folds=0).cells.values()) == {None}
    assert choose_cells(free, Application(), "paper", folds=0).fit is None


def test_the_choice_travels_in_the_vector_s_file(tmp_path: Path) -> None:
    own, application = vectors(), Application("match_up", cap=0.4, gate=Gate(0.2, above=False))
    tried = attempts(6, application)
    texts = [
        t if a.prompt.cells[0] == "simple:quotes" else "Neither"
        for a, t in zip(tried, planted(tried, Cell(1, 2.0)), strict=True)
    ]
    found = choose_cells(tables_of(tried, texts), application, "paper", folds=3)
    save_instructions(found.chosen(own), tmp_path / "set")
    back = load_instruction_vectors(tmp_path / "set")
    pushes = recommended_pushes(back)
    assert list(pushes) == ["simple:quotes"]
    ((push,), (want,)) = pushes["simple:quotes"], found.pushes(own)["simple:quotes"]
    assert push.to_json() == want.to_json()
    choice = back["simple:lowercase"].choice
    assert choice is not None and choice.strength == 0 and "not steered" in choice.rule
    told = back["simple:quotes"].choice
    assert told is not None and {e[0]: e[1] for e in told.evidence}["followed, held out"] == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_batches_give_what_one_cell_after_the_other_gives(family: str) -> None:
    model = tiny(family)
    own = fit_instructions(model, pairs(3))
    valid = prompts(2, split="valid")
    found = select_cells(
        model, own, valid, strengths=(1.0, 3.0), layers=(0, 2), settings=SETTINGS, folds=2, rule="paper",
        perplexity=reference_perplexity(model),
    )  # fmt: skip
    for cell in cells_of(4, (1.0, 3.0), (0, 2)):
        alone = plan_trials(own, valid, [cell], Application())
        texts = [s.text for s in generate(model, [a.request for a in alone], SETTINGS, batch_rows=1)]
        surprise = reference_perplexity(model)([t for t in texts if t.strip()])
        told = iter(surprise.tolist())
        want = [next(told) if t.strip() else np.nan for t in texts]
        got = []
        for a in alone:
            table = found.tables[a.prompt.cells[0]]
            got.append(table.perplexity[table.prompts.index(a.prompt.id), table.cells.index(cell)])
        np.testing.assert_allclose(got, want, rtol=1e-3)
    assert all(len(table) == 2 and len(table.cells) == 5 for table in found.tables.values())


def test_what_cannot_be_selected_on_is_refused() -> None:
    own = vectors()
    with pytest.raises(SteerlabError, match="none was given"):
        plan_trials(own, [], CELLS, Application())
    both = prompts(1, [("simple:lowercase", "simple:quotes")])
    with pytest.raises(SteerlabError, match="has simple:lowercase, simple:quotes"):
        plan_trials(own, both, CELLS, Application())
    with pytest.raises(SteerlabError, match="has simple:max_words"):
        plan_trials(own, prompts(1, ["simple:max_words"]), CELLS, Application())
    tried = attempts(2)
    with pytest.raises(SteerlabError, match="give one text each"):
        tables_of(tried, ["x"])
    with pytest.raises(SteerlabError, match="rule 'best' is not known"):
        inspect.unwrap(choose_cells)(tables_of(tried, planted(tried, None)), Application(), "best")
