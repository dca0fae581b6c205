"""Files of vectors, of activations and of other programs: odd types, shapes and headers, and damaged bytes."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st

from steerlab import tensorfile
from steerlab.activations import Activations
from steerlab.data.means import mean_vectors
from steerlab.errors import SteerlabError
from steerlab.interop import export_vector, from_llama2c, import_vectors
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set
from tests import odd_texts as odd
from tests.fuzz import Target
from tests.reference import llama2c
from tests.tiny import vector

TENSORS = {"direction": vector(0).direction, "raw_norm": vector(0).raw_norm, "residual_norm": vector(0).residual_norm}
RECORD = vector(0)._record() | {
    "choice": {"layers": [1], "strength": 0.5, "operator": "add", "unit": "residual", "target": 0.0, "positions": "all",
               "rule": "", "evidence": [["share", 0.5, 0.4, None]]},
    "projections": {"instructed": [1.0, 2, 3, 4], "bare": [0.0, 1, 2, 3], "reliability": []},
}  # fmt: skip
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.complex64)
DTYPES += tuple(
    getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2", "uint16", "uint64") if hasattr(torch, name)
)


@st.composite
def odd_tensor(draw: st.DrawFn, like: torch.Tensor) -> torch.Tensor:
    """Another type, another shape, or values that are not finite."""
    what = draw(st.sampled_from(["type", "shape", "nan", "inf", "zero", "empty", "scalar"]))
    if what == "type":
        return like.to(draw(st.sampled_from(DTYPES)))
    if what == "shape":
        return draw(st.sampled_from([like[:1], like[None], like.reshape(-1), like[..., :0], like.repeat(3, 1)]))
    if what in ("empty", "scalar"):
        return torch.zeros(0) if what == "empty" else torch.tensor(1.0)
    changed = like.clone()
    changed.reshape(-1)[draw(st.integers(0, like.numel() - 1))] = float({"zero": "0"}.get(what, what))
    return changed


@st.composite
def _vector_file(draw: st.DrawFn) -> bytes:
    """A vector's file: whole, with odd tensors, an odd record whose checksum fits, an odd header, or damaged bytes."""
    tensors, record = dict(TENSORS), RECORD
    what = draw(st.sampled_from(["whole", "tensor", "record", "record", "header", "bytes", "bytes"]))
    if what == "tensor":
        name = draw(st.sampled_from([*tensors, "direction"]))
        tensors[name] = draw(odd_tensor(tensors[name]))
        if draw(st.booleans()):
            tensors[draw(odd.SHORT.filter(lambda text: text.isprintable()))] = torch.zeros(2)
    if what == "record":
        record = draw(odd.replaced(RECORD))
    try:
        digest = tensorfile._checksum(tensors, record)
    except (ValueError, UnicodeEncodeError, RuntimeError, TypeError):
        digest = "0" * 64
    header: Any = {"kind": "vector", "schema": 1, "record": record, "sha256": digest}
    if what == "header":
        header = draw(odd.replaced(header))
    text = draw(odd.BROKEN_JSON) if what == "header" and draw(st.booleans()) else json.dumps(header)
    metadata = {"steerlab": text.encode("utf-8", "replace").decode(), **({"x": "y"} if draw(st.booleans()) else {})}
    try:
        data = safetensors.torch.save(tensors, metadata=metadata)
    except (ValueError, KeyError, RuntimeError, OverflowError):
        data = safetensors.torch.save(TENSORS, metadata=metadata)
    return draw(st.one_of(odd.damaged(data), _headers(data))) if what == "bytes" else data


