"""`steerlab dataset` does what the functions do, prints what it did, and teaches by its help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from steerlab import dataset
from steerlab.commands.dataset_cli import dataset_app
from steerlab.dataset import CARD
from steerlab.errors import SteerlabError
from tests.labelled_run import labelled_run, loaded
from tests.small_run import content


def _call(*words: str | Path) -> Any:
    return CliRunner().invoke(dataset_app, [str(word) for word in words])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return labelled_run(tmp_path / "run")


def test_export_writes_what_the_options_choose(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = _call(
        "export", run, "--out", out, "-c", "steered", "-l", "jv", "--validation", "0.25", "--seed", "3", "--json"
    )
    assert said.exit_code == 0
    assert json.loads(said.stdout) == [{"configuration": "topic-jv", "train": 9, "validation": 3}]
    same = dataset.export(run, tmp_path / "same", dataset.Choice(("steered",), ("jv",), validation=0.25, seed=3)).path
    assert content(out) == content(same)
    assert set(loaded(out)["validation"]["condition"]) == {"steered"}
    table = _call("export", run, "--out", tmp_path / "all", "--license", "cc-by-4.0", "--name", "Two ways")
    assert "topic-su" in table.stdout and f"card: {tmp_path / 'all' / CARD}" in table.stdout
    text = (tmp_path / "all" / CARD).read_text(encoding="utf-8")
    assert 'license: "cc-by-4.0"' in text and "# Two ways" in text


def test_card_prints_what_export_writes(run: Path, tmp_path: Path) -> None:
    dataset.export(run, tmp_path / "out", dataset.Choice(validation=0.25))
    written = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    assert _call("card", run, "--validation", "0.25").stdout == written + "\n"
    assert json.loads(_call("card", run, "--validation", "0.25", "--json").stdout) == {"card": written}
    assert _call("card", run).stdout != written + "\n"


def test_force_replaces_and_its_absence_does_not(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _call("export", run, "--out", out).exit_code == 0
    refused = _call("export", run, "--out", out, "-l", "su")
    assert isinstance(refused.exception, SteerlabError) and "--force" in str(refused.exception)
    assert _call("export", run, "--out", out, "-l", "su", "--force").exit_code == 0
    assert not (out / "topic-jv").exists()


def test_push_to_uploads_privately_unless_told_otherwise(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steerlab.commands import dataset as command

    sent: list[tuple[Path, str, bool]] = []

    def push(folder: Path, repo_id: str, private: bool = True) -> str:
        sent.append((folder, repo_id, private))
        return "https://hub/me/texts"

    monkeypatch.setattr(command, "push", push)
    said = _call("export", run, "--out", tmp_path / "out", "--push-to", "me/texts")
    assert "uploaded: https://hub/me/texts" in said.stdout
    _call("export", run, "--out", tmp_path / "out", "--push-to", "me/texts", "--public")
    _call("export", run, "--out", tmp_path / "out")
    assert sent == [(tmp_path / "out", "me/texts", True), (tmp_path / "out", "me/texts", False)]


@pytest.mark.parametrize("name", ["export", "card"])
def test_help_shows_an_example(name: str) -> None:
    said = _call(name, "--help")
    assert said.exit_code == 0 and f"steerlab dataset {name} runs/steered" in said.stdout
