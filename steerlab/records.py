"""JSON as the run folders use it: plain values only, one canonical spelling, rows that name their line when
they are broken.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from steerlab.errors import SteerlabError

_HALF, _HALF_TEXT = re.compile(rb"\\u[dD]|\xed"), re.compile(r"\\u[dD]|[\ud800-\udfff]")  # where one may be


def plain(value: object) -> Any:
    """The JSON value that says the same: tuples become lists, dataclasses and mappings dicts, arrays and
    numbers of numpy and torch lists and numbers, paths strings, and NaN, which means missing, null.

    Raises `SteerlabError` for infinities, keys that are not strings, and anything else JSON has no word for.
    """
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise SteerlabError("an infinite number cannot be stored: give a finite one, or NaN when it is missing.")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise SteerlabError(f"key {key!r} cannot be stored: JSON knows strings only as keys.")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    tolist = getattr(value, "tolist", None)
    if tolist is not None:
        return plain(tolist())
    raise SteerlabError(f"a {type(value).__name__} cannot be stored as JSON: give numbers, strings, lists or mappings.")


def from_json(data: str | bytes) -> Any:
    """The value that the JSON spells. Raises `ValueError` for what is none, for what is nested too deep to be read, and for
    half a character (a lone surrogate), which JSON can spell and nothing here can store.
    """
    try:
        value = json.loads(data)
        if (_HALF if isinstance(data, bytes) else _HALF_TEXT).search(data):  # pyright: ignore[reportCallIssue, reportArgumentType]
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half a character") from None
    return value


def config_key(config: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a configuration; the order of its fields does not matter."""
    text = json.dumps(plain(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(there: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One phrase per field in which two configurations differ, nested fields as `outer.inner`, in alphabetical
    order.
    """
    found: list[str] = []
    for name in sorted({*there, *given}):
        old, new = there.get(name, _ABSENT), given.get(name, _ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif json.dumps(old, sort_keys=True, default=str) != json.dumps(new, sort_keys=True, default=str):
            found.append(f"{prefix}{name} is {_short(old)} there, {_short(new)} now")
    return found


def encode(value: object) -> bytes:
    """One row, a mapping or dataclass: JSON on one line, UTF-8, with its newline. Raises `SteerlabError` on
    anything else.
    """
    row = plain(value)
    if not isinstance(row, dict):
        raise SteerlabError(f"a {type(value).__name__} is not a row: give a mapping or a dataclass.")
    return encode_text(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def encode_text(text: str) -> bytes:
    """UTF-8 bytes; raises `SteerlabError` on half characters (lone surrogates)."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise SteerlabError(
            f"the text holds half a character ({text[error.start]!r}) and cannot be stored as UTF-8: decode it with errors='replace'."
        ) from error


def pretty(value: object) -> bytes:
    """A whole JSON file, indented, UTF-8, in the order given."""
    return encode_text(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def parse(data: bytes, path: Path, first_line: int = 1) -> list[dict[str, Any]]:
    """The rows in `data`, the content of `path` from line `first_line` on. Raises `SteerlabError` naming a line
    that is broken.

    Only a newline byte ends a row: a text may hold any other character that Unicode calls a line break.
    """
    lines = data.split(b"\n")
    unended = lines.pop()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate([*lines, unended] if unended else lines, first_line):
        try:
            row = from_json(line)
        except ValueError:  # broken JSON and broken UTF-8 alike
            row = None
        if not isinstance(row, dict):
            raise SteerlabError(
                f"line {number} of {path} is not a JSON object: restore the file, or delete the run folder and start again."
            )
        rows.append(row)
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `SteerlabError` when it holds anything else; `OSError` is the caller's."""
    try:
        value = from_json(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise SteerlabError(f"{path} is not a JSON object: restore it, or delete the run folder and start again.")
    return value


SEAL = "sha256"


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The object with a checksum of itself as its last field."""
    kept = plain({name: own for name, own in value.items() if name != SEAL})
    return {**kept, SEAL: config_key(kept)}


def is_sealed(value: Mapping[str, Any]) -> bool:
    """Whether the object has its checksum and is what it was taken of."""
    return value.get(SEAL) == config_key({name: own for name, own in value.items() if name != SEAL})


def sealed_rows(rows: Iterable[object]) -> bytes:
    """Rows as `encode` writes them, and a last line with a checksum of them."""
    data = b"".join(encode(row) for row in rows)
    return data + encode({SEAL: hashlib.sha256(data).hexdigest()})


def read_sealed_rows(data: bytes) -> list[dict[str, Any]] | None:
    """The rows of `sealed_rows`; None where they are not what the checksum was taken of, or have none."""
    at = data.rfind(b"\n", 0, len(data) - 1) + 1
    if data[at:] != encode({SEAL: hashlib.sha256(data[:at]).hexdigest()}):
        return None
    return parse(data[:at], Path())


@contextmanager
def understood(where: object) -> Iterator[None]:
    """Inside, records from the disk are taken at their word. What fails on a value of another kind becomes a `SteerlabError` that
    names `where` they stand: a file that was edited is no fault of the program.
    """
    try:
        yield
    except SteerlabError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise SteerlabError(
            f"{where} holds records that are not as they were written ({type(error).__name__}: {error}): it was edited, or is of "
            "another version."
        ) from error


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, _Absent) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
