"""A command in a process of its own that need not import anything: a fork of one that has imported all and holds the models."""

from __future__ import annotations

import io
import locale
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab import cli
from tests.faults.disk import Disk, Fault

Before = Callable[[], None]  # done in the child before its command: another clock, another locale, a worse model
LONGEST = 500.0  # seconds after which a command counts as hanging


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code (negative: the signal that killed it), what it said on standard error, and how often it
    changed its folder before.
    """

    code: int
    err: str
    operations: int
    seconds: float

    @property
    def clear(self) -> bool:
        """True when it was refused with a sentence, and no traceback stands beside it."""
        return (
            self.code == 2 and all(line.startswith("steerlab: ") for line in self.err.splitlines()) and bool(self.err)
        )


class Running:
    """A command that runs: `wait` for it, `kill` it, or, where its fault is a pause, `paused` and `go`."""

    def __init__(self, words: Sequence[str], folder: Path, fault: Fault, before: Before | None = None) -> None:
        self.began = time.monotonic()
        self.err: Any = tempfile.TemporaryFile()  # noqa: SIM115  it is read when the command is over
        self.counted, counts = os.pipe()
        self.said, says = os.pipe()
        waits, self.goes = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.goes)
            mine = (
                os.getpid()
            )  # workers inherit the moment: one pause is waited for, so only the command's own process makes it
            disk = Disk(folder, fault, lambda: _pause(says, waits) if os.getpid() == mine else None)
            os._exit(_child(words, disk, self.err, counts, before))
        for end in (counts, says, waits):
            os.close(end)

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it ends within these seconds; it is not waited for any further."""
        until = time.monotonic() + seconds
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def paused(self) -> bool:
        """Wait until it pauses; False when it ended before."""
        return os.read(self.said, 1) == b"p"

    def go(self) -> None:
        """Let it go on."""
        os.write(self.goes, b"g")

    def wait(self) -> Outcome:
        """Wait for its end, and kill it when that does not come."""
        if not self.ended(LONGEST):
            self.kill()
        _, status = os.waitpid(self.pid, 0)
        operations = int(os.read(self.counted, 20) or b"0")
        for end in (self.counted, self.said, self.goes):
            os.close(end)
        self.err.seek(0)
        said = self.err.read().decode(errors="replace")
        return Outcome(os.waitstatus_to_exitcode(status), said, operations, time.monotonic() - self.began)


def run(words: Sequence[str], folder: Path, fault: Fault | None = None, before: Before | None = None) -> Outcome:
    """Run one command to its end."""
    return Running(words, folder, fault or Fault(), before).wait()


def _pause(says: int, waits: int) -> None:
    os.write(says, b"p")
    os.read(waits, 1)


def _child(words: Sequence[str], disk: Disk, err: Any, counts: int, before: Before | None) -> int:
    """The command's whole life; its exit code."""
    code = 70
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout = io.StringIO()
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115  it ends with the process
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["steerlab", *words]
        if before is not None:
            before()
        disk.install()
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        disk.busy = True
        sys.stderr.flush()
        disk.write(counts, str(disk.count).encode()) if hasattr(disk, "write") else None
    return code


def clock_back() -> None:
    """The clock of the process stands ten years back, and goes backwards."""
    start, real = time.time(), time.time
    time.time = lambda: start - 315_360_000 - 3 * (real() - start)


def set_locale(name: str) -> Before:
    """Another locale, with its encoding for files that are opened without one."""

    def change() -> None:
        locale.setlocale(locale.LC_ALL, name)

    return change
