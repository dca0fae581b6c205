"""Streaming count, mean and variance (and covariance) of activations at many sites, in float64.

Batches are merged with the pairwise update of Chan, Golub and LeVeque, "Updating formulae and a pairwise
algorithm for computing sample variances", 1979, so memory does not grow with the data and no precision is lost
to a large mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.types import Site, Stream

# Values converted to float64 at a time: small enough to stay in the cache, which is what makes an update cheap.
_BLOCK = 1 << 18


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of activations, row k for `sites[k]`, float64 on the CPU.

    `count` "k": total weight (tokens, or texts when each text weighs 1). `mean` "k d". `variance` "k d":
    population variance (divided by the count). `norm` "k": mean L2 norm of single activations, the "residual
    norm" strengths are relative to. `covariance` "k d d" (population) or None.
    """

    sites: tuple[Site, ...]
    count: Float64[Tensor, "k"]
    mean: Float64[Tensor, "k d"]
    variance: Float64[Tensor, "k d"]
    norm: Float64[Tensor, "k"]
    covariance: Float64[Tensor, "k d d"] | None = None

    @property
    def d_model(self) -> int:
        return self.mean.shape[1]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer of each row, in the order of `sites`."""
        return tuple(site.layer for site in self.sites)

    def stream(self, stream: Stream) -> Moments:
        """The rows of one stream. Raises `SteerlabError` when there are none."""
        rows = [k for k, site in enumerate(self.sites) if site.stream == stream]
        if not rows:
            seen = ", ".join(dict.fromkeys(site.stream for site in self.sites))
            raise SteerlabError(
                f"stream {stream!r} was not captured (these were: {seen}): capture it, or choose one of these."
            )
        return self._rows(rows)

    def site(self, site: Site) -> Moments:
        """The row of one site, still with its leading axis. Raises `SteerlabError` when it was not captured."""
        if site not in self.sites:
            raise SteerlabError(f"site {site.stream} of layer {site.layer} was not captured: capture it first.")
        return self._rows([self.sites.index(site)])

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of activations together, as if captured in one go."""
        kinds = [(m.sites, m.d_model, m.covariance is None) for m in (self, other)]
        if kinds[0] != kinds[1]:
            raise SteerlabError(
                "the two moments differ in sites, width or covariance: capture both at the same sites of one model."
            )
        share = (other.count / (self.count + other.count))[:, None]
        gap = other.mean - self.mean
        spread = share * (1 - share)
        covariance = None
        if self.covariance is not None and other.covariance is not None:
            outer = gap[:, :, None] * gap[:, None, :]
            covariance = torch.lerp(self.covariance, other.covariance, share[..., None]) + spread[..., None] * outer
        return replace(
            self,
            count=self.count + other.count,
            mean=self.mean + share * gap,
            variance=torch.lerp(self.variance, other.variance, share) + spread * gap * gap,
            norm=torch.lerp(self.norm, other.norm, share[:, 0]),
            covariance=covariance,
        )

    def _rows(self, rows: list[int]) -> Moments:
        covariance = None if self.covariance is None else self.covariance[rows]
        sites = tuple(self.sites[k] for k in rows)
        return Moments(sites, self.count[rows], self.mean[rows], self.variance[rows], self.norm[rows], covariance)


