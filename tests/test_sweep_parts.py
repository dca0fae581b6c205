"""Many hands on one sweep: workers, Ray, shards and launched processes write what one process does, killed or not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from steerlab.commands import sweep as command
from steerlab.commands import sweep_parts
from tests import swept
from tests.small_run import content
from tests.swept import sweep_rows, words_of
from tests.walls import ROOT

place, vector, quick = swept.place, swept.vector, swept.quick  # fixtures


@pytest.fixture(scope="module")
def single(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep one process wrote, in batches of 16, by a vector at a place that stays."""
    out = tmp_path_factory.mktemp("single") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STEERLAB_DATA", raising=False)
        sweep_rows(place, place / "language-jv.safetensors", "--out", out, "--batch-rows", "16")
    return out


def _again(place: Path, out: Path, *words: str | Path) -> list[dict[str, Any]]:
    return sweep_rows(place, place / "language-jv.safetensors", "--out", out, "--batch-rows", "16", *words)


def _bytes(out: Path) -> dict[str, bytes]:
    """What must be the same whoever wrote it."""
    return {name: data for name, data in content(out).items() if not name.startswith(".shards/")}


def _kill_one(parts: Path, killed: list[int]) -> None:
    """Kill a worker as soon as some part is written."""
    while not killed:
        workers = multiprocessing.active_children()
        if workers and list(parts.glob("*/*.jsonl")):
            killed.append(workers[0].pid or 0)
            workers[0].kill()
        time.sleep(0.01)


@pytest.mark.slow
def test_two_workers_one_killed_write_what_one_process_does(place: Path, single: Path, tmp_path: Path) -> None:
    killed: list[int] = []
    watcher = threading.Thread(target=_kill_one, args=(tmp_path / "run" / ".shards", killed), daemon=True)
    watcher.start()
    _again(place, tmp_path / "run", "--workers", "2")
    assert killed and _bytes(tmp_path / "run") == _bytes(single)
    assert not list((tmp_path / "run" / ".shards").glob("*/*.jsonl"))


def _kill_a_task(parts: Path, killed: list[int]) -> None:
    """Kill a process of a Ray task as soon as some part is written; who they are is looked up before, for that takes longer."""
    tasks: list[int] = []
    while not tasks:
        running = psutil.process_iter(["cmdline"])
        tasks = [process.pid for process in running if "ray::_task" in " ".join(process.info["cmdline"] or ())]
    while not list(parts.glob("*/*.jsonl")):
        time.sleep(0.001)
    os.kill(tasks[0], signal.SIGKILL)
    killed.append(tasks[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's own; what it does is compared
def test_a_sweep_on_ray_with_a_worker_killed_writes_what_one_process_does(
    place: Path, single: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: in the checkout, pip install -e '.[ray]'")
    killed: list[int] = []
    watcher = threading.Thread(target=_kill_a_task, args=(tmp_path / "run" / ".shards", killed), daemon=True)
    watcher.start()
    _again(place, tmp_path / "run", "--workers", "2", "--ray", "local")
    assert killed and _bytes(tmp_path / "run") == _bytes(single)


def test_shards_of_two_machines_are_gathered(place: Path, single: Path, tmp_path: Path) -> None:
    for i in (1, 2):
        (row,) = _again(place, tmp_path / f"part{i}", "--shard", f"{i}/2")
        assert row == {"shard": f"{i}/2", "parts": 3 - i // 2, "of": 5}
        assert not (tmp_path / f"part{i}" / "manifest.json").exists()
    _again(place, tmp_path / "all", "--gather", tmp_path / "part1", "--gather", tmp_path / "part2")
    assert _bytes(tmp_path / "all") == _bytes(single)
    with pytest.raises(AssertionError, match="holds no shard of this sweep"):
        _again(place, tmp_path / "other", "--gather", tmp_path / "part1", "--seed", "1")


def test_launched_processes_share_a_folder_and_the_first_ends_it(
    place: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    (row,) = _again(
        place, tmp_path / "run", "--shard", "auto"
    )  # the first is late, so the second does its part as well
    assert row["parts"] == row["of"] == 5 and not (tmp_path / "run" / "manifest.json").exists()
    monkeypatch.setenv("RANK", "0")
    _again(place, tmp_path / "run", "--shard", "auto")
    assert _bytes(tmp_path / "run") == _bytes(single)


@pytest.mark.slow
def test_torchrun_starts_a_sweep_of_two_processes(place: Path, single: Path, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "steerlab.cli", "sweep")
    given = words_of(place, place / "language-jv.safetensors", "--out", tmp_path / "run", "--batch-rows", "16")
    environment = {name: value for name, value in os.environ.items() if name != "STEERLAB_DATA"}
    run = [sys.executable, *launcher, *given, "--shard", "auto"]
    said = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300, check=False)
    assert said.returncode == 0, said.stderr
    assert _bytes(tmp_path / "run") == _bytes(single)


def test_an_interrupted_sweep_goes_on_in_parts(
    place: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = command.generate_batches

    def stops(*given: Any, **more: Any) -> Any:
        for done, batch in enumerate(written(*given, **more)):
            if done == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(command, "generate_batches", stops)
    with pytest.raises(AssertionError):
        _again(place, tmp_path / "run")
    numbers: list[int] = []
    parts = sweep_parts.generate_batches

    def noted(*given: Any, **more: Any) -> Any:
        for batch in parts(*given, **more):
            numbers.append(batch[0])
            yield batch

    monkeypatch.setattr(sweep_parts, "generate_batches", noted)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    _again(place, tmp_path / "run", "--shard", "auto")
    assert sorted(numbers) == [2, 3, 4] and _bytes(tmp_path / "run") == _bytes(single)
