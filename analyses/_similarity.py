"""What the two similarity analyses share: the tables of kinship, nearest neighbours and tree, and their panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from steerlab import clustering, figures, similarity
from steerlab.data.families import LINEAGES, Level, grouping
from steerlab.evaluation.stats import bootstrap
from steerlab.vectors import SteeringVector

LEVELS: tuple[Level, ...] = ("genus", "family", "script")
KIN = ("same genus", "same family, other genus", "other family")
NAN = math.nan


@dataclass(frozen=True)
class Nulls:
    """How many label permutations, random rotations and random subsets of the languages."""

    permutations: int = 1000
    rotations: int = 200
    subsets: int = 100
    share: float = 0.8
    seed: int = 0


def row(measure: str, series: str, layer: int, value: float, **more: float | int | str) -> dict[str, Any]:
    """One row of a table of curves. `low` and `high` bound the value, `null_low` and `null_high` what chance shows."""
    empty = dict.fromkeys(("low", "high", "null", "null_low", "null_high", "p", "ceiling"), NAN)
    return {"measure": measure, "series": series, "layer": layer, "value": value, **empty, "n": 0, "reason": "", **more}


def pair_table(names: Sequence[str], cosines: Float[Tensor, "l k k"], layers: Sequence[int]) -> pd.DataFrame:
    """One row per pair, one column per layer."""
    first, second = (part.tolist() for part in np.triu_indices(len(names), 1))
    table = pd.DataFrame({"a": [names[i] for i in first], "b": [names[j] for j in second]})
    return table.join(pd.DataFrame(cosines[:, first, second].T.numpy(), columns=[str(layer) for layer in layers]))


def square(pairs: pd.DataFrame, layer: int) -> pd.DataFrame:
    """The symmetric matrix of one layer of a pair table, 1 on the diagonal."""
    names = list(dict.fromkeys([*pairs["a"], *pairs["b"]]))
    matrix = pd.DataFrame(np.eye(len(names)), index=pd.Index(names), columns=pd.Index(names))
    for a, b, value in zip(pairs["a"], pairs["b"], pairs[str(layer)], strict=True):
        matrix.loc[a, b] = matrix.loc[b, a] = float(value)
    return matrix


def tree_rows(
    names: Sequence[str], cosines: Float[Tensor, "l k k"], layers: Sequence[int], nulls: Nulls, reason: str
) -> list[dict[str, Any]]:
    """Per layer and level: adjusted Rand index of the tree (bounds: subsets of the languages) and share of nearest
    neighbours that are kin, each beside permuted labels; no ceiling, for `reason`.
    """
    rng = np.random.default_rng(nulls.seed)
    size = round(nulls.share * len(names))
    chosen = [np.sort(rng.permutation(len(names))[:size]) for _ in range(nulls.subsets)]
    rows = []
    for level in LEVELS:
        groups = grouping(names, level)
        if len(set(groups)) < 2:
            continue  # one group agrees with every tree
        for layer, own in zip(layers, cosines, strict=True):
            found = clustering.family_agreement(own, groups, nulls.permutations, nulls.seed)
            parts = [_part(own, groups, subset) for subset in chosen]
            low, high = np.nanquantile(parts, (0.025, 0.975))
            bounds = {"low": float(low), "high": float(high), "reason": reason}
            rows.append(row("tree agreement", level, layer, found.value, **_null(found), **bounds))
            found = clustering.neighbour_agreement(own, groups, nulls.permutations, nulls.seed)
            rows.append(row("nearest is kin", level, layer, found.value, **_null(found), reason=reason))
    return rows


def _part(own: Float[Tensor, "k k"], groups: Sequence[str], subset: np.ndarray) -> float:
    kept = [groups[i] for i in subset]
    if len(set(kept)) < 2 or len(set(kept)) == len(kept):
        return NAN
    branch = clustering.cut(clustering.tree(own[subset][:, subset]), len(set(kept)))
    return clustering.adjusted_rand(np.unique(np.asarray(kept), return_inverse=True)[1], branch)


def _null(found: clustering.Agreement) -> dict[str, float | int]:
    return {"null": found.null, "null_low": found.low, "null_high": found.high, "p": found.p, "n": found.n}


def kinship(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Which pairs are of the same genus, of the same family only, of other families: one symmetric mask each."""
    genus, family = (np.array(grouping(names, level)) for level in ("genus", "family"))
    near, far = genus[:, None] == genus, family[:, None] == family
    off = ~np.eye(len(names), dtype=bool)
    return dict(zip(KIN, (near & off, far & ~near, ~far & ~near), strict=True))


