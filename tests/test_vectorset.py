"""A set of vectors comes back whole and in its order, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steerlab.disk import take_lock
from steerlab.errors import Busy, SteerlabError
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set
from tests.made import made_vector as _vector


def test_a_set_comes_back_in_its_order(tmp_path: Path) -> None:
    vectors = {"su": _vector(1), "am": _vector(2), "cs": _vector(3)}
    save_set(vectors, tmp_path / "set")
    got = load_set(tmp_path / "set")
    assert list(got) == ["su", "am", "cs"]
    assert all(got[key].equals(vectors[key]) for key in vectors)
    save_set({"am": _vector(4)}, tmp_path / "set")
    assert list(load_set(tmp_path / "set")) == ["am"]


def test_a_set_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    save_set({"am": _vector(1)}, tmp_path)
    (tmp_path / ".new").mkdir()
    lock = take_lock(tmp_path / ".new" / ".lock")
    with pytest.raises(Busy):
        save_set({"am": _vector(2)}, tmp_path)
    assert load_set(tmp_path)["am"].equals(_vector(1)) and (tmp_path / ".new" / ".lock").is_file()
    os.close(lock)
    save_set({"am": _vector(2)}, tmp_path)
    assert load_set(tmp_path)["am"].equals(_vector(2)) and not (tmp_path / ".new").exists()


def test_half_a_set_is_no_set(tmp_path: Path) -> None:
    save_set({"am": _vector(1), "cs": _vector(2)}, tmp_path)
    (tmp_path / "cs.safetensors").unlink()
    with pytest.raises(SteerlabError, match="no such file"):
        load_set(tmp_path)
    with pytest.raises(SteerlabError, match="no readable set"):
        load_set(tmp_path / "elsewhere")
    with pytest.raises(SteerlabError, match="'a/b' can not be a file name"):
        save_set({"a/b": _vector()}, tmp_path)


def test_a_second_save_that_cannot_be_written_leaves_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_set({"am": _vector(1), "cs": _vector(2)}, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    original = SteeringVector.save
    monkeypatch.setattr(SteeringVector, "save", lambda self, path: original(self, path) if path.stem == "am" else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_set({"am": _vector(3), "cs": _vector(4)}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_second_save_stopped_while_it_takes_its_place_is_no_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    save_set({"am": _vector(1), "cs": _vector(2)}, tmp_path)
    original, left = os.replace, [moved]

    def some(source: Path, target: Path) -> None:
        if target.parent == tmp_path:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        original(source, target)

    monkeypatch.setattr(os, "replace", some)
    with pytest.raises(KeyboardInterrupt):
        save_set({"am": _vector(3), "cs": _vector(4)}, tmp_path)
    with pytest.raises(SteerlabError, match="no readable set"):
        load_set(tmp_path)