class MomentsAccumulator:
    """Accumulates `Moments` over batches of activations; its memory is that of the result.

    `device` is where the sums live: give the model's device, so that only the result is copied.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        d_model: int,
        covariance: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        if not sites or d_model < 1:
            raise SteerlabError(
                f"{len(sites)} sites and width {d_model} were given: at least one site and a width of 1 are needed."
            )
        if len(set(sites)) != len(sites):
            raise SteerlabError("a site was given twice: name each site once.")
        self.sites = tuple(sites)
        self.d_model = d_model
        k = len(self.sites)
        self._count = torch.zeros(k, dtype=torch.float64, device=device)
        self._mean = torch.zeros(k, d_model, dtype=torch.float64, device=device)
        self._squares = torch.zeros(
            k, d_model, dtype=torch.float64, device=device
        )  # weighted squared deviations from the mean
        self._norms = torch.zeros(k, dtype=torch.float64, device=device)
        self._products = torch.zeros(k, d_model, d_model, dtype=torch.float64, device=device) if covariance else None

    def update(self, site_index: int, x: Float[Tensor, "n d"], weight: Float[Tensor, "n"] | None = None) -> None:
        """Add the activations `x` at `sites[site_index]`, each with its weight (1 when None; 0 leaves it out,
        NaN and all).

        Raises `SteerlabError` naming the site when an activation is NaN or infinite; the sums are then as before.
        """
        if weight is not None and not bool(((weight > 0) & (weight < torch.inf)).all()):
            if not bool(((weight >= 0) & (weight < torch.inf)).all()):
                raise SteerlabError(
                    "an activation was given a weight that is negative or not finite: weights are 0 or more."
                )
            kept = weight > 0  # dropped, not multiplied by 0: padding may hold NaN
            x, weight = x[kept], weight[kept]
        if len(x) == 0:
            return
        if x.shape[1] != self.d_model:
            raise SteerlabError(
                f"activations of width {x.shape[1]} were given, {self.d_model} was expected: one width per accumulator."
            )
        total, mean, squares, norms, products = self._batch(x, weight, self._start(site_index, x))
        if not bool(squares.isfinite().all()):
            site = self.sites[site_index]
            raise SteerlabError(
                f"an activation at {site.stream} of layer {site.layer} is NaN or infinite: "
                "run the model in float32 or bfloat16, or lower the steering strength."
            )
        self._combine(site_index, total, mean, squares, norms, products)

    def update_many(self, x: Float[Tensor, "k n d"], weight: Float[Tensor, "n"] | None = None) -> None:
        """`update` for every site at once, all with the same weights."""
        if len(x) != len(self.sites):
            raise SteerlabError(
                f"activations for {len(x)} sites were given, {len(self.sites)} were expected: one slice per site."
            )
        for k in range(len(self.sites)):
            self.update(k, x[k], weight)

    def merge(self, other: MomentsAccumulator) -> None:
        """Take in what another accumulator over the same sites has seen, as when shards are joined."""
        if (self.sites, self.d_model, self._products is None) != (
            other.sites,
            other.d_model,
            other._products is None,
        ):
            raise SteerlabError("the two accumulators differ in sites, width or covariance: build both alike.")
        for k in range(len(self.sites)):
            if float(other._count[k]) > 0:
                products = None if other._products is None else other._products[k].to(self._mean.device)
                theirs = (other._count, other._mean, other._squares, other._norms)
                count, mean, squares, norms = (t[k].to(self._mean.device) for t in theirs)
                self._combine(k, count, mean, squares, norms, products)

    def result(self) -> Moments:
        """The moments so far. Raises `SteerlabError` naming a site that has seen nothing: its mean is not 0 but
        unknown.
        """
        empty = [site for site, count in zip(self.sites, self._count.tolist(), strict=True) if count == 0]
        if empty:
            raise SteerlabError(
                f"no activation was seen at {empty[0].stream} of layer {empty[0].layer}: "
                "check that the texts are not empty and that the positions choose a token."
            )
        count = self._count.cpu()
        over = count[:, None]
        return Moments(
            sites=self.sites,
            count=count.clone(),
            mean=self._mean.cpu().clone(),
            variance=self._squares.cpu() / over,
            norm=self._norms.cpu() / count,
            covariance=None if self._products is None else self._products.cpu() / over[:, :, None],
        )

    def _start(self, k: int, x: Tensor) -> Tensor:
        """A point near the data to measure from, so that squares do not cancel: the mean so far, or the first
        activation.
        """
        return torch.where(self._count[k] > 0, self._mean[k], x[0].to(self._mean))

    def _batch(
        self, x: Tensor, weight: Tensor | None, start: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Total weight, mean, squared deviations, summed norms and products of one batch."""
        wide = x.dtype if x.dtype == torch.float64 else torch.float32
        w = torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.to(torch.float64)
        norms = w @ torch.linalg.vector_norm(x, dim=-1, dtype=wide).to(torch.float64)
        first, squares = torch.zeros_like(start), torch.zeros_like(start)
        products = None if self._products is None else torch.zeros_like(self._products[0])
        rows = max(1, _BLOCK // self.d_model) if x.device.type == "cpu" else len(x)
        for block, share in zip(x.split(rows), w.split(rows), strict=True):
            off = block.to(torch.float64, copy=True).sub_(start)
            first += share @ off
            if products is not None:
                products.addmm_(off.T * share, off)
            squares += share @ off.square_()
        total = w.sum()
        shift = first / total
        if products is not None:
            products.addr_(first, shift, alpha=-1)
        return total, start + shift, (squares - first * shift).clamp_(min=0), norms, products

    def _combine(
        self, k: int, count: Tensor, mean: Tensor, squares: Tensor, norms: Tensor, products: Tensor | None
    ) -> None:
        before = self._count[k].clone()
        total = before + count
        gap = mean - self._mean[k]
        spread = before * count / total
        if self._products is not None and products is not None:
            self._products[k] += products
            self._products[k].addr_(gap * spread, gap)
        self._squares[k] += squares + spread * gap * gap
        self._mean[k] += gap * (count / total)
        self._norms[k] += norms
        self._count[k] = total
