"""Which component writes a direction: what embedding, attention and MLPs add to it, and what is left without one of them.

The contributions sum to the stream exactly; a component is taken away by replacing it with its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.ablation.layers import LayerAblation, layer_effects
from steerlab.capture import passes, select
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.types import ALL, Positions, Site
from steerlab.vectors import SteeringVector

SEPARATION = "separation"  # the name of the readout that necessity is measured by


@dataclass(frozen=True, eq=False)
class Contributions:
    """How far each component moves each text along a unit direction, in activation units.

    `values` "n k": mean over the text's tokens of what `components[k]` adds, projected; the first component is what
    enters block 0. `total` "n": the projection of the stream at `target`, which the values sum to.
    """

    components: tuple[Site, ...]
    target: Site
    values: Float[np.ndarray, "n k"]
    total: Float[np.ndarray, "n"]

    def rows(self, start: int, stop: int) -> Contributions:
        """The texts from `start` up to `stop`."""
        part = slice(start, stop)
        return Contributions(self.components, self.target, self.values[part], self.total[part])


def component_name(site: Site) -> str:
    """ "embedding", "attention 3", "MLP 3"."""
    kinds = {"attn_out": "attention", "mlp_out": "MLP"}
    return f"{kinds[site.stream]} {site.layer}" if site.stream in kinds else "embedding"


def components_of(model: TracedModel, target: Site) -> tuple[Site, ...]:
    """What the stream at `target` is the sum of: the input of block 0, then every attention and MLP up to it.

    Raises `SteerlabError` for a target that is not the stream itself, and for a model whose blocks do not simply add.
    """
    if target.stream not in ("resid_pre", "resid_post"):
        raise SteerlabError(
            f"contributions to {target.stream} were asked for: only the stream (resid_pre or resid_post) is a sum of them."
        )
    last = target.layer + (target.stream == "resid_post")
    found = [Site(layer, stream) for layer in range(last) for stream in ("attn_out", "mlp_out")]
    model.check_sites([target, *found])
    return (Site(0, "resid_pre"), *found)


def contributions(
    model: TracedModel,
    texts: Sequence[str],
    vector: SteeringVector,
    layer: int,
    *,
    positions: Positions | str = ALL,
    token_budget: int = 4096,
) -> Contributions:
    """What every component adds along the vector's direction at `layer`, text by text, in one pass.

    For each token the stream is the sum of what was added to it, so the values of a text sum to `total` up to the
    rounding of the model's own additions. In Gemma-2 what is added is the output of the norms behind attention and
    MLP. BOS is left out; texts beyond the context are cut.

    Raises `SteerlabError` as `components_of` does, for a vector of another width, and for a text without a token at
    `positions`.
    """
    target = Site(layer, vector.stream)
    parts = components_of(model, target)
    unit = vector.at(layer).double()
    if len(unit) != model.d_model:
        raise SteerlabError(
            f"vector {vector.name!r} has width {len(unit)}, but {model.name} has width {model.d_model}: "
            "fit a vector on this model."
        )
    unit = unit / unit.norm()
    picked = select(model, texts, positions, False, True, model.context_length)
    found = np.full((len(texts), len(parts) + 1), np.nan)
    sites = (*parts, target)
    for members, batch, mask in passes(model, picked, token_budget, False, "components"):
        bare = [i for i, count in zip(members, mask.sum(1).tolist(), strict=True) if not count]
        if bare:
            raise SteerlabError(
                f"no token of the text {texts[bare[0]][:60]!r} is at positions {picked.positions}: choose other positions."
            )

        def keep(site: Site, h: Tensor, members: list[int] = members, mask: Tensor = mask) -> None:
            along = torch.where(mask, h.double() @ unit.to(h.device), 0.0).sum(1) / mask.sum(1)
            for column in (k for k, own in enumerate(sites) if own == site):
                found[members, column] = along.cpu().numpy()

        model.forward(batch, read=tuple(dict.fromkeys(sites)), visit=keep)
    return Contributions(parts, target, found[:, :-1], found[:, -1])


def contribution_shares(
    positive: Contributions, negative: Contributions, *, paired: bool = True, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """One row per component: its part of the difference between two sets of texts, mean(positive) - mean(negative), in
    activation units ("difference") and as a share of the whole ("value"), with bootstrap bounds of the share over texts.

    The shares sum to 1; a component that works against the difference has a negative one. `paired`: row i of both sides
    is one pair (a translation, say) and is drawn together. Raises `SteerlabError` for sets of different components, and
    for a whole difference whose interval holds 0, of which there are no shares.
    """
    if (positive.components, positive.target) != (negative.components, negative.target):
        raise SteerlabError("the two sets of contributions are of different components: take both at one layer.")
    n, m = len(positive.total), len(negative.total)
    if paired and n != m:
        raise SteerlabError(f"{n} and {m} texts were given: pairs need as many on both sides, or give paired=False.")
    rng = np.random.default_rng(seed)
    draws = _weights(rng, n, resamples)
    others = draws if paired else _weights(rng, m, resamples)
    gaps = draws @ positive.values - others @ negative.values
    gap = positive.values.mean(0) - negative.values.mean(0)
    bounds = np.quantile(gaps.sum(1), (0.025, 0.975))
    if bounds[0] <= 0 <= bounds[1]:
        raise SteerlabError(
            f"the two sets of texts differ by {gap.sum():.3g} along the direction, not reliably other than 0 "
            f"({bounds[0]:.3g} to {bounds[1]:.3g}): shares of it have no meaning; give more texts, or another direction."
        )
    shares = np.quantile(gaps / gaps.sum(1, keepdims=True), (0.025, 0.975), axis=0)
    rows = [
        {
            "component": component_name(site), "layer": -1 if k == 0 else site.layer,
            "kind": component_name(site).split(" ")[0], "difference": gap[k], "value": gap[k] / gap.sum(),
            "low": shares[0, k], "high": shares[1, k], "n": n if paired else n + m,
        }
        for k, site in enumerate(positive.components)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _weights(rng: np.random.Generator, n: int, resamples: int) -> Float[np.ndarray, "r n"]:
    """Bootstrap weights of n items that sum to 1 in every row."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n


