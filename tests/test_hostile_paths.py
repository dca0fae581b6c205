"""Names that come with data reach no file outside the folder they belong to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlab import store
from steerlab.dataset import Choice, export
from steerlab.errors import SteerlabError
from steerlab.interop.exchange import import_vectors
from steerlab.origin import VECTORS, cells_again
from steerlab.store import RunFolder
from steerlab.studies.presets import find_study
from steerlab.vectorset import load_set, save_set
from tests.command import Command
from tests.small_run import CONFIG, work
from tests.tiny import vector

OUT = ["../escape", "/escape", "a/../../escape", "..", ".", "a\0b", "", "../../escape.safetensors"]


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A folder in a folder whose one file must stay alone and as it is."""
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


def _alone(inside: Path) -> None:
    assert sorted(path.name for path in inside.parent.iterdir()) == ["inside", "kept"]
    assert (inside.parent / "kept").read_text() == "kept" and not Path("/escape").exists()


@pytest.mark.parametrize("name", OUT)
def test_a_key_of_a_set_of_vectors_is_a_plain_name(inside: Path, name: str) -> None:
    with pytest.raises(SteerlabError, match="can not be a file name"):
        save_set({name: vector(0)}, inside / "set")
    _alone(inside)
    save_set({"a": vector(0)}, inside / "set")
    (inside / "set" / "vectors.json").write_text(json.dumps({"vectors": [name]}))
    vector(1).save(inside / "escape.safetensors")
    with pytest.raises(SteerlabError, match="no plain file name"):
        load_set(inside / "set")


@pytest.mark.parametrize("name", OUT)
def test_a_file_of_a_run_stays_in_it(inside: Path, name: str) -> None:
    with RunFolder.open(inside / "run", CONFIG) as run:
        for write in (
            lambda: run.write_text(name, "x"),
            lambda: run.append(f"{name}.jsonl", [{}]),
            lambda: run.read(f"{name}.jsonl"),
        ):
            if name or write is None:
                with pytest.raises(SteerlabError, match="cannot be a file of a run"):
                    write()
    _alone(inside)


@pytest.mark.parametrize(
    "name", ["../../kept", "../kept", "/kept", "a/../../../kept", "config.json", "batches.jsonl", ".lock"]
)
def test_a_log_that_names_a_file_outside_cuts_nothing(inside: Path, name: str) -> None:
    """The log says how many bytes of a file count, and the rest is cut off: it must not reach another file."""
    run = work(inside / "run")
    empty = hashlib.sha256(b"").hexdigest()
    entry = {"file": name, "batch": None, "rows": 0, "end": 0, "sha256": empty}
    (run / "batches.jsonl").write_text(json.dumps(entry) + "\n")
    config = (run / "config.json").read_bytes()
    with pytest.raises(SteerlabError, match="line 1 of .* is not ours"):
        RunFolder.open(run, CONFIG)
    _alone(inside)
    assert (run / "config.json").read_bytes() == config


def test_a_row_file_that_is_a_link_to_elsewhere_is_not_cut(inside: Path) -> None:
    run = work(inside / "run")
    (run / "samples.jsonl").unlink()
    (run / "samples.jsonl").symlink_to(inside.parent / "kept")
    with pytest.raises(SteerlabError, match="is not ours"):
        RunFolder.open(run, CONFIG)
    _alone(inside)


@pytest.mark.parametrize("name", ["../../kept", "/etc/hostname", "a\0b"])
def test_a_manifest_that_names_a_file_outside_is_refused(inside: Path, name: str) -> None:
    run = work(inside / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 4, "sha256": hashlib.sha256(b"kept").hexdigest()}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SteerlabError, match="manifest.json is not what was written there"):
        store.verify(run)


@pytest.mark.parametrize("name", OUT)
def test_vectors_of_an_origin_are_those_of_the_run(inside: Path, name: str) -> None:
    vector(0).save(inside / "escape.safetensors")
    run = inside / "run"
    save_set({"v0": vector(0)}, run / VECTORS)
    cell = {
        "condition": "a",
        "language": "jv",
        "task": "topic",
        "prompt_language": None,
        "shots": {},
        "labels": ["travel"],
        "interventions": [{}],
    }
    (run / "origin.json").write_text(json.dumps({"vectors": [[name]]}))
    with pytest.raises(SteerlabError, match="not as they were written"):
        cells_again(run, {"cells": [cell]})


@pytest.mark.parametrize("column", ["language", "task"])
@pytest.mark.parametrize("name", OUT)
def test_a_configuration_of_a_data_set_is_a_plain_name(inside: Path, name: str, column: str) -> None:
    row = {"language": "xx", "task": "own", "label": "a", "text": "b", column: name}
    (inside / "rows.jsonl").write_text(json.dumps(row) + "\n")
    try:
        made = export(inside / "rows.jsonl", inside / "out", Choice())
    except SteerlabError as error:
        assert "cannot name a folder" in str(error) or "has no text as" in str(error)
        assert not (inside / "out").exists()
    else:
        assert all("/" not in config and "\0" not in config for config in made.counts)
    _alone(inside)


@pytest.mark.parametrize("name", [name for name in OUT if name])
def test_names_of_imported_vectors_are_made_plain(
    inside: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({name: torch.ones(2, 3), "b": torch.ones(2, 3)}, inside / "given.pt")
    assert name in import_vectors(inside / "given.pt")
    said = Command(monkeypatch, capsys)("vectors", "import", inside / "given.pt", "--out", inside / "set")
    assert said.code == 0, said
    assert len(load_set(inside / "set")) == 2
    _alone(inside)


def test_an_archive_of_arrays_is_not_unpacked(inside: Path) -> None:
    np.savez(inside / "given.npz", **{"../../escape_1": np.ones(3), "b_2": np.ones(3)})  # pyright: ignore[reportArgumentType]
    import_vectors(inside / "given.npz")
    _alone(inside)


@pytest.mark.parametrize("name", OUT)
def test_a_study_from_a_file_names_its_units_plainly(inside: Path, name: str) -> None:
    from steerlab.studies.units import units_of

    escaped = "".join(f"\\U{ord(c):08x}" for c in name)
    (inside / "given.toml").write_text(f'languages = ["jv"]\n[[models]]\nname = "{escaped}"\n')
    try:
        units = units_of(find_study(str(inside / "given.toml")))
    except SteerlabError as error:
        assert "name" in str(error)
    else:
        assert all("/" not in unit.name and "\0" not in unit.name and unit.name.strip(".") for unit in units)
