"""Language vectors beside quality vectors: cosines with nulls and ceilings, the noise they share, and their subspaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses import _similarity as shared
from steerlab import reliability, similarity
from steerlab.evaluation.stats import bootstrap
from steerlab.reliability import TextMeans
from steerlab.vectors import SteeringVector


def quality_rows(
    nulls: shared.Nulls,
    language: Mapping[str, SteeringVector],
    quality: Mapping[str, SteeringVector],
    layers: Sequence[int],
    sure: Mapping[str, Tensor],
    sure_quality: Mapping[str, Tensor],
) -> list[dict[str, Any]]:
    """Cosine of a language vector with its own quality vector: each (null: random directions), and the mean of all (null:
    quality vectors permuted over the languages, two-sided p).

    A quality vector named "sl back-translated" is a second one of sl: it has its own row and no part in the mean.
    """
    names = [name for name in quality if name in language]
    every = similarity.cosine_matrix([*(language[c] for c in names), *(quality[c] for c in names)])
    cross = every[:, : len(names), len(names) :].numpy()
    rng, place = np.random.default_rng(nulls.seed), np.arange(len(names))
    orders = [rng.permutation(len(names)) for _ in range(nulls.permutations)]
    low, middle, high = similarity.random_cosine_quantiles(next(iter(quality.values())).d_model)
    rows, ceilings = [], []
    for name, vector in quality.items():
        code = name.split(" ")[0]
        ceiling = similarity.noise_ceiling(torch.stack([sure[code], sure_quality[name]], dim=-1))[:, 0, 1]
        ceilings += [ceiling] if name in names else []
        for layer, value, top in zip(layers, similarity.cosine_curve(language[code], vector), ceiling, strict=True):
            more = {"null": middle, "null_low": low, "null_high": high, "ceiling": float(top), "n": 1}
            rows.append(shared.row("language and quality", name, layer, float(value), **more))
    for at, layer in enumerate(layers):
        found = bootstrap(cross[at].diagonal().copy(), seed=nulls.seed)
        null = np.array([cross[at][place, order].mean() for order in orders])
        middle, reach = float(null.mean()), abs(found.value - float(null.mean()))
        low, high = np.quantile(null, (0.025, 0.975)).tolist()
        chance = {"null": middle, "null_low": low, "null_high": high}
        chance["p"] = (1 + int((np.abs(null - middle) >= reach).sum())) / (1 + len(null))
        chance["ceiling"] = float(torch.stack(ceilings)[:, at].nanmean())
        bounds = {"low": found.low, "high": found.high, "n": len(names)}
        rows.append(shared.row("language and quality", "mean", layer, found.value, **bounds, **chance))
    return rows


def disjoint_rows(
    means: Mapping[str, Mapping[str, TextMeans]],
    sides: Mapping[str, tuple[TextMeans, TextMeans]],
    rows: Mapping[str, Sequence[int]],
    layers: Sequence[int],
) -> list[dict[str, Any]]:
    """The same mean cosine on halves: both vectors from the same half, or from different ones. Sentences that enter both
    vectors lend both the same noise; what disjoint halves show is free of it.
    """
    half = {
        c: {code: [own.rows(np.arange(k, len(own.tokens), 2)) for k in (0, 1)] for code, own in by.items()}
        for c, by in means.items()
    }
    language = [
        reliability.language_fit({c: {code: two[k] for code, two in by.items()} for c, by in half.items()})
        for k in (0, 1)
    ]
    why = "no interval: two halves; nulls and ceiling stand with the mean over all texts"
    found: dict[str, list[Tensor]] = {"halves, same texts": [], "halves, disjoint texts": []}
    for code in [name for name in sides if name in language[0]]:
        parity = np.array(rows[code]) % 2
        quality = [
            reliability.contrast_fit(sides[code][0].rows(kept), sides[code][1].rows(kept))
            for kept in (np.flatnonzero(parity == k) for k in (0, 1))
        ]
        for a in (0, 1):
            for b in (0, 1):
                series = "halves, same texts" if a == b else "halves, disjoint texts"
                found[series].append(similarity.cosine_curve(language[a][code], quality[b]))
    return [
        shared.row("language and quality", series, layer, float(torch.stack(own)[:, at].mean()), n=len(own), reason=why)
        for series, own in found.items()
        for at, layer in enumerate(layers)
    ]


def subspace_rows(
    vectors: Sequence[SteeringVector], quality: Sequence[SteeringVector], layers: Sequence[int]
) -> list[dict[str, Any]]:
    """Smallest principal angle (degrees) and overlap of the span of all language vectors with that of all quality vectors."""
    rng, width, rows = np.random.default_rng(0), vectors[0].d_model, []
    n, m = len(vectors) - 1, len(quality)  # language vectors sum to zero: one dimension less
    drawn = [[torch.from_numpy(rng.standard_normal((k, width))) for k in (n, m)] for _ in range(200)]
    null = np.array([float(similarity.principal_angles(a, b)[0].rad2deg()) for a, b in drawn])
    low, high = np.quantile(null, (0.025, 0.975)).tolist()
    why = "no noise ceiling: an angle between spans has no split-half correction"
    for layer in layers:
        a, b = (torch.stack([v.raw(layer).double() for v in side]) for side in (vectors[:-1], quality))
        smallest = float(similarity.principal_angles(a, b)[0].rad2deg())
        chance = {"null": float(null.mean()), "null_low": low, "null_high": high, "n": len(null)}
        rows.append(shared.row("subspaces", "smallest angle (degrees)", layer, smallest, **chance, reason=why))
        expected = similarity.random_overlap(n, m, width)
        more = {"null": expected, "null_low": expected, "null_high": expected, "n": 1}
        rows.append(shared.row("subspaces", "overlap", layer, similarity.subspace_overlap(a, b), **more, reason=why))
    return rows
