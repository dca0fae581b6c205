"""IFEval's prompts with verifiable instructions, each beside its base query, and the single-instruction sets made from them.

IFEval (Zhou et al. 2023) has 541 prompts with one to three instructions each. Stolfo et al. (2025) removed the instructions with a
language model, took the 163 prompts with exactly one instruction about form as their test of steering, one keyword a prompt as their
tests of including (86) and excluding (117) words, and 276 prompts of their own for either to choose layer and strength on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from steerlab.data.corpus import Example, SourceCard, texts_sha256
from steerlab.data.leakage import overlap_report
from steerlab.data.reading import Row, Table, find_root, read_rows
from steerlab.errors import SteerlabError
from steerlab.records import from_json, understood

IFEVAL = SourceCard(
    "ifeval",
    "https://github.com/google-research/google-research/tree/master/instruction_following_eval",
    "google/IFEval",
    "Apache-2.0",
    "Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models, arXiv 2311.07911",
)
IFEVAL_SINGLE = SourceCard(
    "ifeval-single",
    "https://github.com/microsoft/llm-steer-instruct",
    None,
    "MIT (repository); prompts derived from IFEval, Apache-2.0",
    "Stolfo et al. 2025, Improving Instruction-Following in Language Models through Activation Steering, ICLR",
)
RAW = "https://raw.githubusercontent.com"
GOOGLE_PIN = (
    f"{RAW}/google-research/google-research/19638399cc9e03623c5b9087a1d6fa8813974ce9/instruction_following_eval"
)
STEER_PIN = f"{RAW}/microsoft/llm-steer-instruct/9dac937ef6fc3e483b1efc13863deeb03ec38dbe"
_TEST_FIELDS = ("prompt", "prompt_without_instruction", "instruction_id_list", "kwargs")
_FIELDS = {"all": ("key", "prompt", "instruction_id_list", "kwargs"), "bases": ("key", "model_output")}
FILES: Mapping[str, Table] = {
    name: Table(f"ifeval/{local}", _FIELDS.get(name, _TEST_FIELDS), json_lines=True, url=f"{pin}/data/{public}")
    for name, local, pin, public in (
        ("all", "input_data.jsonl", GOOGLE_PIN, "input_data.jsonl"),
        ("bases", "ifeval_wo_instructions.jsonl", STEER_PIN, "ifeval_wo_instructions.jsonl"),
        ("format", "format_ifeval_single_instr.jsonl", STEER_PIN, "format/ifeval_single_instr_format.jsonl"),
        ("include", "keywords_include.jsonl", STEER_PIN, "keywords/ifeval_single_keyword_include.jsonl"),
        ("exclude", "keywords_exclude.jsonl", STEER_PIN, "keywords/ifeval_single_keyword_exclude.jsonl"),
        ("include-valid", "keywords_inclusion_validation.jsonl", STEER_PIN, "keywords/inclusion_validation.jsonl"),
        ("exclude-valid", "keywords_exclusion_validation.jsonl", STEER_PIN, "keywords/exclusion_validation.jsonl"),
    )
}
TESTS = ("format", "include", "exclude")
SPLITS = ("all", "fit", *TESTS, "include-valid", "exclude-valid")


@dataclass(frozen=True)
class InstructedPrompt:
    """A prompt with its instructions, and the base query that is left without them.

    `group`: what prompts about the same base query share. `cells`: the instructions as Stolfo et al. divide them, every language
    its own ("language:response_language_de"). `kwargs`: the arguments of the checks, one mapping per instruction.
    """

    id: str
    prompt: str
    base: str
    group: str
    instructions: tuple[str, ...]
    kwargs: tuple[Mapping[str, Any], ...]
    cells: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class InstructedPrompts:
    """The prompts of one split. `dropped` counts those left out because a test prompt has their base query."""

    prompts: tuple[InstructedPrompt, ...]
    card: SourceCard
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def sha256(self) -> str:
        """Order-independent SHA-256 of the prompts."""
        return texts_sha256(row.prompt for row in self.prompts)

    def describe(self) -> str:
        """One line: split, prompts, base queries, instructions, what was dropped, licence and the start of the hash."""
        split = "+".join(sorted({row.split for row in self.prompts}))
        kinds = Counter(cell for row in self.prompts for cell in row.cells)
        groups = len({row.group for row in self.prompts})
        dropped = f"; {self.dropped} dropped" if self.dropped else ""
        return (
            f"{self.card.name} {split}: {len(self)} prompts on {groups} base queries, {len(kinds)} instructions{dropped}; "
            f"{self.card.licence}; sha256 {self.sha256[:12]}"
        )


def load_instructions(split: str = "format", root: Path | str | None = None) -> InstructedPrompts:
    """The prompts of a split: `all` (541), `format` (163), `include` (86), `exclude` (117), `include-valid`, `exclude-valid` (276
    each), or `fit`: the prompts of `all` whose base query no test prompt shares, to fit vectors and choose layers on.

    Files come from `root` or the folder in `STEERLAB_DATA`, else from the public repositories at fixed commits. Raises
    `SteerlabError` on an unknown split, and when a file cannot be read.
    """
    if split not in SPLITS:
        raise SteerlabError(f"IFEval has no split {split!r}: give one of {', '.join(SPLITS)}.")
    folder = find_root(root)
    with understood("a file of IFEval"):
        return _of_split(split, folder)


def _of_split(split: str, folder: Path | None) -> InstructedPrompts:
    if split == "all":
        return InstructedPrompts(_everything(folder, "all"), IFEVAL)
    if split == "fit":
        pool = _everything(folder, "fit")
        tests = [row for name in TESTS for row in _single(folder, name)]
        leaking = set(shared_bases(pool, tests))
        kept = tuple(row for number, row in enumerate(pool) if number not in leaking)
        return InstructedPrompts(kept, IFEVAL_SINGLE, len(leaking))
    return InstructedPrompts(_single(folder, split), IFEVAL_SINGLE)


def shared_bases(rows: Sequence[InstructedPrompt], tests: Sequence[InstructedPrompt]) -> tuple[int, ...]:
    """The places of the rows whose base query a test prompt has: the same group, or equal or near by `steerlab.data.leakage`.

    103 validation queries drawn from all of IFEval, as in Stolfo et al., can be expected to hold 31 of the 163 of `format`, which
    is how many their published runs share.
    """
    if not rows or not tests:
        return ()
    groups = {row.group for row in tests}
    report = overlap_report({"rows": [row.base for row in rows], "tests": [row.base for row in tests]})
    near = set(report.rows("rows"))
    return tuple(number for number, row in enumerate(rows) if row.group in groups or number in near)


def read_ifeval(root: Path | None, code: str, split: str) -> tuple[list[Example], int]:
    """The prompts as plain texts, for `steerlab.data.load`; the label is the instruction, joined by + where there are several."""
    found = load_instructions(split, root)
    name = found.card.name
    return [Example(row.id, row.prompt, "+".join(row.cells), code, name, split) for row in found.prompts], found.dropped


def _cells(instructions: Sequence[str], kwargs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Every language its own cell, as in the paper; the others are not divided further."""
    pairs = zip(instructions, kwargs, strict=True)
    return tuple(f"{name}_{own['language']}" if name == "language:response_language" else name for name, own in pairs)


