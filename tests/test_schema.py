"""Files of an older layout are read as the newest has them, files of a newer one are refused in one sentence, and damage is noticed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steerlab import tensorfile
from steerlab.activations import Activations, write_mapped
from steerlab.errors import SteerlabError
from steerlab.manifest import DAMAGED, MANIFEST
from steerlab.records import is_sealed, read_sealed_rows, sealed, sealed_rows
from steerlab.schema import upgraded
from steerlab.sharding import Parts
from steerlab.store import RunFolder, verify
from tests.small_run import CONFIG, content, work

NEWER = "layout 9, and this steerlab reads layouts up to {}: it was written by a newer version, so install that one"


def test_steps_lead_from_any_older_layout_to_the_newest() -> None:
    steps = {1: lambda r: {**r, "b": r["a"] + 1}, 2: lambda r: {"c": r["a"] + r["b"]}}
    old = {"a": 1}
    assert upgraded(Path("f"), "thing", old, 1, 3, steps) == {"c": 3} and old == {"a": 1}
    assert upgraded(Path("f"), "thing", {"a": 1, "b": 5}, 2, 3, steps) == {"c": 6}
    assert upgraded(Path("f"), "thing", {"c": 0}, 3, 3, steps) == {"c": 0}


@pytest.mark.parametrize(
    ("layout", "because"),
    [(9, NEWER.format(3)), (0, "in layout 0, which this steerlab no longer reads"), ("1", "names no layout of a thing .'1'."),
     (None, "names no layout"), (True, "names no layout"), (-1, "names no layout"), (1.0, "names no layout")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(layout: Any, because: str) -> None:
    with pytest.raises(SteerlabError, match=because):
        upgraded(Path("f"), "thing", {}, layout, 3, {1: dict, 2: dict})


def test_a_tensor_file_of_an_older_layout_is_read_and_stays_as_it_is(tmp_path: Path) -> None:
    path, tensors = tmp_path / "t", {"x": torch.ones(2)}
    tensorfile.write(path, "thing", 1, tensors, {"length": 2})
    before = path.read_bytes()
    _, record = tensorfile.read(path, "thing", 2, {1: lambda r: {"metres": r["length"]}})
    assert record == {"metres": 2} and path.read_bytes() == before
    with pytest.raises(SteerlabError, match="in layout 1, which this steerlab no longer reads: make it again"):
        tensorfile.read(path, "thing", 2)
    tensorfile.write(path, "thing", 9, tensors, {})
    with pytest.raises(SteerlabError, match=NEWER.format(2)):
        tensorfile.read(path, "thing", 2)


def _manifest(folder: Path, **changes: Any) -> None:
    value = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(sealed({**value, **changes})))


def test_a_run_of_a_newer_layout_is_not_touched(tmp_path: Path) -> None:
    run = work(tmp_path / "run")
    _manifest(run, schema=9)
    before = content(run)
    for use in (lambda: verify(run), lambda: RunFolder.open(run, CONFIG)):
        with pytest.raises(SteerlabError, match=NEWER.format(2)):
            use()
    assert content(run) == before


def test_a_run_of_the_first_layout_is_read_and_written_anew(tmp_path: Path) -> None:
    """Its manifest had no checksum of itself."""
    run = work(tmp_path / "run")
    whole = content(run)
    value = json.loads((run / MANIFEST).read_text())
    old = {"schema": 1, "config_key": value["config_key"], "files": value["files"]}
    (run / MANIFEST).write_text(json.dumps(old))
    verify(run)
    with RunFolder.open(run, CONFIG) as folder:
        assert folder.finished
    work(run)
    assert content(run) == whole and value["schema"] == 2


def test_a_damaged_file_of_a_finished_run_is_put_aside_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = work(tmp_path / "run")
    whole = content(run)
    for name in ("metrics.json", MANIFEST):
        data = bytearray(whole[name])
        data[len(data) // 2] ^= 4
        (run / name).write_bytes(data)
        with pytest.raises(SteerlabError):
            verify(run)
        work(run)
        found = content(run)
        assert found.pop(f"{DAMAGED}/{name}") == data
        assert {n: d for n, d in found.items() if not n.startswith(DAMAGED)} == whole
        assert "changed after the run finished: kept in .damaged/ and made again" in capsys.readouterr().err
    os.unlink(run / "metrics.json")
    work(run)
    assert (run / "metrics.json").read_bytes() == whole["metrics.json"]
    verify(run)


@pytest.mark.parametrize("name", ["samples.jsonl", "batches.jsonl", "config.json"])
def test_a_damaged_source_of_a_finished_run_is_refused(tmp_path: Path, name: str) -> None:
    run = work(tmp_path / "run")
    data = (run / name).read_bytes()
    (run / name).write_bytes(
        data.replace(b'"rows": 3', b'"rows": 4').replace(b"voda", b"vodo") + b"\n" * (name == "config.json")
    )
    before = content(run)
    with pytest.raises(SteerlabError, match=f"{name}.*(restore|not what was written)|lines 1 to 3"):
        RunFolder.open(run, CONFIG)
    assert content(run) == before


def test_activations_carry_a_checksum_and_those_without_one_are_read(tmp_path: Path) -> None:
    path, record = tmp_path / "a", {"sites": [[0, "resid_post"]], "offsets": [0, 1, 2], "pooling": "mean"}
    wanted = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    write_mapped(path, wanted.shape, "float32", record, lambda values: np.copyto(values, wanted))
    found, whole = Activations.open(path), path.read_bytes()
    assert np.array_equal(found.values, wanted) and len(found.sha256) == 64
    found.verify()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(SteerlabError, match="were changed after they were written: capture them again"):
        Activations.open(path).verify()
    old = {
        "__metadata__": {"steerlab": json.dumps(record)},
        "activations": {"dtype": "F32", "shape": [2, 1, 4], "data_offsets": [0, 32]},
    }
    for facts, newest in ((record, True), ({**record, "schema": 9, "sha256": ""}, False)):
        old["__metadata__"]["steerlab"] = json.dumps(facts)
        header = json.dumps(old).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + wanted.tobytes())
        if newest:
            assert np.array_equal(Activations.open(path).values, wanted) and Activations.open(path).sha256 == ""
            Activations.open(path).verify()
        else:
            with pytest.raises(SteerlabError, match=NEWER.format(1)):
                Activations.open(path)


def test_a_manifest_names_no_file_outside(tmp_path: Path) -> None:
    run = work(tmp_path / "run")
    (tmp_path / "other").write_text("mine")
    _manifest(run, files={"../other": {"bytes": 1, "sha256": ""}})
    with pytest.raises(SteerlabError, match="is not what was written there"):
        verify(run)
    work(run)
    assert (tmp_path / "other").read_text() == "mine"


def test_a_seal_breaks_with_any_bit(tmp_path: Path) -> None:
    value, rows = {"a": 1.5, "b": ["ሰላም", None]}, [{"x": 0.1, "y": "a\u2028b"}, {"x": 2.0, "y": ""}]
    assert is_sealed(sealed(value)) and is_sealed(json.loads(json.dumps(sealed(value)))) and not is_sealed(value)
    assert not is_sealed({**sealed(value), "a": 1.25})
    assert sealed(sealed(value)) == sealed(value)
    data = sealed_rows(rows)
    assert read_sealed_rows(data) == rows and read_sealed_rows(sealed_rows([])) == []
    for at in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            assert read_sealed_rows(bytes(broken)) is None, (at, bit)
        assert read_sealed_rows(data[:at]) is None
    parts = Parts(tmp_path, 1)
    parts.write(0, rows)
    (tmp_path / "0.jsonl").write_bytes(data.replace(b"0.1", b"0.2"))
    with pytest.raises(SteerlabError, match="is not what was written there: remove it and repeat"):
        parts.read(0)
