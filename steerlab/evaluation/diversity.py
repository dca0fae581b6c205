"""Diversity of a set of texts, each measure with a jackknife interval.

Nearly all of these depend on how many texts, and how many words, are measured: compare sets of equal size (`size`), and look at
`words_per_text` beside them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from steerlab.data.leakage import normalise
from steerlab.errors import SteerlabError
from steerlab.evaluation import selfbleu
from steerlab.evaluation.stats import Estimate, bootstrap, jackknife, wilson
from steerlab.evaluation.words import Grams, as_texts, grams, words

NEAR = 0.8
SHINGLE = 5  # characters
WINDOW = 50  # words
_BLOCK = 256  # texts compared with all others at a time

Rows = Int[np.ndarray, "m"]
OfRows = Callable[[np.ndarray], float]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different word n-grams of the whole set divided by all of them (Li et al. 2016, arXiv 1510.03055); NaN without any."""
    if n < 1:
        raise SteerlabError(f"n-grams of {n} words were asked for: give n of at least 1.")
    of_order = _grams(texts, n)[-1]
    return _distinct(of_order, np.arange(of_order.texts))


def type_token_ratio(texts: Sequence[str]) -> float:
    """Different words of the whole set divided by all words: `distinct_n` with n = 1 under its older name."""
    return distinct_n(texts, 1)


def moving_type_token_ratio(texts: Sequence[str], window: int = WINDOW) -> float:
    """Mean type-token ratio of all stretches of `window` words of the texts in a row (Covington and McFall 2010).

    Unlike the plain ratio it does not fall with the number of words. With fewer words than the window, the plain ratio.
    """
    of_order = _grams(texts, 1)[0]
    return _moving(of_order, window, np.arange(of_order.texts))


def ngram_diversity(texts: Sequence[str]) -> float:
    """Product over n = 2, 3, 4 of 1 - rep-n, n-grams repeated *within* a text, pooled over texts (Su et al. 2022, arXiv 2202.06417).

    1 when no text repeats itself, however alike the texts are. NaN without a text of four words.
    """
    return _within([_own_kinds(g) for g in _grams(texts, 4)[1:]], np.arange(len(texts)))


def self_bleu(texts: Sequence[str], cap: int = 500, seed: int = 0) -> float:
    """Mean sentence BLEU (0 to 1) of each text against all others; see `selfbleu.self_bleu`. Low is diverse."""
    return selfbleu.self_bleu([words(text) for text in as_texts(texts)], cap, seed)


def compression_ratio(texts: Sequence[str]) -> float:
    """UTF-8 bytes of the texts, one per line, divided by their bytes after zlib (level 9). High is repetitive; NaN without bytes.

    As in Shaib et al. 2024 (arXiv 2403.00553). zlib sees repeats at most 32 kB apart; scripts whose letters take two or three bytes
    compress better, so compare within one language.
    """
    return _compression([text.encode("utf-8", "replace") for text in as_texts(texts)], np.arange(len(texts)))


def vendi_score(embeddings: Float[np.ndarray, "n d"]) -> float:
    """The effective number of different rows, 1 (all the same) to n (all orthogonal); NaN without rows.

    exp of the entropy of the eigenvalues of K/n, K the cosine similarities (Friedman and Dieng 2023, arXiv 2210.02410). Raises
    `SteerlabError` for rows that are not finite or all zero.
    """
    return _vendi(_unit_rows(embeddings), np.arange(len(embeddings)))


def duplicate_rate(texts: Sequence[str], near: float | None = None) -> float:
    """The share of texts that stood in the set before: to the letter, or with `near` almost.

    Almost: after case, punctuation and spacing are normalised, the Jaccard similarity of the character 5-grams with some earlier
    text is at least `near` (0.8 in the report). NaN without texts.
    """
    return _repeats(_pairs(as_texts(texts), near), np.arange(len(texts)))


