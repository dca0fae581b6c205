"""Vectors from files of other programs, recognised by their content, and into the formats that those read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from safetensors import SafetensorError

from steerlab import disk
from steerlab.errors import SteerlabError
from steerlab.interop import control_vector, plain_pickle, torch_file
from steerlab.interop.foreign import Foreign, scaled
from steerlab.interop.trees import vectors_of
from steerlab.records import understood
from steerlab.vectors import SteeringVector

FORMATS = {
    "gguf": "control vector of llama.cpp and repeng (.gguf)",
    "easysteer": "the same with EasySteer's record; may hold block 0 (.gguf)",
    "steering-vectors": "the fields of the package's SteeringVector (.pt)",
    "lm-eval": "what lm-evaluation-harness's model `steered` takes as steer_path (.pt)",
}
_LARGEST = 4 * 2**30
_KINDS = {"resid_post": "decoder_block", "attn_out": "self_attn", "mlp_out": "mlp"}
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # how files of torch.save began before they were archives


def import_vectors(
    path: str | Path, *, layers: Sequence[int] = (), embedding_first: bool = False
) -> dict[str, SteeringVector]:
    """The vectors in a file of another program, by name, with the file's SHA-256 as provenance and no model.

    Read: GGUF control vectors (llama.cpp, repeng, EasySteer), files of torch.save (steering-vectors, lm-evaluation-harness,
    tensors by layer or by name), pickles, .npy, .npz and safetensors of plain tensors; see `trees.vectors_of` for their shapes.
    layers: the block of each row, where the file does not say. embedding_first: row 0 is the embedding's and goes.
    Nothing in a file is ever run.

    Raises `SteerlabError` for a file that can not be read so, that would have to run code, or that holds no vector.
    """
    path = Path(path)
    if not path.is_file():
        raise SteerlabError(f"there is no file {path}: give the file of a vector.")
    with disk.told(path):
        facts = disk.fingerprint(path)
    if facts["bytes"] > _LARGEST:
        raise SteerlabError(f"{path} has {facts['bytes']:,} bytes: vectors are smaller than {_LARGEST:,}.")
    with understood(path):
        found = _foreign(path, layers, embedding_first)
    if not found:
        raise SteerlabError(f"{path} holds no vector: give the file of one.")
    names = [one.name for one in found]
    if len(set(names)) != len(names):
        raise SteerlabError(
            f"{path} holds several vectors of one name ({', '.join(sorted(names))}): give each its own."
        )
    return {one.name: one.vector(path.name, facts["sha256"]) for one in found}


def export_vector(
    vector: SteeringVector,
    path: str | Path,
    format: str,
    *,
    layers: Sequence[int] = (),
    scale: str = "raw",
    coefficient: float = 1.0,
    hint: str = "",
    blocks: str = "layers",
) -> Path:
    """Write a vector for another program; whole or not at all. Returns the path.

    format: one of `FORMATS`. layers: which of its layers; all where none is named. scale: see `foreign.scaled`, what one unit
    of the other program's coefficient is worth. coefficient: lm-eval only, written into the file. hint: GGUF only, the
    architecture's name. blocks: lm-eval only, what the model calls its list of blocks ("layers" in Llama, Gemma, Qwen and
    Mistral, "h" in GPT-2).

    Raises `SteerlabError` for an unknown format, a stream or layer the format has no word for, and as `scaled` does.
    """
    path = Path(path)
    if format not in FORMATS:
        raise SteerlabError(f"format {format!r} is not known: give one of {', '.join(FORMATS)}.")
    only_blocks = format in ("gguf", "easysteer")
    if vector.stream not in _KINDS or (only_blocks and vector.stream != "resid_post"):
        raise SteerlabError(
            f"vector {vector.name!r} is of stream {vector.stream}, and the format {format} steers "
            f"{'the output of whole blocks (resid_post)' if only_blocks else ', '.join(_KINDS)}: fit it there."
        )
    rows = scaled(vector, layers, scale)
    method = f"steerlab {vector.provenance.method or vector.name}, scale {scale}"
    if only_blocks:
        control_vector.write(path, rows, hint, method, easysteer=format == "easysteer")
    elif format == "steering-vectors":
        torch_file.write(path, {"layer_activations": rows, "layer_type": _KINDS[vector.stream]})
    else:
        ending = {"resid_post": "", "attn_out": ".attn" if blocks == "h" else ".self_attn", "mlp_out": ".mlp"}
        steered = {
            f"{blocks}.{layer}{ending[vector.stream]}": {
                "steering_vector": row,
                "steering_coefficient": float(coefficient),
                "action": "add",
                "bias": None,
                "head_index": None,
            }
            for layer, row in rows.items()
        }
        torch_file.write(path, steered)
    return path


def _foreign(path: Path, layers: Sequence[int], embedding_first: bool) -> list[Foreign]:
    with disk.told(path), path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"GGUF":
        return [control_vector.read(path)]
    with disk.told(path):
        data = path.read_bytes()
    return vectors_of(_tree(data, head, str(path)), path.stem, layers, embedding_first)


def _tree(data: bytes, head: bytes, source: str) -> Any:
    """What the bytes hold, by what they begin with."""
    if head.startswith(b"\x93NUMPY"):
        return _arrays(data, source)
    if zipfile.is_zipfile(io.BytesIO(data)):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                numpy = all(name.endswith(".npy") for name in archive.namelist())
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise SteerlabError(f"{source} can not be read as an archive ({error}): fetch the file again.") from error
        return _arrays(data, source) if numpy else torch_file.read(data, source)
    if head[8:9] == b"{":
        try:
            return safetensors.torch.load(data)
        except SafetensorError as error:
            raise SteerlabError(f"{source} can not be read as safetensors ({error}): fetch the file again.") from error
    if data.startswith(_LEGACY):
        return torch_file.read(data, source)
    if head[:1] == b"\x80" or data[-1:] == b".":
        return plain_pickle.loads(data, source)
    raise SteerlabError(
        f"{source} is in no format that is known here: give GGUF, a file of torch.save, a pickle, .npy, .npz or safetensors."
    )


def _arrays(data: bytes, source: str) -> Any:
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
        return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except Exception as error:  # numpy, zipfile and zlib say it with many types
        raise SteerlabError(f"{source} can not be read as arrays of numbers ({error}): write it again.") from error
