"""Texts measured with a real sentence-transformers model, made here from a config: nothing is fetched."""

from __future__ import annotations

import socket
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from steerlab.errors import SteerlabError
from steerlab.evaluation.distinguish import distinguish
from steerlab.evaluation.diversity import diversity_report, vendi_score
from steerlab.evaluation.embeddings import embedder
from tests.tiny import VOCAB, tokenizer

peer = pytest.importorskip("sentence_transformers", reason="the package sentence-transformers is not installed")

TEXTS = [
    "A cat sat on the mat.",
    "Un chat.",
    "ድመት",
    "",
    "A cat sat on the mat.",
    "Stocks fell on Monday, and again on Tuesday.",
]


def _bert(folder: Path, seed: int = 0) -> Path:
    """A tiny encoder of random weights with the byte tokenizer, as `from_pretrained` wants it."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=128
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer(bos=False, chat=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("encoder")
    words: Any = import_module("sentence_transformers.base.modules").Transformer(
        str(_bert(place / "bert")), max_seq_length=64
    )
    pooling = import_module("sentence_transformers.sentence_transformer.modules").Pooling(
        words.get_embedding_dimension(), pooling_mode="mean"
    )
    peer.SentenceTransformer(modules=[words, pooling], device="cpu").save(str(place / "sentences"))
    return place / "sentences"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise AssertionError(f"a connection to {given[1:]} was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_folder_of_theirs_gives_their_embeddings(folder: Path) -> None:
    ours = embedder(str(folder))
    found = ours(TEXTS)
    assert ours.name == str(folder) and found.shape == (6, 32) and found.dtype == np.float64
    theirs = peer.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(found, theirs.encode(TEXTS), atol=1e-5)
    said = [i for i, text in enumerate(TEXTS) if text]  # alone, a text without a token breaks the encoder itself
    np.testing.assert_allclose(found[said], theirs.encode([TEXTS[i] for i in said], batch_size=1), atol=1e-5)
    np.testing.assert_allclose(found[0], found[4], atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_measures_of_sets_take_a_folder_by_its_name(folder: Path) -> None:
    kinds = [f"Text number {i} of {word}." for word in ("cats", "stocks", "rain") for i in range(10)]
    theirs = np.asarray(peer.SentenceTransformer(str(folder), device="cpu").encode(kinds), dtype=float)
    ours = embedder(str(folder))(kinds)
    assert vendi_score(ours) == pytest.approx(vendi_score(theirs), rel=1e-4)
    assert 1 < vendi_score(ours) < 30 and vendi_score(ours[:1].repeat(30, axis=0)) == pytest.approx(1)
    assert diversity_report(kinds, ours, subsets=5)["vendi_score"].value == pytest.approx(vendi_score(ours))
    named = distinguish(kinds[:15], kinds[15:], embed=str(folder), subsets=5, controls=False)
    by_name: Any = named.set_index("metric")["value"]
    by_hand = distinguish(kinds[:15], kinds[15:], embed=embedder(str(folder)), subsets=5, controls=False)
    np.testing.assert_array_equal(by_name, by_hand.set_index("metric")["value"])
    unit = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    letters: Any = distinguish(kinds[:15], kinds[15:], subsets=5, controls=False).set_index("metric")["value"]
    assert by_name["cosine_pairwise"] != pytest.approx(letters["cosine_pairwise"])
    assert (unit @ unit.T).min() >= -1 and by_name["cosine_pairwise"] <= 1


def test_what_is_no_model_of_theirs_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for missing in (str(tmp_path / "nothing"), "./nothing", "~/no such folder"):
        with pytest.raises(SteerlabError, match="there is no folder"):
            embedder(missing)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}", encoding="utf-8")
    for wrong in ("empty", "nobody/no-such-model"):
        with pytest.raises(SteerlabError, match=f"sentence-transformers model '{wrong}' could not be loaded") as told:
            embedder(wrong)
        assert "\n" not in str(told.value)
