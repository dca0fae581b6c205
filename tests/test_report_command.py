"""`steerlab report` and `steerlab watch` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import Command
from tests.reported_run import reported_run


def test_a_page_is_written_beside_the_run_and_a_run_is_watched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = Command(monkeypatch, capsys)
    run = reported_run(tmp_path / "run")
    said = command("report", run)
    assert said.code == 0 and said.out == f"{tmp_path / 'run.html'}: 1 run, 16 rows of texts; open it in a browser\n"
    assert (tmp_path / "run.html").is_file()
    assert "32 of 32 texts; finished" in " ".join(command("watch", run, "--once").out.split())
    assert "finished" in command("watch", run).out
    (row,) = json.loads(command("watch", run, "--json").out)
    assert (row["texts"], row["wanted"], row["finished"]) == (32, 32, True)
    command.refused("report", tmp_path, because="holds no run")
    command.refused("watch", tmp_path, "--once", because="holds no run")
