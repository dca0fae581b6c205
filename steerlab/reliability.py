"""How much of a vector is noise: the same vectors fitted on halves of their texts, and on texts whose labels were shuffled.

Texts are read once; every half and every shuffle is a regrouping of their means.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.activations import capture_activations
from steerlab.alignment import align_corpora
from steerlab.capture import all_layers, select
from steerlab.errors import SteerlabError
from steerlab.estimators import difference_of_means, language_vectors
from steerlab.model import TracedModel
from steerlab.moments import Moments
from steerlab.similarity import cosine_curve, spearman_brown
from steerlab.types import ALL, Positions, Site
from steerlab.vectors import SteeringVector

Halves = tuple[dict[str, SteeringVector], dict[str, SteeringVector]]


@dataclass(frozen=True, eq=False)
class TextMeans:
    """The mean activation of every text, "n l d", and how many tokens it is the mean of, "n"."""

    sites: tuple[Site, ...]
    mean: Float[np.ndarray, "n l d"]
    tokens: Float[np.ndarray, "n"]

    def rows(self, rows: Int[np.ndarray, "m"]) -> TextMeans:
        """These texts only, in this order."""
        return TextMeans(self.sites, self.mean[rows], self.tokens[rows])

    def moments(self) -> Moments:
        """The token-weighted mean of all texts. Variance and norm of single activations are not known from means (NaN)."""
        weight = self.tokens / self.tokens.sum()
        mean = torch.from_numpy(np.einsum("n,nld->ld", weight, self.mean.astype(np.float64)))
        count = torch.full((len(self.sites),), float(self.tokens.sum()), dtype=torch.float64)
        return Moments(
            self.sites, count, mean, torch.full_like(mean, float("nan")), torch.full_like(count, float("nan"))
        )


def text_means(
    model: TracedModel,
    texts: Sequence[str],
    sites: Sequence[Site] | None = None,
    *,
    positions: Positions | str = ALL,
    token_budget: int = 4096,
    progress: bool = False,
) -> TextMeans:
    """Read every text once. Texts longer than the context are cut. Raises `SteerlabError` as `capture_activations` does."""
    chosen, most = all_layers(model) if sites is None else tuple(sites), model.context_length
    picked = select(model, texts, positions, chat=False, skip_bos=True, max_tokens=most)
    tokens = np.array([float(picked.batch([i], 0)[1].sum()) for i in range(len(texts))])
    with tempfile.TemporaryDirectory() as folder:
        kept = capture_activations(
            model, texts, Path(folder) / "means.safetensors", chosen, positions=positions, max_tokens=most,
            token_budget=token_budget, progress=progress,
        )  # fmt: skip
        return TextMeans(chosen, np.array(kept.values), tokens)


def language_fit(means: Mapping[str, Mapping[str, TextMeans]]) -> dict[str, SteeringVector]:
    """What `fit_language_vectors` fits on the same texts `means[corpus][language]`, without residual norms."""
    return language_vectors(
        align_corpora({c: {code: own.moments() for code, own in by.items()} for c, by in means.items()})
    )


def language_halves(means: Mapping[str, Mapping[str, TextMeans]], seed: int, parallel: bool = False) -> Halves:
    """Language vectors on two disjoint random halves of the texts of every corpus and language.

    `parallel` says that row i of every language of a corpus is the same sentence: it then goes to the same half in
    every language, so that the halves differ in noise as two collections of parallel texts would. Raises
    `SteerlabError` for fewer than two texts, and for parallel languages of unequal numbers of texts.
    """
    rng = np.random.default_rng(seed)
    halves: tuple[dict[str, dict[str, TextMeans]], dict[str, dict[str, TextMeans]]] = ({}, {})
    for corpus, by in means.items():
        order = _order(rng, corpus, by) if parallel else np.arange(0)
        for code, own in by.items():
            for half, rows in zip(halves, _two(order if parallel else rng.permutation(len(own.tokens))), strict=True):
                half.setdefault(corpus, {})[code] = own.rows(rows)
    return language_fit(halves[0]), language_fit(halves[1])


def shuffled_languages(
    means: Mapping[str, Mapping[str, TextMeans]], seed: int, parallel: bool = False
) -> dict[str, dict[str, TextMeans]]:
    """The same texts with their languages permuted within each corpus: what vectors of labels without meaning rest on.

    With `parallel`, every sentence still occurs once under every language, so that only the language is shuffled.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, TextMeans]] = {}
    for corpus, by in means.items():
        sizes = [len(own.tokens) for own in by.values()]
        pool = TextMeans(
            next(iter(by.values())).sites,
            np.concatenate([own.mean for own in by.values()]),
            np.concatenate([own.tokens for own in by.values()]),
        )
        if parallel:
            n = len(_order(rng, corpus, by))
            owner = rng.permuted(np.tile(np.arange(len(by)), (n, 1)), axis=1)  # row i: which language's text each gets
            parts = [owner[:, place] * n + np.arange(n) for place in range(len(by))]
        else:
            parts = np.split(rng.permutation(sum(sizes)), np.cumsum(sizes)[:-1])
        found[corpus] = {code: pool.rows(rows) for code, rows in zip(by, parts, strict=True)}
    return found


def contrast_fit(positive: TextMeans, negative: TextMeans, name: str = "contrast") -> SteeringVector:
    """What `fit_contrast_vector` fits on the same texts, without residual norms."""
    return difference_of_means(positive.moments(), negative.moments(), name=name)


def contrast_halves(
    positive: TextMeans, negative: TextMeans, seed: int, name: str = "contrast"
) -> tuple[SteeringVector, SteeringVector]:
    """Contrast vectors on two disjoint random halves of the pairs; row i of both sides is one pair."""
    if len(positive.tokens) != len(negative.tokens):
        raise SteerlabError(
            f"{len(positive.tokens)} and {len(negative.tokens)} texts were given: halves of pairs need as many on both sides."
        )
    order = np.random.default_rng(seed).permutation(len(positive.tokens))
    first, second = (contrast_fit(positive.rows(rows), negative.rows(rows), name) for rows in _two(order))
    return first, second


def split_half(halves: Sequence[tuple[SteeringVector, SteeringVector]]) -> Float[Tensor, "l"]:
    """Reliability per layer: the mean cosine of the two halves over all splits, raised to all texts by `spearman_brown`.

    About 0 for noise, near 1 for a direction that the texts settle.
    """
    if not halves:
        raise SteerlabError("no halves were given: give at least one split.")
    return spearman_brown(torch.stack([cosine_curve(a, b) for a, b in halves]).mean(0))


def _two(order: Int[np.ndarray, "n"]) -> tuple[Int[np.ndarray, "h"], Int[np.ndarray, "k"]]:
    if len(order) < 2:
        raise SteerlabError(f"{len(order)} texts were given: halves need at least two.")
    return order[: len(order) // 2], order[len(order) // 2 :]


def _order(rng: np.random.Generator, corpus: str, by: Mapping[str, TextMeans]) -> Int[np.ndarray, "n"]:
    """One order of the sentences for all languages of a parallel corpus."""
    sizes = {code: len(own.tokens) for code, own in by.items()}
    if len(set(sizes.values())) != 1:
        raise SteerlabError(
            f"the languages of {corpus} have {sizes} texts: parallel languages need the same sentences; keep those all have."
        )
    return rng.permutation(next(iter(sizes.values())))
