"""A sweep of a tiny model through `steerlab sweep`, as its tests run it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from steerlab.commands import sweep as command
from steerlab.commands.sweep_cli import sweep
from steerlab.fitting import fit_language_vectors
from steerlab.loading import load
from tests.command import save_model

SIDES = {"jv": ["aku mangan sega", "kowe turu"], "su": ["abdi tuang sangu", "anjeun bobo"]}
model_at = cache(load)
PROMPTS = ("Tell me of the river.", "Say it again.", "Now the town.", "And the rain?")
ARMS = ("-l", "0", "-l", "2", "-s", "0.05", "-s", "rotate:0.1", "--directions", "1")
QUICK = (*ARMS, "-n", "2", "--max-new-tokens", "20", "--effect", "distinct_2", "--json", "-q")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a vector of it, and texts."""
    folder = tmp_path_factory.mktemp("sweep")
    save_model(folder / "model")
    vectors = fit_language_vectors(model_at(str(folder / "model")), {"texts": SIDES})
    vectors["jv"].save(folder / "language-jv.safetensors")
    (folder / "texts.txt").write_text("the river is wide\na town\n", encoding="utf-8")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    return folder


@pytest.fixture
def vector(place: Path, tmp_path: Path) -> Path:
    """A copy of the vector that may be written to."""
    copy = tmp_path / "language-jv.safetensors"
    copy.write_bytes((place / "language-jv.safetensors").read_bytes())
    return copy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model for all sweeps of the process, and no data sets."""
    monkeypatch.setattr(command, "load", model_at)
    monkeypatch.delenv("STEERLAB_DATA", raising=False)


def sweep_run(*words: str | Path) -> Any:
    """What `steerlab sweep` with these words does, in this process."""
    app = typer.Typer()
    app.command()(sweep)
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=True)


def words_of(place: Path, *words: str | Path) -> list[str]:
    """The words of a quick sweep of the place."""
    given = ("-m", place / "model", "--texts", place / "texts.txt", "--prompts", place / "prompts.txt")
    return list(map(str, (*words, *given, *QUICK)))


def sweep_rows(place: Path, *words: str | Path) -> list[dict[str, Any]]:
    """The rows a quick sweep of the place prints."""
    said = sweep_run(*words_of(place, *words))
    assert said.exit_code == 0, (said.output, said.exception)
    return json.loads(said.stdout)
