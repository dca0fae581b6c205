"""Run folders: what an experiment was asked, what it has produced so far, and proof that it is whole.

A folder holds `config.json` (written first), row files `*.jsonl`, `batches.jsonl` (the log of complete
batches), tables and reports, and `manifest.json` (written last: size and sha256 of every file). A process may
be killed at any moment: on reopening, rows of a batch that was not complete are cut off, so the run continues
at that batch and ends with the bytes of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.disk import append_at, inside, replace, sync_folder, take_lock, told
from steerlab.errors import SteerlabError
from steerlab.manifest import MANIFEST, quarantine, verify, write_manifest
from steerlab.records import config_key, differences, encode, encode_text, parse, plain, pretty, read_object

CONFIG, BATCHES, LOCK = "config.json", "batches.jsonl", ".lock"
SAMPLES = "samples.jsonl"  # the rows of a run that are its texts


class RunFolder:
    """A run folder held open for writing; a context manager that keeps the folder's lock until it is closed.

    One process writes a folder at a time. Every method that writes raises `SteerlabError` when the disk is full
    or the folder cannot be written, and leaves what was complete before as it was.
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: int) -> None:
        self.path = path
        self.config = config
        self._lock = lock
        self._ends: dict[str, int] = {}  # bytes of each row file that the log vouches for
        self._done: dict[str, set[str]] = {}
        self._log_end = 0

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any], resume: bool = True) -> RunFolder:
        """Start a run in `path`, or continue the one that is there if it was started with an equal `config`.

        Raises `SteerlabError` for another config (naming the fields that differ), a folder another process is
        writing, a folder of other files, a path that cannot be a folder, rows that were changed, and, with
        `resume=False`, for any run that is there.
        """
        path, wanted = Path(path), plain(config)
        with told(path):
            path.mkdir(parents=True, exist_ok=True)
            if not (path / CONFIG).exists() and any(not p.name.startswith(".") for p in path.iterdir()):
                raise SteerlabError(f"{path} holds files but no run ({CONFIG} is missing): give a new or empty folder.")
            lock = take_lock(path / LOCK)
        try:
            run = cls(path, wanted, lock)
            run._claim(resume)
            run._recover()
        except BaseException:
            os.close(lock)
            raise
        return run

    @property
    def key(self) -> str:
        """The config's content key, see `config_key`."""
        return config_key(self.config)

    @property
    def finished(self) -> bool:
        """True when the manifest stands, that is, when nothing was written after the last `finish`."""
        return (self.path / MANIFEST).exists()

    def append(self, name: str, rows: Iterable[object], batch: str | None = None) -> None:
        """Append rows (mappings or dataclasses) to the row file `name`, all or none: they count once this returns.

        `batch` names the unit of work they belong to, for `completed_batches`; a batch may have no rows and is
        appended once.
        """
        path = self._place(name, ".jsonl")
        if batch is not None and batch in self._done.get(name, ()):
            raise SteerlabError(f"batch {batch!r} of {name} is complete already: skip what completed_batches() names.")
        lines = [encode(row) for row in rows]
        with told(path):
            self._unfinish()
            if name not in self._ends:
                if path.exists():
                    raise SteerlabError(f"{path} was not appended to by this run: give another name, or move it away.")
                # Announced before its first byte, so that a torn first batch is known for what it is.
                self._commit(name, b"", 0, None)
            self._commit(name, b"".join(lines), len(lines), batch)

    def completed_batches(self, name: str = "samples.jsonl") -> frozenset[str]:
        """Names of the batches of `name` whose rows are all there."""
        return frozenset(self._done.get(name, ()))

    def read(self, name: str) -> list[dict[str, Any]]:
        """The complete rows of a row file; none when there is no file. Raises `SteerlabError` naming a broken line."""
        path = self._place(name, ".jsonl")
        with told(path):
            data = path.read_bytes() if path.exists() else b""
        return parse(data[: self._ends.get(name, len(data))], path)

    def write_text(self, name: str, text: str) -> Path:
        """Replace file `name` (a path inside the folder) by `text`; a reader sees the old or the new, never a part."""
        path = self._place(name)
        if name in self._ends:
            raise SteerlabError(f"{name} is a row file of this run: append to it, or give another name.")
        with told(path):
            self._unfinish()
            replace(path, encode_text(text))
        return path

    def write_json(self, name: str, value: object) -> Path:
        """Replace file `name` by JSON; see `plain` for what is accepted (NaN becomes null)."""
        return self.write_text(name, pretty(value).decode())

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Replace file `name` by the table as CSV without its index; NaN becomes an empty cell."""
        return self.write_text(name, table.to_csv(index=False, lineterminator="\n"))

    def finish(self) -> dict[str, Any]:
        """Write the manifest over every file in the folder, and return it. Anything written later takes the
        manifest away.
        """
        with told(self.path):
            self._unfinish()
            self._trim()
            return write_manifest(self.path, self.key)

    def verify(self) -> None:
        """Check this folder against its manifest, see the function `verify`."""
        verify(self.path)

    def close(self) -> None:
        """Give the lock back. Closing twice does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _claim(self, resume: bool) -> None:
        if not (self.path / CONFIG).exists():
            with told(self.path / CONFIG):
                replace(self.path / CONFIG, pretty(self.config))
            return
        if not resume:
            raise SteerlabError(f"{self.path} already holds a run: resume it, or give another folder.")
        there = read_config(self.path)
        if config_key(there) != self.key:
            differ = differences(there, self.config)
            more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise SteerlabError(
                f"{self.path} holds a run with another configuration ({'; '.join(differ[:3])}{more}): "
                "repeat the old configuration to continue it, or give another folder."
            )

    def _recover(self) -> None:
        """Read the log, cut off what it does not vouch for, and check that the rest, and of a finished run all, is as it was written."""
        log = self.path / BATCHES
        with told(log):
            for leftover in self.path.rglob(".*.tmp"):
                leftover.unlink()
            data = log.read_bytes() if log.exists() else b""
            self._log_end = data.rfind(b"\n") + 1
            entries = parse(data[: self._log_end], log)
            for line, entry in enumerate(entries, 1):
                if not _ours(entry, self.path):
                    raise SteerlabError(
                        f"line {line} of {log} is not ours: restore it, or delete the run folder and start again."
                    )
            for name in dict.fromkeys(entry["file"] for entry in entries):
                batches = [entry for entry in entries if entry["file"] == name]
                _check_rows(self.path / name, batches)
                self._ends[name] = batches[-1]["end"]
                self._done[name] = {entry["batch"] for entry in batches} - {None}
            self._trim()
            if self.finished:
                quarantine(self.path, (CONFIG, BATCHES, *self._ends))

    def _commit(self, name: str, data: bytes, rows: int, batch: str | None) -> None:
        """Rows first, the log's line after: the line makes them count. An error in between undoes both."""
        start = self._ends.get(name, 0)
        end = start + len(data)
        digest = hashlib.sha256(data).hexdigest()
        line = encode({"file": name, "batch": batch, "rows": rows, "end": end, "sha256": digest})
        try:
            if data:
                append_at(self.path / name, start, data)
            append_at(self.path / BATCHES, self._log_end, line)
            self._ends[name], self._log_end = end, self._log_end + len(line)
        except BaseException:
            with suppress(OSError):
                self._trim()
            raise
        if batch is not None:
            self._done.setdefault(name, set()).add(batch)

    def _trim(self) -> None:
        """Cut the log, then the row files, to what counts: in this order the log never vouches for rows that are gone."""
        for name, end in [(BATCHES, self._log_end), *self._ends.items()]:
            path = self.path / name
            if path.exists() and path.stat().st_size > end:
                os.truncate(path, end)

    def _unfinish(self) -> None:
        if self._lock < 0:
            raise SteerlabError(f"{self.path} is closed: open the run folder again to write to it.")
        if self.finished:
            (self.path / MANIFEST).unlink()
            sync_folder(self.path)

    def _place(self, name: str, suffix: str = "") -> Path:
        if not inside(name) or not name.endswith(suffix):
            ending = f" that ends in {suffix}" if suffix else ""
            raise SteerlabError(f"{name!r} cannot be a file of a run: give a plain relative name{ending}.")
        if Path(name).as_posix() in (CONFIG, BATCHES, MANIFEST):
            raise SteerlabError(f"{name} is kept by the run folder itself: give another name.")
        return self.path / name


