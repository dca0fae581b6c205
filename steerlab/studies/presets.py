"""Studies that are known by name: the paper's four models, and the bundled one."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from pathlib import Path

from steerlab.errors import SteerlabError
from steerlab.studies.config import ModelPlan, StudyConfig, override, read_toml
from steerlab.templates import INSTRUCTION

PAPER = StudyConfig(max_new_tokens=512, classifier="FacebookAI/xlm-roberta-base", classifier_seeds=20)


def _gemma(name: str, layers: dict[str, int]) -> ModelPlan:
    """Gemma-2 as the paper prompts it: the plain instruction form, strengths on the unit vector up to 100."""
    return ModelPlan(
        name, layers, (25.0, 50.0, 75.0, 100.0), "raw", INSTRUCTION, "bfloat16", "auto", vectors="fit", batch_rows=64
    )  # fmt: skip


def _llama(name: str, layers: dict[str, int], rows: int) -> ModelPlan:
    """Llama-3.1 with its chat template, strengths on the unit vector up to 4."""
    return ModelPlan(
        name, layers, (1.0, 2.0, 3.0, 4.0), "raw", "chat", "bfloat16", "auto", vectors="fit", batch_rows=rows
    )  # fmt: skip


# Early blocks of Gemma-2-9B and Llama-3.1-8B are the paper's (10 of 42, 7 of 32); the others are at the same depth,
# middle at half and late at four fifths of it.
PRESETS: dict[str, StudyConfig] = {
    "polyglot-mini": StudyConfig(
        max_new_tokens=64, per_label={"topic": 7, "sentiment": 18}
    ),  # a third of the paper's texts: two cores
    "gemma-2-9b-it": dataclasses.replace(
        PAPER, models=(_gemma("google/gemma-2-9b-it", {"early": 10, "middle": 21, "late": 33}),)
    ),
    "gemma-2-27b-it": dataclasses.replace(
        PAPER, models=(_gemma("google/gemma-2-27b-it", {"early": 11, "middle": 23, "late": 36}),)
    ),
    "llama-3.1-8b-instruct": dataclasses.replace(
        PAPER, models=(_llama("meta-llama/Llama-3.1-8B-Instruct", {"early": 7, "middle": 16, "late": 25}, 64),)
    ),
    "llama-3.1-70b-instruct": dataclasses.replace(
        PAPER, models=(_llama("meta-llama/Llama-3.1-70B-Instruct", {"early": 18, "middle": 40, "late": 63}, 32),)
    ),
}


def preset(name: str) -> StudyConfig:
    """The study of that name. Raises `SteerlabError` naming the known ones and the nearest."""
    if name in PRESETS:
        return PRESETS[name]
    close = get_close_matches(name.casefold(), PRESETS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise SteerlabError(f"preset {name!r} is not known: give one of {', '.join(PRESETS)}, or a TOML file{hint}")


def find_study(given: str) -> StudyConfig:
    """A preset's name, or a TOML file whose fields replace those of `preset = "NAME"` (polyglot-mini where it names none).

    Raises `SteerlabError` as `preset` and `read_toml` do.
    """
    path = Path(given)
    if path.suffix != ".toml":
        return preset(given)
    if not path.is_file():
        raise SteerlabError(f"there is no file {given}: give a TOML file, or a preset ({', '.join(PRESETS)}).")
    given_fields = read_toml(path)
    base = given_fields.pop("preset", "polyglot-mini")
    if not isinstance(base, str):
        raise SteerlabError(f"{given} has preset = {base!r}: name one of {', '.join(PRESETS)}.")
    return override(preset(base), given_fields, given)
