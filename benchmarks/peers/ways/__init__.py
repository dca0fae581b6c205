"""How a user of each package would do the workloads; `ways.load(peer, subject)` imports the package of one peer only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from torch import Tensor

from benchmarks.peers.subject import Rows, Subject

Capture = Callable[[Sequence[str], int], Tensor]
Write = Callable[[Sequence[str], int, Tensor, int], Rows]
WriteRows = Callable[[Sequence[str], Sequence[int], Tensor, int], Rows]


@dataclass(frozen=True)
class Ways:
    """What a package can do.

    `capture(texts, batch)`: mean activation of every layer (l d), over all tokens or, where `last`, over the last of each text.
    `write(prompts, layer, vector, new)`: greedy answers with one vector added at one layer to every token of every row.
    `write_rows(prompts, layers, vectors, new)`: the same in one batch with a layer and a vector for each row; None where the package
    has no way, and `documented` False where its tensors happen to broadcast and no page says so.
    """

    capture: Capture
    write: Write
    write_rows: WriteRows | None = None
    last: bool = False
    documented: bool = True


def load(peer: str, subject: Subject) -> Ways:
    """The ways of one peer, on a subject that stays as it is."""
    module = import_module(f"benchmarks.peers.ways.{peer.replace('-', '_')}")
    return module.ways(subject)
