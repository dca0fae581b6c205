"""A file brings back every bit, or is refused with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch

from steerlab.errors import SteerlabError
from steerlab.vectors import SteeringVector
from tests.made import LAYERS, PROVENANCE
from tests.made import made_vector as _vector
from tests.made import raw as _raw


def test_a_file_brings_back_every_bit(tmp_path: Path) -> None:
    vector = _vector(name="čeština “quoted”")
    path = tmp_path / "deep" / "v.safetensors"
    vector.save(path)
    assert SteeringVector.load(path).equals(vector)
    assert not SteeringVector.load(path).equals(_vector(1))
    assert not SteeringVector.load(path).equals(replace(vector, provenance=replace(PROVENANCE, seed=None)))
    bare = SteeringVector.from_raw("v", _raw(), LAYERS)  # NaN residual norms
    bare.save(path)
    assert SteeringVector.load(path).equals(bare)
    assert [p.name for p in path.parent.iterdir()] == ["v.safetensors"]


def test_a_file_is_plain_safetensors_with_its_facts_in_the_header(tmp_path: Path) -> None:
    _vector().save(tmp_path / "v.safetensors")
    with safetensors.safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"direction", "raw_norm", "residual_norm"}
        header = json.loads(file.metadata()["steerlab"])
    assert header["schema"] == 1
    assert header["record"]["layers"] == [0, 2, 5]
    assert header["record"]["provenance"]["data"] == [["ntrex", "00ff"]]


def test_a_damaged_file_is_refused_whatever_byte_is_hit(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    _vector().save(path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(SteerlabError):
            SteeringVector.load(path)
    for length in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(SteerlabError, match="can not be loaded"):
            SteeringVector.load(path)


def test_other_files_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="there is no such file"):
        SteeringVector.load(tmp_path / "none.safetensors")
    with pytest.raises(SteerlabError, match="can not be loaded"):
        SteeringVector.load(tmp_path)
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"direction": _raw()}, plain)
    with pytest.raises(SteerlabError, match="holds no steerlab record"):
        SteeringVector.load(plain)
    safetensors.torch.save_file({"direction": _raw()}, plain, {"steerlab": "{not json"})
    with pytest.raises(SteerlabError, match="record of .* can not be read"):
        SteeringVector.load(plain)
    newer = {"kind": "vector", "schema": 99, "record": {}, "sha256": ""}
    safetensors.torch.save_file({"direction": _raw()}, plain, {"steerlab": json.dumps(newer)})
    with pytest.raises(SteerlabError, match="vector in layout 99, and this steerlab reads layouts up to 1"):
        SteeringVector.load(plain)


def test_a_failed_save_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.safetensors"
    _vector(1).save(path)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(SteerlabError, match="no space is left"):
        _vector(2).save(path)
    assert SteeringVector.load(path).equals(_vector(1))
    assert [p.name for p in tmp_path.iterdir()] == ["v.safetensors"]


def test_an_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SteerlabError):
        _vector().save(tmp_path / "file" / "v.safetensors")
