"""Checked tensor files: safetensors with a JSON record in the header, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.records import from_json
from steerlab.schema import Step, upgraded

_KEY = "steerlab"


def write(
    path: str | Path, kind: str, schema: int, tensors: Mapping[str, Tensor], record: Mapping[str, object]
) -> None:
    """Write `tensors` and the JSON `record` to `path`: to a neighbour first, flushed to disk, then renamed into
    place.

    `kind` names what is stored ("vector") and `schema` counts the versions of its layout. Raises
    `SteerlabError` when the folder can not be written; an older file at `path` is then as before.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"kind": kind, "schema": schema, "record": record, "sha256": _checksum(plain, record)}
    data = safetensors.torch.save(plain, metadata={_KEY: json.dumps(header, sort_keys=True, allow_nan=False)})
    with disk.told(Path(path)):
        disk.replace(Path(path), data)


def read(
    path: str | Path, kind: str, schema: int, steps: Mapping[int, Step] | None = None
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors and the record of a file made by `write`; the record of an older layout is brought up to date by `steps`.

    Raises `SteerlabError` when the file is missing, truncated, changed, not ours, of another kind or of a newer
    schema.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        what = "there is no such file" if not path.exists() else f"it can not be read as safetensors ({error})"
        raise SteerlabError(f"{kind} file {path} can not be loaded: {what}.") from error
    if text is None:
        raise SteerlabError(
            f"{path} is a safetensors file but holds no steerlab record: give a file that steerlab has saved."
        )
    try:
        header = from_json(text)
        found, version, record, checksum = (
            header["kind"],
            header["schema"],
            header["record"],
            header["sha256"],
        )
        if not isinstance(record, dict):
            raise TypeError("a record is a mapping")
        whole = checksum == _checksum(tensors, record)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SteerlabError(
            f"the steerlab record of {path} can not be read: the file was changed after it was saved, make it again."
        ) from error
    if found != kind:
        raise SteerlabError(f"{path} holds {found!r}, but {kind!r} was expected: give another file or make it again.")
    newest = upgraded(path, kind, record, version, schema, steps)
    if not whole:
        raise SteerlabError(
            f"the checksum of {path} does not fit its contents: the file was changed or damaged after it was saved, make it again."
        )
    return tensors, newest


def _checksum(tensors: Mapping[str, Tensor], record: Mapping[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
