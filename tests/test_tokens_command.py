"""`steerlab tokens` shows the map of a text, of a prompt with an answer, or of one the model writes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from steerlab.commands import tokens as tokens_command
from steerlab.fitting import fit_contrast_vector
from steerlab.loading import load
from tests.command import Command, save_model

_load = cache(load)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setattr(tokens_command, "load", _load)
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "gemma2")


@pytest.fixture(scope="module")
def vector(model: Path) -> Path:
    path = model.parent / "tone.safetensors"
    fit_contrast_vector(_load(str(model)), ["good day"], ["bad night"], name="tone").save(path)
    return path


def test_a_text_is_mapped_in_words_and_as_a_page(command: Command, model: Path, vector: Path, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    said = command("tokens", vector, "--model", model, "--text", "good <b>", "--layer", "1", "--html", page, "--each")
    assert said.code == 0, said
    assert "good<b>" in said.out.replace(" ", "").replace("␣", "")
    assert "tone, add 0.5 of the residual norm at layer 1, positions all: 9 of 9 tokens steered" in said.out
    assert "tone: 8 of 9 tokens are read" in said.out and "Token by token" in said.out
    assert "&lt;" in page.read_text() and str(page) in said.out


def test_an_answer_is_steered_where_positions_say(command: Command, model: Path, vector: Path) -> None:
    words = ("tokens", vector, "-m", model, "-p", "say", "--answer", "day", "--positions", "writing", "--json")
    rows = json.loads(command(*words, "--layer", "0", "-l", "2", "--strength", "2", "--unit", "raw").out)
    assert "<|user|>" in {row["piece"] for row in rows}  # the prompt stands in the model's template
    steered = [row for row in rows if row["open"]]
    assert sorted({row["position"] for row in steered}) == [-1, 0, 1, 2]
    assert {row["layer"] for row in steered} == {0, 2} and {row["strength"] for row in steered} == {2.0}
    assert all(row["moved"] == 0 for row in rows if not row["open"])


def test_without_an_answer_the_steered_model_writes_one(command: Command, model: Path, vector: Path) -> None:
    words = ("tokens", vector, "-m", model, "-p", "say", "--max-new-tokens", "5", "--json", "-l", "1")
    plain, pushed = (json.loads(command(*words, "--strength", s).out) for s in ("0", "40"))
    answers = [[row["id"] for row in rows if row["position"] >= 0] for rows in (plain, pushed)]
    assert 1 <= len(answers[0]) <= 5 and answers[0] != answers[1]


def test_gates_and_operators_are_understood(command: Command, model: Path, vector: Path) -> None:
    words = ("tokens", vector, "-m", model, "-t", "good", "-l", "1", "--operator", "ablate", "--json")
    rows = json.loads(command(*words, "--gate", "above:0", "--read", "last:1").out)
    assert {row["open"] for row in rows} == {row["cosine"] > 0 for row in rows} and all(
        row["open"] == (row["cosine"] > 0) for row in rows
    )
    assert [bool(row["read"]) for row in rows] == [False] * 4 + [True]
    assert {row["share"] for row in rows} == {None}


def test_bundled_vectors_have_recommended_settings() -> None:
    one = tokens_command.intervention(
        tokens_command.find("jv", "polyglot-mini"), tokens_command.Ask(text="x"), "polyglot-mini"
    )
    recommended = tokens_command.recommended("language-jv")
    assert recommended is not None and (one.at, one.strength, one.unit) == (
        (recommended[0],),
        recommended[1],
        "residual",
    )


@pytest.mark.parametrize(
    ("words", "because"),
    [
        ((), "either --text or --prompt"),
        (("-t", "a", "-p", "b"), "either --text or --prompt"),
        (("-t", "a", "--answer", "b"), "without --prompt"),
        (("-t", "a", "--positions", "somewhere"), "positions 'somewhere' are not known"),
        (("-t", "a", "--read", "somewhere"), "positions 'somewhere' are not known"),
        (("-t", "a", "--gate", "0.3"), "--gate '0.3' is not known"),
        (("-t", "a", "--gate", "above:2"), "a cosine lies between"),
        (("-t", "a", "--operator", "push"), "operator 'push' is not known"),
        (("-t", "a", "--unit", "metres"), "unit 'metres' is not known"),
        (("-t", "a", "-l", "99"), "no direction at layer 99"),
        (("-p", "a", "--max-new-tokens", "0"), "--max-new-tokens is 0"),
    ],
)
def test_bad_input_is_one_sentence(
    command: Command, vector: Path, model: Path, words: tuple[str, ...], because: str
) -> None:
    command.refused("tokens", vector, "-m", model, *words, because=because)
