"""Training from packed documents: none sees another, the loss falls, and what is saved is a model like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaForCausalLM

from steerlab.bundled import corpus, packing
from steerlab.bundled.prepare import write_tokenizer
from steerlab.bundled.train import TrainConfig, bits_per_byte, fit, loss_of, model_config, positions, rate, visible
from steerlab.generation import Request, Settings, generate
from steerlab.loading import load

SMALL = TrainConfig(
    layers=2, d_model=32, mlp=64, heads=4, kv_heads=2, vocab=300, context=64, rows=4, length=48, muon_lr=0.01, adam_lr=0.02,
    warmup_steps=2, tokens=9_000, compile=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    made: Any = LlamaForCausalLM(model_config(SMALL))
    for weight in made.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.2)
    return made.eval()


DOCUMENTS = torch.tensor([[1, 1, 1, 2, 2, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 2]])


def test_the_mask_is_causal_within_a_document() -> None:
    mask = visible(DOCUMENTS)
    assert mask.shape == (2, 1, 8, 8)
    for b in range(2):
        for i in range(8):
            for j in range(8):
                assert bool(mask[b, 0, i, j]) == (j <= i and int(DOCUMENTS[b, i]) == int(DOCUMENTS[b, j]))
    assert bool(mask.any(-1).all())  # no empty row of the softmax, padding included


def test_positions_start_again_with_every_document() -> None:
    assert positions(DOCUMENTS).tolist() == [[0, 1, 2, 0, 1, 0, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6]]


def _logits(model: Any, ids: Tensor, document: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=visible(document), position_ids=positions(document)).logits


def test_no_document_sees_another(model: Any) -> None:
    ids = torch.randint(5, 300, (1, 20), generator=torch.Generator().manual_seed(2))
    document = torch.tensor([[1] * 7 + [2] * 9 + [3] * 4])
    plain = _logits(model, ids, document)
    other = ids.clone()
    other[0, :7] = torch.arange(20, 27)
    changed = _logits(model, other, document)
    assert torch.equal(changed[0, 7:], plain[0, 7:])
    assert not torch.allclose(changed[0, :7], plain[0, :7])
    one = _logits(model, other, torch.ones(1, 20, dtype=torch.long))
    assert not torch.allclose(one[0, 7:], plain[0, 7:], atol=1e-3)  # without the document numbers it would
    with torch.no_grad():
        alone = model(input_ids=ids[:, 7:16]).logits
    assert torch.allclose(plain[:, 7:16], alone, atol=1e-5)  # packed is as good as alone


def _batch(rows: int = 2, length: int = 24) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 300, (rows, length), generator=draw)
    document = torch.tensor([[1] * 10 + [2] * 10 + [0] * (length - 20)] * rows)
    target = torch.zeros(rows, length, dtype=torch.long)
    target[:, 4:10] = target[:, 12:20] = 1
    return torch.stack([ids, document, target]).int()


def test_the_loss_is_over_the_answers_only(model: Any) -> None:
    batch = _batch()
    with torch.no_grad():
        loss, n = loss_of(model, model.model, batch, bf16=False)
        padded, same = loss_of(model, model.model, batch, bf16=False, places=40)
    scores = torch.log_softmax(_logits(model, batch[0].long(), batch[1]), dim=-1)
    want = -sum(float(scores[r, i - 1, batch[0, r, i]]) for r in range(2) for i in range(1, 24) if batch[2, r, i])
    assert n == 2 * 14 and float(loss) == pytest.approx(want, rel=1e-5)
    assert same == n and float(padded) == pytest.approx(float(loss), rel=1e-6)


def test_a_token_counts_as_often_as_its_weight_says(model: Any) -> None:
    batch = _batch()
    with torch.no_grad():
        once, n = loss_of(model, model.model, batch, bf16=False)
        only = batch.clone()
        only[2] = 0
        only[2, 0, 9] = 1
        one, _ = loss_of(model, model.model, only, bf16=False)
        batch[2, 0, 9] = 5
        loss, weight = loss_of(model, model.model, batch, bf16=False, places=40)
    assert weight == n + 4 and float(loss) == pytest.approx(float(once) + 4 * float(one), rel=1e-5)


def test_bits_per_byte_are_those_of_single_texts(model: Any) -> None:
    held = {"jv": [[1, 40, 50, 2], [1, 60, 2]], "su": [[1, 70, 80, 90, 100, 2]]}
    found = bits_per_byte(model, held, {"jv": 7, "su": 5})
    for code, size in (("jv", 7), ("su", 5)):
        nats = 0.0
        for ids in held[code]:
            with torch.no_grad():
                scores = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
            nats -= sum(float(scores[i - 1, ids[i]]) for i in range(1, len(ids)))
        assert found[code] == pytest.approx(nats / np.log(2) / size, rel=1e-5)
    model.eval()


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    c = TrainConfig(warmup_steps=10, cooldown=0.5)
    assert rate(0, 0.0, c) == pytest.approx(0.1) and rate(9, 0.01, c) == rate(500, 0.5, c) == 1
    falling = [rate(500, p, c) for p in (0.6, 0.75, 0.9, 1.0)]
    assert falling == pytest.approx([0.8, 0.5, 0.2, 0.0])


SENTENCES = ("the cat sat on the mat", "a dog ran in the sun", "the sun is on the cat", "a mat is in the dog")


def _prepared(folder: Path) -> None:
    """What `prepare` leaves behind, from four sentences: byte tokenizer, packed batches, held-out ids."""
    vocab = {t: i for i, t in enumerate([*corpus.SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens(list(corpus.SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = [tokenizer.encode(text).ids for text in SENTENCES]

    def stream() -> Iterator[tuple[list[int], int]]:
        while True:
            for own in ids:
                yield [corpus.BOS, *own, corpus.EOS], 1

    packed = packing.pack(stream(), SMALL.rows, SMALL.length, window=40)
    np.save(folder / "batches.npy", np.stack([next(packed) for _ in range(10)]).astype(np.int16))
    held = {"ids": {"en": [[corpus.BOS, *own, corpus.EOS] for own in ids]}, "bytes": {"en": sum(map(len, ids))}}
    (folder / "heldout.json").write_text(json.dumps(held))


def test_a_few_steps_lower_the_loss_and_the_result_loads(tmp_path: Path) -> None:
    packed, out = tmp_path / "packed", tmp_path / "model"
    packed.mkdir()
    _prepared(packed)
    held = json.loads((packed / "heldout.json").read_text())
    torch.manual_seed(SMALL.seed)
    before = bits_per_byte(LlamaForCausalLM(model_config(SMALL)), held["ids"], held["bytes"])["en"]
    fit(packed, out, SMALL)
    write_tokenizer(packed, out)
    record = json.loads((out / "training.json").read_text())
    assert 20 < record["steps"] < 100 and record["tokens"] >= SMALL.tokens
    assert record["config"]["d_model"] == 32 and record["parameters"] < 100_000
    after = record["curve"][-1]["bits_per_byte"]["en"]
    assert after < 0.6 * before
    model = load(str(out))
    assert (model.n_layers, model.d_model, model.context_length) == (2, 32, 64)
    assert model.template.kind == "chat" and model.tokenizer.padding_side == "left"
    assert model.token_rows(["a"])[0][0] == corpus.BOS and model.token_rows(["a"], chat=True)[0][:2] == [
        corpus.BOS,
        corpus.USER,
    ]
    assert bits_per_byte(model.hf, held["ids"], held["bytes"])["en"] == pytest.approx(after, rel=0.02)  # type: ignore[arg-type]
    (sample,) = generate(model, [Request("the ", ("k",), chat=False)], Settings(max_new_tokens=8, greedy=True))
    assert sample.text and set(sample.text) <= set("".join(SENTENCES))
    again = tmp_path / "again"
    fit(packed, again, SMALL)
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