def kin_rows(
    names: Sequence[str],
    cosines: Float[Tensor, "l k k"],
    layers: Sequence[int],
    nulls: Nulls,
    ceilings: Float[Tensor, "l k k"] | None,
    reason: str,
) -> list[dict[str, Any]]:
    """Per layer and kind of kinship: mean over languages of a language's mean cosine with such others (interval over
    languages), beside permuted languages; `ceilings` are those of the pairs, missing for `reason`.
    """
    rng, masks, rows = np.random.default_rng(nulls.seed), kinship(names), []
    orders = [rng.permutation(len(names)) for _ in range(nulls.permutations)]
    for kind, mask in masks.items():
        if not mask.any():
            continue
        permuted = np.stack([mask[np.ix_(order, order)] for order in orders]).reshape(len(orders), -1)
        has = mask.any(axis=1)
        for at, layer in enumerate(layers):
            own = cosines[at].numpy()
            found = bootstrap((own * mask).sum(1)[has] / mask.sum(1)[has], seed=nulls.seed)
            null = permuted @ own.ravel() / mask.sum()
            chance = {"null": float(null.mean())} | dict(
                zip(("null_low", "null_high"), np.quantile(null, (0.025, 0.975)).tolist(), strict=True)
            )
            high = float(own[mask].mean())  # the null's own statistic: the mean over pairs
            more = {"p": (1 + int((null >= high).sum())) / (1 + len(null)), "n": int(has.sum()), "reason": reason}
            if ceilings is not None:
                more["ceiling"] = float(np.nanmean(ceilings[at].numpy()[mask]))
            rows.append(row("mean cosine", kind, layer, found.value, low=found.low, high=found.high, **chance, **more))
    return rows


def nearest_rows(
    cosines: Float[Tensor, "l k k"],
    layers: Sequence[int],
    nulls: Nulls,
    ceilings: Float[Tensor, "l k k"] | None,
    reason: str,
) -> list[dict[str, Any]]:
    """Per layer: mean over languages of the cosine with the nearest other, beside vectors as unevenly spread but
    ungrouped (`rotated_cosines`).
    """
    rows = []
    for at, layer in enumerate(layers):
        off = cosines[at].clone().fill_diagonal_(-2.0)
        best, where = off.max(dim=1)
        found = bootstrap(best.numpy(), seed=nulls.seed)
        null = clustering.rotated_cosines(cosines[at], nulls.rotations, nulls.seed)
        null = (null - 3 * torch.eye(null.shape[-1])).amax(-1).mean(-1)
        low, high = null.quantile(torch.tensor([0.025, 0.975], dtype=null.dtype)).tolist()
        p = (1 + int((null >= found.value).sum())) / (1 + len(null))
        more: dict[str, Any] = {
            "null": float(null.mean()),
            "null_low": low,
            "null_high": high,
            "p": p,
            "reason": reason,
        }
        if ceilings is not None:
            more["ceiling"] = float(ceilings[at].gather(1, where[:, None]).nanmean())
        rows.append(
            row("nearest cosine", "all", layer, found.value, low=found.low, high=found.high, n=len(best), **more)
        )
    return rows


def turn_rows(
    vectors: Sequence[SteeringVector], layers: Sequence[int], nulls: Nulls, reason: str
) -> list[dict[str, Any]]:
    """Per layer, against the layer before: cosine of the same vector, the part of its squared change that is turning and
    not growing, and the overlap of the subspaces all vectors span.
    """
    width, rows = vectors[0].d_model, []
    low, middle, high = similarity.random_cosine_quantiles(width)
    for before, layer in pairwise(layers):
        a, b = (torch.stack([v.raw(at).double() for v in vectors]) for at in (before, layer))
        kept = bootstrap(torch.cosine_similarity(a, b, dim=1).numpy(), seed=nulls.seed)
        chance = {"null": middle, "null_low": low, "null_high": high}
        rows.append(_with_interval("kept from the layer before", "one vector: cosine", layer, kept, chance, reason))
        angle, norm = similarity.angle_norm_parts(a, b)
        turn = bootstrap((angle / (angle + norm)).numpy(), seed=nulls.seed)
        why = "a share, which has no null; " + reason
        rows.append(_with_interval("turning", "turning's share of change", layer, turn, {}, why))
        rank = int(torch.linalg.matrix_rank(b, rtol=1e-6))
        expected = similarity.random_overlap(rank, rank, width)
        more = {"null": expected, "null_low": expected, "null_high": expected, "n": rank}
        reached = similarity.subspace_overlap(a, b)
        rows.append(row("kept from the layer before", "span of all: overlap", layer, reached, **more, reason=reason))
    return rows


