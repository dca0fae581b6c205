"""Documents of unlike length in rows of one length, whole and without seeing each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Document = tuple[list[int], int | list[int]]  # token ids, and the number of prompt tokens or a weight per token


def pack(stream: Iterator[Document], rows: int, length: int, window: int = 1500) -> Iterator[np.ndarray]:
    """First-fit-decreasing packing of whole documents into rows of `length` tokens.

    Yields int32 arrays (3, rows, length): token ids, document number within the row (0 = padding), and the weight
    with which the token is to be predicted (1 for answers and bare text where the document does not say, 0 for
    prompts). Documents do not see each other: the document number becomes the mask.
    """
    ready: list[list[Document]] = []
    rng = np.random.default_rng(0)
    while True:
        docs = sorted((next(stream) for _ in range(window)), key=lambda d: -len(d[0]))
        bins: list[list[Document]] = []
        room: list[int] = []
        for doc in docs:
            slot = next((i for i, r in enumerate(room) if r >= len(doc[0])), None)
            if slot is None:
                bins.append([])
                room.append(length)
                slot = len(bins) - 1
            bins[slot].append(doc)
            room[slot] -= len(doc[0])
        ready.extend(bins[i] for i in rng.permutation(len(bins)))
        while len(ready) >= rows:
            batch = np.zeros((3, rows, length), dtype=np.int32)
            for r, row in enumerate(ready[:rows]):
                at = 0
                for number, (ids, prompt) in enumerate(row, start=1):
                    batch[0, r, at : at + len(ids)] = ids
                    batch[1, r, at : at + len(ids)] = number
                    if isinstance(prompt, int):
                        batch[2, r, at + max(prompt, 1) : at + len(ids)] = 1
                    else:
                        batch[2, r, at : at + len(ids)] = prompt
                    at += len(ids)
            del ready[:rows]
            yield batch
