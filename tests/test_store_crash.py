"""What is left of a run folder after a full disk, an interrupt, a kill: every complete batch, and not a byte more."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steerlab import store
from steerlab.errors import SteerlabError
from steerlab.store import RunFolder, verify
from tests.small_run import CONFIG, content, rows, work


@pytest.mark.parametrize("room", [0, 1, 150, 300])
def test_a_full_disk_leaves_what_was_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Room for nothing, for a part of the rows, and for the rows but not the line in the log."""
    wanted = content(work(tmp_path / "whole"))
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        run.append("samples.jsonl", rows(0), batch="0")
        run.write_text("report.md", "old")
        before, real, left = content(run.path), os.write, room
        assert len(b"".join(store.encode(row) for row in rows(1))) in range(151, 300)

        def full(file: int, data: bytes) -> int:
            nonlocal left
            if left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = real(file, bytes(data[:left]))
            left -= written
            return written

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(SteerlabError, match="no space is left .*free some and repeat"):
                run.append("samples.jsonl", rows(1), batch="1")
            assert left == 0
            with pytest.raises(SteerlabError, match="no space is left"):
                run.write_text("report.md", "new")
        assert content(run.path) == before
        assert run.completed_batches() == {"0"}
        (run.path / "report.md").unlink()
    assert content(work(tmp_path / "run")) == wanted


def test_an_interrupt_between_rows_and_log_undoes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        run.append("samples.jsonl", rows(0), batch="0")
        before, real = content(run.path), store.append_at

        def interrupted(path: Path, at: int, data: bytes) -> None:
            real(path, at, data)
            if path.name == store.BATCHES:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store, "append_at", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run.append("samples.jsonl", rows(1), batch="1")
        assert content(run.path) == before
        run.append("samples.jsonl", rows(1), batch="1")
        assert run.read("samples.jsonl") == rows(0) + rows(1)


def test_a_write_torn_at_any_byte_loses_only_its_batch(tmp_path: Path) -> None:
    """Every state a kill can leave: the last batch's rows cut anywhere and no log line; all rows and the log line cut anywhere."""
    whole = content(work(tmp_path / "whole", batches=2))
    log, data = whole["batches.jsonl"], whole["samples.jsonl"]
    log_start, data_start = log[:-1].rfind(b"\n") + 1, len(b"".join(store.encode(row) for row in rows(0)))
    torn = [(log[:log_start], data[:cut]) for cut in range(data_start, len(data) + 1, 5)]
    torn += [(log[:cut], data) for cut in range(log_start, len(log), 5)]
    folder = tmp_path / "torn"
    folder.mkdir()
    for log_part, data_part in torn:
        (folder / "manifest.json").unlink(missing_ok=True)  # a run that is torn was not finished
        (folder / "config.json").write_bytes(whole["config.json"])
        (folder / "batches.jsonl").write_bytes(log_part)
        (folder / "samples.jsonl").write_bytes(data_part)
        (folder / ".report.md.tmp").write_bytes(b"half a rep")
        with RunFolder.open(folder, CONFIG) as run:
            assert run.completed_batches() == {"0"}
            assert run.read("samples.jsonl") == rows(0)
            assert content(folder)["samples.jsonl"] == data[:data_start]
            assert content(folder)["batches.jsonl"] == log[:log_start]
        assert content(work(folder, batches=2)) == whole


def test_every_state_between_two_writes_can_be_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[dict[str, bytes]] = []
    real = store.append_at

    def watched(path: Path, at: int, data: bytes) -> None:
        real(path, at, data)
        states.append(content(tmp_path / "whole"))

    with monkeypatch.context() as patch:
        patch.setattr(store, "append_at", watched)
        whole = content(work(tmp_path / "whole"))
    assert len(states) == 1 + 2 * 3  # the announcement; then rows and log line of each batch
    for number, state in enumerate(states):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in state.items():
            (folder / name).write_bytes(data)
        assert content(work(folder)) == whole


def test_reading_goes_on_where_even_cutting_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    real = store.append_at

    def torn(path: Path, at: int, data: bytes) -> None:
        real(path, at, data[:10])
        fails()

    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        run.append("samples.jsonl", rows(0), batch="0")
        with monkeypatch.context() as patch:
            patch.setattr(os, "truncate", fails)
            patch.setattr(store, "append_at", torn)
            with pytest.raises(SteerlabError, match="cannot be used"):
                run.append("samples.jsonl", rows(1), batch="1")
        assert run.read("samples.jsonl") == rows(0)
    assert content(work(tmp_path / "run")) == content(work(tmp_path / "whole"))


def test_a_torn_first_batch_is_cut_to_nothing(tmp_path: Path) -> None:
    whole = content(work(tmp_path / "run", batches=1))
    log = whole["batches.jsonl"]
    (tmp_path / "run" / "manifest.json").unlink()
    (tmp_path / "run" / "batches.jsonl").write_bytes(log[: log.find(b"\n") + 1])
    (tmp_path / "run" / "samples.jsonl").write_bytes(whole["samples.jsonl"][:20])
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        assert run.completed_batches() == frozenset()
        assert run.read("samples.jsonl") == []
    assert content(work(tmp_path / "run", batches=1)) == whole


_WRITER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from steerlab.store import RunFolder
with RunFolder.open(sys.argv[2], {"seed": 1}) as run:
    print("writing", flush=True)
    for batch in range(40):
        if str(batch) not in run.completed_batches():
            run.append("samples.jsonl", [{"id": f"{batch}-{i}", "text": "x" * 1000} for i in range(200)], batch=str(batch))
            run.write_json("progress.json", {"batch": batch, "filler": "y" * 100_000})
            time.sleep(float(sys.argv[3]))
    run.finish()
"""


def _writer(folder: Path, pause: float) -> subprocess.Popen[str]:
    root = Path(store.__file__).parents[1]
    command = [sys.executable, "-c", _WRITER, str(root), str(folder), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_is_uninterrupted(tmp_path: Path) -> None:
    with _writer(tmp_path / "whole", 0.0) as process:
        assert process.wait() == 0
    wanted = content(tmp_path / "whole")
    draw = random.Random(7)
    for _ in range(6):
        with _writer(tmp_path / "killed", 0.02) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            time.sleep(draw.uniform(0.0, 0.12))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed" / store.MANIFEST).exists()
    with _writer(tmp_path / "killed", 0.0) as process:
        assert process.wait() == 0
    assert content(tmp_path / "killed") == wanted
    verify(tmp_path / "killed")
