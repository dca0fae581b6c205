"""Single tokens: as text a person can read, and which of them are typical of a language, from counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.model import TracedModel


@cache
def _byte_of() -> dict[str, int]:
    """The byte behind each letter of a byte-level BPE vocabulary: printable Latin-1 stands for itself, every other byte
    for a letter from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def readable(tokenizer: Any, token: int) -> str:
    """The token as text: a space is shown as ␣, other invisible characters as in Python, and bytes that are no whole
    character as <E1>. A row of the embedding that the tokenizer has no piece for is shown as its number.
    """
    piece = tokenizer.convert_ids_to_tokens(int(token))
    if piece is None:
        return f"[{int(token)}]"
    text = str(tokenizer.decode([int(token)], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if "▁" in piece:  # SentencePiece: decoding drops a leading space
        text = piece.replace("▁", " ")
    elif "\ufffd" in text and all(letter in _byte_of() for letter in piece):
        raw = bytes(_byte_of()[letter] for letter in piece)
        text = raw.decode("utf-8", errors="surrogateescape")  # byte 0xE1 comes out as U+DCE1
    return "".join(_shown(c) for c in text) or piece


def _shown(character: str) -> str:
    if character == " ":
        return "␣"
    if "\udc80" <= character <= "\udcff":
        return f"<{ord(character) - 0xDC00:02X}>"
    # Half a letter (a combining mark alone) is visible enough; only controls and other blanks are not.
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def count_tokens(model: TracedModel, texts: Mapping[str, Sequence[str]]) -> Float[Tensor, "k v"]:
    """How often each token occurs in each language's texts, special tokens left out; rows in the order of `texts`."""
    counts = torch.zeros(len(texts), model.vocab_size)
    special = torch.tensor(model.tokenizer.all_special_ids, dtype=torch.int64)
    for row, own in enumerate(texts.values()):
        ids = torch.tensor([i for line in model.token_rows(list(own)) for i in line], dtype=torch.int64)
        counts[row] = torch.bincount(ids, minlength=model.vocab_size).float()
    counts[:, special] = 0
    return counts


def typical_tokens(counts: Float[Tensor, "k v"], least: float = 3.0) -> Bool[Tensor, "k v"]:
    """Tokens over-represented in one row of `counts` against all others: z of their log odds at least `least`.

    The prior is the counts of all rows together, so that a token seen once or twice does not qualify by luck. Source:
    Monroe, Colaresi and Quinn 2008, "Fightin' Words", eq. 15-22. Raises `SteerlabError` with fewer than two rows or a
    row without a count.
    """
    if len(counts) < 2 or not bool((counts.sum(1) > 0).all()):
        raise SteerlabError(
            f"counts of shape {tuple(counts.shape)} with totals {counts.sum(1).tolist()} were given: "
            "two languages or more, each with texts, are needed."
        )
    own = counts.double()
    prior = own.sum(0) / len(own) + 0.01  # 0.01: a token nobody used has odds too
    total, mass = own.sum(1, keepdim=True), prior.sum()
    others, rest = own.sum(0) - own, own.sum() - total
    here, there = own + prior, others + prior
    gap = (here / (total + mass - here)).log() - (there / (rest + mass - there)).log()
    return gap / (1 / here + 1 / there).sqrt() >= least
