"""Which part of the work a process does, and how several processes share one folder.

Every part is claimed by a lock, written once, whole, and found again by its number.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from steerlab.disk import replace, take_lock, told
from steerlab.errors import Busy, SteerlabError
from steerlab.records import read_sealed_rows, sealed_rows

T = TypeVar("T")
WAIT = 0.5  # seconds between looks at a part another process is writing


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`. With `steal`, whoever is done with its own part goes on with what others have not begun,
    which takes a folder all of them see.
    """

    index: int = 0
    count: int = 1
    steal: bool = False

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Shard:
        """From "i/n" (i from 1 to n), or "auto": RANK and WORLD_SIZE as torchrun and accelerate launch set them, and stealing.

        Raises `SteerlabError` for anything else.
        """
        if text == "auto":
            rank, size = environment.get("RANK", ""), environment.get("WORLD_SIZE", "")
            if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
                raise SteerlabError(
                    f"shard auto found RANK {rank!r} and WORLD_SIZE {size!r}: start with torchrun or accelerate launch, or give i/n."
                )
            return cls(int(rank), int(size), steal=True)
        first, slash, count = text.partition("/")
        if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
            raise SteerlabError(
                f"shard {text!r} is not i/n with i from 1 to n: give, say, 1/4 (the first of four), or auto."
            )
        return cls(int(first) - 1, int(count))

    @property
    def whole(self) -> bool:
        """True when there is no other part."""
        return self.count == 1

    @property
    def leads(self) -> bool:
        """True for the one process of a group that ends the work: the first of those that share a folder, and a lone one."""
        return self.whole or (self.steal and self.index == 0)

    def order(self, items: Sequence[T]) -> tuple[T, ...]:
        """The items to do, in order: every count-th from the index on, and then, when stealing, the others."""
        own = items[self.index :: self.count]
        if not self.steal:
            return tuple(own)
        others = [items[(self.index + k) % self.count :: self.count] for k in range(1, self.count)]
        return (*own, *(item for part in others for item in part))

    def device(self, given: str | None) -> str | None:
        """The device that was asked for; else, where processes share a machine's GPUs, the one of this process. A part "i/n" has
        a machine to itself.
        """
        if given is not None or not self.steal:
            return given
        import torch

        gpus = torch.cuda.device_count()
        local = int(os.environ.get("LOCAL_RANK", self.index))
        return f"cuda:{local % gpus}" if gpus else None


@dataclass(frozen=True)
class Parts:
    """Numbered parts of a job on disk: a file of rows each, with its checksum. `folder` is named after everything that decides the
    rows.
    """

    folder: Path
    count: int

    def read(self, number: int) -> list[dict[str, Any]] | None:
        """The rows of a part, None where it is not written. Raises `SteerlabError` for one that was changed since."""
        path = self._file(number)
        with told(path):
            if not path.exists():
                return None
            rows = read_sealed_rows(path.read_bytes())
        if rows is None:
            raise SteerlabError(f"{path} is not what was written there: remove it and repeat the command.")
        return rows

    def write(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one part, whole or not at all."""
        with told(self._file(number)):
            replace(self._file(number), sealed_rows(rows))

    def written(self) -> int:
        """How many parts are there."""
        return sum(self._file(number).exists() for number in range(self.count))

    def claim(self, shard: Shard) -> Iterator[int]:
        """Numbers to write, one by one. Each is locked until the next is asked for, by which time it must be written.

        Parts that others hold are left to them and looked at again at the end, in case they died; it ends when all parts of the
        shard (when stealing: all) are there.
        """
        with told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        left = [number for number in shard.order(range(self.count)) if not self._file(number).exists()]
        while left:
            for number in left:
                try:
                    lock = take_lock(self.folder / f"{number}.lock")
                except Busy:
                    continue
                try:
                    if not self._file(number).exists():
                        yield number
                finally:
                    os.close(lock)
            left = [number for number in left if not self._file(number).exists()]
            if left:
                time.sleep(WAIT)

    def adopt(self, folder: Path) -> int:
        """Copy parts of the same job from another folder; returns how many were new.

        Raises `SteerlabError` where one number has two contents.
        """
        new = 0
        for path in sorted(folder.glob("*.jsonl")):
            there, data = self.folder / path.name, path.read_bytes()
            if there.exists() and there.read_bytes() != data:
                raise SteerlabError(f"{path} and {there} differ: the machines compute differently; keep them apart.")
            if not there.exists():
                with told(there):
                    replace(there, data)
                new += 1
        return new

    def remove(self) -> None:
        """Take the parts away, once what they hold is elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.jsonl"
