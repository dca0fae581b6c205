"""Do similarities form groups, and are they the groups we know: trees, agreement with families, and permutation nulls.

A tree is built by average linkage on 1 - cosine, so that a merge stands at one minus the mean cosine between the
members of its two branches: a height that can be read. It needs nothing but dissimilarities, where Ward and centroid
linkage assume Euclidean distances, and it neither chains along near pairs as single linkage does nor lets one far
pair decide as complete linkage does (Sokal and Michener 1958).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor

from steerlab.errors import SteerlabError


@dataclass(frozen=True)
class Agreement:
    """A statistic beside the same statistic under permuted labels: its mean `null` there, 95 % of the permutations in
    `low` to `high`.

    `p`: share of permutations that reach `value`, the observed one counted among them. `n`: items compared.
    """

    value: float
    null: float
    low: float
    high: float
    p: float
    n: int


def tree(cosines: Float[Tensor, "k k"]) -> Float[np.ndarray, "m 4"]:
    """The average-linkage tree of k things in scipy's form, k - 1 merges; leaves ordered so that neighbours are alike.

    Raises `SteerlabError` for fewer than two things or a similarity that is missing.
    """
    k = len(cosines)
    if k < 2 or not bool(cosines.isfinite().all()):
        raise SteerlabError(f"a {k} x {k} similarity was given: a tree needs two or more, and no missing one.")
    distance = (1 - cosines.double().cpu().numpy()).clip(min=0)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    return hierarchy.linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)


def leaves(linkage: Float[np.ndarray, "m 4"]) -> list[int]:
    """The things in the order they stand below the tree."""
    return [int(leaf) for leaf in hierarchy.leaves_list(linkage)]


def cut(linkage: Float[np.ndarray, "m 4"], groups: int) -> Int[np.ndarray, "k"]:
    """The branch of each thing, 1, 2, ..., when the tree is cut into `groups` (fewer where merges are tied)."""
    return hierarchy.fcluster(linkage, t=groups, criterion="maxclust").astype(np.int64)


def family_agreement(
    cosines: Float[Tensor, "k k"], families: Sequence[str], permutations: int = 1000, seed: int = 0
) -> Agreement:
    """Adjusted Rand index between the families and the tree cut into as many branches as there are families.

    1 for the same groups, 0 on average for labels that mean nothing (Hubert and Arabie 1985); the null permutes the
    families over the things, so that the sizes of families and branches stay. Raises `SteerlabError` unless there are
    at least two families and one has two members.
    """
    _check(cosines, families)
    branch = cut(tree(cosines), len(set(families)))
    codes = np.unique(np.asarray(families), return_inverse=True)[1]
    return _permuted(lambda given: adjusted_rand(given, branch), codes, permutations, seed)


def adjusted_rand(a: Int[np.ndarray, "k"], b: Int[np.ndarray, "k"]) -> float:
    """The adjusted Rand index of two groupings, from the pairs that stand together in both, in a and in b.

    The number scikit-learn's `adjusted_rand_score` gives, at a thirtieth of its time: permutations ask for thousands. 1
    for equal groupings, also where there is one group or k.
    """
    upper = np.triu_indices(len(a), 1)
    together, other = (a[:, None] == a)[upper], (b[:, None] == b)[upper]
    n, m, both = float(together.sum()), float(other.sum()), float((together & other).sum())
    chance = n * m / len(together)
    most = (n + m) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


def neighbour_agreement(
    cosines: Float[Tensor, "k k"], families: Sequence[str], permutations: int = 1000, seed: int = 0
) -> Agreement:
    """Of the things that have kin among the others, the share whose nearest neighbour is kin; the null permutes families.

    Unlike `family_agreement` it needs no cut. `n` counts the things that have kin.
    """
    _check(cosines, families)
    off = cosines.double().cpu().clone().fill_diagonal_(-torch.inf)
    nearest = off.argmax(dim=1).numpy()
    codes = np.unique(np.asarray(families), return_inverse=True)[1]
    size = np.bincount(codes)

    def share(given: Int[np.ndarray, "k"]) -> float:
        kin = size[given] > 1
        return float((given[nearest] == given)[kin].mean())

    found = _permuted(share, codes, permutations, seed)
    return Agreement(found.value, found.null, found.low, found.high, found.p, int((size[codes] > 1).sum()))


def matrix_agreement(
    a: Float[Tensor, "k k"], b: Float[Tensor, "n n"], permutations: int = 1000, seed: int = 0
) -> Agreement:
    """Spearman's correlation between two similarity matrices of the same k things, above the diagonal.

    The two may come from layers, vector kinds or models that share no axes. The null permutes the things of `b` (Mantel
    1967), because pairs that share a thing are not independent. Raises `SteerlabError` for fewer than four things.
    """
    if a.shape != b.shape or len(a) < 4:
        raise SteerlabError(f"matrices of {len(a)} and {len(b)} things were given: the same four or more are needed.")
    upper = np.triu_indices(len(a), 1)
    ranks = stats.rankdata(a.double().cpu().numpy()[upper])
    other = b.double().cpu().numpy()

    def correlation(order: Int[np.ndarray, "k"]) -> float:
        return float(np.corrcoef(ranks, stats.rankdata(other[np.ix_(order, order)][upper]))[0, 1])

    return _permuted(correlation, np.arange(len(a)), permutations, seed)


def rotated_cosines(cosines: Float[Tensor, "k k"], draws: int = 200, seed: int = 0) -> Float[Tensor, "r k k"]:
    """Cosines between vectors that are as unevenly spread as those given, but grouped by nothing.

    The unit vectors behind `cosines` are mixed by random rotations that leave their mean in place: the same subspace,
    the same variance along every axis about the mean, random things at each place. A null for "these two are close"
    that does not mistake a few strong axes for likeness; conservative, because groups make strong axes too.
    """
    k = len(cosines)
    if k < 3:
        raise SteerlabError(f"{k} vectors were given: a random rotation needs at least three.")
    gram = cosines.double().cpu().numpy()
    basis = np.linalg.qr(np.column_stack([np.ones(k), np.eye(k)[:, 1:]]))[0][:, 1:]  # orthogonal to (1, ..., 1)
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        rotation, triangle = np.linalg.qr(rng.standard_normal((k - 1, k - 1)))
        rotation *= np.sign(
            np.diag(triangle)
        )  # uniform over rotations only with the signs of the diagonal (Mezzadri 2007)
        mix = basis @ rotation @ basis.T + 1 / k
        mixed = mix @ gram @ mix.T
        length = np.sqrt(np.diag(mixed))
        found.append(mixed / np.outer(length, length))
    return torch.from_numpy(np.stack(found)).clamp(-1, 1)


def _check(cosines: Float[Tensor, "k k"], families: Sequence[str]) -> None:
    if len(families) != len(cosines):
        raise SteerlabError(f"{len(cosines)} things and {len(families)} families were given: give one family for each.")
    sizes = Counter(families)
    if len(sizes) < 2 or max(sizes.values()) < 2:
        raise SteerlabError(
            f"{len(sizes)} families of {len(families)} things were given: at least two families are needed, one of them with two members."
        )


def _permuted(
    statistic: Callable[[Int[np.ndarray, "k"]], float], labels: Int[np.ndarray, "k"], permutations: int, seed: int
) -> Agreement:
    """The statistic of the labels beside that of `permutations` random orders of them."""
    if permutations < 1:
        raise SteerlabError(f"{permutations} permutations were asked for: give at least 1.")
    rng, value = np.random.default_rng(seed), statistic(labels)
    null = np.array([statistic(rng.permutation(labels)) for _ in range(permutations)])
    low, high = np.quantile(null, (0.025, 0.975))
    p = (1 + int((null >= value - 1e-12).sum())) / (1 + permutations)
    return Agreement(value, float(null.mean()), float(low), float(high), p, len(labels))
