"""Planted groups are found and shuffled ones are not; the statistics are scikit-learn's, and the nulls what they say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from steerlab.clustering import (
    adjusted_rand,
    cut,
    family_agreement,
    leaves,
    matrix_agreement,
    neighbour_agreement,
    rotated_cosines,
    tree,
)
from steerlab.errors import SteerlabError

FAMILIES = ["x"] * 5 + ["y"] * 4 + ["z"] * 3 + ["alone"]


def _cosines(rows: np.ndarray) -> Tensor:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(unit @ unit.T)


def _planted(spread: float = 0.4, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    centres = {name: rng.standard_normal(64) for name in dict.fromkeys(FAMILIES)}
    return _cosines(np.stack([centres[name] + spread * rng.standard_normal(64) for name in FAMILIES]))


def test_planted_families_are_found_and_shuffled_ones_are_not() -> None:
    planted = _planted()
    found = family_agreement(planted, FAMILIES, permutations=300)
    assert found.value == 1.0 and found.p == pytest.approx(1 / 301)
    assert found.low < found.null < found.high < 0.5 and abs(found.null) < 0.05 and found.n == 13
    near = neighbour_agreement(planted, FAMILIES, permutations=300)
    assert near.value == 1.0 and near.p == pytest.approx(1 / 301) and near.n == 12  # one has no kin
    rng, values = np.random.default_rng(1), []
    for seed in range(20):
        shuffled = [FAMILIES[i] for i in rng.permutation(13)]
        other = family_agreement(planted, shuffled, permutations=50, seed=seed)
        values.append((other.value, other.p))
    assert abs(np.mean([v for v, _ in values])) < 0.15 and np.mean([p for _, p in values]) > 0.2


def test_p_values_of_random_vectors_are_uniform_enough() -> None:
    rng = np.random.default_rng(2)
    p = [family_agreement(_cosines(rng.standard_normal((13, 8))), FAMILIES, 60, seed).p for seed in range(60)]
    assert np.mean(np.array(p) <= 0.1) < 0.25 and 0.3 < np.mean(p) < 0.75


def test_the_adjusted_rand_index_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        a, b = (rng.integers(0, rng.integers(1, 6), size=9) for _ in range(2))
        assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    one, own = np.zeros(5, dtype=np.int64), np.arange(5)
    for both in ((one, one), (own, own), (one, own)):
        assert adjusted_rand(*both) == adjusted_rand_score(*both)


def test_the_tree_merges_at_one_minus_the_mean_cosine_between_branches() -> None:
    planted = _planted()
    grown = tree(planted)
    assert sorted(leaves(grown)) == list(range(13))
    branch = cut(grown, 2)
    left, right = (np.flatnonzero(branch == b) for b in (1, 2))
    assert grown[-1, 2] == pytest.approx(1 - float(planted.numpy()[np.ix_(left, right)].mean()))
    order = leaves(grown)  # members of a planted family stand together
    blocks = [FAMILIES[i] for i in order]
    assert len([1 for a, b in pairwise(blocks) if a != b]) == 3
    want = hierarchy.linkage(squareform(1 - planted.numpy(), checks=False), "average")
    np.testing.assert_allclose(np.sort(grown[:, 2]), np.sort(want[:, 2]))


def test_rotations_keep_the_spread_and_lose_the_groups() -> None:
    planted = _planted(spread=0.8)
    drawn = rotated_cosines(planted, draws=100)
    assert drawn.shape == (100, 13, 13)
    torch.testing.assert_close(drawn.diagonal(dim1=1, dim2=2), torch.ones(100, 13, dtype=torch.float64))
    strong = torch.linalg.eigvalsh(planted)[-3:].sum(), torch.linalg.eigvalsh(drawn)[:, -3:].sum(1).mean()
    assert float(strong[0]) == pytest.approx(float(strong[1]), rel=0.15)
    agreed = [family_agreement(own, FAMILIES, permutations=1).value for own in drawn]
    assert abs(np.mean(agreed)) < 0.1 < family_agreement(planted, FAMILIES, permutations=1).value
    off = planted.clone().fill_diagonal_(-2)
    nearest = (drawn - 3 * torch.eye(13)).amax(-1).mean(-1)
    assert float(off.amax(-1).mean()) > float(nearest.quantile(0.95))


def test_matrices_of_the_same_things_agree_and_of_shuffled_things_do_not() -> None:
    a, b = _planted(), _planted(seed=7)
    same = matrix_agreement(a, b, permutations=200)
    assert same.value > 0.5 and same.p < 0.02 and same.high < same.value
    assert matrix_agreement(a, a, permutations=10).value == pytest.approx(1)
    order = torch.from_numpy(np.random.default_rng(8).permutation(13))
    other = matrix_agreement(a, b[order][:, order], permutations=200)
    assert other.value < other.high < same.value and other.p > 0.02


def test_what_can_not_be_clustered_is_refused() -> None:
    planted = _planted()
    with pytest.raises(SteerlabError, match="13 things and 2 families"):
        family_agreement(planted, ["x", "y"])
    with pytest.raises(SteerlabError, match="at least two families are needed"):
        family_agreement(planted, ["x"] * 13)
    with pytest.raises(SteerlabError, match="one of them with two members"):
        neighbour_agreement(planted, [str(i) for i in range(13)])
    with pytest.raises(SteerlabError, match="two or more, and no missing"):
        tree(torch.full((3, 3), float("nan")))
    with pytest.raises(SteerlabError, match="the same four or more"):
        matrix_agreement(planted, planted[:3, :3])
    with pytest.raises(SteerlabError, match="0 permutations"):
        family_agreement(planted, FAMILIES, permutations=0)
    with pytest.raises(SteerlabError, match="at least three"):
        rotated_cosines(planted[:2, :2])
