"""Interop: a converted llama2.c model gives llama2.c's own logits, tokens and text; a file that is something else gives one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlab.batch import left_pad
from steerlab.errors import SteerlabError
from steerlab.generation import Request, Settings, generate
from steerlab.interop import from_llama2c
from steerlab.interop import llama2c as converter
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.stopping import eos_ids
from tests.reference import llama2c

OPENING = "Once upon a time, there was a little girl named Lily."
WORDS = [" ", "a", "b", "c", "d", "e", "t", "h", "\n", " t", "he", " the", "ab", "abc", "bc", " a", "é", "  "]
IDS = [1, 270, 5, 299, 261, 270, 3, 280]
TEXTS = ["the", "abcabc the  bab", "a", " the", "é – ü 日本 😀", "the\nbc", "cab  dab   ", "\x00\t"]


def _pieces(n: int = 300) -> tuple[list[bytes], list[float]]:
    head = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    pieces = [*head, *(word.encode() for word in WORDS)]
    pieces += [f"#{i}".encode() for i in range(n - len(pieces))]
    order = np.random.default_rng(1).permutation(n - len(head))
    return pieces, [0.0] * len(head) + [-float(i) for i in order]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama2c.write_tokenizer(*_pieces(), tmp_path_factory.mktemp("llama2c") / "tok.bin")


@pytest.fixture(scope="module")
def stories(shared: Path) -> tuple[Path, Path]:
    folder = shared / "stories260K"
    if not folder.is_dir():
        pytest.skip("needs stories260K among the real data sets")
    return folder / "stories260K.bin", folder / "tok512.bin"


@pytest.mark.parametrize("tied", [True, False])
def test_a_converted_model_gives_the_logits_of_llama2c(tokenizer: Path, tmp_path: Path, tied: bool) -> None:
    c = llama2c.random_checkpoint(seed=3, tied=tied)
    model = load(str(from_llama2c(llama2c.write_checkpoint(c, tmp_path / "m.bin"), tokenizer, tmp_path / "hf")))
    found = model.forward(left_pad([IDS], 0), logits=True).logits
    assert found is not None
    np.testing.assert_allclose(found[0].numpy(), llama2c.forward(c, IDS), atol=1e-5)


def test_without_the_reordering_of_q_and_k_it_would_not(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = llama2c.random_checkpoint(seed=3)
    monkeypatch.setattr(converter, "_halves", lambda weight, heads: weight.clone())
    model = load(str(from_llama2c(llama2c.write_checkpoint(c, tmp_path / "m.bin"), tokenizer, tmp_path / "hf")))
    found = model.forward(left_pad([IDS], 0), logits=True).logits
    assert found is not None
    assert np.abs(found[0].numpy() - llama2c.forward(c, IDS)).max() > 0.1


@pytest.fixture(scope="module")
def small(tokenizer: Path) -> TracedModel:
    checkpoint = llama2c.write_checkpoint(llama2c.random_checkpoint(), tokenizer.parent / "m.bin")
    return load(str(from_llama2c(checkpoint, tokenizer, tokenizer.parent / "hf")))


@pytest.mark.parametrize("text", TEXTS)
def test_a_converted_tokenizer_gives_the_tokens_of_llama2c(small: TracedModel, text: str) -> None:
    (ids,) = small.token_rows([text])
    assert ids == llama2c.encode(*_pieces(), text)
    assert small.decode_text(ids) == text


def test_the_pretrained_model_writes_its_story(stories: tuple[Path, Path], tmp_path: Path) -> None:
    model = load(str(from_llama2c(*stories, tmp_path / "hf")))
    assert model.token_rows([""]) == [[1]]
    settings = Settings(max_new_tokens=48, greedy=True, stop=())
    (sample,) = generate(model, [Request("", ("story",), chat=False)], settings)
    assert sample.text.startswith(OPENING)


def test_the_pretrained_model_gives_the_logits_and_tokens_of_llama2c(
    stories: tuple[Path, Path], tmp_path: Path
) -> None:
    model = load(str(from_llama2c(*stories, tmp_path / "hf")))
    text = OPENING + " She said, “Hello!” — 3 times.\n<Ж>"
    (ids,) = model.token_rows([text])
    assert ids == llama2c.encode(*llama2c.read_tokenizer(stories[1]), text)
    assert model.decode_text(ids) == text
    found = model.forward(left_pad([ids], 0), logits=True).logits
    assert found is not None
    c = llama2c.read_checkpoint(stories[0])
    np.testing.assert_allclose(found[0].numpy(), llama2c.forward(c, ids), atol=1e-4, rtol=1e-5)
    assert torch.equal(found[0].argmax(-1), torch.from_numpy(llama2c.forward(c, ids)).argmax(-1))


def test_bos_ends_a_text_as_in_llama2c(small: TracedModel) -> None:
    assert eos_ids(small) == {1, 2}


def _spoil_checkpoint(what: str, c: llama2c.Checkpoint, path: Path) -> Path:
    if what == "nan":
        c.tensors["wo"][0, 0, 0] = np.nan
    if what == "rope":
        c.tensors["freq_cis_real"] = np.ones_like(c.tensors["freq_cis_real"])
    llama2c.write_checkpoint(c, path)
    data = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what in ("empty", "header"):
        path.write_bytes(data[: {"empty": 0, "header": 27}[what]])
    elif what in ("cut", "longer"):
        path.write_bytes(data[:-4] if what == "cut" else data + b"\0\0\0\0")
    elif what == "foreign":
        path.write_bytes(b"GGUF" + data[4:])
    elif what == "text":
        path.write_text(json.dumps({"model_type": "llama"}) * 30)
    return path


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", "cannot be read"),
        ("empty", "0 bytes hold no header"),
        ("header", "27 bytes hold no header"),
        ("cut", "its header asks for"),
        ("longer", "its header asks for"),
        ("foreign", "is not a llama2.c v0 checkpoint"),
        ("text", "is not a llama2.c v0 checkpoint"),
        ("nan", "NaN or infinite"),
        ("rope", "rotary tables"),
    ],
)
def test_a_checkpoint_that_is_none_gives_one_sentence(tokenizer: Path, tmp_path: Path, what: str, says: str) -> None:
    bad = _spoil_checkpoint(what, llama2c.random_checkpoint(), tmp_path / "m.bin")
    with pytest.raises(SteerlabError, match=says) as caught:
        from_llama2c(bad, tokenizer, tmp_path / "hf")
    _one_sentence(caught.value, tmp_path)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", "cannot be read"),
        ("empty", "are not the 256 bytes"),
        ("cut", "or not all of it"),
        ("foreign", "is not a llama2.c tokenizer"),
        ("latin", "or not all of it"),
        ("twice", "occurs twice"),
        ("other", "has 290 pieces, but the checkpoint has 300"),
    ],
)
def test_a_tokenizer_that_is_none_gives_one_sentence(tmp_path: Path, what: str, says: str) -> None:
    pieces, scores = _pieces(290 if what == "other" else 300)
    if what in ("latin", "twice"):
        pieces[-1] = b"\xe9" if what == "latin" else b"abc"
    path = llama2c.write_tokenizer(pieces, scores, tmp_path / "tok.bin")
    data = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what in ("empty", "cut"):
        path.write_bytes(data[:0] if what == "empty" else data[:-1])
    elif what == "foreign":
        path.write_text(json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}}}))
    checkpoint = llama2c.write_checkpoint(llama2c.random_checkpoint(), tmp_path / "m.bin")
    with pytest.raises(SteerlabError, match=says) as caught:
        from_llama2c(checkpoint, path, tmp_path / "hf")
    _one_sentence(caught.value, tmp_path)


def test_a_place_that_cannot_be_written_gives_one_sentence(tokenizer: Path, tmp_path: Path) -> None:
    checkpoint = llama2c.write_checkpoint(llama2c.random_checkpoint(), tmp_path / "m.bin")
    (tmp_path / "hf").write_text("in the way")
    with pytest.raises(SteerlabError, match="in the way"):
        from_llama2c(checkpoint, tokenizer, tmp_path / "hf")
    assert (tmp_path / "hf").read_text() == "in the way"


def _one_sentence(error: SteerlabError, folder: Path) -> None:
    text = str(error)
    assert "\n" not in text and text.endswith(".") and ": " in text
    assert not (folder / "hf").exists()  # nothing half-written
