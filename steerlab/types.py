"""Names the whole package shares: where in the model (`Site`) and which tokens (`Positions`).

Shape letters used in every signature: b batch, s sequence, d model width, l layers, n examples, v vocabulary, k
classes or sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlab.errors import SteerlabError

Stream = Literal["resid_pre", "resid_post", "attn_out", "mlp_out"]
STREAMS: tuple[Stream, ...] = ("resid_pre", "resid_post", "attn_out", "mlp_out")


class Site(NamedTuple):
    """A place in the model. `layer` is the 0-based block; `resid_post` is that block's output, `resid_pre` its
    input.
    """

    layer: int
    stream: Stream = "resid_post"


@dataclass(frozen=True)
class Positions:
    """Token positions that mean the same in one forward pass and in cached generation.

    `start` and `stop` (half-open, None = unbounded) count from the end of the prompt: 0 is the first generated
    token, -1 the last prompt token. `only_ids` keeps just these token ids, `skip_ids` leaves these alone (BOS,
    say). Padding is never included.
    """

    start: int | None = None
    stop: int | None = None
    only_ids: tuple[int, ...] = ()
    skip_ids: tuple[int, ...] = ()

    def mask(
        self, relative: Int[Tensor, "b s"], ids: Int[Tensor, "b s"], real: Bool[Tensor, "b s"]
    ) -> Bool[Tensor, "b s"]:
        """Which tokens are meant. `relative` is each token's position counted from the end of its prompt;
        `real` is False on padding.
        """
        keep = real.clone()
        if self.start is not None:
            keep &= relative >= self.start
        if self.stop is not None:
            keep &= relative < self.stop
        if self.only_ids:
            keep &= torch.isin(ids, torch.tensor(self.only_ids, device=ids.device))
        if self.skip_ids:
            keep &= ~torch.isin(ids, torch.tensor(self.skip_ids, device=ids.device))
        return keep

    @property
    def everywhere(self) -> bool:
        """True when every real token is meant, so that no mask over token ids or positions is needed."""
        return self.start is None and self.stop is None and not self.only_ids and not self.skip_ids

    @staticmethod
    def parse(text: str) -> Positions:
        """Read `all`, `prompt`, `last_prompt`, `generated`, `writing`, `last:K` or a span `START:STOP` counted
        from the prompt's end.

        Raises `SteerlabError` on anything else.
        """
        if text in NAMED_POSITIONS:
            return NAMED_POSITIONS[text]
        left, colon, right = text.partition(":")
        try:
            if colon and left == "last":
                k = int(right)
                if k >= 1:
                    return Positions(-k, 0)
            elif colon:
                start, stop = (int(left) if left else None), (int(right) if right else None)
                if start is None or stop is None or start < stop:
                    return Positions(start, stop)
        except ValueError:
            pass
        known = ", ".join(NAMED_POSITIONS)
        raise SteerlabError(
            f"positions {text!r} are not known: give one of {known}, last:K with K at least 1, "
            "or a span START:STOP counted from the end of the prompt."
        )

    def __str__(self) -> str:
        for name, value in NAMED_POSITIONS.items():
            if value == self:
                return name
        span = f"{'' if self.start is None else self.start}:{'' if self.stop is None else self.stop}"
        only = f" only {list(self.only_ids)}" if self.only_ids else ""
        skip = f" skip {list(self.skip_ids)}" if self.skip_ids else ""
        return span + only + skip


ALL = Positions()
PROMPT = Positions(stop=0)
LAST_PROMPT = Positions(-1, 0)
GENERATED = Positions(start=0)
WRITING = Positions(start=-1)  # every position whose output predicts a generated token
NAMED_POSITIONS: dict[str, Positions] = {
    "all": ALL,
    "prompt": PROMPT,
    "last_prompt": LAST_PROMPT,
    "generated": GENERATED,
    "writing": WRITING,
}
