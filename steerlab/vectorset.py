"""A set of vectors in a folder: one file each and an index written last."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.records import from_json
from steerlab.vectors import SteeringVector

_INDEX, _STAGED, _LOCK = "vectors.json", ".new", ".lock"
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def save_set(vectors: Mapping[str, SteeringVector], folder: str | Path) -> None:
    """Save vectors as `folder/KEY.safetensors` and, last, an index of the keys, so that `load_set` never sees
    half a set.

    Everything is written beside the set that may be there and only then put in its place: a full disk leaves that one
    as it was. Raises `SteerlabError` on a key that is no plain file name, and where the folder cannot be written, or is being
    written by another process.
    """
    for key in vectors:
        if not _KEY.fullmatch(key):
            raise SteerlabError(f"vector key {key!r} can not be a file name: use letters, digits, '.', '_' and '-'.")
    folder = Path(folder)
    index, staged = folder / _INDEX, folder / _STAGED
    names = [f"{key}.safetensors" for key in vectors]
    with disk.told(index):
        lock = _alone(staged)
    try:
        for name, vector in zip(names, vectors.values(), strict=True):
            vector.save(staged / name)
        with disk.told(index):
            disk.replace(staged / _INDEX, (json.dumps({"vectors": list(vectors)}, indent=1) + "\n").encode())
            index.unlink(missing_ok=True)  # an older set is no set once one of its vectors is replaced
            for name in [*names, _INDEX]:
                os.replace(staged / name, folder / name)
            disk.sync_folder(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        os.close(lock)


def _alone(staged: Path) -> int:
    """The lock of a folder that only its holder takes away."""
    while True:
        staged.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # taken away in between
            lock = disk.take_lock(staged / _LOCK)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(staged / _LOCK)):
                    return lock
            os.close(lock)


def load_set(folder: str | Path) -> dict[str, SteeringVector]:
    """The vectors `save_set` wrote, in its order. Raises `SteerlabError` when the index or a vector is missing
    or damaged.
    """
    index = Path(folder) / _INDEX
    try:
        keys = from_json(index.read_bytes())["vectors"]
        if bad := [key for key in keys if not (isinstance(key, str) and _KEY.fullmatch(key))]:
            raise TypeError(
                f"{bad[0]!r} is no plain file name"
            )  # an index from elsewhere reads nothing outside its folder
        return {key: SteeringVector.load(index.parent / f"{key}.safetensors") for key in keys}
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, SteerlabError):
            raise
        raise SteerlabError(
            f"{folder} holds no readable set of vectors ({index.name}: {error}): give a folder written by save_set."
        ) from error
