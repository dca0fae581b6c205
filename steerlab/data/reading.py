"""Reading one table of a source: from the local data folder when there is one, else downloaded through `datasets`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab.errors import SteerlabError
from steerlab.records import from_json

ENV = "STEERLAB_DATA"
EXPORT = "refs/convert/parquet"  # where the Hub keeps the Parquet export of a data set that is itself a loading script
Row = dict[str, str]

csv.field_size_limit(1 << 24)  # a paragraph longer than 131,072 characters is text, not an error


def find_root(root: Path | str | None = None) -> Path | None:
    """The local data folder: the argument, else the environment variable `STEERLAB_DATA`, else None.

    Raises `SteerlabError` when a folder was named that is not one.
    """
    named = root if root is not None else os.environ.get(ENV) or None
    if named is None:
        return None
    path = Path(named).expanduser()
    if not path.is_dir():
        raise SteerlabError(
            f"the data folder {path} is not a folder: point {ENV} (or the root argument) at one, or leave it unset to download."
        )
    return path


def data_root(root: Path | str | None = None) -> Path:
    """Like `find_root`, for what exists only as local files. Raises `SteerlabError` when no folder was named."""
    path = find_root(root)
    if path is None:
        raise SteerlabError(
            f"no local data folder is set: point {ENV} (or the root argument) at the folder that holds the data sets."
        )
    return path


def read_utf8(path: Path) -> str:
    """The text of a file, without byte order mark, CRLF as LF.

    Raises `SteerlabError` when it is missing, a folder, unreadable, or not UTF-8 (naming the byte offset).
    """
    if path.is_dir():
        raise SteerlabError(f"{path} is a folder, not a text file: name the file inside it.")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise SteerlabError(f"the file {path} does not exist: check the path.") from None
    except OSError as error:
        raise SteerlabError(
            f"the file {path} cannot be read ({error.strerror}): check the path and its permissions."
        ) from error
    start = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    try:
        return raw[start:].decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        at = error.start + start
        raise SteerlabError(
            f"{path} is not UTF-8: byte 0x{raw[at]:02x} at offset {at} cannot be read; save the file as UTF-8."
        ) from None


def split_lines(text: str) -> list[str]:
    """Lines split at newlines only (other Unicode separators stay inside a line); a final newline starts no line."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face Hub. `folder` is its folder in the Parquet export, for sets that are loading scripts there.

    Loading scripts are never run.
    """

    repo: str
    split: str
    config: str | None = None
    folder: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `datasets.load_dataset`."""
        if self.folder is None:
            return {"path": self.repo, "name": self.config, "split": self.split}
        files = {self.split: f"{self.folder}/{self.split}/*.parquet"}
        return {"path": self.repo, "data_files": files, "revision": EXPORT, "split": self.split}


@dataclass(frozen=True)
class Table:
    """One table of a source: its path below the data folder, the columns a loader needs, and where else it can be had.

    `columns` are all columns in order where the file has no header. With `lines` the file is plain text and the one column is
    its lines; with `json_lines` every line is a JSON object. Without a local folder the table comes from the Hub, else from the public
    file `url` at a fixed commit. A cell that is a list or mapping is kept as its JSON text.
    """

    local: str
    columns: tuple[str, ...]
    delimiter: str = ","
    quoted: bool = True
    header: bool = True
    lines: bool = False
    json_lines: bool = False
    hub: Hub | None = None
    url: str | None = None


def parse_table(text: str, table: Table) -> list[Row]:
    """The rows of a text, header names stripped; missing cells are empty, surplus cells and empty lines of a CSV left out."""
    if table.json_lines:
        return [_json_row(line, number, table) for number, line in enumerate(split_lines(text), 1) if line.strip()]
    if table.lines:
        return [{table.columns[0]: line} for line in split_lines(text)]
    quoting = csv.QUOTE_MINIMAL if table.quoted else csv.QUOTE_NONE
    cells = csv.reader(io.StringIO(text, newline=""), delimiter=table.delimiter, quoting=quoting)
    rows = [row for row in cells if row]
    names = list(table.columns)
    if table.header and rows:
        names, rows = [name.strip() for name in rows[0]], rows[1:]
    return [dict(zip(names, [*row, *[""] * (len(names) - len(row))], strict=False)) for row in rows]


def _json_row(line: str, number: int, table: Table) -> Row:
    try:
        row = from_json(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise SteerlabError(f"line {number} of {table.local} is not a JSON object: restore the published file.")
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: object) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def check_columns(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], where: str) -> None:
    """Raises `SteerlabError` when there are no rows or the first lacks a needed column."""
    if not rows:
        raise SteerlabError(f"{where} has no rows: expected the columns {', '.join(columns)}.")
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise SteerlabError(f"{where} has no column {', '.join(missing)}: its columns are {', '.join(rows[0])}.")


def read_rows(root: Path | None, table: Table) -> list[Row]:
    """The rows of a table. Raises `SteerlabError` when the local file, a needed column or the download is missing."""
    if root is None:
        return _download(table)
    path = root / table.local
    if not path.is_file():
        raise SteerlabError(
            f"the data folder {root} has no {table.local}: put the data set there, or unset {ENV} to download it."
        )
    try:
        rows = parse_table(read_utf8(path), table)
    except csv.Error as error:
        raise SteerlabError(f"{path} cannot be read as a table ({error}): restore the published file.") from None
    check_columns(rows, table.columns, str(path))
    return rows


def _download(table: Table) -> list[Row]:
    """The rows from the Hub, or where that fails from the public file."""
    failures = []
    for source in (table.hub, table.url):
        if source is None:
            continue
        try:
            rows = _hub_rows(source, table) if isinstance(source, Hub) else parse_table(_public_file(source), table)
            check_columns(rows, table.columns, str(source))
            return rows
        except Exception as error:  # what a download raises depends on the network stack below `datasets`
            name = source.repo if isinstance(source, Hub) else source
            failures.append(f"{name} ({type(error).__name__})")
    tried = f"tried {' and '.join(failures)}" if failures else "it has no public download"
    raise SteerlabError(
        f"{table.local} could not be downloaded ({tried}): point {ENV} at a local folder that holds it."
    )


def _hub_rows(hub: Hub, table: Table) -> list[Row]:
    """Rows of a Hub data set, class numbers as their names. Raises `SteerlabError` for class numbers without names."""
    import datasets

    found = datasets.load_dataset(**hub.arguments())
    check_columns([dict.fromkeys(found.column_names)], table.columns, hub.repo)
    columns: dict[str, list[str]] = {}
    for name in table.columns:
        kind, values = found.features[name], list(found[name])
        if isinstance(kind, datasets.ClassLabel):
            columns[name] = [str(kind.int2str(value)) for value in values]
        elif name == "label" and values and not isinstance(values[0], str):
            raise SteerlabError(f"{hub.repo} gives class numbers without names.")
        else:
            columns[name] = [_cell(value) for value in values]
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def cache_folder() -> Path:
    """Where downloaded public files are kept: `steerlab` below `XDG_CACHE_HOME`, else below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "steerlab"


def _public_file(url: str) -> str:
    """The text of a public file at a fixed commit, from the cache when it is there."""
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{url.rsplit('/', 1)[-1]}"
    if not path.is_file():
        with urllib.request.urlopen(url, timeout=60) as answer:  # the URLs are constants of this package, all https
            content = answer.read()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)  # a download that was cut off never counts as the file
    return read_utf8(path)
