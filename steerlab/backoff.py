"""Back-off: a row whose text begins to break is steered less from there on, and its sample says so.

Two signs, each of one row alone, so that a batch equals its singles: *repetition*, a phrase that follows itself over and over; and
*implausibility*, a token that the unsteered model, behind the same prompt and the same answer so far, finds far less likely than its
best (the test of DIRECTER, arXiv 2603.06745, which weakens the step; here the token is not taken and the row's strength falls).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.decoding import Mix
from steerlab.errors import SteerlabError
from steerlab.guidance import plausible


class Lowered(NamedTuple):
    """At which generated token (0 the first) a row was weakened, to what share of its strength, and why."""

    step: int
    share: float
    reason: Literal["repetition", "implausible"]


@dataclass(frozen=True)
class BackOff:
    """When a row is weakened, and by how much.

    Each sign multiplies the row's strength by `factor`; below `floor` it becomes 0, that is, unsteered. Repetition: a phrase of at most
    `period` tokens stands `times` times in a row, `least` tokens or more in all, since the last back-off (times 0: never). Implausible:
    the steered model's best token is less than `alpha` times as likely as the unsteered model's best (alpha 0: never; it costs a
    second stream); tokens below that are not taken at all.

    Raises `SteerlabError` for numbers outside these ranges, and when neither sign is looked for.
    """

    factor: float | int = 0.5
    floor: float | int = 0.1
    times: int = 3
    period: int = 16
    least: int = 8
    alpha: float | int = 0.0

    def __post_init__(self) -> None:
        for name in ("factor", "floor", "alpha"):
            object.__setattr__(self, name, float(getattr(self, name)))
        good = 0 <= self.factor < 1 and 0 <= self.floor <= 1 and 0 <= self.alpha <= 1
        if not good or self.times < 0 or self.times == 1 or self.period < 1 or self.least < 1:
            raise SteerlabError(
                f"{self} was given: factor must be from 0 to below 1, floor and alpha from 0 to 1, times 0 or at least 2, "
                "period and least at least 1."
            )
        if self.times == 0 and self.alpha == 0:
            raise SteerlabError(
                "times and alpha are 0: give a number of repeats, a plausibility, or no back-off at all."
            )

    def to_json(self) -> dict[str, object]:
        """Plain values, for a run's record."""
        return asdict(self)


class Watcher:
    """The state of one batch: every row's share of its strength, and what lowered it. `share` "b", `lowered` per row.

    `reader` is the place of the unsteered stream among the side streams, None where no row needs one.
    """

    def __init__(
        self, rules: Sequence[BackOff | None], device: torch.device, mix: Mix | None, reader: int | None
    ) -> None:
        self.rules, self.inner, self.reader = tuple(rules), mix, reader
        self.shares = [1.0] * len(rules)
        self.share = torch.ones(len(rules), dtype=torch.float32, device=device)  # the same, for the plan
        self.lowered: list[list[Lowered]] = [[] for _ in rules]
        self.since = [0] * len(rules)
        self.alpha = torch.tensor([0.0 if r is None else r.alpha for r in rules], dtype=torch.float32, device=device)
        self.flagged: list[int] = []

    def mix(
        self,
        rows: Int[Tensor, " b"],
        logits: Float[Tensor, "b v"],
        others: Sequence[tuple[Tensor, Tensor] | None],
        step: int,
    ) -> Float[Tensor, "b v"]:
        """The logits, after guidance if there is any, without the tokens that are implausible to the unsteered model."""
        self.flagged = []
        guides = list(others if self.reader is None else others[: self.reader])
        if self.inner is not None:
            logits = self.inner(rows, logits, guides, step)
        beside = None if self.reader is None else others[self.reader]
        if beside is None:
            return logits
        at = torch.searchsorted(rows, beside[0])
        log_p = torch.log_softmax(beside[1].float(), -1)
        kept = plausible(log_p, self.alpha[beside[0]])
        own = logits[at].float()
        best = own.argmax(-1, keepdim=True)
        bad = ~kept.gather(1, best)[:, 0] & (self.share[beside[0]] > 0)
        self.flagged = beside[0][bad].tolist()
        held = torch.where(kept, own, -math.inf)
        # A row that is no longer steered differs from the unsteered one by nothing: its scores stay as they are.
        free = self.share[beside[0]][:, None] > 0
        return logits.float().index_copy(0, at, torch.where(free, held, own))

    def __call__(
        self, rows: Int[Tensor, " b"], tokens: Int[Tensor, "b n"], writing: Bool[Tensor, " b"], step: int
    ) -> Float[Tensor, " a"] | None:
        """Looks at the token just written; every row's share of its strength when one has changed, else None."""
        changed, flagged = False, set(self.flagged)
        for row, own, alive in zip(rows.tolist(), tokens.tolist(), writing.tolist(), strict=True):
            rule = self.rules[row]
            if rule is None or not alive or self.shares[row] == 0:
                continue
            reason: Literal["repetition", "implausible"] | None = "implausible" if row in flagged else None
            if rule.times and loops(own[self.since[row] :], rule):
                reason = "repetition"
            if reason is not None:
                share = self.shares[row] * rule.factor
                self.shares[row] = self.share[row] = share if share >= rule.floor else 0.0
                self.lowered[row].append(Lowered(step, self.shares[row], reason))
                self.since[row], changed = step + 1, True
        return self.share.clone() if changed else None


def loops(tokens: Sequence[int], rule: BackOff) -> bool:
    """Do the tokens end in a phrase of at most `period` tokens that stands `times` times in a row, `least` tokens or more?"""
    for period in range(1, rule.period + 1):
        size = max(rule.times * period, rule.least)
        if size > len(tokens):
            continue
        tail = tokens[len(tokens) - size :]
        if tail[period:] == tail[:-period]:
            return True
    return False
