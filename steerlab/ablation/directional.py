"""Directional ablation: a vector taken out of the stream, and whether what it stood for can still be read.

It goes at one layer, from a layer on, at all layers, or from all that writes to the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab import probes
from steerlab.ablation.edited import edited_means
from steerlab.ablation.erasure import probe_again
from steerlab.capture import choice
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.types import Site, Stream
from steerlab.vectors import SteeringVector

Scope = Literal["layer", "onward", "all", "writers"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


def removal(vector: SteeringVector, layer: int, scope: Scope, n_layers: int) -> tuple[Intervention, ...]:
    """The interventions that take a vector's direction out, at strength 1.

    "layer": at this layer of the vector's stream. "onward": at this layer and every later one, each with its own
    direction. "all": at every layer of the vector, each with its own. "writers": the one direction of `layer`, out of the
    input of block 0 and of what every attention and MLP adds, so that nothing in the model ever writes it (Arditi et al.
    2024, arXiv 2406.11717); its model must have blocks that simply add.

    Raises `SteerlabError` for another scope, and for a layer the vector has no direction for.
    """
    choice("scope", scope, Scope)
    vector.row(layer)
    if scope != "writers":
        reach = {"layer": [layer], "onward": [k for k in vector.layers if k >= layer], "all": list(vector.layers)}
        return (Intervention(vector, tuple(sorted(reach[scope])), operator="ablate"),)
    everywhere = tuple(range(n_layers))
    return (
        Intervention(spread(vector, layer, (0,), "resid_pre"), 0, operator="ablate"),
        Intervention(spread(vector, layer, everywhere, "attn_out"), everywhere, operator="ablate"),
        Intervention(spread(vector, layer, everywhere, "mlp_out"), everywhere, operator="ablate"),
    )


def spread(vector: SteeringVector, layer: int, layers: Sequence[int], stream: Stream) -> SteeringVector:
    """The vector's one direction at `layer`, put at other layers of another stream. Residual norms are those of its own
    stream and layer, and not known there.
    """
    rows = [vector.row(layer)] * len(layers)
    return SteeringVector(
        name=f"{vector.name}@{layer}",
        direction=vector.direction[rows],
        raw_norm=vector.raw_norm[rows],
        residual_norm=torch.full((len(layers),), float("nan")),
        counts=vector.counts,
        layers=tuple(layers),
        stream=stream,
        provenance=vector.provenance,
    )


def subspace_removal(
    basis: Float[np.ndarray, "k d"], layers: Sequence[int], name: str = "subspace", stream: Stream = "resid_post"
) -> tuple[Intervention, ...]:
    """Interventions that take k orthonormal directions out at these layers: one ablation after another is the projection
    onto what is left, because the directions are orthogonal.

    Raises `SteerlabError` for rows that are not orthonormal.
    """
    rows = torch.from_numpy(np.ascontiguousarray(basis)).double()
    if not torch.allclose(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64), atol=1e-5):
        raise SteerlabError(
            f"{len(rows)} directions that are not orthonormal were given: make them so with erasure.orthonormal first."
        )
    vectors = [
        SteeringVector.from_raw(f"{name} {k}", row.expand(len(layers), -1), layers, stream=stream)
        for k, row in enumerate(rows)
    ]
    return tuple(Intervention(v, tuple(layers), operator="ablate") for v in vectors)


def information(
    model: TracedModel,
    texts: Sequence[str],
    y: Int[Tensor, "n"],
    groups: Int[Tensor, "m"],
    removals: Mapping[str, Sequence[Intervention]],
    layers: Sequence[int] | None = None,
    kind: probes.Kind = "logistic",
    *,
    within: bool = False,
    seed: int = 0,
    shuffles: int = 1,
    resamples: int = 500,
    token_budget: int = 4096,
) -> pd.DataFrame:
    """Can the labels still be read, at these layers, from the mean activation of a text when directions are taken out
    while the model runs?

    within=True takes the mean of its group from every text first, which asks what tells the texts of one group apart (the
    human side of a pair from the other) and sees differences far smaller than those between groups.

    One row per removal, layer and probe ("before", "fixed", "refitted": see `erasure.probe_again`), all on the same folds.
    A layer before the first one a removal touches is left out for it. Raises `SteerlabError` as the probes do.
    """
    read = [Site(layer) for layer in (range(model.n_layers) if layers is None else layers)]
    plain = edited_means(model, texts, read, token_budget=token_budget)
    rows: list[pd.DataFrame] = []
    for name, interventions in removals.items():
        first = min(layer for own in interventions for layer in own.at)
        reached = [k for k, site in enumerate(read) if site.layer >= first]
        if not reached:
            raise SteerlabError(f"the removal {name!r} starts at layer {first}, behind all layers that are read.")
        sites = [read[k] for k in reached]
        left = edited_means(model, texts, sites, interventions, token_budget=token_budget)
        for place, k in enumerate(reached):
            options: dict[str, Any] = {"seed": seed, "shuffles": shuffles, "resamples": resamples}
            sides = [_within(own, groups) if within else own for own in (plain[:, k], left[:, place])]
            found = probe_again(sides[0], sides[1], y, groups, kind, **options)
            found.insert(0, "removal", name)
            found.insert(1, "layer", read[k].layer)
            rows.append(found)
    return pd.concat(rows, ignore_index=True)


def _within(x: Float[Tensor, "n d"], groups: Int[Tensor, "n"]) -> Float[Tensor, "n d"]:
    """Every row without the mean of its group."""
    _, group = torch.unique(groups, return_inverse=True)
    total = torch.zeros(int(group.max()) + 1, x.shape[1], dtype=torch.float64).index_add_(0, group, x.double())
    return (x.double() - (total / torch.bincount(group)[:, None])[group]).to(x.dtype)
