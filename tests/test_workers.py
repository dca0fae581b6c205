"""Workers share a folder: one is killed, the rest goes on, and whoever started them ends with what one process would have written."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from steerlab.errors import SteerlabError
from steerlab.sharding import Parts, Shard
from steerlab.workers import check_exclusive, start

COUNT = 12


def _work(folder: Path, die: bool, shard: Shard) -> None:
    """Write parts; the second worker dies in the middle of its second one, once. The first leaves it parts to die on."""
    parts = Parts(folder / "parts", COUNT)
    for begun, number in enumerate(parts.claim(shard)):
        while die and shard.index == 0 and begun == 1 and not (folder / "died").exists():
            time.sleep(0.02)
        if die and shard.index == 1 and begun == 1 and not (folder / "died").exists():
            (folder / "died").write_text(str(number))
            os.kill(os.getpid(), signal.SIGKILL)
        parts.write(number, [{"number": number}])


def _refuse(shard: Shard) -> None:
    raise SteerlabError(f"worker {shard.index} has nothing to do: give it something.")


def _complete(folder: Path) -> None:
    """Every part is there with the bytes a lone process writes."""
    _work(folder, False, Shard())
    alone = folder / "alone"
    _work(alone, False, Shard())
    for number in range(COUNT):
        name = f"parts/{number}.jsonl"
        assert (folder / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parts = Parts(tmp_path / "parts", COUNT)
    lost = start(partial(_work, tmp_path, True), 2, count=parts.written, total=COUNT)
    assert lost == 1 and "1 of the workers ended early" in capfd.readouterr().err
    assert (tmp_path / "died").exists() and parts.written() == COUNT  # the other worker took over
    _complete(tmp_path)


@pytest.mark.slow
def test_an_error_of_a_worker_is_told_in_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    assert start(_refuse, 1) == 1
    said = capfd.readouterr().err
    assert "worker 1 of 1: worker 0 has nothing to do" in said and "Traceback" not in said


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SteerlabError, match="give at least 1"):
        start(_refuse, 0)
    with pytest.raises(SteerlabError, match="not both"):
        check_exclusive(Shard(0, 2), 2, "")
    check_exclusive(Shard(), 2, "")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SteerlabError, match=r"pip install -e '\.\[ray\]'"):
        start(_refuse, 2, "local")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's own; what it does is compared
def test_ray_with_two_workers_one_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: in the checkout, pip install -e '.[ray]'")
    parts = Parts(tmp_path / "parts", COUNT)
    lost = start(partial(_work, tmp_path, True), 2, "local", count=parts.written, total=COUNT)
    assert (tmp_path / "died").exists() and lost == 0  # Ray started the dead task again
    assert parts.written() == COUNT
    _complete(tmp_path)
