"""Words and n-grams: one tokenizer for every script, and n-grams as integer arrays."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex
from jaxtyping import Int

from steerlab.errors import SteerlabError

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_RUN = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]+"
_JOIN = r"(?:['’ʼ׳״]|(?<=\p{Hebrew}\p{M}*)\"(?=\p{Hebrew}))"
_WORD = regex.compile(rf"(?V1){_RUN}(?:{_JOIN}{_RUN})*|[{_UNSPACED}]\p{{M}}*")
_INVISIBLE = regex.compile(r"\p{Cf}+")


def as_texts(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts as a tuple. Raises `SteerlabError` for a single string, whose letters would pass for texts."""
    if isinstance(texts, str):
        raise SteerlabError(
            f"one string of {len(texts)} characters was given: give a list of texts, [text] for a single one."
        )
    return tuple(texts)


def words(text: str) -> tuple[str, ...]:
    r"""The words of a text, NFC and case folded; punctuation is no word.

    A word is a run of letters, combining marks, digits and underscores (Python's `\w` breaks at combining marks, so pointed Hebrew
    would fall into letters), with single apostrophes, geresh or gershayim inside it (x'tagħmel, צה"ל). Hyphens and the Ethiopic word
    space separate. In scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) every letter with its marks is a word.
    """
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    return tuple(_WORD.findall(plain.casefold()))


@dataclass(frozen=True, eq=False)
class Grams:
    """The n-grams of a set of texts in order; none crosses from one text into the next.

    `ids`: equal n-grams have equal numbers, 0 up to `kinds`. `owner`: the text each stands in. `texts`: how many texts there are.
    """

    ids: Int[np.ndarray, "g"]
    owner: Int[np.ndarray, "g"]
    kinds: int
    texts: int


def grams(tokens: Sequence[Sequence[str]], up_to: int) -> tuple[Grams, ...]:
    """n-grams of length 1, 2, ... `up_to` of texts given as words."""
    vocabulary: dict[str, int] = {}
    word = np.array(
        [vocabulary.setdefault(token, len(vocabulary)) for text in tokens for token in text], dtype=np.int64
    )
    owner = np.repeat(np.arange(len(tokens)), [len(text) for text in tokens])
    found = [Grams(word, owner, len(vocabulary), len(tokens))]
    at = word  # the number of the shorter gram that begins at each word
    for order in range(2, up_to + 1):
        reach = max(len(word) - order + 1, 0)
        start = np.flatnonzero(owner[:reach] == owner[order - 1 :][:reach])
        pair = at[start] * len(vocabulary) + word[start + order - 1]
        kinds, ids = np.unique(pair, return_inverse=True)
        at = np.full(len(word), -1)
        at[start] = ids
        found.append(Grams(at[start], owner[start], len(kinds), len(tokens)))
    return tuple(found)
