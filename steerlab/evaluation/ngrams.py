"""n-grams of a whole set of texts beside real text of the same length: what O'Neill et al. 2023 call normalised n-grams, and diversity.

The share of different n-grams falls with the amount of text, so the real text is cut to the synthetic text's number of characters
(or that to the real one's, where there is less of it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Int

from steerlab.errors import SteerlabError
from steerlab.evaluation.copying import noted
from steerlab.evaluation.stats import Estimate, jackknife
from steerlab.evaluation.words import as_texts, words

Tokenise = Callable[[str], Sequence[Hashable]]  # a text to its tokens
ORDERS = (2, 3, 4)


def ngram_share(ids: Int[np.ndarray, "t"], n: int) -> float:
    """Different n-grams of a row of token numbers divided by all of them; NaN without any."""
    count = len(ids) - n + 1
    if n < 1:
        raise SteerlabError(f"n-grams of {n} tokens were asked for: give n of at least 1.")
    if count < 1:
        return math.nan
    number = ids[:count]
    for offset in range(1, n):
        _, number = np.unique(number * (int(ids.max()) + 1) + ids[offset : offset + count], return_inverse=True)
    return len(np.unique(number)) / count


def set_diversity(ids: Int[np.ndarray, "t"]) -> float:
    """Product over n = 2, 3, 4 of 1 - rep-n, n-grams repeated anywhere in the *set* (1 - rep-n is `ngram_share`); NaN for short rows.

    `diversity.ngram_diversity` counts repetition within single texts instead (Su et al. 2022).
    """
    return math.prod(ngram_share(ids, n) for n in ORDERS)


class Matched:
    """Two sets of texts as token numbers, cut to one number of characters.

    Texts are joined by single spaces; each is tokenised on its own with the space before it, which is how tokenizers that split at
    white space see the joined text. The real texts are taken in a seeded order.
    """

    def __init__(self, texts: Sequence[str], real: Sequence[str], tokenise: Tokenise = words, seed: int = 0) -> None:
        self._number: dict[Hashable, int] = {}
        self._tokenise = tokenise
        order = np.random.default_rng(seed).permutation(len(as_texts(real))).tolist()
        self.texts: list[str] = [text for text in as_texts(texts) if text]
        self.real: list[str] = [text for text in (as_texts(real)[i] for i in order) if text]
        self.ids = [self._ids(text, i) for i, text in enumerate(self.texts)]
        self.real_ids = [self._ids(text, i) for i, text in enumerate(self.real)]
        self.shorter_real = _joined(self.real) < _joined(self.texts)

    def cut(self, rows: Int[np.ndarray, "m"]) -> tuple[Int[np.ndarray, "t"], Int[np.ndarray, "u"]]:
        """Token numbers of these texts, and of as many characters of the real ones."""
        mine, own = [self.texts[i] for i in rows.tolist()], [self.ids[i] for i in rows.tolist()]
        room = min(_joined(mine), _joined(self.real))
        return self._first(mine, own, room), self._first(self.real, self.real_ids, room)

    def _first(self, texts: Sequence[str], ids: Sequence[np.ndarray], room: int) -> Int[np.ndarray, "t"]:
        kept, used = [], 0
        for i, text in enumerate(texts):
            left = room - used - (i > 0)
            if left <= 0:
                break
            kept.append(ids[i] if len(text) <= left else self._ids(text[:left], i))
            used += len(text) + (i > 0)
        return np.concatenate([np.zeros(0, dtype=np.int64), *kept])

    def _ids(self, text: str, place: int) -> Int[np.ndarray, "t"]:
        tokens = self._tokenise(" " * (place > 0) + text)
        return np.array([self._number.setdefault(t, len(self._number)) for t in tokens], dtype=np.int64)


def ngram_report(
    texts: Sequence[str],
    real: Sequence[str],
    tokenise: Tokenise = words,
    seed: int = 0,
    subsets: int = 100,
) -> dict[str, Estimate]:
    """`ngrams_3` and `diversity_2_4` of the texts, of the real text cut to the same number of characters (`real_...`), and the first
    divided by the second (`..._ratio`): 1 is as varied as people write.

    Intervals are jackknife intervals over the texts, the real set being given.
    """
    pair = Matched(texts, real, tokenise, seed)
    note = "the texts are cut to the length of the real ones, which are fewer" if pair.shorter_real else ""
    estimate = partial(jackknife, len(pair.texts), seed=seed, subsets=subsets)

    def of(which: int, measure: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
        return lambda rows: measure(pair.cut(rows)[which])

    def ratio(measure: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
        def divided(rows: np.ndarray) -> float:
            mine, theirs = (measure(ids) for ids in pair.cut(rows))
            return mine / theirs if theirs else math.nan

        return divided

    found = {}
    for name, measure in (("ngrams_3", partial(ngram_share, n=3)), ("diversity_2_4", set_diversity)):
        found[name] = estimate(of(0, measure), bounds=(0.0, 1.0))
        found[f"real_{name}"] = estimate(of(1, measure), bounds=(0.0, 1.0))
        found[f"{name}_ratio"] = estimate(ratio(measure), bounds=(0.0, math.inf))
    return {name: noted(one, note) for name, one in found.items()}


def _joined(texts: Sequence[str]) -> int:
    """Characters of the texts joined by single spaces."""
    return sum(map(len, texts)) + max(len(texts) - 1, 0)
