"""Files of `torch.save`, read as weights only and written as plain mappings of tensors, for programs that take nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.interop.records import CLASSES

_NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def read(data: bytes, source: str) -> object:
    """What the file holds, with arrays and known classes (`records`) allowed. Raises `SteerlabError` for anything else."""
    rebuild: Any = np.zeros(0).__reduce__()[0]
    arrays = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    arrays.append((np.ndarray, "numpy.memmap"))  # what gguf's reader gives, and so repeng pickles
    allowed: list[Any] = [*arrays, np.ndarray, np.dtype, *(type(np.dtype(name)) for name in _NUMBERS)]
    allowed += [(kind, name) for name, kind in CLASSES.items()]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch says it with many types
        lines = [line for line in str(error).split("\n") if "GLOBAL" in line or "Unsupported" in line]
        first = (lines or [str(error).strip().split("\n")[0]])[0].strip().rstrip(".")
        raise SteerlabError(
            f"{source} can not be read as tensors only ({first[:200]}): nothing of it was run; "
            "save its tensors in a dict, or with safetensors."
        ) from error


def write(path: Path, value: Any) -> None:
    """Write a mapping of tensors, numbers and texts, which can be read back as weights only; whole or not at all."""
    file = io.BytesIO()
    torch.save(value, file)
    with disk.told(path):
        disk.replace(path, file.getvalue())
