"""Negatives: the texts a sample shall move away from, drawn for it from real examples and from what was accepted so far.

A draw depends on the run's seed, the sample's key and the pool in its order, and on nothing else: not on the batch, not on
what was drawn before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from steerlab.errors import SteerlabError
from steerlab.sampling import keyed_uniform, row_key

STRATEGIES = ("uniform", "nearest", "centroid", "recent")
Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> (n d)
FEATURES = 2048
JOINER = " "


@dataclass(frozen=True)
class Negative:
    """One text of a pool; `real` tells a human's from an accepted synthetic one."""

    id: str
    text: str
    real: bool


@dataclass(frozen=True)
class Draw:
    """How many negatives a sample gets, and which. The defaults are the authors' of STEER: ten, uniformly from all.

    "uniform": without replacement. "nearest": one text of the pool and those most like it. "centroid": those most like the
    mean. Both look at accepted texts, where there are any, for that one text and that mean. "recent": the newest. `real` and
    `synthetic` are quotas of the n; one alone leaves the rest to the other, and without any the strategy alone decides.
    Raises `SteerlabError` for an unknown strategy, n below 1, and quotas that are negative or more than n together.
    """

    n: int = 10
    strategy: str = "uniform"
    real: int | None = None
    synthetic: int | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise SteerlabError(f"strategy {self.strategy!r} is not known: give one of {', '.join(STRATEGIES)}.")
        if self.n < 1:
            raise SteerlabError(f"{self.n} negatives were asked for: ask for at least 1, or for none by eta 0.")
        given = [quota for quota in (self.real, self.synthetic) if quota is not None]
        if any(quota < 0 for quota in given) or sum(given) > self.n:
            raise SteerlabError(
                f"quotas of {self.real} real and {self.synthetic} synthetic negatives were given for {self.n} in all: "
                "give none below 0, and no more than that together."
            )

    @property
    def quotas(self) -> tuple[int, int] | None:
        """At most so many (real, synthetic) ones, or None."""
        if self.real is None and self.synthetic is None:
            return None
        if self.real is None or self.synthetic is None:
            given = self.real if self.synthetic is None else self.synthetic
            rest = self.n - int(given or 0)
            return (self.n - rest, rest) if self.synthetic is None else (rest, self.n - rest)
        return self.real, self.synthetic

    def to_json(self) -> dict[str, object]:
        """Plain values, for a run's record."""
        return asdict(self)


def ngram_vectors(texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """TF-IDF of the character 2- to 4-grams of each text among these, hashed to 2,048 columns: cheap, and the same everywhere."""
    if not texts:
        return np.zeros((0, FEATURES))
    plain: Any = {"norm": None, "alternate_sign": False}
    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=FEATURES, **plain)
    counts = hashed.transform(texts)
    return np.asarray(TfidfTransformer(sublinear_tf=True).fit_transform(counts).toarray())  # type: ignore[union-attr]


def one_by_one(embed: Embed) -> Embed:
    """`embed` asked for one text at a time and once for each, so that a text's numbers do not hang on its neighbours."""
    known: dict[str, np.ndarray] = {}

    def embedded(texts: Sequence[str]) -> np.ndarray:
        for text in texts:
            if text not in known:
                known[text] = embed([text])[0]
        return np.stack([known[text] for text in texts])

    return embedded


class Pool:
    """Real examples, then accepted texts in the order they came in.

    `embed` makes vectors of all texts of the pool, in order; only "nearest" and "centroid" ask for them. Raises
    `SteerlabError` for an id that stands twice.
    """

    def __init__(
        self, real: Sequence[Negative] = (), synthetic: Sequence[Negative] = (), embed: Embed = ngram_vectors
    ) -> None:
        self.items: list[Negative] = []
        self.embed = embed
        self._ids: set[str] = set()
        self._vectors = np.zeros((0, 0))
        for item in (*real, *synthetic):
            self._add(item)

    def __len__(self) -> int:
        return len(self.items)

    def accept(self, id: str, text: str) -> None:
        """Take in one synthetic text."""
        self._add(Negative(id, text, real=False))

    def draw(self, how: Draw, seed: int, key: tuple[str | int, ...]) -> list[Negative]:
        """The negatives of the sample named by `key`, the most wanted first; fewer where the pool or a quota has no more."""
        if not self.items:
            return []
        left = {True: len(self), False: len(self)}
        if how.quotas is not None:
            left = {True: how.quotas[0], False: how.quotas[1]}
        chosen: list[Negative] = []
        for i in self._order(how.strategy, seed, key).tolist():
            item = self.items[i]
            if len(chosen) < how.n and left[item.real] > 0:
                left[item.real] -= 1
                chosen.append(item)
        return chosen

    def _add(self, item: Negative) -> None:
        if item.id in self._ids:
            raise SteerlabError(f"the pool of negatives has {item.id!r} already: give every text an id of its own.")
        self._ids.add(item.id)
        self.items.append(item)

    def _order(self, strategy: str, seed: int, key: tuple[str | int, ...]) -> Int[np.ndarray, "n"]:
        """All places of the pool, the most wanted first; ties by the place."""
        if strategy == "recent":
            return np.arange(len(self) - 1, -1, -1)
        drawn = _uniform(row_key(seed, "negatives", *key), len(self))
        if strategy == "uniform":
            return np.argsort(drawn, kind="stable")
        unit = self._unit()
        accepted = [i for i, item in enumerate(self.items) if not item.real]
        among = np.array(accepted or range(len(self)))
        target = unit[among].mean(0) if strategy == "centroid" else unit[among[int(drawn[among].argmin())]]
        # Rounded, so that equal texts tie whatever order a sum was taken in.
        return np.argsort(-np.round(unit @ target, 9), kind="stable")

    def _unit(self) -> Float[np.ndarray, "n d"]:
        if len(self._vectors) != len(self):
            vectors = np.asarray(self.embed([item.text for item in self.items]), dtype=float)
            if vectors.ndim != 2 or len(vectors) != len(self) or not np.isfinite(vectors).all():
                raise SteerlabError(
                    f"the embedding of {len(self)} texts has the shape {vectors.shape} or numbers that are not finite: "
                    "give a function that makes one finite vector of each text."
                )
            norm = np.linalg.norm(vectors, axis=1, keepdims=True)
            self._vectors = vectors / np.where(norm > 0, norm, 1.0)
        return self._vectors


def join(chosen: Sequence[Negative], budget: int, count: Callable[[str], int]) -> tuple[str, list[Negative]]:
    """The texts in a row, with a space between, and which they are: as many, from the first, as `count` puts within the budget.

    What does not fit is left out whole. Without any that fits the text is empty.
    """
    kept = list(chosen)
    while kept:
        text = JOINER.join(item.text for item in kept)
        if count(text) <= budget:
            return text, kept
        kept.pop()
    return "", []


def _uniform(key: int, n: int) -> Float[np.ndarray, "n"]:
    """Numbers in (0, 1) for places 0 to n - 1: a place keeps its number when the pool grows."""
    first = torch.zeros(1, dtype=torch.int64)
    return keyed_uniform(first + key, first, torch.arange(n)[None])[0].numpy()
