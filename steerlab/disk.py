"""Writing that is whole or not there: atomic replacement, appending at a known place, and the disk's complaints
as sentences.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from steerlab.errors import Busy, SteerlabError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


def append_at(path: Path, at: int, data: bytes) -> None:
    """Write `data` from byte `at` on, whatever an earlier failure left behind it, and wait for the disk."""
    new = not path.exists()
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.ftruncate(file, at)
        os.lseek(file, at, os.SEEK_SET)
        _write(file, data)
    finally:
        os.close(file)
    if new:
        sync_folder(path.parent)


def replace(path: Path, data: bytes) -> None:
    """Put `data` in place of the file's content: a reader, and a kill or power cut, sees the old content or the
    new, never a part. Processes that do so at once take turns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.tmp")
    file = _own(part)
    try:
        os.ftruncate(file, 0)
        _write(file, data)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    finally:
        os.close(file)
    sync_folder(path.parent)


def _own(part: Path) -> int:
    """The file that is going to replace another, for this process alone until it is closed."""
    while True:
        file = os.open(part, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(part)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # another process has put it in place meanwhile


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fsync(file)


def sync_folder(path: Path) -> None:
    """A new or renamed file survives a power cut only once its folder is on the disk too."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def fingerprint(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of a file, as the manifest keeps them."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def take_lock(path: Path) -> int:
    """Lock the file for this process and return its descriptor; closing that, or dying, gives the lock back.

    Raises `Busy`, a `SteerlabError`, when another process holds it, naming the process.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except BaseException as error:
        holder = os.pread(lock, 20, 0).decode() or "unknown"
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise Busy(
                f"{path.parent} is being written by another process ({holder}): wait until it ends, or give another folder."
            ) from error
        raise
    return lock


def inside(name: object) -> bool:
    """Whether a name stands for a file below a folder: a plain relative path, no part of it hidden or `..`, all of it printable."""
    if not isinstance(name, str) or not name.isprintable() or Path(name).is_absolute():
        return False
    return bool(Path(name).parts) and not any(part.startswith(".") for part in Path(name).parts)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the operating system says about `path` into a `SteerlabError` of one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            message = f"no space is left to write {path}: free some and repeat the command, the rest is intact."
        elif error.errno in _DENIED:
            message = f"{path} cannot be written ({error.strerror}): change its permissions, or give another folder."
        elif error.errno in _IN_THE_WAY:
            message = f"{path} cannot be a run folder because a file stands in the way: give another folder."
        else:
            message = (
                f"{path} cannot be used ({error.strerror}): repair that and repeat the command, the rest is intact."
            )
        raise SteerlabError(message) from error
    except ValueError as error:  # a name that the system cannot spell
        unspelt = "null byte" in str(error) or "empty name" in str(error) or isinstance(error, UnicodeEncodeError)
        if isinstance(error, SteerlabError) or not unspelt:
            raise
        raise SteerlabError(f"{str(path)!r} can be no path ({error}): give another name.") from error
