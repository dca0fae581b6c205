"""Repetition inside a text: what a model does when it degenerates (Holtzman et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from steerlab.evaluation.stats import Estimate, bootstrap, wilson
from steerlab.evaluation.words import as_texts, words

LONGEST_PERIOD = 50


def repetition_rate(text: str, n: int = 4) -> float:
    """The share of a text's word n-grams that stood in it before, 1 - distinct / all; NaN for fewer than `n` words."""
    tokens = words(text)
    found = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
    return 1 - len(set(found)) / len(found) if found else math.nan


def longest_loop(text: str) -> int:
    """The longest stretch of words in which a phrase of at most 50 words follows itself at once, in words; 0 without one.

    "so so so" has 3, "a b a b a" 5 (the last copy may be cut off), "a b c a" 0 (nothing stands twice in a row).
    """
    tokens = words(text)
    number: dict[str, int] = {}
    ids = np.array([number.setdefault(token, len(number)) for token in tokens], dtype=np.int64)
    longest = 0
    for period in range(1, min(LONGEST_PERIOD, len(ids) // 2) + 1):
        same = np.concatenate([[False], ids[period:] == ids[:-period], [False]])
        edges = np.flatnonzero(np.diff(same))
        run = int((edges[1::2] - edges[::2]).max(initial=0))
        if run >= period:
            longest = max(longest, run + period)
    return longest


def repetition_report(texts: Sequence[str], seed: int = 0) -> dict[str, Estimate]:
    """How much the texts repeat themselves, text by text.

    `repetition_1` to `repetition_4`: mean share of repeated n-grams. `loop_share`: mean share of a text's words inside its longest
    loop. `looping`: share of texts whose longest loop holds half their words or more, at least four. Texts too short for a measure
    are left out of it; a text without words does not loop.
    """
    texts = as_texts(texts)
    rates = {
        f"repetition_{n}": np.array([repetition_rate(text, n) for text in texts], dtype=float) for n in range(1, 5)
    }
    sizes = np.array([len(words(text)) for text in texts], dtype=float)
    loops = np.array([longest_loop(text) for text in texts], dtype=float)
    rates["loop_share"] = np.divide(loops, sizes, out=np.full(len(texts), math.nan), where=sizes > 0)
    report = {name: bootstrap(values, seed=seed) for name, values in rates.items()}
    looping = (loops >= 4) & (loops >= sizes / 2)
    return report | {"looping": wilson(int(looping.sum()), len(texts))}