def diversity_report(
    texts: Sequence[str],
    embeddings: Float[np.ndarray, "n d"] | None = None,
    seed: int = 0,
    *,
    size: int | None = None,
    cap: int = 500,
    subsets: int = 100,
) -> dict[str, Estimate]:
    """Every measure of this module with a 95 % interval for the expected value on as many texts of the same source.

    Texts without a word are left out. With `size`, a seeded sample of that many texts is measured, so that sets of different sizes
    can be compared; with fewer texts everything is missing. `cap` bounds the texts self-BLEU compares. Raises `SteerlabError` when
    there is not one embedding per text.
    """
    texts = as_texts(texts)
    if embeddings is not None and len(embeddings) != len(texts):
        raise SteerlabError(
            f"{len(texts)} texts and {len(embeddings)} embeddings were given: give one embedding per text."
        )
    kept = np.array([i for i, text in enumerate(texts) if words(text)], dtype=np.int64)
    note = f"{len(texts) - len(kept)} of {len(texts)} texts have no words and are left out"
    note = note if len(kept) < len(texts) else ""
    if size is not None:
        if len(kept) < size:
            short = f"{len(kept)} texts with words, fewer than the {size} asked for"
            return {name: Estimate.missing(short, len(kept)) for name in _names(embeddings is not None)}
        kept = np.sort(np.random.default_rng(seed).choice(kept, size, replace=False))
    chosen = [texts[i] for i in kept.tolist()]
    tokens = [words(text) for text in chosen]
    lengths = np.array([len(text) for text in tokens], dtype=float)
    report: dict[str, Estimate] = {}
    for name, (statistic, bounds) in _statistics(chosen, tokens, cap, seed).items():
        limited = name == "self_bleu" and len(chosen) > cap
        why = "; ".join(filter(None, (note, f"on a sample of {cap} texts" if limited else "")))
        n = min(len(chosen), cap) if limited else len(chosen)
        report[name] = jackknife(n, statistic, seed, subsets=subsets, bounds=bounds, reason=why)
    for name in ("duplicate_rate", "near_duplicate_rate"):
        if report[name].value == 0:  # none seen is not none ever: the jackknife has no spread here
            report[name] = wilson(0, len(chosen))
    if embeddings is not None:
        unit = _unit_rows(embeddings[kept])
        report["vendi_score"] = jackknife(
            len(kept),
            partial(_vendi, unit),
            seed,
            subsets=subsets,
            bounds=(1.0, float(len(kept))),
            reason=note,
        )
    report["words_per_text"] = bootstrap(lengths, seed=seed)
    return {name: report[name] for name in _names(embeddings is not None)}


def _names(embedded: bool) -> tuple[str, ...]:
    return (
        *(f"distinct_{n}" for n in range(1, 5)),
        *("type_token_ratio", "moving_type_token_ratio", "ngram_diversity", "self_bleu", "compression_ratio"),
        *(("vendi_score",) if embedded else ()),
        *("duplicate_rate", "near_duplicate_rate", "words_per_text"),
    )


def _statistics(
    texts: Sequence[str], tokens: Sequence[Sequence[str]], cap: int, seed: int
) -> dict[str, tuple[OfRows, tuple[float, float]]]:
    """Each measure as a function of the rows that are kept, with what it cannot leave."""
    counted = grams(tokens, 4)
    share = (0.0, 1.0)
    sample = np.arange(len(texts))
    if len(texts) > cap:
        sample = np.sort(np.random.default_rng(seed).choice(len(texts), cap, replace=False))
    bleu = selfbleu.SelfBleu([tokens[i] for i in sample.tolist()])
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return {
        **{f"distinct_{n}": (partial(_distinct, counted[n - 1]), share) for n in range(1, 5)},
        "type_token_ratio": (partial(_distinct, counted[0]), share),
        "moving_type_token_ratio": (partial(_moving, counted[0], WINDOW), share),
        "ngram_diversity": (partial(_within, [_own_kinds(g) for g in counted[1:]]), share),
        "self_bleu": (bleu.mean, share),
        "compression_ratio": (partial(_compression, encoded), (0.0, math.inf)),
        "duplicate_rate": (partial(_repeats, _pairs(texts, None)), share),
        "near_duplicate_rate": (partial(_repeats, _pairs(texts, NEAR)), share),
    }


def _grams(texts: Sequence[str], up_to: int) -> tuple[Grams, ...]:
    return grams([words(text) for text in as_texts(texts)], up_to)


def _kept(rows: Rows, n: int) -> Bool[np.ndarray, "n"]:
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return mask


def _distinct(of_order: Grams, rows: Rows) -> float:
    ids = of_order.ids[_kept(rows, of_order.texts)[of_order.owner]]
    return np.count_nonzero(_kept(ids, of_order.kinds)) / len(ids) if len(ids) else math.nan


