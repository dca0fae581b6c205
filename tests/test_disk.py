from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from steerlab.disk import append_at, fingerprint, replace, take_lock, told
from steerlab.errors import SteerlabError


def _broken_write(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """From now on the disk takes `after` bytes and then is full."""
    real, room = os.write, after

    def write(file: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(file, bytes(data[:room]))
        room -= written
        return written

    monkeypatch.setattr(os, "write", write)


def test_replace_keeps_the_old_content_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.md"
    replace(file, b"old")
    _broken_write(monkeypatch, 2)
    with pytest.raises(OSError, match="No space"):
        replace(file, b"new content")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["report.md"]


def test_processes_that_replace_one_file_take_turns(tmp_path: Path) -> None:
    """While one is writing its part the other waits, and the part is not written by both."""
    file, part = tmp_path / "report.md", tmp_path / ".report.md.tmp"
    first = os.open(part, os.O_WRONLY | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX)
    os.write(first, b"of the first")
    second = threading.Thread(target=replace, args=(file, b"of the second"))
    second.start()
    second.join(0.3)
    assert second.is_alive() and part.read_bytes() == b"of the first"
    os.replace(part, file)
    os.close(first)
    second.join()
    assert file.read_bytes() == b"of the second" and not part.exists()


def test_replace_makes_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    replace(tmp_path / "a" / "b.txt", b"text")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"text"
    assert os.listdir(tmp_path / "a") == ["b.txt"]


def test_replace_renames_only_what_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a)))
    replace(tmp_path / "a", b"text")
    assert calls == ["fsync", "replace", "fsync"]  # the content, the name, the folder that holds the name
    append_at(tmp_path / "b", 0, b"text")
    append_at(tmp_path / "b", 4, b"text")
    assert calls[3:] == [
        "fsync",
        "fsync",
        "fsync",
    ]  # content and folder of a new file; content alone after that


def test_append_at_writes_over_what_a_failure_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl"
    append_at(file, 0, b"one\n")
    with monkeypatch.context() as patch:
        _broken_write(patch, 5)
        with pytest.raises(OSError, match="No space"):
            append_at(file, 4, b"two, much longer\n")
    assert file.read_bytes() == b"one\ntwo, "
    append_at(file, 4, b"2\n")
    assert file.read_bytes() == b"one\n2\n"


def test_a_write_in_small_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, bytes(data[:3])))
    replace(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_fingerprint_is_size_and_sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert fingerprint(tmp_path / "a") == {
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180 test vector
    }


def test_a_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    lock = take_lock(tmp_path / ".lock")
    with pytest.raises(SteerlabError, match=rf"another process \({os.getpid()}\)"):
        take_lock(tmp_path / ".lock")
    os.close(lock)
    os.close(take_lock(tmp_path / ".lock"))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "no space is left"),
        (errno.EDQUOT, "no space is left"),
        (errno.EACCES, "cannot be written"),
        (errno.EROFS, "cannot be written"),
        (errno.ENOTDIR, "a file stands in the way"),
        (errno.EIO, "cannot be used"),
    ],
)
def test_told_says_what_to_do(number: int, sentence: str) -> None:
    with pytest.raises(SteerlabError, match=sentence) as caught, told(Path("runs/a")):
        raise OSError(number, os.strerror(number))
    assert "runs/a" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_told_leaves_other_errors_alone() -> None:
    with pytest.raises(KeyError), told(Path("runs/a")):
        raise KeyError("x")
