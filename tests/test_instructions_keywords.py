"""Every word has a vector: added where a prompt wants the word, taken away where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlab.data.ifeval import InstructedPrompt, load_instructions
from steerlab.errors import SteerlabError
from steerlab.following.trials import Cell
from steerlab.generation import Settings
from steerlab.instructions import Application, fit_instructions, plan_trials, run_arms, select_cells
from steerlab.instructions.keywords import keyword_pairs, keyword_placing, keywords
from steerlab.vectors import SteeringVector
from tests.instruct import queries
from tests.tiny import tiny


def vectors() -> dict[str, SteeringVector]:
    return fit_instructions(tiny("llama"), keyword_pairs(["river", "tea", "river"], queries(3), phrasings=2))


def row(name: str, key: str, words: list[str]) -> InstructedPrompt:
    return InstructedPrompt(
        f"{name}-{words}", f"Tell me. ({words})", "Tell me.", f"g{words}", (name,), ({key: words},), (name,), "test"
    )


WANTED, UNWANTED = row("keywords:existence", "keywords", ["river", "tea"]), row("words:exclude", "words", ["tea"])


def test_words_are_added_where_they_are_wanted_and_subtracted_where_not() -> None:
    own = vectors()
    assert list(own) == ["words:include_river", "words:include_tea"]
    act, cell = keyword_placing(own), Cell(2, 5.0)
    assert [(i.vector.name, i.strength, i.operator) for i in act(WANTED, cell)] == [
        ("words:include_river", 5.0, "add"), ("words:include_tea", 5.0, "add")
    ]  # fmt: skip
    assert [(i.vector.name, i.strength) for i in act(UNWANTED, cell)] == [("words:include_tea", -5.0)]
    assert act(WANTED, None) == act(WANTED, Cell(2, 0.0)) == ()
    (share,) = keyword_placing(own, Application("add", "residual", cap=0.3))(UNWANTED, Cell(1, 0.2))
    assert (share.unit, share.strength, share.cap) == ("residual", -0.2, 0.3)


def test_selection_and_arms_take_what_depends_on_the_prompt() -> None:
    act, settings = keyword_placing(vectors()), Settings(max_new_tokens=4, greedy=True, stop=())
    attempts = plan_trials(act, [WANTED, UNWANTED], [None, Cell(1, 9.0)], Application("add"))
    assert [len(a.request.interventions) for a in attempts] == [0, 2, 0, 1]
    found = select_cells(
        tiny("llama"), act, [WANTED, UNWANTED], strengths=(9.0,), layers=(1,), settings=settings, folds=0
    )
    assert set(found.cells) == {"keywords:existence", "words:exclude"}
    run = run_arms(tiny("llama"), [WANTED, UNWANTED], lambda row: act(row, Cell(1, 30.0)), settings=settings)
    assert run.texts("none") != run.texts("steered")
    pushes = found.placed(act)
    assert callable(pushes) and pushes(UNWANTED) == act(UNWANTED, found.cells["words:exclude"])


def test_the_keyword_sets_name_their_words(shared: Path) -> None:
    for split, wanted in (("include", True), ("exclude", False)):
        rows = load_instructions(split, shared).prompts
        told = [keywords(own) for own in rows]
        assert all(len(own) == 1 and own[0][1] is wanted and own[0][0] for own in told)


def test_words_without_a_vector_and_prompts_without_words_are_refused() -> None:
    act = keyword_placing(vectors())
    with pytest.raises(SteerlabError, match="no vector for the word 'salt'"):
        act(row("words:include", "words", ["salt"]), Cell(1))
    with pytest.raises(SteerlabError, match="names no words"):
        act(InstructedPrompt("x", "x", "x", "x", ("simple:quotes",), ({},), ("simple:quotes",), "test"), Cell(1))
