"""`steerlab lens` prints what the lens reads, and says in one sentence what it cannot."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from steerlab import lens
from steerlab.bridge import readout
from steerlab.commands import lens as lens_command
from steerlab.fitting import fit_contrast_vector
from steerlab.loading import load
from steerlab.pieces import readable
from steerlab.vectors import SteeringVector
from tests.command import Command, save_model
from tests.tiny import LAYERS

_load = cache(load)
TEXTS = ["dober dan", "kako gre"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setattr(lens_command, "load", _load)
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "gemma2")


@pytest.fixture(scope="module")
def saved(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "sl.safetensors"
    fit_contrast_vector(_load(str(model)), TEXTS, ["hello there", "good day"], name="sl").save(path)
    return path


def test_help_teaches_with_examples(command: Command) -> None:
    said = command("lens", "--help")
    assert said.code == 0 and "steerlab lens jv --top 5" in " ".join(said.out.split())


def test_json_holds_what_the_functions_find(command: Command, model: Path, saved: Path, tmp_path: Path) -> None:
    loaded, vector = _load(str(model)), SteeringVector.load(saved)
    (tmp_path / "sl.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    exact = lens.exact_promotion(loaded, readout(loaded), vector, TEXTS, 0.3, "raw")
    more = ("--texts", tmp_path / "sl.txt", "--strength", "0.3", "--unit", "raw")
    for scores, words in ((lens.promotion(readout(loaded), vector), ()), (exact, more)):
        said = command("lens", saved, "-m", model, "--top", "3", "--json", *words)
        assert said.code == 0 and said.err == "", said
        rows = json.loads(said.out)
        assert [row["layer"] for row in rows] == list(range(LAYERS))
        for row, own in zip(rows, scores, strict=True):
            for side, lowest in (("promoted", False), ("suppressed", True)):
                assert [t["id"] for t in row[side]] == lens.top_tokens(own, 3, lowest)
                assert [t["token"] for t in row[side]] == [readable(loaded.tokenizer, t["id"]) for t in row[side]]
            token = row["promoted"][0]
            assert token["score"] == pytest.approx(float(own[token["id"]] - own.mean()), abs=1e-3)
    assert not torch.allclose(exact, lens.promotion(readout(loaded), vector), atol=0.01)


def test_the_table_shows_tokens_of_the_layers_asked_for(command: Command, model: Path, saved: Path) -> None:
    rows = json.loads(command("lens", saved, "-m", model, "-l", "2", "--top", "4", "--json").out)
    said = command("lens", saved, "-m", model, "-l", "2", "--top", "4")
    assert said.code == 0 and [row["layer"] for row in rows] == [2]
    assert all(t["token"] in said.out for t in rows[0]["promoted"] + rows[0]["suppressed"])


def test_a_bundled_vector_goes_by_its_name_or_its_language() -> None:
    assert lens_command.find("jv", "polyglot-mini").name == lens_command.find("language-jv", "polyglot-mini").name
    assert lens_command.find("quality-sl", "polyglot-mini").name == "quality-sl"


def test_bad_input_is_one_sentence(command: Command, model: Path, saved: Path, tmp_path: Path) -> None:
    command.refused(
        "lens", "xx", because="'xx' is no vector file and no bundled vector: give a file, or one of language-am"
    )
    command.refused("lens", "jv", "-m", model, because="no vector file 'jv': give one that was fitted on")
    command.refused("lens", saved, "-m", model, "--top", "0", because="--top is 0")
    command.refused("lens", saved, "-m", model, "--unit", "nats", because="unit 'nats' is not known")
    command.refused("lens", saved, "-m", model, "-l", "9", because="no direction at layer 9: it has layers 0-3")
    command.refused("lens", saved, "-m", model, "--texts", tmp_path / "no.txt", because="no.txt")
    command.refused("lens", saved, because="has width 32, but polyglot-mini has width")