def _prompt(row: Row, number: int, split: str, base: str) -> InstructedPrompt:
    """A row as a prompt; lists arrive as JSON text, and only rows of IFEval have a key."""
    names: tuple[str, ...] = tuple(from_json(row["instruction_id_list"]))
    kwargs: tuple[dict[str, Any], ...] = tuple(from_json(row["kwargs"]))
    if "key" in row:
        group = f"ifeval-{row['key']}"
        words = [str(word) for own in kwargs for value in own.values() if isinstance(value, list) for word in value]
        own_id = group if split in ("all", "fit", "format") else f"{split}-{row['key']}-{'-'.join(words)}"
    else:
        group, own_id = f"question-{row['question']}", f"{split}-{number}"
    return InstructedPrompt(own_id, row["prompt"], base, group, names, kwargs, _cells(names, kwargs), split)


def _everything(root: Path | None, split: str) -> tuple[InstructedPrompt, ...]:
    rows = read_rows(root, FILES["all"])
    bases = {row["key"]: row["model_output"] for row in read_rows(root, FILES["bases"])}
    lacking = [row["key"] for row in rows if row["key"] not in bases]
    if lacking:
        raise SteerlabError(
            f"{len(lacking)} prompts of IFEval, {lacking[0]} first, have no base query: get both files again."
        )
    return tuple(_prompt(row, number, split, bases[row["key"]]) for number, row in enumerate(rows))


def _single(root: Path | None, split: str) -> tuple[InstructedPrompt, ...]:
    rows = read_rows(root, FILES[split])
    return tuple(_prompt(row, number, split, row["prompt_without_instruction"]) for number, row in enumerate(rows))
