"""What engines that write by themselves share: which settings they are given, and where each row's answer ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from steerlab.decoding import Decoded, Finished, Pick, Watch
from steerlab.errors import SteerlabError
from steerlab.model import Side


def settings_of(pick: Pick, engine: str) -> Any:
    """The settings behind a pick. Raises `SteerlabError` for a pick of one's own, which cannot run inside an engine."""
    settings = getattr(pick, "settings", None)
    if settings is None:
        raise SteerlabError(
            f"engine {engine!r} samples by itself and cannot call a function at every token: use `generate` with Settings, or "
            "engine 'local'."
        )
    return settings


def greedy_only(settings: Any, engine: str) -> None:
    """Raise `SteerlabError` unless the most likely token is asked for."""
    if not settings.greedy or settings.repetition_penalty != 1 or settings.frequency_penalty != 0:
        raise SteerlabError(
            f"engine {engine!r} writes the most likely token only, because noise drawn elsewhere is not the sample's own: give "
            "greedy=True and no penalties, or use engine 'local'."
        )


def check_alone(engine: str, sides: Sequence[Side], watch: Watch | None) -> None:
    """Raise `SteerlabError` unless a row is written from its own context alone, under the steering it began with."""
    if sides:
        raise SteerlabError(f"engine {engine!r} cannot guide with other contexts: use engine 'local'.")
    if watch is not None:
        raise SteerlabError(f"engine {engine!r} cannot weaken rows while it writes (back-off): use engine 'local'.")


def cut_rows(tokens: Int[Tensor, "b n"], finished: Finished) -> Decoded:
    """Rows that were written to the end of the longest, each cut where `finished` says so first."""
    b, n = tokens.shape
    lengths = torch.full((b,), n, dtype=torch.int64)
    ended = torch.zeros(b, dtype=torch.bool)
    rows = torch.arange(b)
    for step in range(1, n + 1):
        writing = ~ended
        if not bool(writing.any()):
            break
        over = finished(rows[writing], tokens[writing, :step])
        lengths[rows[writing][over]] = step
        ended[rows[writing][over]] = True
    steps = int(lengths.max()) if b else 0
    return Decoded(tokens[:, : max(steps, 1)], lengths, ended, steps, int(lengths.sum()))
