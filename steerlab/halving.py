"""Batches that do not fit in memory: done again in halves, said once on standard error, with the results of the whole batch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from steerlab.errors import SteerlabError

T = TypeVar("T")
R = TypeVar("R")
# What torch's allocator of the CPU says, in a RuntimeError of no class of its own: Linux, and other systems.
CPU_WORDS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up: torch's of every device, its allocator's on a CPU, or Python's own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_WORDS)


def first_line(error: BaseException) -> str:
    """What the error says, without the advice below; its name where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__


@dataclass
class Halving:
    """The batches of one job, and how many of its items fit at a time (None: as many as are given).

    `what` names the items ("texts"). What is done with a part must leave nothing behind when it fails, and must not depend on the
    other items of its batch.
    """

    what: str
    most: int | None = None

    def run(self, items: Sequence[T], work: Callable[[list[T]], R]) -> list[R]:
        """`work` done with all the items, in as few parts as fit; what it returned for each, in order.

        Raises `SteerlabError` where a single item does not fit.
        """
        waiting: list[list[T]] = [list(items)] if items else []
        found: list[R] = []
        while waiting:
            part, *waiting = [*self._parts(waiting[0]), *waiting[1:]]
            told = ""
            try:
                found.append(work(part))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                told = first_line(error)
            if told:  # the error is gone by now, and with it the frames that held the batch's tensors
                self._shrink(len(part), told)
                waiting = [part, *waiting]
        return found

    def _parts(self, items: list[T]) -> list[list[T]]:
        size = self.most or len(items)
        return [items[at : at + size] for at in range(0, len(items), size)]

    def _shrink(self, size: int, told: str) -> None:
        if size == 1:
            raise SteerlabError(
                f"out of memory with one of the {self.what} alone ({told}): use a smaller dtype, another device, or shorter texts and "
                "answers."
            )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        first, self.most = self.most is None, (size + 1) // 2
        if first:
            tqdm.write(
                f"steerlab: out of memory with {size} {self.what} at a time: going on with {self.most}, and fewer where needed; the "
                "results stay the same but for rounding.",
                file=sys.stderr,
            )
