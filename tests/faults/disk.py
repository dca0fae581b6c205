"""The disk of a process that is to suffer: counts what is done to one folder, and goes wrong at the n-th time."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR
CHANGES = {"os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"}


@dataclass(frozen=True)
class Fault:
    """What happens at the disk operation `at` (from 1; 0: never).

    kill: SIGKILL. cut: SIGKILL, and what was not flushed is not on the disk. interrupt: SIGINT. full: no byte more is written, then or
    later. denied: nothing may be changed, then or later. pause: the process says so on `said` and waits for `go`.
    `share`: of the bytes of a write that still get through. `seed`: of what a power cut takes.
    """

    kind: str = "none"
    at: int = 0
    share: float = 0.0
    seed: int = 0


@dataclass
class Disk:
    """Stands between a process and one folder, by the audit events of Python and by `os.write` and `os.fsync`. Cannot be taken away."""

    folder: Path
    fault: Fault
    pause: Callable[[], None] = lambda: None
    count: int = 0
    safe: dict[str, int] = field(default_factory=dict)  # bytes of a file that a power cut leaves, of files with others
    log: list[tuple[str, str, bytes | None]] = field(default_factory=list)  # names a power cut may take back
    busy: bool = False

    def install(self) -> None:
        """From here on every change of the folder is seen."""
        self.write, self.fsync = os.write, os.fsync
        os.write, os.fsync = self._write, self._fsync
        sys.addaudithook(self._event)

    def _inside(self, path: Any, folder: int = -1) -> str:
        """The absolute path where it is in the folder, else ""."""
        if isinstance(path, int):
            name = os.readlink(f"/proc/self/fd/{path}")
        else:
            start = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else os.getcwd()
            name = os.path.normpath(os.path.join(start, os.fsdecode(path)))
        return name if name == str(self.folder) or name.startswith(f"{self.folder}/") else ""

    def _event(self, event: str, given: tuple[Any, ...]) -> None:
        """Called before the operation; raising stops it."""
        if self.busy or (event != "open" and event not in CHANGES):
            return
        self.busy = True
        try:
            self._look(event, given)
        finally:
            self.busy = False

    def _look(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = given
            if not (flags & WRITES) or not (name := self._inside(path)):
                return
            self._due(0, opens=isinstance(mode, str))
            self._opened(name, flags)
        elif event == "os.rename":
            source, target = self._inside(given[0], given[2]), self._inside(given[1], given[3])
            if source or target:
                self._due(0)
                self._renamed(source, target)
        elif name := self._inside(given[0], given[-1] if event != "os.truncate" else -1):
            self._due(0)
            if event == "os.remove":
                self.log.append(("removed", name, _content(name)))
                self.safe.pop(name, None)
            elif event == "os.truncate":
                self.safe[name] = min(self.safe.get(name, _size(name)), given[1])

    def _opened(self, name: str, flags: int) -> None:
        there = os.path.exists(name)
        if not there:
            self.log.append(("made", name, None))
        self.safe.setdefault(name, 0 if flags & os.O_TRUNC or not there else _size(name))

    def _renamed(self, source: str, target: str) -> None:
        if os.path.isdir(source):
            return
        self.log.append(("renamed", f"{source}\0{target}", _content(target)))
        self.safe.pop(target, None)
        if source in self.safe:
            self.safe[target] = self.safe.pop(source)

    def _write(self, file: int, data: bytes) -> int:
        if not self._inside(file):
            return self.write(file, data)
        part = bytes(data[: int(self.fault.share * len(data))])
        self._due(file, part)
        return self.write(file, data)

    def _fsync(self, file: int) -> None:
        name = self._inside(file)
        if name:
            self._due(0)
            if os.path.isdir(name):
                self.log = [entry for entry in self.log if os.path.dirname(entry[1].split("\0")[-1]) != name]
            else:
                self.safe.pop(name, None)
        self.fsync(file)

    def _due(self, file: int, part: bytes = b"", opens: bool = False) -> None:
        """Counts one operation, and is the fault where its time has come."""
        self.count += 1
        kind, late = self.fault.kind, self.fault.at and self.count >= self.fault.at
        if not late:
            return
        first = self.count == self.fault.at
        if part and first and kind in ("kill", "cut", "full"):
            self.write(file, part)
        if kind == "denied":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if kind == "full" and (file or opens):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if first and kind == "pause":
            self.pause()
        if first and kind == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        if first and kind in ("kill", "cut"):
            if kind == "cut":
                self.busy = True
                self._lose()
            os.kill(os.getpid(), signal.SIGKILL)

    def _lose(self) -> None:
        """Leave on the disk what a power cut would: of files that were not flushed a beginning, and not the last of the new names."""
        draw = random.Random(self.fault.seed)
        for name, size in self.safe.items():
            if os.path.isfile(name):
                os.truncate(name, draw.choice((size, min(size, _size(name)), (size + _size(name)) // 2)))
        while self.log and draw.random() < 0.7:
            what, names, before = self.log.pop()
            source, _, target = names.rpartition("\0")
            if what == "renamed" and os.path.exists(target) and os.path.isdir(os.path.dirname(source)):
                os.replace(target, source)
            elif what == "made" and os.path.exists(target):
                os.unlink(target)
            if what != "made" and before is not None and os.path.isdir(os.path.dirname(target)):
                Path(target).write_bytes(before)


def _size(name: str) -> int:
    return os.path.getsize(name) if os.path.exists(name) else 0


def _content(name: str) -> bytes | None:
    return Path(name).read_bytes() if os.path.isfile(name) else None
