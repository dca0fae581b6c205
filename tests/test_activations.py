"""Bad input to capture, and files that are not whole: one sentence each, and nothing half-written."""

from __future__ import annotations

import errno
import inspect
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steerlab.activations import Activations, capture_activations
from steerlab.capture import capture_moments, provenance, texts_digest
from steerlab.errors import SteerlabError
from steerlab.loading import wrap
from steerlab.types import Site
from steerlab.vectors import SteeringVector
from tests.tiny import hf_model, tiny, tokenizer, vector

TEXTS = ["abc", "a longer text"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good file of activations."""
    return capture_activations(tiny("llama"), TEXTS, tmp_path / "a.safetensors").path


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1, -128])
def test_a_truncated_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(SteerlabError, match=r"is not a readable activations file .*: capture it again"):
        Activations.open(file)


def test_a_file_with_more_behind_it_than_it_says_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(SteerlabError, match="its size is not what its header says"):
        Activations.open(file)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 200, b"\x08" + b"\x00" * 7 + b"nothing!", b"\x02" + b"\x00" * 7 + b"{}"]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(SteerlabError, match="is not a readable activations file"):
        Activations.open(tmp_path / "x")


def test_a_vector_a_folder_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    vector(1).save(tmp_path / "v.safetensors")
    for name in ("v.safetensors", ".", "missing"):
        with pytest.raises(SteerlabError, match="is not a readable activations file"):
            Activations.open(tmp_path / name)
    capture_activations(tiny("llama"), TEXTS, tmp_path / "a")
    with pytest.raises(SteerlabError, match="holds no steerlab record|record of .* can not be read"):
        SteeringVector.load(tmp_path / "a")


def test_the_file_is_plain_safetensors_and_says_where_it_comes_from(file: Path) -> None:
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        facts = json.loads(opened.metadata()["steerlab"])
        assert np.array_equal(opened.get_tensor("activations"), Activations.open(file).values)
    assert (facts["model"], facts["revision"], facts["pooling"]) == (
        "tiny-llama",
        tiny("llama").revision,
        "mean",
    )


def test_a_mapped_file_cannot_be_written_through(file: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Activations.open(file).values[0] = 0


def test_a_capture_that_fails_midway_leaves_the_older_file_and_no_other(file: Path) -> None:
    before, hf = file.read_bytes(), hf_model("llama")
    with torch.no_grad():
        hf.model.embed_tokens.weight[tokenizer().convert_tokens_to_ids("q")] = torch.nan
    with pytest.raises(SteerlabError, match="is NaN"):
        capture_activations(wrap(hf, tokenizer()), ["abc", "qq"], file, token_budget=1)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_full_disk_is_noticed_before_anything_is_captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space is taken first: a hole that is mapped and then written to on a full disk ends the process."""
    model = tiny("llama")
    asked: list[int] = []

    def full(descriptor: int, offset: int, size: int) -> None:
        asked.append(offset + size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ran: list[int] = []
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: ran.append(1))
    with pytest.raises(SteerlabError, match=r"could not be written .No space left on device.: choose a folder"):
        capture_activations(model, TEXTS, tmp_path / "a")
    assert asked[0] >= 2 * 4 * 32 * 4
    assert not ran
    assert not list(tmp_path.iterdir())


def test_the_space_is_really_taken(tmp_path: Path) -> None:
    path = capture_activations(tiny("llama"), ["x" * 200] * 10, tmp_path / "a", pooling="tokens").path
    assert path.stat().st_blocks * 512 >= 2000 * 4 * 32 * 4


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    model = tiny("llama")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "a", tmp_path / "folder", Path("/proc/nothing/a")):
        with pytest.raises(SteerlabError, match="could not be written .*: choose a folder you may write to"):
            capture_activations(model, TEXTS, place)


def test_values_too_large_for_half_precision_are_refused_and_not_made_infinite(tmp_path: Path) -> None:
    hf = hf_model("llama")
    with torch.no_grad():
        hf.model.embed_tokens.weight *= 1e6
    model = wrap(hf, tokenizer())
    with pytest.raises(SteerlabError, match=r"layer 0 is NaN or too large for float16: store float32"):
        capture_activations(model, TEXTS, tmp_path / "a", [Site(0)], dtype="float16")
    assert np.isfinite(capture_activations(model, TEXTS, tmp_path / "a", [Site(0)]).values).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"texts": []}, "no texts were given"),
        ({"positions": "middle"}, "positions 'middle' are not known"),
        ({"sites": [Site(4)]}, "layer 4 does not exist"),
        ({"sites": [Site(0, "nowhere")]}, "stream 'nowhere' is not known"),  # pyright: ignore[reportArgumentType]
        ({"sites": []}, "0 sites"),
        ({"sites": [Site(1), Site(1)]}, "a site was given twice|2 sites were given, 1 of them different"),
        ({"max_tokens": 0}, "max_tokens is 0: give at least 1"),
        ({"max_tokens": -3}, "max_tokens is -3: give at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    arguments = {"texts": TEXTS, **given}
    for call in (capture_moments, lambda m, **k: capture_activations(m, path=tmp_path / "a", **k)):
        with pytest.raises(SteerlabError, match=message) as caught:
            call(tiny("llama"), **arguments)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (capture_moments, {"weighting": "sentence"}),
        (capture_activations, {"pooling": "max"}),
        (capture_activations, {"dtype": "float8"}),
    ],
)
def test_an_unknown_word_is_refused_and_not_taken_for_another(
    tmp_path: Path, function: Any, given: dict[str, str]
) -> None:
    """As in production, where nothing checks the annotations."""
    place = {} if function is capture_moments else {"path": tmp_path / "a"}
    ((name, word),) = given.items()
    with pytest.raises(SteerlabError, match=f"{name} '{word}' is not known: give one of"):
        inspect.unwrap(function)(tiny("llama"), TEXTS, **place, **given)


def test_positions_that_choose_nothing_are_refused(tmp_path: Path) -> None:
    model = tiny("llama")
    with pytest.raises(SteerlabError, match="no activation was seen at resid_post of layer 0"):
        capture_moments(model, TEXTS, positions="generated")
    with pytest.raises(SteerlabError, match="no token of the text 'abc' is at positions -9:-4"):
        capture_activations(model, ["a longer text", "abc"], tmp_path / "a", positions="-9:-4")
    some = capture_moments(model, ["a longer text", "abc"], positions="-9:-4", weighting="text")
    assert float(some.count[0]) == pytest.approx(1.0)  # a text none of whose tokens is chosen weighs nothing


def test_provenance_names_model_data_and_versions() -> None:
    made = provenance(tiny("llama"), {"pos": TEXTS}, method="diffmean", positions="all")
    assert (made.model, made.revision, made.dtype) == ("tiny-llama", tiny("llama").revision, "float32")
    assert made.data == (("pos", texts_digest(TEXTS)),)
    assert {name for name, _ in made.versions} >= {"torch", "transformers", "nnsight"}
    other = provenance(tiny("llama", chat=False), {"pos": TEXTS[::-1]})
    assert other.template_hash != made.template_hash
    assert other.tokenizer_hash == made.tokenizer_hash
    assert other.data != made.data


def test_the_digest_of_texts_knows_order_and_borders() -> None:
    assert len({texts_digest(t) for t in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"], [])}) == 5
    assert texts_digest(["ab", "c"]) == texts_digest(("ab", "c"))
