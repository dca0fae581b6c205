"""Prompts from each source: drawn from the seed alone, no base query in two parts, and files of one's own."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from steerlab.data.ifeval import shared_bases
from steerlab.errors import SteerlabError
from steerlab.following.phrasings import PHRASINGS
from steerlab.following.registry import SIMPLE, arguments
from steerlab.instructions import joined, prompt_source


def test_own_prompts_share_no_subject_between_parts() -> None:
    parts = {part: prompt_source("own", part, n=6, seed=3) for part in ("train", "valid", "test")}  # type: ignore[arg-type]
    groups = {part: {row.group for row in rows} for part, rows in parts.items()}
    assert (
        not groups["train"] & groups["valid"]
        and not groups["train"] & groups["test"]
        and not groups["valid"] & groups["test"]
    )
    for rows in parts.values():
        cells = [row.cells[0] for row in rows]
        assert {cell.split("_")[0] for cell in cells} >= {"simple:lowercase", "simple:quotes", "simple:language"}
        assert max(map(cells.count, cells)) == 6
        assert {row.instructions[0] for row in rows} == set(SIMPLE)


def test_prompts_are_drawn_from_the_seed_over_different_base_queries() -> None:
    rows = prompt_source("own", "train", ["simple:quotes"], 12, seed=5)
    assert rows == prompt_source("own", "train", ["simple:quotes"], 12, seed=5)
    assert rows != prompt_source("own", "train", ["simple:quotes"], 12, seed=6)
    assert len(rows) == 12 == len({row.group for row in rows})
    both = prompt_source("own", "train", ["simple:quotes", "simple:lowercase"], 12, seed=5)
    bases = [{row.base for row in both if row.cells == (cell,)} for cell in ("simple:quotes", "simple:lowercase")]
    assert bases[0] == bases[1] == {row.base for row in rows}
    marks = prompt_source("own", "train", ["simple:end_mark_!"], 4)
    assert {row.cells for row in marks} == {("simple:end_mark_!",)} and len(marks) == 4


def test_ifeval_s_instructions_stand_behind_queries_no_test_shares(shared: Path) -> None:
    train, valid = (prompt_source("ifeval", part, n=5, root=shared) for part in ("train", "valid"))  # type: ignore[arg-type]
    test = prompt_source("ifeval", "test", n=100, root=shared)
    assert len(test) == 163 and {row.cells[0] for row in train} == {row.cells[0] for row in test}
    assert not {row.group for row in train} & {row.group for row in valid}
    assert shared_bases(train, test) == () == shared_bases(valid, test)
    for row in train:
        arguments(row.instructions[0], row.kwargs[0])
        assert row.prompt.startswith(f"{row.base} ") and row.instructions[0] in PHRASINGS


def test_a_file_of_one_s_own(tmp_path: Path) -> None:
    rows = [
        {"base": "Tell me.", "instructions": "simple:quotes"},
        {
            "base": "Say it.",
            "instructions": ["words:include"],
            "kwargs": [{"words": ["tea"]}],
            "prompt": "Say tea.",
            "id": "mine",
            "split": "test",
        },
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (first,) = prompt_source(str(path), "train")
    assert (
        first.base == "Tell me." == first.group
        and first.prompt.startswith("Tell me. ")
        and first.cells == ("simple:quotes",)
    )
    both = prompt_source(str(path), "test")
    assert [row.prompt for row in both] == [first.prompt, "Say tea."] and both[1].id == "mine"
    path.write_text(
        '{"base": "x", "instructions": ["simple:quotes", "simple:lowercase"], "kwargs": [{}]}\n', encoding="utf-8"
    )
    with pytest.raises(SteerlabError, match="line 1 .* has 2 instructions and 1 kwargs"):
        prompt_source(str(path), "train")
    path.write_text('{"instructions": "simple:quotes"}\n', encoding="utf-8")
    with pytest.raises(SteerlabError, match="line 1 .* lacks 'base'"):
        prompt_source(str(path), "train")


def test_instructions_are_joined_behind_the_base_queries_that_have_them_all() -> None:
    names = ("simple:end_mark_!", "simple:lowercase")
    rows = prompt_source("own", "test", names, 6, seed=2)
    both = joined(rows, names)
    assert len(both) == 6 and len({row.base for row in both}) == 6
    for row in both:
        assert row.cells == names and row.instructions == ("simple:end_mark", "simple:lowercase")
        assert row.kwargs == ({"mark": "!"}, {}) and row.split == "test"
        alone = [one for one in rows if one.base == row.base]
        tails = [next(one.prompt for one in alone if one.cells == (name,)).removeprefix(row.base) for name in names]
        assert row.prompt == row.base + "".join(tails) and all(tails)
    assert joined(rows, names[::-1])[0].cells == names[::-1]
    assert len(joined(rows[:8], names)) == 2  # the queries of the second instruction's two prompts
    with pytest.raises(SteerlabError, match="no base query has prompts with each of"):
        joined(rows[:6], names)
    with pytest.raises(SteerlabError, match="can follow at once"):
        joined(
            prompt_source("own", "test", ("simple:lowercase", "simple:uppercase"), 2),
            ("simple:lowercase", "simple:uppercase"),
        )


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(SteerlabError, match="source 'web' is not known"):
        prompt_source("web", "train")
    with pytest.raises(SteerlabError, match="has no prompt for simple:rhyme"):
        prompt_source("own", "train", ["simple:rhyme"])
    with pytest.raises(
        SteerlabError, match="own has no prompt for simple:language_xx in this part: it has simple:quotes, "
    ):
        prompt_source("own", "train", ["simple:language_xx", "simple:quotes"])
    with pytest.raises(SteerlabError, match="part 'dev'"):
        inspect.unwrap(prompt_source)("own", "dev")
