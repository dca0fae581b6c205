"""What is taken out is gone, nothing else is, and the curve of probes ends at chance where the theorem says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.ablation.erasure import (
    as_basis,
    class_means,
    fixed,
    iterative,
    orthonormal,
    probe_again,
    project_out,
    random_subspace,
    removal_curve,
)
from steerlab.errors import SteerlabError
from tests.tiny import vector

N, D, K = 40, 24, 3


def planted(
    k: int = K, gap: float = 4.0
) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"], Int[Tensor, "n"], np.ndarray]:
    """N rows of each of k classes, noise but for a mean of its own along one axis each; group i is row i of every class."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((D, D)))[0][:k]
    x = rng.standard_normal((k, N, D)) + gap * axes[:, None]
    y, groups = torch.arange(k).repeat_interleave(N), torch.arange(N).repeat(k)
    return torch.from_numpy(x.reshape(-1, D)), y, groups, axes


def test_a_projection_is_idempotent_and_leaves_what_is_orthogonal() -> None:
    rng = np.random.default_rng(1)
    basis = orthonormal(rng.standard_normal((4, D)))
    x = rng.standard_normal((7, D))
    once = project_out(x, basis)
    assert np.abs(once @ basis.T).max() < 1e-12 and np.abs(x @ basis.T).max() > 0.1
    np.testing.assert_allclose(project_out(once, basis), once, atol=1e-12)
    np.testing.assert_allclose(project_out(x, basis[:0]), x)


def test_orthonormal_rows_span_the_given_ones_and_no_more() -> None:
    rows = np.random.default_rng(2).standard_normal((3, D))
    basis = orthonormal(np.concatenate([rows, rows[:1] + rows[1:2], 0 * rows[:1]]))
    assert len(basis) == 3
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)
    assert np.abs(project_out(rows, basis)).max() < 1e-12
    assert len(orthonormal(np.zeros((2, D)))) == 0
    directions = [vector(seed).at(1) for seed in range(3)]
    np.testing.assert_allclose(
        project_out(torch.stack(directions).double().numpy(), as_basis(directions)), 0, atol=1e-7
    )


def test_class_means_are_one_direction_fewer_than_classes_and_leave_equal_means() -> None:
    x, y, _, _ = planted()
    data, labels = x.numpy(), y.numpy()
    basis = class_means(data, labels)
    assert len(basis) == K - 1
    left = project_out(data, basis)
    means = np.stack([left[labels == k].mean(0) for k in range(K)])
    assert np.abs(means - means[0]).max() < 1e-12
    short = project_out(data, basis[: K - 2])
    assert np.abs(short[labels == 0].mean(0) - short[labels == 1].mean(0)).max() > 0.05


def test_iterative_projection_finds_orthonormal_directions_until_told_to_stop() -> None:
    x, y, _, axes = planted(2)
    found = iterative(5)(x.numpy(), y.numpy())
    assert found.shape == (5, D)
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-9)
    gap = (axes[1] - axes[0]) / np.linalg.norm(axes[1] - axes[0])
    assert abs(found[0] @ gap) > 0.9  # the planted direction goes first
    assert (
        len(iterative(99, "diff_of_means")(x.numpy(), y.numpy())) == 1
    )  # then the means are equal, and there is no more


def test_random_subspaces_are_orthonormal_keyed_and_as_wide_as_asked() -> None:
    basis = random_subspace(D, 5, seed=3)
    np.testing.assert_allclose(basis @ basis.T, np.eye(5), atol=1e-12)
    np.testing.assert_array_equal(basis, random_subspace(D, 5, seed=3))
    assert np.abs(basis - random_subspace(D, 5, seed=4)).max() > 0.1
    assert random_subspace(D, 0).shape == (0, D)
    with pytest.raises(SteerlabError, match="at most 24"):
        random_subspace(D, 25)


@pytest.mark.parametrize("kind", ["lda", "logistic"])
def test_the_curve_falls_to_chance_with_the_span_of_the_means_and_not_with_as_many_random_directions(kind: str) -> None:
    x, y, groups, _ = planted()
    orders = {"means": class_means, "random": fixed(random_subspace(D, K - 1))}
    table: Any = removal_curve(x, y, groups, orders, range(K + 1), kind, folds=4, resamples=100)  # pyright: ignore
    value = table.set_index(["order", "rank", "probe"])["value"]
    assert set(table["rank"]) == set(range(K))  # no order has more than K - 1 directions
    for name in orders:
        assert value[name, 0, "fixed"] == value[name, 0, "refitted"] > 0.95
    for probe in ("fixed", "refitted"):
        assert abs(value["means", K - 1, probe] - 0.5) < 0.08
        assert value["means", 1, probe] > 0.7  # one direction is not all
        assert value["random", K - 1, probe] > 0.9
    bounds = table.set_index(["order", "rank", "probe"])
    assert bounds.loc[("means", K - 1, "refitted"), "low"] <= 0.5 + 1e-9
    assert (table["low"] <= table["value"] + 1e-9).all() and (table["value"] <= table["high"] + 1e-9).all()
    shuffled = table[table["probe"] == "refitted"]["shuffled"].to_numpy(float)
    assert np.abs(shuffled - 0.5).max() < 0.15 and table[table["probe"] == "fixed"]["shuffled"].isna().all()


def test_directions_are_found_on_training_rows_only() -> None:
    x, y, groups, _ = planted(2)
    seen: list[int] = []

    def spy(train: np.ndarray, labels: np.ndarray) -> np.ndarray:
        seen.append(len(train))
        return class_means(train, labels)

    removal_curve(x, y, groups, {"spy": spy}, [0, 1], folds=4, resamples=10)
    assert set(seen) == {2 * N * 3 // 4}


def test_a_probe_fitted_before_reads_nothing_where_the_one_fitted_after_still_does() -> None:
    """Two axes carry the label. Without the first, the old probe is misled; a new one reads the second."""
    rng = np.random.default_rng(5)
    y, groups = torch.arange(2).repeat_interleave(N), torch.arange(N).repeat(2)
    x = torch.from_numpy(rng.standard_normal((2 * N, D)) * 0.5)
    sign = 2.0 * y.double() - 1
    x[:, 0] += 8 * sign  # what a difference of means looks at
    x[:, 1] += 1.5 * sign
    edited = x.clone()
    edited[:, 0] = 0.0
    edited[:, 1] -= 1.5 * sign  # first without both
    gone: Any = probe_again(x, edited, y, groups, "diff_of_means", folds=4, resamples=50).set_index("probe")["value"]
    assert gone["before"] == 1 and abs(gone["fixed"] - 0.5) < 0.2 and abs(gone["refitted"] - 0.5) < 0.2
    edited[:, 1] += 1.5 * sign
    left: Any = probe_again(x, edited, y, groups, "logistic", folds=4, resamples=50).set_index("probe")["value"]
    assert left["before"] == 1 and left["refitted"] > 0.97
    same: Any = probe_again(x, x, y, groups, folds=4, resamples=50)["value"]
    assert same.nunique() == 1
    with pytest.raises(SteerlabError, match="both must be of the same texts"):
        probe_again(x, edited[1:], y, groups)
