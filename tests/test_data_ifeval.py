"""IFEval's prompts and the sets made from it: rows, arguments, base queries, and what must not be shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerlab.data.ifeval import FILES, SPLITS, TESTS, InstructedPrompt, load_instructions, shared_bases
from steerlab.data.sources import load
from steerlab.errors import SteerlabError

SIZES = {"all": (541, 541), "fit": (291, 291), "format": (163, 163), "include": (86, 39), "exclude": (117, 49)}
SIZES |= {"include-valid": (276, 55), "exclude-valid": (276, 55)}


@pytest.mark.parametrize("split", SPLITS)
def test_splits_have_the_documented_sizes(shared, split: str) -> None:
    found = load_instructions(split, shared)
    assert (len(found), len({row.group for row in found.prompts})) == SIZES[split]
    assert len({row.id for row in found.prompts}) == len(found)
    assert found.dropped == (250 if split == "fit" else 0)
    for row in found.prompts:
        assert row.split == split and row.prompt and row.base
        assert len(row.instructions) == len(row.kwargs) == len(row.cells) >= 1
    assert f"{len(found)} prompts" in found.describe() and "Apache-2.0" in found.describe()


def test_single_sets_have_one_instruction_and_the_paper_s_cells(shared) -> None:
    rows = load_instructions("format", shared).prompts
    assert all(len(row.instructions) == 1 for row in rows)
    cells = {row.cells[0] for row in rows}
    assert len(cells) == 26 and sum(cell.startswith("language:response_language_") for cell in cells) == 14
    listed = [json.loads(line) for line in (shared / FILES["format"].local).read_text().splitlines()]
    assert [list(row.cells) for row in rows] == [line["instruction_id_list_for_eval"] for line in listed]
    for split, name in (("include", "keywords"), ("exclude", "forbidden_words")):
        for part in (split, f"{split}-valid"):
            assert all(len(row.kwargs[0][name]) == 1 for row in load_instructions(part, shared).prompts)


def test_the_format_test_is_part_of_ifeval(shared) -> None:
    everything = {row.id: row for row in load_instructions("all", shared).prompts}
    for row in load_instructions("format", shared).prompts:
        same = everything[row.id]
        assert (same.prompt, same.instructions, same.kwargs) == (row.prompt, row.instructions, row.kwargs)


def test_nothing_to_fit_on_shares_a_base_query_with_a_test(shared) -> None:
    tests = [row for name in TESTS for row in load_instructions(name, shared).prompts]
    everything = load_instructions("all", shared).prompts
    fit = load_instructions("fit", shared).prompts
    assert shared_bases(fit, tests) == ()
    assert len(shared_bases(everything, tests)) == len(everything) - len(fit) == 250
    for part in ("include-valid", "exclude-valid"):
        assert shared_bases(load_instructions(part, shared).prompts, tests) == ()
    # 31 of the 103 validation queries of the published runs are test queries: what drawing from all of IFEval gives.
    held = shared_bases(everything, load_instructions("format", shared).prompts)
    assert len(held) == 163 and round(103 * len(held) / len(everything)) == 31


def row(name: str, base: str, group: str) -> InstructedPrompt:
    return InstructedPrompt(name, base + " No commas.", base, group, ("punctuation:no_comma",), ({},), ("c",), "mine")


def test_shared_bases_sees_groups_and_equal_and_near_texts() -> None:
    tests = [row("t1", "Write a long letter to a friend who lives by the sea", "a"), row("t2", "Short?", "b")]
    rows = [
        row("1", "Something else entirely, about mountains", "a"),  # the same group
        row("2", "write a LONG letter, to a friend who lives by the sea!", "x"),  # equal after normalising
        row("3", "Write a long letter to a friend who lives by the lake", "y"),  # near
        row("4", "Explain how tides come about and why they differ", "z"),
    ]
    assert shared_bases(rows, tests) == (0, 1, 2)
    assert shared_bases([], tests) == shared_bases(rows, []) == ()


def test_load_gives_the_prompts_as_texts(shared) -> None:
    corpus = load("ifeval", "en", root=shared)
    assert len(corpus) == 541 and corpus.card.licence == "Apache-2.0"
    assert corpus.examples[1].label == "punctuation:no_comma" and corpus.examples[1].id == "ifeval-1001"
    fit = load("ifeval-single", "en", "fit", root=shared)
    assert (len(fit), fit.dropped) == (291, 250)
    assert set(fit.texts) < set(corpus.texts)
    with pytest.raises(SteerlabError, match="no 'da'"):
        load("ifeval", "da", root=shared)
    with pytest.raises(SteerlabError, match="no split 'train'"):
        load_instructions("train", shared)


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    path = folder / FILES[name].local
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(own) + "\n" for own in rows), encoding="utf-8")


def test_a_prompt_without_base_query_is_told(tmp_path: Path) -> None:
    prompt = {"key": 7, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    write(tmp_path, "all", prompt)
    write(tmp_path, "bases", {"key": 8, "model_output": "b"})
    with pytest.raises(SteerlabError, match="1 prompts of IFEval, 7 first, have no base query"):
        load_instructions("all", tmp_path)
    write(tmp_path, "bases", {"key": 7, "model_output": "b"})
    assert load_instructions("all", tmp_path).prompts[0].base == "b"
    with pytest.raises(SteerlabError, match="has no ifeval/format_ifeval_single_instr.jsonl"):
        load_instructions("format", tmp_path)
    write(tmp_path, "format", {"key": 7})
    with pytest.raises(SteerlabError, match="no column prompt"):
        load_instructions("format", tmp_path)


def test_public_files_are_at_fixed_commits() -> None:
    for table in FILES.values():
        assert table.url and len(table.url.removeprefix("https://raw.githubusercontent.com/").split("/")[2]) == 40
