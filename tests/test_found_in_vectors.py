"""What odd vector files and arrays once broke, each as its smallest example: a right result, or one sentence."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from steerlab import tensorfile
from steerlab.activations import Activations, write_mapped
from steerlab.data.means import read_means
from steerlab.errors import SteerlabError
from steerlab.interop import import_vectors
from steerlab.vectors import SteeringVector
from tests.fuzz import one_sentence
from tests.tiny import vector

DEEP = "[" * 100_000


def _refused(call: Callable[[], Any], because: str) -> None:
    with pytest.raises(SteerlabError, match=because) as caught:
        call()
    one_sentence(caught.value)


# ---- vector files


def _saved(tmp_path: Path, tensors: dict[str, torch.Tensor], record: Any) -> Path:
    tensorfile.write(tmp_path / "v.safetensors", "vector", 1, tensors, record)
    return tmp_path / "v.safetensors"


@pytest.mark.parametrize(
    "record",
    [{"counts": [0.0]}, {"counts": ["a", 1]}, {"layers": ["0", 1, 2, 3]}, {"layers": [0.0, 1, 2, 3]}, {"name": 3}, {"layers": 7}],
)  # fmt: skip
def test_a_vector_whose_record_is_of_another_kind(tmp_path: Path, record: dict[str, Any]) -> None:
    own = vector(0)
    path = _saved(tmp_path, own._tensors(), own._record() | record)
    _refused(lambda: SteeringVector.load(path), "does not hold a valid vector")


@pytest.mark.parametrize("kind", ["float64", "int64", "bool", "bfloat16", "float8_e4m3fn"])
def test_a_vector_of_another_type(tmp_path: Path, kind: str) -> None:
    own = vector(0)
    changed = own._tensors() | {"raw_norm": own.raw_norm.to(getattr(torch, kind))}
    path = _saved(tmp_path, changed, own._record())
    _refused(lambda: SteeringVector.load(path), "does not hold a valid vector .*raw_norm is not float32")


@pytest.mark.parametrize("header", [DEEP, "[]", "null", '{"kind": "vector", "schema": 1, "record": 3, "sha256": ""}'])
def test_a_header_of_another_kind(tmp_path: Path, header: str) -> None:
    (tmp_path / "v.safetensors").write_bytes(
        safetensors.torch.save(vector(0)._tensors(), metadata={"steerlab": header})
    )
    _refused(lambda: SteeringVector.load(tmp_path / "v.safetensors"), "record of .* can not be read")


def test_means_of_a_type_that_cannot_be_asked(tmp_path: Path) -> None:
    means = {"jv": torch.ones(2, 3).to(torch.float8_e4m3fn), "su": torch.zeros(2, 3)}
    (tmp_path / "m.safetensors").write_bytes(safetensors.torch.save(means))
    assert set(read_means(tmp_path / "m.safetensors")) == {"jv", "su"}


@pytest.mark.parametrize(
    "facts",
    [
        {"sites": [[0, "resid_post"]], "offsets": [0, 9]},
        {"sites": [], "offsets": [0, 1, 2]},
        {"sites": [[0, "resid_post"]], "offsets": []},
        {"sites": 3, "offsets": [0, 1, 2]},
    ],
)
def test_activations_whose_record_does_not_fit(tmp_path: Path, facts: dict[str, Any]) -> None:
    def fill(values: np.ndarray) -> None:
        values[:] = 0

    write_mapped(tmp_path / "a.safetensors", (2, 1, 3), "float32", facts, fill)
    _refused(lambda: Activations.open(tmp_path / "a.safetensors"), "not a readable activations file")


def test_arrays_of_another_byte_order_are_read(tmp_path: Path) -> None:
    rows = np.arange(1.0, 7.0).reshape(2, 3)
    np.save(tmp_path / "big.npy", rows.astype(">f8"))
    (found,) = import_vectors(tmp_path / "big.npy").values()
    torch.testing.assert_close(found.raw(1), torch.tensor([4.0, 5.0, 6.0]))


def test_arrays_that_were_mapped_from_a_file_are_read(tmp_path: Path) -> None:
    """gguf's reader maps them, so a vector that repeng read and somebody pickled holds them."""
    np.arange(3, dtype="f4").tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype="f4", mode="r")
    torch.save({"layer_1": mapped}, tmp_path / "a.pt")
    (found,) = import_vectors(tmp_path / "a.pt").values()
    torch.testing.assert_close(found.raw(1), torch.tensor([0.0, 1.0, 2.0]))


def test_an_array_whose_header_is_no_python(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.ones((2, 3)))
    data = bytearray(file.getvalue())
    data[20:23] = b"('("
    (tmp_path / "a.npy").write_bytes(data)
    _refused(lambda: import_vectors(tmp_path / "a.npy"), "can not be read as arrays")


# ---- records that travel


def test_an_archive_whose_table_of_contents_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x00"))
    _refused(lambda: import_vectors(path), "can not be read as an archive")