def _headers(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes behind a header of another length: one that promises too much, or none."""
    return st.sampled_from([0, 1, 7, len(data), 2**31, 2**40, 2**63, 2**64 - 1]).map(
        lambda size: struct.pack("<Q", size) + data[8:]
    )


def check_vector(found: SteeringVector, folder: Path) -> None:
    """What a loader let through is a vector that can be used, saved and read again."""
    assert found.direction.dtype == torch.float32 and found.raw_norm.dtype == torch.float32
    assert torch.allclose(found.direction.norm(dim=-1), torch.ones(len(found.layers)), atol=1e-3)
    assert all(type(layer) is int for layer in found.layers) and isinstance(found.name, str)
    assert all(isinstance(count, int | float) for count in found.counts) and len(found.counts) == 2
    assert "v" in found._repr_html_() or True
    found.save(folder / "again.safetensors")
    assert SteeringVector.load(folder / "again.safetensors").equals(found)


def _load_vector(data: bytes, folder: Path) -> None:
    (folder / "given.safetensors").write_bytes(data)
    check_vector(SteeringVector.load(folder / "given.safetensors"), folder)


def _load_set(index: str, folder: Path) -> None:
    vector(1).save(folder.parent / "escape.safetensors")
    try:
        save_set({"a": vector(0)}, folder / "set")
        (folder / "set" / "vectors.json").write_text(index, encoding="utf-8", errors="surrogatepass")
        found = load_set(folder / "set")
        assert all(own.name == "v0" for own in found.values())
    finally:
        (folder.parent / "escape.safetensors").unlink()


def _save_set(key: str, folder: Path) -> None:
    save_set({key: vector(0)}, folder / "set")
    assert list(load_set(folder / "set")) == [key]


def _means(data: bytes, folder: Path) -> None:
    (folder / "given.safetensors").write_bytes(data)
    for own in mean_vectors(folder / "given.safetensors").values():
        check_vector(own, folder)


@st.composite
def _means_file(draw: st.DrawFn) -> bytes:
    tensors = {
        code: torch.randn(3, 4, generator=torch.Generator().manual_seed(i)) for i, code in enumerate(("jv", "su", "id"))
    }
    if draw(st.booleans()):
        tensors["jv"] = draw(odd_tensor(tensors["jv"]))
    data = safetensors.torch.save(tensors, metadata={"model": draw(odd.WHOLE)})
    return draw(st.one_of(odd.damaged(data), _headers(data))) if draw(st.integers(0, 2)) == 0 else data


# ---- files of other programs


@functools.cache
def foreign_files() -> tuple[tuple[str, bytes], ...]:
    """One whole file of every format that is imported."""
    import tempfile

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for form, name in (
            ("gguf", "a.gguf"),
            ("easysteer", "b.gguf"),
            ("steering-vectors", "c.pt"),
            ("lm-eval", "d.pt"),
        ):
            path = export_vector(vector(0), Path(folder) / name, form, layers=(1, 2))
            found.append((path.suffix, path.read_bytes()))
    rows = vector(0).direction.numpy()
    for array in (rows, rows.astype(">f8"), rows.astype(np.int32)):
        file = io.BytesIO()
        np.save(file, array)
        found.append((".npy", file.getvalue()))
    file = io.BytesIO()
    np.savez(file, layer_1=rows[0], layer_2=rows[1])
    found.append((".npz", file.getvalue()))
    found.append((".safetensors", safetensors.torch.save({"x": torch.tensor(rows)})))
    return tuple(found)


@st.composite
def _foreign(draw: st.DrawFn) -> tuple[str, bytes, bool]:
    suffix, data = draw(st.sampled_from(foreign_files()))
    return suffix, data if draw(st.integers(0, 9)) == 0 else draw(odd.damaged(data)), draw(st.booleans())


def _import(example: tuple[str, bytes, bool], folder: Path) -> None:
    suffix, data, embedding_first = example
    (folder / f"given{suffix}").write_bytes(data)
    for own in import_vectors(folder / f"given{suffix}", embedding_first=embedding_first).values():
        check_vector(own, folder)


@st.composite
def _tree(draw: st.DrawFn) -> tuple[str, Any]:
    """What torch.save or numpy.savez may hold: mappings by odd names of arrays of odd shapes and types."""
    rows = vector(0).direction
    names = st.one_of(
        st.sampled_from(["1", "layer_2", "layers.1.mlp", "layer_activations", "layer_type", "٣", "layer²"]), odd.SHORT
    )
    leaf: Any = st.one_of(odd_tensor(rows[0]), odd_tensor(rows), st.just(rows[0]), st.just(rows), odd.PLAIN)
    entry = st.dictionaries(
        st.sampled_from(["steering_vector", "steering_coefficient", "action", "bias", "head_index"]), leaf, min_size=1
    )
    keys: Any = st.one_of(names, st.integers(-1, 5))
    tree = st.one_of(
        st.dictionaries(keys, leaf, max_size=3),
        st.lists(leaf, max_size=3),
        leaf,
        st.dictionaries(names, entry, max_size=2),
    )
    return draw(st.sampled_from([".pt"])), draw(tree)


def _import_tree(example: tuple[str, Any], folder: Path) -> None:
    suffix, tree = example
    torch.save(tree, folder / f"given{suffix}")
    for own in import_vectors(folder / f"given{suffix}").values():
        check_vector(own, folder)


# ---- models of llama2.c, and activations


@functools.cache
def llama2c_files() -> tuple[bytes, bytes]:
    """A whole checkpoint and its tokenizer."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = llama2c.write_checkpoint(llama2c.random_checkpoint(seed=3), Path(folder) / "m.bin")
        words = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
        words += [f"#{i}".encode() for i in range(300 - len(words))]
        tokenizer = llama2c.write_tokenizer(words, [0.0] * len(words), Path(folder) / "tok.bin")
        return checkpoint.read_bytes(), tokenizer.read_bytes()


@st.composite
def _llama2c(draw: st.DrawFn) -> tuple[bytes, bytes]:
    checkpoint, tokenizer = llama2c_files()
    what = draw(st.sampled_from(["none", "checkpoint", "tokenizer", "tokenizer", "both"]))
    if what in ("checkpoint", "both"):
        checkpoint = draw(odd.damaged(checkpoint))
    return checkpoint, draw(odd.damaged(tokenizer)) if what in ("tokenizer", "both") else tokenizer


def _convert(example: tuple[bytes, bytes], folder: Path) -> None:
    (folder / "m.bin").write_bytes(example[0])
    (folder / "tok.bin").write_bytes(example[1])
    try:
        out = from_llama2c(folder / "m.bin", folder / "tok.bin", folder / "out")
    except SteerlabError:
        assert not (folder / "out" / "config.json").exists()
        raise
    assert json.loads((out / "config.json").read_bytes())["model_type"] == "llama"


@st.composite
def _activations(draw: st.DrawFn) -> bytes:
    facts = {"sites": [[0, "resid_post"], [1, "mlp_out"]], "offsets": [0, 1, 2, 3]}
    facts = draw(st.one_of(st.just(facts), odd.replaced(facts)))
    told = draw(odd.BROKEN_JSON) if draw(st.integers(0, 9)) == 0 else json.dumps(facts)
    header: Any = {
        "__metadata__": {"steerlab": told},
        "activations": {"dtype": "F32", "shape": [3, 2, 4], "data_offsets": [0, 96]},
    }
    text = json.dumps(draw(st.one_of(st.just(header), odd.replaced(header)))).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + np.arange(24, dtype="<f4").tobytes()
    return draw(st.one_of(st.just(data), st.just(data), odd.damaged(data), _headers(data)))


def _open_activations(data: bytes, folder: Path) -> None:
    (folder / "given.safetensors").write_bytes(data)
    found = Activations.open(folder / "given.safetensors")
    for site in found.sites:
        assert found.site(site).shape == (found.values.shape[0], found.values.shape[2])
    assert found.offsets[0] == 0 and (np.diff(found.offsets) >= 0).all() and found.offsets[-1] == len(found.values)
    hashlib.sha256(found.values.tobytes()).hexdigest()


INDEXES = st.one_of(
    odd.BROKEN_JSON,
    st.lists(st.one_of(odd.NAMES, st.sampled_from(["a", "../escape"]), odd.JSON), max_size=2).map(
        lambda keys: json.dumps({"vectors": keys})
    ),
    odd.replaced({"vectors": ["a"]}).map(json.dumps),
)  # fmt: skip
TARGETS = [
    Target("vectors", "vector file", "safetensors: odd headers, records, types, shapes, NaN, damage", _vector_file(), _load_vector, 2),
    Target("vectors", "index of a folder of vectors", "vectors.json: odd keys, paths out of the folder, broken JSON", INDEXES, _load_set),
    Target("vectors", "name of a saved vector", "odd names, paths out of the folder", odd.NAMES, _save_set),
    Target("vectors", "language means", "safetensors: odd types, shapes, NaN, damaged bytes", _means_file(), _means),
    Target("vectors", "activations file", "odd headers, records, damaged bytes", _activations(), _open_activations),
    Target("interop", "file of another program", "GGUF, torch.save, .npy, .npz, safetensors: damaged bytes", _foreign(), _import, 2),
    Target("interop", "tree of tensors", "torch.save of odd mappings, lists, types, shapes", _tree(), _import_tree),
    Target("interop", "llama2.c model", "checkpoints and tokenizers: damaged bytes", _llama2c(), _convert, 0.3),
]  # fmt: skip
