"""Texts of one's own: .txt (one text a line), .jsonl, .csv, .tsv."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

from steerlab.data.corpus import texts_sha256
from steerlab.data.reading import Table, parse_table, read_utf8, split_lines
from steerlab.errors import SteerlabError
from steerlab.records import from_json

SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv")


@dataclass(frozen=True)
class TextFile(Sequence[str]):
    """The texts of a file, a sequence of strings. `labels` are beside them where asked for; `dropped` counts unusable rows."""

    path: Path
    texts: tuple[str, ...]
    labels: tuple[str, ...] | None
    dropped: int

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.texts[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    @cached_property
    def sha256(self) -> str:
        """Order-independent SHA-256 of the texts."""
        return texts_sha256(self.texts)


def read_texts(path: Path | str, column: str = "text", label_column: str | None = None) -> TextFile:
    """Read a UTF-8 file (byte order mark and CRLF tolerated); rows without a text, or without a label where asked for, are dropped.

    `.txt` has one text a line and no labels. Raises `SteerlabError`, in one sentence, on a missing file, a folder, another suffix,
    an empty file, bytes that are not UTF-8 (with the offset), a missing column (with those there are), a broken line of JSON (with
    its number), and when no usable row is left.
    """
    path = Path(path)
    suffix = path.suffix.casefold()
    text = read_utf8(path)
    if suffix not in SUFFIXES:
        raise SteerlabError(f"{path} ends in {suffix or 'nothing'!r}: give a file that ends in {', '.join(SUFFIXES)}.")
    if not text.strip():
        raise SteerlabError(f"{path} is empty: give a file with at least one text.")
    if suffix == ".txt":
        if label_column is not None:
            raise SteerlabError(
                f"{path} is plain text and has no column {label_column!r}: labels need .jsonl, .csv or .tsv."
            )
        rows, column = [{column: line} for line in split_lines(text)], column
    else:
        rows = _json_rows(path, text) if suffix == ".jsonl" else _cell_rows(path, text, suffix)
    return _usable(path, rows, column, label_column)


def _json_rows(path: Path, text: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = from_json(line)
        except ValueError as error:
            what = getattr(error, "msg", str(error))
            raise SteerlabError(f"{path}, line {number} is not JSON ({what}): write one object a line.") from None
        if not isinstance(row, dict):
            raise SteerlabError(
                f"{path}, line {number} is {type(row).__name__}, not an object: write one object a line."
            )
        rows.append({str(name): value if isinstance(value, str) else "" for name, value in row.items()})
    return rows


def _cell_rows(path: Path, text: str, suffix: str) -> list[dict[str, str]]:
    """CSV with quotes; TSV as it is, where a cell that is wholly quoted (as pandas writes it) loses its quotes."""
    try:
        if suffix == ".csv":
            return parse_table(text, Table(path.name, ()))
        rows = parse_table(text, Table(path.name, (), delimiter="\t", quoted=False))
    except csv.Error as error:
        raise SteerlabError(f"{path} cannot be read as a table ({error}): check its quotes and delimiters.") from None
    return [{name: _unquoted(cell) for name, cell in row.items()} for row in rows]


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    wrapped = len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if wrapped else cell


def _usable(path: Path, rows: Sequence[dict[str, str]], column: str, label_column: str | None) -> TextFile:
    names = list(dict.fromkeys(name for row in rows for name in row))
    for wanted in (column, label_column):
        if wanted is not None and wanted not in names:
            there = f"its columns are {', '.join(names)}" if names else "it has no rows"
            raise SteerlabError(f"{path} has no column {wanted!r}: {there}.")
    kept = [
        row
        for row in rows
        if row.get(column, "").strip() and (label_column is None or row.get(label_column, "").strip())
    ]
    if not kept:
        needed = f"a text in {column!r}" + (f" and a label in {label_column!r}" if label_column else "")
        raise SteerlabError(f"{path} has {len(rows)} rows and none is usable: a row needs {needed}.")
    labels = None if label_column is None else tuple(row[label_column].strip() for row in kept)
    return TextFile(path, tuple(row[column].strip() for row in kept), labels, len(rows) - len(kept))
