"""Human text beside a worse version of it: pairs read from a corpus, or made by corrupting tokens."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

from steerlab.data.corpus import texts_sha256
from steerlab.errors import SteerlabError


@dataclass(frozen=True)
class ContrastPair:
    """A human text and its degraded version (back-translated, or with corrupted tokens)."""

    id: str
    human: str
    degraded: str
    source: str


@dataclass(frozen=True)
class ContrastPairs(Sequence[ContrastPair]):
    """A sequence of pairs; `dropped` counts those left out because a side was empty or both were the same."""

    pairs: tuple[ContrastPair, ...]
    dropped: int = 0

    @staticmethod
    def of(pairs: Iterable[ContrastPair]) -> ContrastPairs:
        """Keep the pairs that show a contrast."""
        given = list(pairs)
        kept = tuple(pair for pair in given if pair.human and pair.degraded and pair.human != pair.degraded)
        return ContrastPairs(kept, len(given) - len(kept))

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> ContrastPair: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ContrastPair, ...]: ...
    def __getitem__(self, index: int | slice) -> ContrastPair | tuple[ContrastPair, ...]:
        return self.pairs[index]

    def __iter__(self) -> Iterator[ContrastPair]:
        return iter(self.pairs)

    @property
    def human(self) -> tuple[str, ...]:
        return tuple(pair.human for pair in self.pairs)

    @property
    def degraded(self) -> tuple[str, ...]:
        return tuple(pair.degraded for pair in self.pairs)

    @cached_property
    def sha256(self) -> str:
        """Order-independent SHA-256 of the pairs."""
        return texts_sha256(f"{pair.human}\x1f{pair.degraded}" for pair in self.pairs)


def corrupt_tokens(text: str, rate: float = 0.3, seed: int = 0, key: str | None = None) -> str:
    """Corrupt a share `rate` of the white-space tokens: each is dropped, swapped with the next, or repeated, all equally likely.

    Cegin et al. (arXiv 2606.18389) do this between the hops of a chained translation. round(rate n) of n tokens are hit, at
    least one when `rate` is positive; a token that a swap has moved is not hit again. The result depends on (seed, key) and the
    text alone, `key` being the text itself unless given; it is never empty, and white space becomes single spaces.
    Raises `SteerlabError` on a blank text or a rate outside [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise SteerlabError(f"the corruption rate {rate} is not a share: give a number from 0 to 1.")
    tokens = text.split()
    if not tokens:
        raise SteerlabError("a blank text was given to corrupt: give at least one word.")
    rng = random.Random(f"{seed}\x1f{text if key is None else key}")
    hits = max(1, round(rate * len(tokens))) if rate > 0 else 0
    chosen = set(rng.sample(range(len(tokens)), hits))
    out: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if at - 1 not in chosen:
            out.append(token)
            continue
        kind = rng.choice(("drop", "swap", "repeat"))
        if kind == "repeat":
            out += [token, token]
        elif kind == "swap":
            if at < len(tokens):
                out += [tokens[at], token]
                at += 1
            elif out:  # the last token has no next one: it changes places with the one before
                out.insert(len(out) - 1, token)
            else:
                out.append(token)
    return " ".join(out or tokens[:1])


def degraded_pairs(texts: Sequence[str], rate: float = 0.3, seed: int = 0, source: str = "corrupted") -> ContrastPairs:
    """Each text beside its `corrupt_tokens`; pairs that came out the same (and blank texts) are dropped and counted.

    White space of the human side is normalised like that of the degraded side. The pair of a text does not depend on the others.
    """
    pairs = []
    for number, text in enumerate(texts):
        human = " ".join(text.split())
        degraded = corrupt_tokens(human, rate, seed) if human else ""
        pairs.append(ContrastPair(f"{source}-{number}", human, degraded, source))
    return ContrastPairs.of(pairs)
