"""Self-BLEU: how well each text is predicted by all the others (Zhu et al. 2018, Texygen), on sacrebleu's formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sacrebleu.metrics.bleu import BLEU

from steerlab.evaluation.words import grams

ORDERS = 4


class SelfBleu:
    """Self-BLEU of a set of texts and of its subsets, from n-gram counts taken once.

    The score of a text equals sacrebleu's `sentence_score` of it against all other texts of the subset, divided by 100, with
    `tokenize="none"` on our own words, effective order and exponential smoothing. A text without words has no score.
    """

    def __init__(self, tokens: Sequence[Sequence[str]]) -> None:
        self.lengths = np.array([len(text) for text in tokens], dtype=np.int64)
        order, gram, owner, count = [], [], [], []
        base = 0
        for k, of_order in enumerate(grams(tokens, ORDERS)):
            pair = of_order.ids * max(len(tokens), 1) + of_order.owner
            pair, counts = np.unique(pair, return_counts=True)
            order.append(np.full(len(pair), k))
            gram.append(pair // max(len(tokens), 1) + base)
            owner.append(pair % max(len(tokens), 1))
            count.append(counts)
            base += of_order.kinds
        parts = (np.concatenate(part) for part in (order, gram, owner, count))
        order, gram, owner, count = parts
        largest_first = np.lexsort((-count, gram))
        self.order, self.gram = order[largest_first], gram[largest_first]
        self.owner, self.count = owner[largest_first], count[largest_first]

    def scores(self, rows: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
        """Sentence BLEU, 0 to 1, of each kept text against the other kept texts; NaN without words or without others."""
        filled = rows[self.lengths[rows] > 0]
        found = np.full(len(self.lengths), math.nan)
        if len(filled) > 1:
            correct, total = self._matches(filled)
            reference = _closest(self.lengths[filled])
            for row, length in zip(filled.tolist(), reference.tolist(), strict=True):
                score = BLEU.compute_bleu(
                    correct[:, row].tolist(),
                    total[:, row].tolist(),
                    int(self.lengths[row]),
                    length,
                    smooth_method="exp",
                    effective_order=True,
                )
                found[row] = min(score.score / 100, 1.0)
        return found[rows]

    def mean(self, rows: Int[np.ndarray, "m"]) -> float:
        """Self-BLEU of the kept texts: the mean of their scores, NaN for fewer than two texts with words."""
        scores = self.scores(rows)
        known = scores[~np.isnan(scores)]
        return float(known.mean()) if len(known) else math.nan

    def _matches(self, rows: Int[np.ndarray, "m"]) -> tuple[Int[np.ndarray, "4 n"], Int[np.ndarray, "4 n"]]:
        """Per order and text: n-grams matched in some other kept text (clipped at the largest count there), and n-grams in all."""
        n = len(self.lengths)
        kept = np.zeros(n, dtype=bool)
        kept[rows] = True
        use = kept[self.owner]
        order, gram, owner, count = self.order[use], self.gram[use], self.owner[use], self.count[use]
        first = np.flatnonzero(np.diff(gram, prepend=-1))
        largest = np.repeat(count[first], np.diff(first, append=len(gram)))
        has_second = np.append(gram[1:] == gram[:-1], False)
        # Whoever has the largest count itself is compared with the second largest.
        largest[first] = np.where(has_second[first], np.append(count[1:], 0)[first], 0)
        cell = order * n + owner
        size = ORDERS * n
        correct = np.bincount(cell, weights=np.minimum(count, largest), minlength=size)
        total = np.bincount(cell, weights=count, minlength=size)
        return correct.reshape(ORDERS, n).astype(np.int64), total.reshape(ORDERS, n).astype(np.int64)


def _closest(lengths: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m"]:
    """For each text the length nearest to its own among the others, the shorter of two equally near."""
    ascending = np.argsort(lengths, kind="stable")
    own = lengths[ascending].astype(float)
    below = np.concatenate([[-math.inf], own[:-1]])
    above = np.concatenate([own[1:], [math.inf]])
    nearest = np.where(own - below <= above - own, below, above)
    found = np.empty(len(lengths), dtype=np.int64)
    found[ascending] = nearest.astype(np.int64)
    return found


def self_bleu(tokens: Sequence[Sequence[str]], cap: int = 500, seed: int = 0) -> float:
    """Mean sentence BLEU (0 to 1) of each text against all others; more than `cap` texts are stood for by a seeded sample of `cap`.

    It grows with the number of texts: compare sets of equal size only. NaN for fewer than two texts with words.
    """
    rows = np.arange(len(tokens))
    if len(tokens) > cap:
        rows = np.sort(np.random.default_rng(seed).choice(len(tokens), cap, replace=False))
    return SelfBleu([tokens[row] for row in rows.tolist()]).mean(np.arange(len(rows)))
