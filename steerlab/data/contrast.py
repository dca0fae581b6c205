"""Human text beside a worse version of it: pairs read from a corpus or made by corrupting tokens, and the length-matched ones."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import regex
from scipy.optimize import linear_sum_assignment

from steerlab.data.corpus import texts_sha256
from steerlab.data.surface import normalise_surface
from steerlab.errors import SteerlabError
from steerlab.records import encode_text

# Scripts written without spaces: there a letter with its marks is the token.
_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_UNSPACED = regex.compile(rf"[{_SCRIPTS}]")
_PIECE = regex.compile(rf"[{_SCRIPTS}]\p{{M}}*|[^{_SCRIPTS}]+")
_LETTER = regex.compile(r"[\p{L}\p{N}]")


@dataclass(frozen=True)
class ContrastPair:
    """A human text and its degraded version (back-translated, or with corrupted tokens)."""

    id: str
    human: str
    degraded: str
    source: str


@dataclass(frozen=True)
class ContrastPairs(Sequence[ContrastPair]):
    """A sequence of pairs; `dropped` counts those left out by what made it: a side was empty, both were the same, or it was
    not length-matched.
    """

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


def _units(text: str) -> list[tuple[str, str, str]]:
    """(what stands before it, token, what stands between it and its repetition) for every token: white-space tokens, taken apart
    in scripts written without spaces.
    """
    units = []
    for token in text.split():
        if not _UNSPACED.search(token):
            units.append((" ", token, " "))
            continue
        for number, piece in enumerate(_PIECE.findall(token)):
            foreign = _LETTER.search(piece) and not _UNSPACED.search(piece)
            units.append((" " if number == 0 else "", piece, " " if foreign else ""))
    return units


def corrupt_tokens(text: str, rate: float = 0.3, seed: int = 0, key: str | None = None) -> str:
    """Corrupt a share `rate` of the tokens: each is dropped, swapped with the next, or repeated, all equally likely.

    Cegin et al. (arXiv 2606.18389) do this between the hops of a chained translation. Tokens stand between white space; in
    scripts written without spaces (Chinese, say) every letter is one. round(rate n) of n tokens are hit, at least one when
    `rate` is positive; a token that a swap has moved is not hit again. The result depends on (seed, key) and the text alone,
    `key` being the text itself unless given; it is never empty, and white space becomes single spaces.
    Raises `SteerlabError` on a blank text or a rate outside [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise SteerlabError(f"the corruption rate {rate} is not a share: give a number from 0 to 1.")
    tokens = _units(text)
    if not tokens:
        raise SteerlabError("a blank text was given to corrupt: give at least one word.")
    rng = random.Random(encode_text(f"{seed}\x1f{text if key is None else key}"))
    hits = max(1, round(rate * len(tokens))) if rate > 0 else 0
    chosen = set(rng.sample(range(len(tokens)), hits))
    out: list[tuple[str, str]] = []
    at, space = 0, ""  # `space`: what stood before dropped tokens
    while at < len(tokens):
        before, token, again = tokens[at]
        before = before or space
        space = ""
        at += 1
        if at - 1 not in chosen:
            out.append((before, token))
            continue
        kind = rng.choice(("drop", "swap", "repeat"))
        if kind == "drop":
            space = before
        elif kind == "repeat":
            out += [(before, token), (again, token)]
        elif at < len(tokens):  # a swap: what stands between tokens stays where it is
            out += [(before, tokens[at][1]), (tokens[at][0], token)]
            at += 1
        elif out:  # the last token has no next one: it changes places with the one before
            out[-1:] = [(out[-1][0], token), (before, out[-1][1])]
        else:
            out.append((before, token))
    return "".join(before + token for before, token in out or [tokens[0][:2]]).strip()


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


def length_matched(pairs: ContrastPairs, length: Callable[[str], int] = len, *, surface: bool = True) -> ContrastPairs:
    """The pairs left when, for every k, as many are longer by k on the human side as on the degraded side.

    Then the signed difference in length has mean 0 and no sign more often than the other, and any average over pairs of an
    odd function of it vanishes. Where one direction has more pairs, those that stay are the ones whose lengths mirror the
    other direction's best (least total difference of human + degraded length), so that the lengths of the two sides are also
    alike as sets. No other choice keeps more pairs with this balance; pairs of equal length all stay. `length` counts
    characters unless given (tokens of a model, say), on the texts as `normalise_surface` leaves them with `surface`.
    Order is kept, the choice is deterministic, and `dropped` says how many went.

    Raises `SteerlabError` when no pair is left.
    """
    sizes = [
        tuple(length(normalise_surface(side) if surface else side) for side in (pair.human, pair.degraded))
        for pair in pairs
    ]
    longer: dict[int, list[int]] = defaultdict(list)
    for number, (human, degraded) in enumerate(sizes):
        longer[human - degraded].append(number)
    kept = set(longer.pop(0, ()))
    for k in [k for k in longer if k > 0 and -k in longer]:
        totals = [np.array([sum(sizes[i]) for i in longer[side]], dtype=float) for side in (k, -k)]
        for side, members in zip((k, -k), linear_sum_assignment(abs(totals[0][:, None] - totals[1])), strict=True):
            kept |= {longer[side][i] for i in members.tolist()}
    if not kept:
        raise SteerlabError(
            f"none of {len(pairs)} pairs is left when lengths are matched, because one side is always the longer: "
            "give more pairs, or degrade texts without changing their length."
        )
    return ContrastPairs(tuple(pairs[i] for i in sorted(kept)), len(pairs) - len(kept))