def _own_kinds(of_order: Grams) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Per text, its different n-grams and all its n-grams."""
    cells = np.unique(of_order.owner * max(of_order.kinds, 1) + of_order.ids)
    different = np.bincount(cells // max(of_order.kinds, 1), minlength=of_order.texts)
    return different, np.bincount(of_order.owner, minlength=of_order.texts)


def _within(counts: Sequence[tuple[np.ndarray, np.ndarray]], rows: Rows) -> float:
    product = 1.0
    for different, total in counts:
        product *= different[rows].sum() / total[rows].sum() if total[rows].any() else math.nan
    return float(product)


def _moving(of_order: Grams, window: int, rows: Rows) -> float:
    """Each word counts in every window it is in and no earlier equal word is; counting those windows needs no loop over them."""
    ids = of_order.ids[_kept(rows, of_order.texts)[of_order.owner]]
    n = len(ids)
    if n == 0:
        return math.nan
    window = min(window, n)
    by_word = np.argsort(ids, kind="stable")
    previous = np.full(n, -1)
    again = ids[by_word[1:]] == ids[by_word[:-1]]
    previous[by_word[1:][again]] = by_word[:-1][again]
    place = np.arange(n)
    first = np.maximum(np.maximum(place - window + 1, previous + 1), 0)
    last = np.minimum(place, n - window)
    return float(np.maximum(last - first + 1, 0).sum() / (n - window + 1) / window)


def _compression(encoded: Sequence[bytes], rows: Rows) -> float:
    joined = b"\n".join(encoded[row] for row in rows.tolist())
    return len(joined) / len(zlib.compress(joined, 9)) if joined else math.nan


def _unit_rows(embeddings: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    with np.errstate(over="ignore"):  # a row too long to have a length is refused below
        norm = np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)
    bad = ~np.isfinite(norm[:, 0]) | (norm[:, 0] == 0)
    if bad.any():
        raise SteerlabError(
            f"{bad.sum()} of {len(bad)} embeddings are zero or not finite (first: row {int(bad.argmax())}): "
            "cosine similarity needs a direction, so leave those texts out."
        )
    return embeddings / norm


def _vendi(unit: Float[np.ndarray, "n d"], rows: Rows) -> float:
    x = unit[rows]
    if len(x) == 0:
        return math.nan
    kernel = (x @ x.T if len(x) <= x.shape[1] else x.T @ x) / len(x)  # the same eigenvalues but for zeros
    values = np.linalg.eigvalsh(kernel)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _pairs(texts: Sequence[str], near: float | None) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"], int]:
    """All (earlier, later) pairs of repeated texts, and the number of texts."""
    if near is not None and not 0 < near <= 1:
        raise SteerlabError(f"a similarity of {near} was given: near duplicates need one above 0, up to 1.")
    n = len(texts)
    plain = [text if near is None else normalise(text) for text in texts]
    number: dict[str, int] = {}
    cells = [
        (row, number.setdefault(gram, len(number)))
        for row, text in enumerate(plain)
        for gram in ({text} if near is None else _shingles(text))
    ]
    where = np.array(cells, dtype=np.int64).reshape(-1, 2)
    holds = sparse.csr_array((np.ones(len(where)), (where[:, 0], where[:, 1])), shape=(n, max(len(number), 1)))
    sizes = np.diff(holds.indptr)
    earlier, later = [], []
    for first in range(0, n, _BLOCK):
        common = (holds[first : first + _BLOCK] @ holds.T).tocoo()
        row, column = common.row + first, common.col
        alike = common.data >= (near or 1) * (sizes[row] + sizes[column] - common.data)
        use = alike & (column < row)
        earlier.append(column[use])
        later.append(row[use])
    empty = [np.zeros(0, dtype=np.int64)]
    return (
        np.concatenate(earlier + empty).astype(np.int64),
        np.concatenate(later + empty).astype(np.int64),
        n,
    )


def _shingles(text: str) -> set[str]:
    return {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}


def _repeats(pairs: tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"], int], rows: Rows) -> float:
    earlier, later, n = pairs
    kept = _kept(rows, n)
    both = kept[earlier] & kept[later]
    return float(np.count_nonzero(_kept(later[both], n)) / len(rows)) if len(rows) else math.nan
