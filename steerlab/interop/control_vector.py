"""GGUF control vectors: what llama.cpp, repeng and EasySteer write and read.

Architecture `controlvector`, one float32 tensor `direction.N` per block, N the 0-based block whose output it is added to.
llama.cpp keeps no direction for block 0, so N starts at 1 there; EasySteer's reader knows it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.interop.foreign import Foreign
from steerlab.types import Stream

ARCHITECTURE = "controlvector"
_DIRECTION = re.compile(r"direction\.(\d+)")
_STREAMS: dict[str, Stream] = {"hidden_states": "resid_post"}


def read(path: Path) -> Foreign:
    """The directions of a control vector. Raises `SteerlabError` for a GGUF of another kind, types that are no floats, and
    a file that is damaged.
    """
    gguf = _package()
    try:
        reader = gguf.GGUFReader(path)
        facts = {name: field.contents() for name, field in reader.fields.items()}
        found = {tensor.name: (tensor.tensor_type.name, np.array(tensor.data)) for tensor in reader.tensors}
    except (OSError, ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeDecodeError) as error:
        raise SteerlabError(f"{path} can not be read as GGUF ({error}): fetch or write the file again.") from error
    kind = facts.get("general.architecture")
    if kind != ARCHITECTURE:
        raise SteerlabError(f"{path} holds a {kind!r}, but a {ARCHITECTURE!r} was expected: give a control vector.")
    rows: dict[int, Tensor] = {}
    for name, (form, data) in found.items():
        place = _DIRECTION.fullmatch(name)
        if place is None or form not in ("F32", "F16"):
            raise SteerlabError(f"{path} holds {name!r} of type {form}: float tensors named direction.N were expected.")
        rows[int(place[1])] = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
    component = _component(facts.get(f"{ARCHITECTURE}.easysteer"))
    if component not in _STREAMS:
        raise SteerlabError(f"{path} steers {component!r}, which is no stream here: hidden_states is.")
    return Foreign(path.stem, rows, _STREAMS[component], str(facts.get(f"{ARCHITECTURE}.method", "")))


def write(path: Path, rows: Mapping[int, Tensor], hint: str, method: str, easysteer: bool = False) -> None:
    """Write rows as a control vector, whole or not at all. `hint`: the model's architecture ("llama", "gemma2").

    Raises `SteerlabError` for block 0, which llama.cpp and repeng can not steer (with `easysteer`, whose own reader does, it
    is written).
    """
    if 0 in rows and not easysteer:
        raise SteerlabError(
            "a control vector of llama.cpp can not steer block 0 (its directions start at direction.1): "
            "name the layers to export without 0, with --layers, or choose the format easysteer."
        )
    gguf = _package()
    with disk.told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(file)
        try:
            writer: Any = gguf.GGUFWriter(part, ARCHITECTURE)
            writer.add_string(f"{ARCHITECTURE}.model_hint", hint or "unknown")
            writer.add_string(f"{ARCHITECTURE}.method", method or "unknown")
            writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(rows))
            if easysteer:
                told = {"version": 1, "component": "hidden_states", "metadata": None}
                writer.add_string(f"{ARCHITECTURE}.easysteer", json.dumps(told))
            for layer, row in sorted(rows.items()):
                writer.add_tensor(f"direction.{layer}", row.numpy().astype(np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            disk.replace(path, Path(part).read_bytes())
        finally:
            Path(part).unlink(missing_ok=True)


def _component(record: object) -> str:
    """Which activations EasySteer says it steers; files of other programs, and its older ones, say nothing."""
    try:
        told = json.loads(str(record)) if record is not None else {}
        return str(told.get("component") or "hidden_states")
    except (ValueError, AttributeError) as error:
        raise SteerlabError(f"its EasySteer record can not be read ({error}): write the file again.") from error


def _package() -> Any:
    try:
        import gguf  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SteerlabError(
            "a control vector needs the package gguf: run pip install -e '.[interop]' in the checkout."
        ) from error
    return gguf
