"""A study written by several processes, one of them killed, is the study of one process, byte for byte."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from steerlab.commands import study as command
from steerlab.errors import SteerlabError
from tests.test_studies_run import _bytes, _config

SMALL = 'kinds = ["none", "quality"]\nmodes = ["zero-shot"]'


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small study that one process wrote, and its configuration."""
    folder = tmp_path_factory.mktemp("whole")
    for code, words in (("jv", "aku kowe mangan turu omah kali"), ("da", "jeg du spiser sover hus bjerg")):
        lines = [" ".join([*words.split()[i % 6 :], f"{code} {i}"]) for i in range(12)]
        (folder / f"{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = _config(folder, folder, changes=SMALL)
    command.run(str(config), folder / "out", None, progress=False)
    return config, folder / "out"


@pytest.mark.slow
def test_two_workers_one_killed_write_what_one_process_does(whole: tuple[Path, Path], tmp_path: Path) -> None:
    config, out = whole
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            workers = multiprocessing.active_children()
            if workers and list((tmp_path / "out" / "units").glob("*/manifest.json")):
                killed.append(workers[0].pid or 0)
                workers[0].kill()
            time.sleep(0.01)

    threading.Thread(target=kill, daemon=True).start()
    command.run(str(config), tmp_path / "out", None, progress=False, workers=2)
    assert killed and _bytes(tmp_path / "out") == _bytes(out)


def test_launched_processes_share_a_folder_and_the_first_reports(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = whole
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert command.run(str(config), tmp_path / "out", None, "auto", progress=False) == []
    assert len(list((tmp_path / "out" / "units").glob("*/manifest.json"))) == 4
    assert not (tmp_path / "out" / "report.md").exists()
    monkeypatch.setenv("RANK", "0")
    assert command.run(str(config), tmp_path / "out", None, "auto", progress=False)
    assert _bytes(tmp_path / "out") == _bytes(out)


def test_a_shard_and_workers_are_not_asked_for_at_once(whole: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="not both"):
        command.run(str(whole[0]), tmp_path / "out", None, "1/2", workers=2)
    assert not (tmp_path / "out").exists()
