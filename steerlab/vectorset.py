"""A set of vectors in a folder: one file each and an index written last."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.vectors import SteeringVector

_INDEX = "vectors.json"


def save_set(vectors: Mapping[str, SteeringVector], folder: str | Path) -> None:
    """Save vectors as `folder/KEY.safetensors` and, last, an index of the keys, so that `load_set` never sees
    half a set.

    Raises `SteerlabError` on a key that is no plain file name.
    """
    for key in vectors:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", key):
            raise SteerlabError(f"vector key {key!r} can not be a file name: use letters, digits, '.', '_' and '-'.")
    folder = Path(folder)
    index = folder / _INDEX
    with disk.told(index):
        index.unlink(missing_ok=True)  # an older set is no set once one of its vectors is replaced
    for key, vector in vectors.items():
        vector.save(folder / f"{key}.safetensors")
    with disk.told(index):
        disk.replace(index, (json.dumps({"vectors": list(vectors)}, indent=1) + "\n").encode())


def load_set(folder: str | Path) -> dict[str, SteeringVector]:
    """The vectors `save_set` wrote, in its order. Raises `SteerlabError` when the index or a vector is missing
    or damaged.
    """
    index = Path(folder) / _INDEX
    try:
        keys = json.loads(index.read_text(encoding="utf-8"))["vectors"]
        return {key: SteeringVector.load(index.parent / f"{key}.safetensors") for key in keys}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise SteerlabError(
            f"{folder} holds no readable set of vectors ({index.name}: {error}): give a folder written by save_set."
        ) from error
