"""The training text: whole documents, masked prompts, the same stream for the same seed, and nothing that is held out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from steerlab import data, tasks
from steerlab.bundled import corpus
from steerlab.bundled.corpus import ASSISTANT, BOS, EOS, LANGUAGES, USER, DocumentStream, Mixture, Passage
from steerlab.bundled.packing import pack

Document = tuple[list[int], int]


def _documents(n: int) -> list[Document]:
    """Documents that are told apart by their first token, of 3 to 20 tokens, some with a prompt of 2 to 8."""
    draw = np.random.default_rng(0)
    found = []
    for i in range(n):
        length = int(draw.integers(3, 21))
        found.append(([1000 + i, *draw.integers(5, 900, length - 1).tolist()], int(draw.integers(0, min(9, length)))))
    return found


def _unpacked(batches: list[np.ndarray]) -> list[tuple[list[int], list[int]]]:
    """(token ids, what is to be predicted) of every document in the batches."""
    found = []
    for ids, document, target in (batch for batch in batches):
        for r in range(ids.shape[0]):
            for number in range(1, int(document[r].max()) + 1):
                place = document[r] == number
                assert np.ptp(np.flatnonzero(place)) == place.sum() - 1  # in one piece
                found.append((ids[r][place].tolist(), target[r][place].tolist()))
    return found


def test_pack_keeps_every_document_whole_and_masks_its_prompt() -> None:
    documents = _documents(400)
    batches = list(islice(pack(iter(documents * 50), rows=3, length=32, window=400), 30))
    assert all(batch.shape == (3, 3, 32) and batch.dtype == np.int32 for batch in batches)
    known = {ids[0]: (ids, prompt) for ids, prompt in documents}
    seen = _unpacked(batches)
    for ids, target in seen:
        whole, prompt = known[ids[0]]
        assert ids == whole
        assert target == [0] * max(prompt, 1) + [1] * (len(whole) - max(prompt, 1))  # a first token is never predicted
    assert len({ids[0] for ids, _ in seen}) > 200
    for ids, document, target in batches:
        assert not ids[document == 0].any() and not target[document == 0].any()  # padding at the end
        assert (np.diff((document > 0).astype(int), axis=1) <= 0).all()
    filled = np.mean([(batch[1] > 0).mean() for batch in batches])
    assert filled > 0.97


def test_pack_keeps_the_weight_of_every_token() -> None:
    documents = [([10 + n] * 6, [0, 0, 1, 4, 4, 1]) for n in range(40)]
    (batch,) = islice(pack(iter(documents), rows=3, length=32, window=40), 1)
    seen = _unpacked([batch])
    assert len(seen) == 15 and all(weights == [0, 0, 1, 4, 4, 1] for _, weights in seen)


def test_pack_loses_and_repeats_nothing() -> None:
    documents = _documents(200)
    stream = iter(documents)

    def rows() -> Iterator[np.ndarray]:
        try:
            yield from pack(stream, rows=1, length=32, window=200)
        except RuntimeError:  # the stream, which is endless in use, has ended
            return

    seen = [ids[0] for ids, _ in _unpacked(list(rows()))]
    assert sorted(seen) == [ids[0] for ids, _ in documents]


def test_pieces_end_at_sentences_and_keep_the_words() -> None:
    assert list(corpus._pieces("A short\n text .")) == ["A short text ."]
    sentences = [f"Sentence {i} has {'some ' * (i % 9)}words." for i in range(60)]
    pieces = list(corpus._pieces(" ".join(sentences)))
    assert len(pieces) > 3 and " ".join(pieces) == " ".join(" ".join(sentences).split())
    assert all(len(piece.split()) <= corpus.MAX_WORDS and piece.endswith("words.") for piece in pieces)
    assert len(list(corpus._pieces("ቃል " * 50 + "። " + "ቃል " * 50 + "።"))) == 2


def _passages() -> list[Passage]:
    found = []
    for code in LANGUAGES:
        for i in range(9):
            label = ("sports", "health", "travel")[i % 3] if i < 6 else None
            text = f"{code} sentence number {i} about {label or 'nothing'} and more of it"
            found.append(Passage(text, code, "sib200" if label else "ntrex", "topic" if label else None, label))
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [Passage(p.text * 300, p.language, p.source) for p in _passages()]  # the sampler wants bytes, not variety
    return corpus.train_tokenizer(texts, vocab_size=400)


def test_the_tokenizer_knows_every_byte_and_the_specials_first(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in corpus.SPECIAL] == list(range(5))
    assert tokenizer.get_vocab_size() <= 400
    for text in ("ውሃ እና שלום", "čšž ħġ 2026!", "a\tb  c"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode("1234").ids) == 4  # digits stand alone


def _stream(tokenizer: Tokenizer, n: int, max_tokens: int = 400, **mixture: Any) -> list[Document]:
    return list(islice(DocumentStream(_passages(), tokenizer, Mixture(**mixture), max_tokens), n))


def test_the_stream_is_a_function_of_its_seed(tokenizer: Tokenizer) -> None:
    first = _stream(tokenizer, 300)
    assert _stream(tokenizer, 300) == first
    assert _stream(tokenizer, 300, seed=1) != first


def test_documents_are_prompt_and_answer(tokenizer: Tokenizer) -> None:
    texts = {tuple(tokenizer.encode(p.text).ids): p for p in _passages()}
    zero = {tasks.prompt("topic", label, code) for code in LANGUAGES for label in ("sports", "health", "travel")}
    known = zero | {corpus.plain_prompt(code) for code in LANGUAGES} | {corpus.plain_prompt(None)}
    known |= {tasks.prompt("topic", label, None) for label in ("sports", "health", "travel")}
    kinds = {"bare": 0, "named": 0, "nameless": 0}
    for ids, start in _stream(tokenizer, 2000):
        assert ids[0] == BOS and ids[-1] == EOS
        passage = texts[tuple(ids[start:-1])]
        if start == 1:
            kinds["bare"] += 1
            continue
        assert ids[1] == USER and ids[start - 1] == ASSISTANT
        asked = tokenizer.decode(ids[2 : start - 1])
        assert asked in known
        name = data.language(passage.language).name
        named = f" in {name}" in asked
        kinds["named" if named else "nameless"] += 1
        assert named or not any(
            f" in {data.language(code).name}" in asked for code in LANGUAGES
        )  # nor another language
        assert passage.label is None or passage.label in asked or asked == corpus.plain_prompt(passage.language)
    mix = Mixture()
    assert kinds["named"] / 2000 == pytest.approx(mix.zero_shot + mix.few_shot, abs=0.04)
    assert kinds["nameless"] / 2000 == pytest.approx(mix.nameless, abs=0.03)


def test_long_documents_are_cut_and_never_lose_their_answer(tokenizer: Tokenizer) -> None:
    for ids, start in _stream(tokenizer, 500, max_tokens=40):
        assert len(ids) <= 40 and start < len(ids)


def test_every_language_comes_up_and_each_passage_once_an_epoch(tokenizer: Tokenizer) -> None:
    stream = DocumentStream(_passages(), tokenizer, Mixture(zero_shot=0.0, few_shot=0.0, nameless=0.0), 400)
    assert stream.share.sum() == pytest.approx(1) and set(stream.pool) == set(LANGUAGES)
    size = 6 * Mixture().labelled_boost + 3  # six labelled passages, boosted, and three others
    assert all(len(pool) == size for pool in stream.pool.values())
    jv = [tokenizer.decode(ids) for ids, _ in islice(iter(stream), 12 * size * 3) if "jv" in tokenizer.decode(ids)]
    epoch = sorted(jv[:size])
    assert epoch == sorted(stream.texts[i].text for i in stream.pool["jv"])


def test_few_shot_prompts_hold_five_others_of_the_label(tokenizer: Tokenizer) -> None:
    texts = [
        Passage(f"{code} text {i} of sport", code, "sib200", "topic", "sports") for code in LANGUAGES for i in range(8)
    ]
    stream = DocumentStream(texts, tokenizer, Mixture(zero_shot=0.0, few_shot=1.0), 1000)
    shown = 0
    for ids, start in islice(iter(stream), 90):
        asked, own = tokenizer.decode(ids[2 : start - 1]), tokenizer.decode(ids[start:-1])
        code = own[:2]
        if "Example" not in asked:  # its own text was among the five drawn
            assert asked == tasks.prompt("topic", "sports", code)
            continue
        shown += 1
        assert asked.count("Example ") == 5 and f"{own}\n" not in asked + "\n"
        assert asked.count(f": {code} text ") == 5 and "sports" in asked
    assert shown > 10


@pytest.mark.slow
def test_no_held_out_text_is_among_the_passages(shared: Path) -> None:
    found = corpus.passages(shared)
    assert {p.language for p in found} == set(LANGUAGES)
    by_language: dict[str, set[str]] = {code: set() for code in LANGUAGES}
    for passage in found:
        by_language[passage.language].add(" ".join(passage.text.split()).casefold())
    checked = 0
    for code in LANGUAGES:
        for name, texts in corpus.held_out_texts(code, shared).items():
            held = {" ".join(text.split()).casefold() for text in texts}
            checked += len(held)
            assert not held & by_language[code], name
        sample = {t.casefold() for t in data.load("sample", code).texts}
        assert not sample & by_language[code]
    assert checked > 10_000
    labelled = [p for p in found if p.task]
    assert all(p.label in tasks.TASKS[p.task].labels for p in labelled if p.task) and len(labelled) > 1_000
    assert not {t.casefold() for t in corpus.held_out(shared)["jv"]} & by_language["jv"]
