"""What was written before survives what goes wrong: another configuration, a path that is none, a full disk, an interrupt."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from steerlab import store
from steerlab.commands import synthesize as synthesize_command
from tests.command import QUICK, Command, Said, save_model
from tests.small_run import content


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "jv.txt").write_text("aku mangan sega\nkowe turu\n", encoding="utf-8")
    (folder / "su.txt").write_text("abdi tuang sangu\nanjeun bobo\n", encoding="utf-8")
    return folder


def _synthesize(model: Path, out: Path, *more: str) -> tuple[str | Path, ...]:
    return ("synthesize", "-l", "jv", "-m", model, "-n", "2", "--out", out, "--batch-rows", "1", *QUICK, *more)


def test_another_configuration_leaves_the_run_as_it_was(command: Command, model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert command(*_synthesize(model, run)).code == 0
    before = content(run)
    for words, differs in ((("-n", "3"), "per_label is 2 there, 3 now"), (("--seed", "1"), "settings.seed is 0 there")):
        command.refused(*_synthesize(model, run, *words), because=f"another configuration .*{differs}")
    assert content(run) == before
    store.verify(run)


def test_a_path_under_a_file_cannot_be_written(command: Command, model: Path, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    out = tmp_path / "file" / "run"
    command.refused(*_synthesize(model, out), because="a file stands in the way: give another folder")
    sides = ("-t", f"jv={texts / 'jv.txt'}", "-t", f"su={texts / 'su.txt'}", "-m", model, "-q")
    command.refused("vectors", "fit", *sides, "--out", out, because="a file stands in the way|cannot be used")
    assert (tmp_path / "file").read_text() == "kept" and [p.name for p in tmp_path.iterdir()] == ["file"]


class FullDisk:
    """`os.write` with room for some bytes only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.real, self.left = os.write, room
        monkeypatch.setattr(os, "write", self)

    def __call__(self, file: int, data: bytes) -> int:
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.real(file, bytes(data[: self.left]))
        self.left -= written
        return written


@pytest.mark.parametrize("room", [0, 2_600, 6_000])
def test_a_full_disk_costs_nothing_that_was_written(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    assert command(*_synthesize(model, tmp_path / "whole")).code == 0
    whole = content(tmp_path / "whole")
    assert sum(map(len, whole.values())) > 6_000
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, room)
        command.refused(
            *_synthesize(model, tmp_path / "run"), because="no space is left to write .*: free some and repeat"
        )
        assert disk.left == 0
    half = content(tmp_path / "run") if room else {}
    assert store.MANIFEST not in half and len(half) < len(whole)
    log = half.get("samples.jsonl", b"") + half.get("drafts.jsonl", b"")
    assert all(line in whole["samples.jsonl"] + whole["drafts.jsonl"] for line in log.splitlines())
    assert command(*_synthesize(model, tmp_path / "run")).code == 0
    assert content(tmp_path / "run") == whole


def test_a_disk_that_fails_to_flush_is_said(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)
    command.refused(*_synthesize(model, tmp_path / "run"), because="no space is left")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 0.99])
def test_a_full_disk_leaves_the_vectors_that_were_there(
    command: Command, model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    out = tmp_path / "vectors"
    sides = (f"jv={texts / 'jv.txt'}", f"su={texts / 'su.txt'}")
    words = ("vectors", "fit", "-m", model, "-q", "--out", out)
    assert command(*words, "-t", sides[0], "-t", sides[1]).code == 0
    before = content(out)
    new = ("-t", sides[0], "-t", sides[1], "--positions", "last:2")
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, int(share * sum(map(len, before.values()))))
        command.refused(*words, *new, because="no space is left")
        assert disk.left == 0
    assert content(out) == before
    assert command(*words, *new).code == 0
    assert content(out).keys() == before.keys() and content(out) != before


def test_an_interruption_says_how_to_continue(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*_synthesize(model, tmp_path / "whole")).code == 0
    with monkeypatch.context() as patch:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(synthesize_command, "evaluate", interrupted)
        said = command(*_synthesize(model, tmp_path / "run"))
    assert said == Said(130, "", "steerlab: interrupted; the same command continues where it stopped.\n")
    assert command(*_synthesize(model, tmp_path / "run")).code == 0
    assert content(tmp_path / "run") == content(tmp_path / "whole")
