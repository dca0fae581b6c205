"""Directions from statistics of activations: one function per estimator, each returning a `SteeringVector`.

Every estimator but the difference of means finds a direction whose own length means nothing. So that raw norms
compare, the raw norm is always how far apart the two means lie along the direction, in activation units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.moments import Moments
from steerlab.provenance import Provenance
from steerlab.sampling import row_key
from steerlab.types import Stream
from steerlab.vectors import SteeringVector


def difference_of_means(
    positive: Moments,
    negative: Moments,
    *,
    name: str,
    stream: Stream = "resid_post",
    provenance: Provenance | None = None,
    method: str = "difference_of_means",
) -> SteeringVector:
    """Per layer mean(positive) - mean(negative). Means weigh tokens or texts as they were captured.

    The residual norm is that of both sides together. Raises `SteerlabError` when the sides differ in layers or
    width, or naming a layer where the means are equal. Source: Marks and Tegmark 2023 (arXiv 2310.06824), "mass
    mean".
    """
    positive, negative = positive.stream(stream), negative.stream(stream)
    _same_shape(name, positive, negative)
    weight = torch.stack([positive.count, negative.count])
    return SteeringVector.from_raw(
        name,
        positive.mean - negative.mean,
        positive.layers,
        residual_norm=(weight * torch.stack([positive.norm, negative.norm])).sum(0) / weight.sum(0),
        counts=(_weight(positive), _weight(negative)),
        stream=stream,
        provenance=(provenance or Provenance()).by(method),
    )


def quality_vector(
    human: Moments,
    degraded: Moments,
    *,
    name: str = "quality",
    stream: Stream = "resid_post",
    provenance: Provenance | None = None,
) -> SteeringVector:
    """Per layer mean(human) - mean(degraded), degraded being back-translated or corrupted text (Cegin et al.,
    arXiv 2606.18389).
    """
    return difference_of_means(
        human, degraded, name=name, stream=stream, provenance=provenance, method="quality_vector"
    )


def language_vectors(
    means: Mapping[str, Moments], *, stream: Stream = "resid_post", provenance: Provenance | None = None
) -> dict[str, SteeringVector]:
    """For every language, per layer, its mean minus the plain mean of the other languages' means (arXiv
    2606.18389).

    Each language counts once among the others, whatever its number of tokens. The residual norm is the plain
    mean over all languages. Means captured on different corpora carry a topic: see `align_corpora`. Raises
    `SteerlabError` with fewer than two languages.
    """
    if len(means) < 2:
        raise SteerlabError(f"{len(means)} languages were given: a language vector needs at least one other language.")
    chosen = {language: moments.stream(stream) for language, moments in means.items()}
    first = next(iter(chosen.values()))
    for language, moments in chosen.items():
        _same_shape(language, first, moments)
    total = torch.stack([m.mean for m in chosen.values()]).sum(0)
    norm = torch.stack([m.norm for m in chosen.values()]).mean(0)
    weight = sum(_weight(m) for m in chosen.values())
    return {
        language: SteeringVector.from_raw(
            language,
            m.mean - (total - m.mean) / (len(chosen) - 1),
            m.layers,
            residual_norm=norm,
            counts=(_weight(m), weight - _weight(m)),
            stream=stream,
            provenance=(provenance or Provenance()).by("language_vectors"),
        )
        for language, m in chosen.items()
    }


def paired_pca(
    positive: Float[Tensor, "n l d"],
    negative: Float[Tensor, "m l d"],
    layers: Sequence[int],
    *,
    name: str,
    stream: Stream = "resid_post",
    provenance: Provenance | None = None,
) -> SteeringVector:
    """Per layer the first principal component of the paired differences, its sign such that their mean projects
    positive.

    The differences are not centred: what all pairs share is the signal. That equals PCA of the pairs in random
    order, as in Zou et al. 2023 (arXiv 2310.01405). Row i of both sides is one pair.
    """
    if positive.shape != negative.shape or len(positive) < 2:
        raise SteerlabError(
            f"vector {name!r} was given {len(positive)} positive and {len(negative)} negative rows: pairs are needed, at least two."
        )
    difference = positive.double() - negative.double()
    _finite(name, difference, layers)
    directions = torch.stack([_first_component(difference[:, row]) for row in range(difference.shape[1])])
    return _along_means(name, directions, positive, negative, layers, stream, provenance, "paired_pca", orient=True)


def shrinkage_lda(
    positive: Moments,
    negative: Moments,
    *,
    name: str,
    shrinkage: Literal["oas"] | float = "oas",
    stream: Stream = "resid_post",
    provenance: Provenance | None = None,
) -> SteeringVector:
    """Per layer Fisher's direction S^-1 (mean(positive) - mean(negative)), S the pooled within-class
    covariance, shrunk.

    S is drawn toward its mean variance times the identity by `shrinkage` in 0 to 1, or by the
    oracle-approximating amount (Chen, Wiesel, Eldar and Hero 2010). Raises `SteerlabError` when the moments
    were captured without covariance.
    """
    positive, negative = positive.stream(stream), negative.stream(stream)
    _same_shape(name, positive, negative)
    if positive.covariance is None or negative.covariance is None:
        raise SteerlabError(f"vector {name!r} needs covariances: capture both sides with covariance=True.")
    if not isinstance(shrinkage, str) and not 0 <= shrinkage <= 1:
        raise SteerlabError(f"shrinkage {shrinkage} was given: choose 'oas' or a number from 0 to 1.")
    gap = positive.mean - negative.mean
    rows: list[Tensor] = []
    for k in range(len(gap)):
        count = float(positive.count[k] + negative.count[k])
        share = float(positive.count[k]) / count
        pooled = share * positive.covariance[k] + (1 - share) * negative.covariance[k]
        rho = oas_shrinkage(pooled, count) if isinstance(shrinkage, str) else shrinkage
        level = pooled.diagonal().mean()
        shrunk = (1 - rho) * pooled + rho * level * torch.eye(len(pooled), dtype=pooled.dtype)
        solution, failed = torch.linalg.solve_ex(shrunk, gap[k])
        if bool(failed) or not bool(solution.isfinite().all()):
            raise SteerlabError(
                f"vector {name!r} has a singular covariance at layer {positive.layers[k]}: use shrinkage 'oas', or more texts."
            )
        rows.append(solution)
    directions = torch.stack(rows)
    method = f"shrinkage_lda({shrinkage})"
    base = difference_of_means(positive, negative, name=name, stream=stream, provenance=provenance, method=method)
    unit = directions / directions.norm(dim=-1, keepdim=True)
    along = (gap * unit).sum(-1)
    return replace(base, direction=unit.float(), raw_norm=along.float())


def oas_shrinkage(covariance: Float[Tensor, "d d"], count: float) -> float:
    """The oracle-approximating shrinkage of a population covariance of `count` samples, between 0 and 1."""
    d = len(covariance)
    square = float(covariance.square().mean())
    level = float(covariance.diagonal().mean()) ** 2
    spread = (count + 1) * (square - level / d)
    return 1.0 if spread <= 0 else min(1.0, (square + level) / spread)


def logistic_direction(
    positive: Float[Tensor, "n l d"],
    negative: Float[Tensor, "m l d"],
    layers: Sequence[int],
    *,
    name: str,
    c: float = 1.0,
    stream: Stream = "resid_post",
    provenance: Provenance | None = None,
) -> SteeringVector:
    """Per layer the weights of an L2-regularised logistic regression on standardised features, mapped back to
    raw space.

    `c` is the inverse strength of the penalty, as in scikit-learn.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and the other estimators do without

    if not c > 0:
        raise SteerlabError(f"c = {c} was given: the inverse penalty must be above 0.")
    both = torch.cat([positive.double(), negative.double()])
    _finite(name, both, layers)
    labels = [1] * len(positive) + [0] * len(negative)
    rows: list[Tensor] = []
    for row in range(both.shape[1]):
        x = both[:, row]
        spread = x.std(0, correction=0)
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        fit = LogisticRegression(C=c, max_iter=10_000).fit(((x - x.mean(0)) / spread).numpy(), labels)
        rows.append(torch.from_numpy(fit.coef_[0]) / spread)
    method = f"logistic_direction({c:g})"
    return _along_means(name, torch.stack(rows), positive, negative, layers, stream, provenance, method)


