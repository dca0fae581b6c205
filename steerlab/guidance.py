"""Guidance of the next token by several distributions: contrastive experts, negative prompts and their relatives.

Notation: l_e, l_b, l_n are log-probabilities of the expert behind the prompt, of the base behind the prompt, and of the expert
behind the negatives (O'Neill et al. 2023, STEER). What is returned are scores: log-probabilities up to a constant per row,
-inf where a token is excluded. Filters like top-k come after.

What eta does to the temperature: in the *published* form (1 + gamma) l_e - gamma l_b - eta l_n the weights sum to 1 - eta.
Where the negatives say what the prompt says, as text of one domain mostly does, the scores shrink to (1 - eta) l_e: a
temperature of 1 / (1 - eta), and no fluency at all is left at eta = 1. The *balanced* form (1 + gamma + eta) l_e - gamma l_b -
eta l_n has weights that sum to 1, so that nothing happens where the distributions agree; since a contrast also lifts tokens
that nobody finds likely, it is restricted to tokens with p_e >= alpha max p_e (Li et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.sampling import nucleus

Form = Literal["published", "balanced"]
When = Literal["constant", "decaying", "uncertain"]


@dataclass(frozen=True)
class Schedule:
    """When a weight acts. "constant": always. "decaying": halved every `half_life` tokens, strong early on. "uncertain": only
    where the expert's entropy is at least `least` nats, so that what is sure anyway is left alone.
    """

    when: When = "constant"
    half_life: float | int = 16.0
    least: float | int = 2.0

    def __post_init__(self) -> None:
        if self.when not in ("constant", "decaying", "uncertain"):
            raise SteerlabError(f"schedule {self.when!r} is not known: give 'constant', 'decaying' or 'uncertain'.")
        if not self.half_life > 0 or not math.isfinite(self.least):
            raise SteerlabError(
                f"half_life {self.half_life} and least {self.least} were given: give a half-life above 0 and a finite entropy."
            )

    def factor(self, step: int, log_p: Float[Tensor, "b v"]) -> Float[Tensor, "b"]:
        """What the weight is multiplied by at a step, for each row's expert distribution."""
        if self.when == "decaying":
            return log_p.new_full((len(log_p),), 0.5 ** (step / self.half_life))
        if self.when == "uncertain":
            return (entropy(log_p) >= self.least).to(log_p.dtype)
        return log_p.new_ones(len(log_p))


@dataclass(frozen=True)
class Guide:
    """How one sample is guided. Defaults are the authors' (gamma 0.2, eta 0.6); `alpha` None is 0.1 in the balanced form and
    0 (no mask) in the published one.

    Raises `SteerlabError` for an unknown form, weights that are negative or not finite, and alpha outside 0 to 1.
    """

    gamma: float | int = 0.2
    eta: float | int = 0.6
    form: Form = "published"
    alpha: float | int | None = None
    gamma_when: Schedule = field(default_factory=Schedule)
    eta_when: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if self.form not in ("published", "balanced"):
            raise SteerlabError(f"form {self.form!r} is not known: give 'published' or 'balanced'.")
        for name in ("gamma", "eta"):
            value = float(getattr(self, name))
            object.__setattr__(self, name, value)
            if not (math.isfinite(value) and value >= 0):
                raise SteerlabError(f"{name} is {value}: give a finite number, 0 (off) or more.")
        alpha = (0.1 if self.form == "balanced" else 0.0) if self.alpha is None else float(self.alpha)
        object.__setattr__(self, "alpha", alpha)
        if not 0 <= alpha <= 1:
            raise SteerlabError(f"alpha is {alpha}: give 0 (no mask) to 1 (only the expert's best token).")

    @property
    def cutoff(self) -> float:
        """`alpha` as a number: what the form takes where none was given."""
        return float(self.alpha or 0.0)

    def to_json(self) -> dict[str, object]:
        """Plain values, for a run's record."""
        return asdict(self)


def entropy(log_p: Float[Tensor, "b v"]) -> Float[Tensor, "b"]:
    """Entropy in nats of each row of log-probabilities."""
    p = log_p.exp()
    return -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)


def plausible(log_p: Float[Tensor, "b v"], alpha: Float[Tensor, "b"]) -> Bool[Tensor, "b v"]:
    """True where a token is at least `alpha` times as likely as the row's best (V_head of contrastive decoding); alpha 0 is all."""
    least = log_p.amax(-1) + alpha.log()
    return log_p >= least[:, None]


def combine(
    expert: Float[Tensor, "b v"],
    base: Float[Tensor, "b v"] | None,
    negative: Float[Tensor, "b v"] | None,
    gamma: Float[Tensor, "b"],
    eta: Float[Tensor, "b"],
    balanced: Bool[Tensor, "b"],
    alpha: Float[Tensor, "b"],
) -> Float[Tensor, "b v"]:
    """The scores of every row from logits (or log-probabilities) of its streams, each with its own weights and form.

    Every stream is put through log-softmax first. With gamma = eta = 0 and alpha = 0 the expert's log-probabilities come back
    unchanged. A missing stream counts as weight 0. Tokens the expert excludes (-inf) stay excluded.
    """
    l_e = torch.log_softmax(expert.float(), -1)
    own = torch.ones_like(gamma)
    scores = torch.zeros_like(l_e)
    if base is not None:
        scores, own = scores - gamma[:, None] * torch.log_softmax(base.float(), -1), own + gamma
    if negative is not None:
        scores = scores - eta[:, None] * torch.log_softmax(negative.float(), -1)
        own = own + torch.where(balanced, eta, torch.zeros_like(eta))
    scores = l_e * own[:, None] + scores
    return torch.where(plausible(l_e, alpha) & (l_e > -math.inf), scores, -math.inf)


def classifier_free(
    conditional: Float[Tensor, "b v"], unconditional: Float[Tensor, "b v"], scale: float
) -> Float[Tensor, "b v"]:
    """l_u + scale (l_c - l_u) of two log-softmaxed rows: classifier-free guidance (Sanchez et al. 2023, arXiv 2306.17806), the
    same as transformers' processor; scale 1 is the conditional distribution alone.

    `combine` with expert = conditional, base = unconditional and gamma = scale - 1 is the same.
    """
    l_c, l_u = (torch.log_softmax(x.float(), -1) for x in (conditional, unconditional))
    return l_u + scale * (l_c - l_u)


def dexperts(
    base: Float[Tensor, "b v"],
    expert: Float[Tensor, "b v"],
    anti: Float[Tensor, "b v"],
    alpha: float = 2.0,
    mass: float = 0.9,
) -> Float[Tensor, "b v"]:
    """z_b + alpha (z_e - z_a) on raw logits, restricted to the base's nucleus of that mass, which is cut first (DExperts, Liu et
    al. 2021, arXiv 2105.03023).
    """
    head = nucleus(base.float(), mass) > -math.inf
    return (base.float() + alpha * (expert.float() - anti.float())).masked_fill(~head, -math.inf)


def contrastive_decoding(
    expert: Float[Tensor, "b v"], amateur: Float[Tensor, "b v"], alpha: float = 0.1, coefficient: float = 1.0
) -> Float[Tensor, "b v"]:
    """l_e - coefficient l_a over the tokens with p_e >= alpha max p_e (Li et al. 2022, arXiv 2210.15097, equation 3; the
    authors' program defaults to a coefficient of 0.5).
    """
    l_e, l_a = (torch.log_softmax(x.float(), -1) for x in (expert, amateur))
    head = plausible(l_e, l_e.new_full((len(l_e),), alpha))
    return (l_e - coefficient * l_a).masked_fill(~head, -math.inf)