def read_config(path: str | Path) -> dict[str, Any]:
    """The configuration of the run in a folder, without locking it. Raises `SteerlabError` when there is none."""
    file = Path(path) / CONFIG
    if not file.is_file():
        raise SteerlabError(f"{path} holds no run ({CONFIG} is missing): give the folder of a run.")
    with told(file):
        return read_object(file)


def read_rows(file: str | Path) -> list[dict[str, Any]]:
    """The rows of a row file of any run folder, not locked. Raises `SteerlabError` when it is missing or a line is broken."""
    file = Path(file)
    if not file.is_file():
        raise SteerlabError(f"{file} does not exist: give the row file of a run folder.")
    with told(file):
        return parse(file.read_bytes(), file)


def _ours(entry: Mapping[str, Any], folder: Path) -> bool:
    """Whether a line of the log is one of `_commit`'s: what a log from elsewhere names is cut, so nothing outside, also by a link."""
    name, counts = entry.get("file"), (entry.get("rows"), entry.get("end"))
    rows = inside(name) and str(name).endswith(".jsonl") and Path(str(name)) != Path(BATCHES)
    whole = entry.keys() == {"file", "batch", "rows", "end", "sha256"} and isinstance(entry["batch"], str | None)
    here = rows and (folder / str(name)).resolve().is_relative_to(folder.resolve())
    return here and whole and all(type(n) is int and n >= 0 for n in counts)


def _check_rows(path: Path, batches: list[dict[str, Any]]) -> None:
    """Every batch of a row file still has the bytes the log took the sum of."""
    data = path.read_bytes() if path.exists() else b""
    start, line = 0, 1
    for batch in batches:
        part = data[start : batch["end"]]
        if hashlib.sha256(part).hexdigest() != batch["sha256"]:
            parse(part, path, line)  # names the line, where a line is broken
            raise SteerlabError(
                f"lines {line} to {line + batch['rows'] - 1} of {path} are not what was written there: restore the file, "
                "or delete the run folder and start again."
            )
        start, line = batch["end"], line + batch["rows"]