def _with_interval(
    measure: str, series: str, layer: int, found: Any, more: Mapping[str, float], reason: str
) -> dict[str, Any]:
    return row(measure, series, layer, found.value, low=found.low, high=found.high, n=found.n, **more, reason=reason)


def of(table: pd.DataFrame, measure: str, series: str | None = None) -> Any:
    """The rows of one measure, and of one series of it."""
    kept = table[table["measure"] == measure]
    return kept if series is None else kept[kept["series"] == series]


def draw_matrix(pairs: pd.DataFrame, layer: int, title: str) -> Figure:
    """The matrix of one layer in the order of its tree, rows marked by genus."""
    matrix = square(pairs, layer)
    names = [str(name) for name in matrix.index]
    grown = clustering.tree(torch.tensor(matrix.to_numpy(float)))
    groups = dict(zip(names, grouping(names, "genus"), strict=True))
    low = float(np.floor(matrix.to_numpy().min() * 10) / 10)
    figure, _ = figures.clustered(matrix, grown, groups, low=low, high=1.0, label=f"cosine at layer {layer}")
    headline(figure, title)
    return figure


def kin_panel(axes: Axes, table: pd.DataFrame) -> None:
    """Mean cosine by kinship, beside permuted languages and, where known, the noise ceiling."""
    shown = [kind for kind in KIN if len(of(table, "mean cosine", kind))]
    names = {KIN[1]: "same family only"}
    figures.lines(axes, of(table, "mean cosine"), x="layer", series="series", series_order=shown, names=names)
    top = of(table, "mean cosine", shown[0])
    if top["ceiling"].notna().any():
        axes.plot(top["layer"], top["ceiling"], color="black", ls="--", lw=1, label="noise ceiling")
    figures.null_band(axes, top, x="layer", label="languages permuted")
    axes.set(xlabel="layer", ylabel="mean cosine")
    legend(axes)


def tree_panel(axes: Axes, table: pd.DataFrame) -> None:
    """Adjusted Rand index of the tree by level, beside permuted labels."""
    figures.lines(axes, of(table, "tree agreement"), x="layer", series="series", series_order=LEVELS)
    figures.null_band(axes, of(table, "tree agreement", "genus"), x="layer", label="genera permuted")
    axes.set(xlabel="layer", ylabel="adjusted Rand index")
    legend(axes)


def legend(axes: Axes, room: float = 0.22) -> None:
    """The legend in two columns over the curves, in `room` made for it; no tick above 1."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, low + (high - low) / (1 - room))
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(1.0, high)])
    axes.legend(loc="upper left", ncols=2, columnspacing=0.8, handlelength=1.5, fontsize=8, borderaxespad=0.1)


def title(axes: Axes, text: str) -> None:
    """A panel's finding, small enough to stand over half a page."""
    axes.set_title(text, fontsize=9.5)


def headline(figure: Figure, text: str) -> None:
    """The finding, above all panels."""
    figure.suptitle(text, fontsize=10.5, fontweight="bold", x=0.01, ha="left")


def best_layer(table: pd.DataFrame, level: Level) -> Any:
    """The row where the tree agrees best with a level."""
    own = of(table, "tree agreement", level)
    return own.loc[own["value"].idxmax()]


def nearest_kin(pairs: pd.DataFrame, layer: int) -> tuple[int, int]:
    """How many languages with kin have kin as nearest neighbour, and how many have kin."""
    matrix = square(pairs, layer)
    names = [str(name) for name in matrix.index]
    found = clustering.neighbour_agreement(
        torch.tensor(matrix.to_numpy(float)), grouping(names, "genus"), permutations=1
    )
    return round(found.value * found.n), found.n


def name_of(code: str) -> str:
    """The English name of a language."""
    return LINEAGES[code].name
