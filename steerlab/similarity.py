"""How alike vectors are: cosines, angles, norms and subspaces, beside what chance and noise alone would show.

Between vectors, between layers, and between models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy import linalg, stats
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.vectors import SteeringVector


def shared_layers(vectors: Sequence[SteeringVector]) -> tuple[int, ...]:
    """The layers all vectors have, ascending. Raises `SteerlabError` when there are none or widths or streams
    differ.
    """
    if not vectors:
        raise SteerlabError("no vectors were given: give at least one.")
    if len({(v.d_model, v.stream) for v in vectors}) > 1:
        seen = ", ".join(f"{v.name!r} ({v.stream}, width {v.d_model})" for v in vectors)
        raise SteerlabError(f"vectors of different spaces can not be compared: {seen}.")
    shared = set(vectors[0].layers).intersection(*(v.layers for v in vectors[1:]))
    if not shared:
        raise SteerlabError(f"the {len(vectors)} vectors share no layer: fit them at the same layers.")
    return tuple(sorted(shared))


def cosine_matrix(vectors: Sequence[SteeringVector]) -> Float[Tensor, "l k k"]:
    """Cosines between all vectors at each of their shared layers (`shared_layers`), float64, diagonal 1."""
    layers = list(shared_layers(vectors))
    unit = torch.stack([v.select(layers).direction.double().cpu() for v in vectors], dim=1)
    unit = unit / unit.norm(dim=-1, keepdim=True)
    return (unit @ unit.mT).clamp(-1, 1)


def angle_norm(a: SteeringVector, b: SteeringVector) -> tuple[Float[Tensor, "l"], Float[Tensor, "l"]]:
    """Per shared layer the angle between the two in radians, and the raw norm of `a` over that of `b`."""
    layers = list(shared_layers([a, b]))
    p, q = (v.select(layers).direction.double().cpu() for v in (a, b))
    # Not the arc cosine, which loses half the digits of a small angle (Kahan, "How futile are mindless assessments", 2006).
    angle = 2 * torch.atan2((p - q).norm(dim=-1), (p + q).norm(dim=-1))
    ratio = a.select(layers).raw_norm.double().cpu() / b.select(layers).raw_norm.double().cpu()
    return angle, ratio


def cosine_curve(a: SteeringVector, b: SteeringVector) -> Float[Tensor, "l"]:
    """Cosine of the two at each of their shared layers, float64."""
    return cosine_matrix([a, b])[:, 0, 1]


def layer_cosines(a: SteeringVector, b: SteeringVector) -> Float[Tensor, "l m"]:
    """Cosine of every layer of `a` with every layer of `b`, rows in the order of `a.layers`.

    The two may come from different models of equal width. Nothing ties the axes of two models trained apart: a
    cosine between them is worth its distance from `random_cosine_quantiles`, and `clustering.matrix_agreement`
    compares them whatever their widths. Raises `SteerlabError` for vectors of unequal width.
    """
    if a.d_model != b.d_model:
        raise SteerlabError(
            f"vectors {a.name!r} and {b.name!r} have widths {a.d_model} and {b.d_model}: a cosine needs one width."
        )
    p, q = (v.direction.double().cpu() for v in (a, b))
    p, q = (x / x.norm(dim=-1, keepdim=True) for x in (p, q))
    return (p @ q.mT).clamp(-1, 1)


def angle_norm_parts(
    a: Float[Tensor, "*b d"], b: Float[Tensor, "*b d"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """The squared distance of two raw vectors in two parts that sum to it: for their angle and for their lengths.

    |a - b|^2 = 2 |a| |b| (1 - cos) + (|a| - |b|)^2. The first is 0 for parallel vectors, the second for equally
    long ones.
    """
    p, q = a.double(), b.double()
    m, n = p.norm(dim=-1), q.norm(dim=-1)
    # 1 - cos as half the squared distance of the unit vectors, which keeps the digits of a small angle.
    gap = (p / m[..., None] - q / n[..., None]).square().sum(-1) / 2
    return 2 * m * n * gap, (m - n).square()


def principal_angles(a: Float[Tensor, "n d"], b: Float[Tensor, "m e"]) -> Float[Tensor, "r"]:
    """Angles between the spans of the rows of `a` and of `b`, in radians, smallest first.

    The first is the smallest angle any two vectors of the spans make, the next the smallest orthogonal to those,
    and so on; dependent rows count once. Computed by Knyazev and Argentati 2002, exact for small angles too.
    Raises `SteerlabError` for rows of unequal width or a span of nothing.
    """
    if a.shape[1] != b.shape[1]:
        raise SteerlabError(f"rows of widths {a.shape[1]} and {b.shape[1]} were given: subspaces need one width.")
    if not bool(a.any()) or not bool(b.any()):
        raise SteerlabError("a subspace was given no row that is not 0: give at least one direction on each side.")
    angles = linalg.subspace_angles(a.double().cpu().numpy().T, b.double().cpu().numpy().T)
    return torch.from_numpy(angles[::-1].copy())


def subspace_overlap(a: Float[Tensor, "n d"], b: Float[Tensor, "m e"]) -> float:
    """Mean squared cosine of the principal angles: 1 when the smaller span lies within the larger, 0 when they are
    orthogonal.
    """
    return float(principal_angles(a, b).cos().square().mean())


def random_overlap(n: int, m: int, d_model: int) -> float:
    """What `subspace_overlap` is on average for random subspaces of dimensions n and m: max(n, m) / d."""
    return max(n, m) / d_model


def centred_cosine(k: int) -> float:
    """The mean cosine between k equally long vectors that sum to zero: -1 / (k - 1).

    Language vectors (mean minus the mean of the others' means) sum to zero by construction, so this and not 0 is
    "no likeness" among them. Where lengths differ, it is what random directions show on average.
    """
    if k < 2:
        raise SteerlabError(f"{k} vectors were given: a cosine needs at least two.")
    return -1 / (k - 1)


def spearman_brown(half: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Reliability of the whole from the agreement of its halves: 2 r / (1 + r) (Spearman 1910, Brown 1910).

    For vectors r is the cosine of the two estimates on disjoint halves of the texts: noise that is independent
    between the halves adds the same squared length to both, and half as much to the estimate on everything. What
    is 0 or below shows no signal; below 0 it is 2 r / (1 - r), so that noise scatters evenly between -1 and 1
    (Krus and Helmstadter 1993).
    """
    r = half.double()
    return 2 * r / (1 + r.abs())


def noise_ceiling(reliability: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k k"]:
    """The cosine that two estimates of one same direction would have: sqrt(R_i R_j), and 1 on the diagonal.

    NaN where a reliability is not above 0. Source: the correction for attenuation (Spearman 1904), turned around.
    """
    root = torch.where(reliability > 0, reliability, float("nan")).double().sqrt()
    ceiling = root[..., :, None] * root[..., None, :]
    return torch.where(torch.eye(ceiling.shape[-1], dtype=torch.bool), torch.ones_like(ceiling), ceiling)


def random_cosine_quantiles(
    d_model: int, quantiles: Sequence[float] = (0.025, 0.5, 0.975), centred: int | None = None
) -> list[float]:
    """Quantiles of the cosine between a fixed and a uniformly random direction: (1 + cos) / 2 is Beta((d-1)/2,
    (d-1)/2).

    With `centred=k`, of two of k random directions from each of which the mean of the others was taken, as in
    language vectors: each feature of the two correlates at -1 / (k - 1), and the cosine follows by Fisher's z, good
    to 0.01 from width 16 on.
    """
    if d_model < 2:
        raise SteerlabError(f"width {d_model} was given: directions need at least 2 dimensions.")
    if centred is None:
        half = (d_model - 1) / 2
        return [float(2 * stats.beta.ppf(q, half, half) - 1) for q in quantiles]
    rho = centred_cosine(centred)
    if rho == -1:
        return [-1.0 for _ in quantiles]
    middle, spread = math.atanh(rho) + rho / (2 * d_model), 1 / math.sqrt(max(d_model - 2, 1))
    return [math.tanh(middle + spread * float(stats.norm.ppf(q))) for q in quantiles]
