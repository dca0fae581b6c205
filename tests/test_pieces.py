"""Tokens are shown so that a person can read them, and those typical of a language are the ones planted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from steerlab.errors import SteerlabError
from steerlab.pieces import count_tokens, readable, typical_tokens
from tests.tiny import VOCAB, tiny, tokenizer


def byte_level(*words: str) -> PreTrainedTokenizerFast:
    """A byte-level vocabulary of these pieces, each given as text or bytes."""
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocab = {"".join(piece for piece, _ in pre.pre_tokenize_str(word)): i for i, word in enumerate(words)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_whole_pieces_are_text_with_visible_blanks() -> None:
    made = byte_level(" lan", "ስ", "\n", "é ", "\u200f", "á")
    shown = [readable(made, i) for i in range(6)]
    assert shown == ["␣lan", "ስ", "\\n", "é␣", "\\u200f", "á"]


def test_every_byte_is_shown_as_itself_or_in_hex() -> None:
    made = tokenizer()
    number: Any = made.convert_tokens_to_ids
    shown = {readable(made, number(piece)) for piece in pre_tokenizers.ByteLevel.alphabet()}
    high = {f"<{byte:02X}>" for byte in range(0x80, 0x100)}
    assert high <= shown and {"a", "~", "␣", "\\n", "\\x00"} <= shown and len(shown) == 256


def test_half_a_letter_shows_the_bytes_that_are_no_character() -> None:
    letters = next(piece for piece, _ in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("aé"))
    core = Tokenizer(models.BPE(vocab={letters[:2]: 0, letters: 1}, merges=[]))
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core)
    assert [readable(made, 0), readable(made, 1)] == ["a<C3>", "aé"]


def test_sentencepiece_keeps_its_leading_space_and_specials_and_gaps_have_a_name() -> None:
    core = Tokenizer(models.BPE(vocab={"▁the": 0, "the": 1, "<0xE1>": 2}, merges=[]))
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Strip(" ", 1, 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=core)
    assert [readable(made, 0), readable(made, 1)] == ["␣the", "the"]
    assert readable(made, 9) == "[9]"
    assert readable(tokenizer(), 1) == "<|bos|>"


def test_counts_leave_special_tokens_out() -> None:
    model = tiny("llama")
    counts = count_tokens(model, {"x": ["aab", "b"], "y": ["c"]})
    a, b, c = (model.tokenizer.convert_tokens_to_ids(letter) for letter in "abc")
    assert counts.shape == (2, VOCAB) and counts.sum().item() == 5  # no BOS, though every text has one
    assert [counts[0, a], counts[0, b], counts[1, c]] == [2, 2, 1]


def test_typical_tokens_are_the_planted_ones_whatever_the_size_of_the_text() -> None:
    rate = torch.full((3, 60), 20.0)
    for language in range(3):
        rate[language, 5 * language : 5 * language + 5] = 80.0
    rate[2] *= 10
    counts = torch.poisson(rate, generator=torch.Generator().manual_seed(0))
    counts[0, 59], counts[1:, 59] = 1, 0  # seen once, only here
    found = typical_tokens(counts, least=4.0)
    for language in range(3):
        assert found[language].nonzero()[:, 0].tolist() == list(range(5 * language, 5 * language + 5))
    assert not typical_tokens(
        torch.poisson(torch.full((3, 60), 20.0), generator=torch.Generator().manual_seed(1)), 4.0
    ).any()


def test_one_language_or_an_empty_one_is_refused() -> None:
    for counts in (torch.ones(1, 5), torch.tensor([[1.0, 2.0], [0.0, 0.0]])):
        with pytest.raises(SteerlabError, match="two languages or more, each with texts, are needed"):
            typical_tokens(counts)
