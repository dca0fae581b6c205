"""Vectors of other programs are recognised by content and mean what they meant there; ours come back from every format."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.interop import FORMATS, export_vector, import_vectors
from steerlab.interop import torch_file as files
from steerlab.interop.foreign import Foreign, placed, scaled
from steerlab.interop.trees import vectors_of
from tests.made import LAYERS, D, made_vector, raw, whole
from tests.tiny import tiny

TORCH = [name for name in FORMATS if name not in ("gguf", "easysteer")]


def _rows(found: Foreign) -> dict[int, Tensor]:
    return dict(found.rows)


def _same(found: dict[int, Tensor], want: dict[int, Tensor]) -> None:
    assert sorted(found) == sorted(want)
    for layer, row in want.items():
        torch.testing.assert_close(found[layer], row)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("scale", ["raw", "unit", "residual"])
def test_what_is_exported_comes_back_with_its_layers_and_lengths(tmp_path: Path, format: str, scale: str) -> None:
    if format not in TORCH:
        pytest.importorskip("gguf", reason="the optional package gguf is not installed")
    vector, layers = made_vector(), (2, 5)
    path = export_vector(vector, tmp_path / "v.file", format, layers=layers, scale=scale, coefficient=1.0, hint="llama")
    (back,) = import_vectors(path).values()
    _same({layer: back.raw(layer) for layer in back.layers}, scaled(vector, layers, scale))
    assert back.stream == "resid_post" and not back.provenance.model
    assert [name for name, _ in back.provenance.data] == ["v.file"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("stream", ["attn_out", "mlp_out"])
def test_other_streams_go_where_the_format_has_a_word_for_them(tmp_path: Path, stream: Any) -> None:
    vector = made_vector(stream=stream)
    for format in TORCH:
        (back,) = import_vectors(export_vector(vector, tmp_path / "v.pt", format)).values()
        assert back.stream == stream
    with pytest.raises(SteerlabError, match=f"of stream {stream}, and the format gguf steers"):
        export_vector(vector, tmp_path / "v.gguf", "gguf")


def test_block_0_can_not_be_a_control_vector_of_llama_cpp_and_can_be_easysteers(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="can not steer block 0"):
        export_vector(made_vector(), tmp_path / "v.gguf", "gguf")
    assert not list(tmp_path.iterdir())
    pytest.importorskip("gguf", reason="the optional package gguf is not installed")
    (back,) = import_vectors(export_vector(made_vector(), tmp_path / "v.gguf", "easysteer")).values()
    assert back.layers == LAYERS


def test_a_control_vector_is_named_and_typed_as_llama_cpp_wants_it(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the optional package gguf is not installed")
    export_vector(made_vector(), tmp_path / "v.gguf", "gguf", layers=(2, 5), hint="llama")
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    facts = {name: field.contents() for name, field in reader.fields.items()}
    assert (facts["general.architecture"], facts["controlvector.model_hint"]) == ("controlvector", "llama")
    assert facts["controlvector.layer_count"] == 2
    assert [(t.name, t.tensor_type.name, list(t.shape)) for t in reader.tensors] == [
        ("direction.2", "F32", [D]),
        ("direction.5", "F32", [D]),
    ]


def test_a_gguf_that_is_no_control_vector_is_refused(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the optional package gguf is not installed")
    for arch, name in (("llama", "direction.1"), ("controlvector", "blk.1")):
        writer = gguf.GGUFWriter(tmp_path / "x.gguf", arch)
        writer.add_tensor(name, np.ones(4, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(SteerlabError, match="'controlvector' was expected|float tensors named direction.N"):
            import_vectors(tmp_path / "x.gguf")
    data = (tmp_path / "x.gguf").read_bytes()
    for cut in (5, 20, 60, len(data) - 20):
        (tmp_path / "x.gguf").write_bytes(data[:cut])
        with pytest.raises(SteerlabError, match="can not be read as GGUF"):
            import_vectors(tmp_path / "x.gguf")


def test_without_the_package_a_control_vector_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(SteerlabError, match=r"pip install -e '\.\[interop\]'"):
        import_vectors(tmp_path / "x.gguf")


MATRIX = raw(1)
TREES: dict[str, tuple[Any, dict[str, Any], dict[str, dict[int, Tensor]]]] = {
    "a matrix": (MATRIX, {}, {"f": dict(enumerate(MATRIX))}),
    "a matrix with layers": (MATRIX, {"layers": (4, 6, 8)}, {"f": dict(zip((4, 6, 8), MATRIX, strict=True))}),
    "hidden_states": (MATRIX, {"embedding_first": True}, {"f": dict(enumerate(MATRIX[1:]))}),
    "an array": (MATRIX.double().numpy(), {}, {"f": dict(enumerate(MATRIX))}),
    "a list of rows": (list(MATRIX), {}, {"f": dict(enumerate(MATRIX))}),
    "one row": (MATRIX[0], {"layers": (3, 7)}, {"f": {3: MATRIX[0], 7: MATRIX[0]}}),
    "rows by layer": ({12: MATRIX[0], 3: MATRIX[1]}, {}, {"f": {12: MATRIX[0], 3: MATRIX[1]}}),
    "rows by a layer's name": ({"model.layers.12": MATRIX[0]}, {}, {"f": {12: MATRIX[0]}}),
    "matrices by name": ({"jv": MATRIX, "en": -MATRIX}, {}, {"jv": dict(enumerate(MATRIX)), "en": dict(enumerate(-MATRIX))}),
    "rows by layer by name": ({"jv": {"layer_2": MATRIX[0]}}, {}, {"jv": {2: MATRIX[0]}}),
    "half precision": (MATRIX.bfloat16(), {}, {"f": dict(enumerate(MATRIX.bfloat16().float()))}),
}  # fmt: skip


@pytest.mark.parametrize("what", TREES)
def test_a_tree_means_what_its_shape_says(what: str) -> None:
    tree, options, want = TREES[what]
    found = vectors_of(tree, "f", **options)
    assert [one.name for one in found] == list(want)
    for one in found:
        _same(_rows(one), want[one.name])


@pytest.mark.parametrize(
    ("tree", "options", "because"),
    [
        (torch.zeros(3), {}, "names no layer"),
        (torch.zeros(2, 3), {"layers": (1,)}, "2 rows and 1 layers"),
        (torch.zeros(2, 3, 4), {}, "an array of shape \\(2, 3, 4\\)"),
        (3.5, {}, "is a float"),
        ({}, {}, "a mapping with 0 keys"),
        ({"a": "text"}, {}, "'a' is a str"),
        ({"layer_activations": {1: 3}, "layer_type": "decoder_block"}, {}, "has a int at 1"),
        ({"layer_activations": {1: torch.ones(2)}, "layer_type": "input_layernorm"}, {}, "no stream here"),
        ({"layers.1": {"steering_vector": torch.ones(2), "bias": torch.ones(2)}}, {}, "with a bias True"),
        ({"lm_head": {"steering_vector": torch.ones(2)}}, {}, "steers 'lm_head'"),
        ({"layers.1": {"steering_vector": torch.ones(2), "action": "wild"}}, {}, "mixes actions"),
        (np.array(["a"]), {"layers": (1,)}, "array of <U1 was found where numbers are expected"),
        (torch.ones(2, dtype=torch.complex64), {"layers": (1,)}, "numbers are expected"),
    ],
)
def test_a_tree_that_is_no_vector_says_what_it_is(tree: Any, options: Any, because: str) -> None:
    with pytest.raises(SteerlabError, match=because) as caught:
        vectors_of(tree, "f", **options)
    assert "\n" not in str(caught.value)


def test_the_clamp_of_lm_eval_is_a_match_of_the_projection(tmp_path: Path) -> None:
    entry = {"steering_vector": torch.tensor([3.0, 4.0]), "steering_coefficient": 7.0, "action": "clamp", "bias": None}
    files.write(tmp_path / "v.pt", {"layers.2": entry})
    (found,) = import_vectors(tmp_path / "v.pt").values()
    assert found.choice is not None
    assert (found.choice.operator, found.choice.target, found.choice.unit, found.choice.layers) == (
        "match",
        7.0,
        "raw",
        (2,),
    )
    torch.testing.assert_close(found.at(2), torch.tensor([0.6, 0.8]))


def test_rows_of_zeros_steer_nothing_and_are_left_out() -> None:
    rows = {1: torch.zeros(3), 2: torch.ones(3)}
    assert Foreign("v", rows).vector("f", "00").layers == (2,)
    with pytest.raises(SteerlabError, match="no row that is not all zeros"):
        Foreign("v", {1: torch.zeros(3)}).vector("f", "00")
    with pytest.raises(SteerlabError, match="rows of shapes \\(2,\\), \\(3,\\)"):
        Foreign("v", {1: torch.ones(2), 2: torch.ones(3)}).vector("f", "00")
    with pytest.raises(SteerlabError, match="not finite at layer 1"):
        Foreign("v", {1: torch.tensor([1.0, float("nan")])}).vector("f", "00")


def test_arrays_and_plain_safetensors_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", MATRIX.numpy())
    np.savez(tmp_path / "two.npz", jv=MATRIX.numpy(), en=-MATRIX.numpy())
    (tmp_path / "three.bin").write_bytes(safetensors.torch.save({"jv": MATRIX, "en": -MATRIX}))
    assert list(import_vectors(tmp_path / "one.npy")) == ["one"]
    for name in ("two.npz", "three.bin"):
        found = import_vectors(tmp_path / name)
        assert set(found) == {"jv", "en"}
        torch.testing.assert_close(whole(found["en"]), -MATRIX)


class _Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.target),))


def test_a_torch_file_that_would_run_something_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = {"layers.1": _Evil(tmp_path / "ran")}
    files.write(tmp_path / "v.pt", evil)
    with pytest.raises(SteerlabError, match="can not be read as tensors only .*mkdir") as caught:
        import_vectors(tmp_path / "v.pt")
    assert not (tmp_path / "ran").exists() and "\n" not in str(caught.value)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    (tmp_path / "o.npy").write_bytes(file.getvalue() + b"cos\nsystem\n(S'x'\ntR.")
    with pytest.raises(SteerlabError, match="can not be read as arrays of numbers"):
        import_vectors(tmp_path / "o.npy")


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"", "no format that is known"),
        (b"hello", "no format that is known"),
        (b"PK\x03\x04 no archive", "no format that is known"),
        (b'\x10\x00\x00\x00\x00\x00\x00\x00{"a": broken....', "safetensors"),
        (b"\x93NUMPY\x01\x00", "arrays of numbers"),
        (b"\x80\x04N.", "is a NoneType"),
    ],
)
def test_a_file_that_is_none_gives_one_sentence(tmp_path: Path, content: bytes, because: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(SteerlabError, match=because) as caught:
        import_vectors(tmp_path / "f")
    assert "\n" not in str(caught.value)
    with pytest.raises(SteerlabError, match="there is no file"):
        import_vectors(tmp_path / "g")


def test_a_vector_that_is_placed_belongs_to_its_model_and_knows_the_streams_norm() -> None:
    model = tiny("llama")
    vector = Foreign("v", dict(enumerate(torch.randn(4, 32, generator=torch.Generator().manual_seed(0))))).vector(
        "f", "0"
    )
    with pytest.raises(SteerlabError, match="not recorded"):
        vector.check(model.name, model.revision, model.d_model, model.n_layers)
    mine = placed(vector, model)
    mine.check(model.name, model.revision, model.d_model, model.n_layers)
    assert mine.residual_norm.isnan().all()
    measured = placed(vector, model, ["hello there", "abc"])
    assert bool((measured.residual_norm > 0).all()) and [name for name, _ in measured.provenance.data] == [
        "f",
        "residual norm",
    ]
    with pytest.raises(SteerlabError, match="width 3"):
        placed(Foreign("v", {0: torch.ones(3)}).vector("f", "0"), model)


def test_an_export_refuses_what_it_can_not_say(tmp_path: Path) -> None:
    refusals: tuple[tuple[dict[str, Any], str], ...] = (
        ({"format": "onnx"}, "format 'onnx' is not known"),
        ({"format": "lm-eval", "scale": "half"}, "scale 'half' is not known"),
        ({"format": "lm-eval", "layers": (1,)}, "no direction at layer 1"),
    )
    for named, because in refusals:
        with pytest.raises(SteerlabError, match=because):
            export_vector(made_vector(), tmp_path / "v.pt", **named)
    assert not list(tmp_path.iterdir())