def left_of(
    plain: Float[np.ndarray, "p 2"], edited: Float[np.ndarray, "p 2"], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Share of the difference between two columns (positive, negative side of each pair) that an edit leaves, with its 95 %
    bootstrap interval over pairs.
    """
    was, now = plain[:, 0] - plain[:, 1], edited[:, 0] - edited[:, 1]
    draws = _weights(np.random.default_rng(seed), len(was), resamples)
    low, high = np.quantile((draws @ now) / (draws @ was), (0.025, 0.975)).tolist()
    return float(now.mean() / was.mean()), low, high


def necessity(
    model: TracedModel,
    positive: Sequence[str],
    negative: Sequence[str],
    vector: SteeringVector,
    layer: int,
    reference: Sequence[str],
    *,
    seed: int = 0,
    token_budget: int = 4096,
) -> pd.DataFrame:
    """One row per attention and MLP up to `layer`: the share of the difference between the sides, along the vector at
    `layer`, that is left ("value", low, high over pairs) when the component is replaced by its mean over the reference
    texts; with the mean loss_change and kl over both sides.

    positive[i] and negative[i] are a pair. A component may matter less than it contributes (others make up for it) or
    more (others build on it). Raises `SteerlabError` as `components_of` and `layer_effects` do.
    """
    if len(positive) != len(negative):
        raise SteerlabError(f"{len(positive)} and {len(negative)} texts were given: pairs need as many on both sides.")
    target = Site(layer, vector.stream)
    ablations = [
        LayerAblation(site.layer, "attn_out" if site.stream == "attn_out" else "mlp_out", "mean")
        for site in components_of(model, target)[1:]
    ]
    texts, pairs = [*positive, *negative], len(positive)
    readouts = {SEPARATION: (target, vector.at(layer))}
    table = layer_effects(model, texts, ablations, reference=reference, readouts=readouts, token_budget=token_budget)
    measured = table[SEPARATION].to_numpy(float).reshape(-1, 2, pairs).transpose(0, 2, 1)
    changes = table[["loss_change", "kl"]].to_numpy(float).reshape(len(ablations) + 1, -1, 2).mean(1)
    rows = []
    for k, one in enumerate(ablations, start=1):
        value, low, high = left_of(measured[0], measured[k], seed=seed)
        name = component_name(one.sites[0])
        rows.append(
            {
                "component": name, "layer": one.layer, "kind": name.split(" ")[0], "value": value, "low": low,
                "high": high, "n": pairs, "loss_change": changes[k, 0], "kl": changes[k, 1],
            }
        )  # fmt: skip
    return pd.DataFrame(rows)
