"""Documents that teach a small model to copy from its prompt: what polyglot-mini-it learns before it learns to obey.

A text with the one word that was asked for holds one or two tokens that copying predicts better than guessing, too few for the heads
that copy to form. Here most of what is predicted stands in the prompt: lists of words to say again, and short answers into which the
word is put where no text would have it. The words are drawn from the texts, so that there is nothing to know by heart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steerlab.bundled.corpus import Passage
from steerlab.evaluation.words import words
from steerlab.following.phrasings import PHRASINGS, phrase

INCLUDE = "simple:include_word"
REPEATS = (
    "Repeat: {words}",
    "Say these words: {words}",
    "Write again: {words}",
    "Say {words} and nothing else.",
    "Copy this: {words}",
)
MOST = 14  # words to repeat


def repeated(texts: Sequence[Passage], rng: np.random.Generator, barred: frozenset[str]) -> tuple[str, str]:
    """A list of words to say again, half the time a piece of one text and else single words of many; and the answer, that list."""
    n = int(rng.integers(2, MOST + 1))
    if rng.random() < 0.3:
        body = texts[int(rng.integers(len(texts)))].text.split()
        at = int(rng.integers(max(1, len(body) - n)))
        said = [word for word in body[at : at + n] if word.lower() not in barred]
    else:
        said = [drawn_word(texts[int(rng.integers(len(texts)))], rng, barred) for _ in range(n)]
    listed = " ".join(word for word in said if word)
    return REPEATS[int(rng.integers(len(REPEATS)))].format(words=listed), listed


def drawn_word(p: Passage, rng: np.random.Generator, barred: frozenset[str]) -> str:
    """Any word of the text of at least four letters that is not barred; "" where it has none."""
    known = [word for word in words(p.text) if len(word) >= 4 and word.isalpha() and word.lower() not in barred]
    return known[int(rng.integers(len(known)))] if known else ""


def put_in(p: Passage, word: str, rng: np.random.Generator) -> str:
    """The beginning of a text, two to seven words, with the word as its second, third or fourth, wherever it comes from."""
    body = p.text.split()[: int(rng.integers(1, 7))]
    at = min(len(body), 1 + int(rng.choice(3, p=(0.6, 0.25, 0.15))))
    return " ".join([*body[:at], word, *body[at:]])


def included(query: str, word: str, rng: np.random.Generator) -> str:
    """The query with an instruction to use the word, in any phrasing but the held-out one."""
    known = len(PHRASINGS[INCLUDE]) - 1
    return f"{query} {phrase(INCLUDE, {'word': word}, int(rng.integers(known)))}"
