"""The counter-based generator and Gumbel-max sampling over Python's unbounded integers, one token at a time."""

from __future__ import annotations

import math

_ALL = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def splitmix(z: int) -> int:
    """The SplitMix64 finaliser on an unsigned 64-bit integer."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL
    return z ^ (z >> 31)


def uniform(key: int, step: int, index: int) -> float:
    """The number in (0, 1) for one (key, step, token id)."""
    state = splitmix((key + _GAMMA) & _ALL)
    state = splitmix((state + step * _GAMMA) & _ALL)
    bits = splitmix((state + (index + 1) * _GAMMA) & _ALL)
    return ((bits >> 12) + 0.5) / 2**52


def sample(scores: list[float], key: int, step: int) -> int:
    """Argmax of score plus Gumbel noise; the lowest id wins ties."""
    best, winner = -math.inf, -1
    for token, score in enumerate(scores):
        value = score - math.log(-math.log(uniform(key, step, token)))
        if value > best:
            best, winner = value, token
    return winner