def random_like(vector: SteeringVector, seed: int) -> SteeringVector:
    """A control: directions drawn uniformly from the sphere with the layers, norms and counts of `vector`.

    A layer's direction depends on `seed`, the width and the layer only.
    """
    rows: list[Tensor] = []
    for layer in vector.layers:
        source = torch.Generator().manual_seed(row_key(seed, "random_like", layer))
        rows.append(torch.randn(vector.d_model, generator=source, dtype=torch.float64))
    directions = torch.stack(rows)
    directions = (directions / directions.norm(dim=-1, keepdim=True)).float().to(vector.direction.device)
    provenance = vector.provenance.by(f"random_like({vector.name}, seed {seed})")
    made = replace(vector, name=f"random{seed}", direction=directions, provenance=provenance, choice=None)
    return replace(made, projections=None)


def _along_means(
    name: str,
    directions: Tensor,
    positive: Tensor,
    negative: Tensor,
    layers: Sequence[int],
    stream: Stream,
    provenance: Provenance | None,
    method: str,
    orient: bool = False,
) -> SteeringVector:
    """A vector from rows of activations: `directions` with the distance of the means along them as raw norm."""
    if positive.shape[1:] != negative.shape[1:] or positive.shape[1] != len(layers):
        raise SteerlabError(
            f"vector {name!r} was given activations of shapes {tuple(positive.shape)} and {tuple(negative.shape)} "
            f"for {len(layers)} layers: one slice per layer and one width are needed on both sides."
        )
    gap = positive.double().mean(0) - negative.double().mean(0)
    unit = directions / directions.norm(dim=-1, keepdim=True)
    raw = (gap * unit).sum(-1, keepdim=True) * unit
    if not orient:  # the classifier's sign stands, even where it disagrees with the means
        raw = raw * torch.where((raw * unit).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return SteeringVector.from_raw(
        name,
        raw,
        layers,
        residual_norm=torch.cat([positive, negative]).double().norm(dim=-1).mean(0),
        counts=(float(len(positive)), float(len(negative))),
        stream=stream,
        provenance=(provenance or Provenance()).by(method),
    )


def _first_component(x: Tensor) -> Tensor:
    """The first right singular vector of `x` "n d", through the smaller of the two Gram matrices."""
    if len(x) < x.shape[1]:
        return x.T @ torch.linalg.eigh(x @ x.T).eigenvectors[:, -1]
    return torch.linalg.eigh(x.T @ x).eigenvectors[:, -1]


def _weight(moments: Moments) -> float:
    return float(moments.count.max())


def _finite(name: str, x: Tensor, layers: Sequence[int]) -> None:
    bad = ~x.isfinite().all(-1).all(0)
    if bool(bad.any()):
        layer = layers[int(bad.nonzero()[0, 0])]
        raise SteerlabError(
            f"vector {name!r} was given NaN or infinite activations at layer {layer}: capture them again."
        )


def _same_shape(name: str, one: Moments, other: Moments) -> None:
    if one.layers != other.layers or one.d_model != other.d_model:
        raise SteerlabError(
            f"vector {name!r} was given moments of layers {one.layers} and {other.layers} and widths {one.d_model} and {other.d_model}: "
            "capture both sides at the same layers of one model."
        )
