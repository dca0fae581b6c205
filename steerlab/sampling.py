"""Sampling keyed by row: the noise of a token is a pure function of (row key, step, token id).

So a sample's noise does not depend on the batch it was drawn in, on its order, on sharding or on a restart, and two
rows with one key share it (common random numbers). No generator state exists anywhere.
"""

from __future__ import annotations

import hashlib
import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steerlab.errors import SteerlabError

# SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. As signed 64-bit integers.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX2 = 0x94D049BB133111EB - (1 << 64)

# The noise lies between -log(53 log 2) = -3.6 and 53 log 2 = 36.7, so a score 40.4 below its row's best can not win.
_REACH = 41.0

# Best tokens that are sorted first when a nucleus is cut; few rows need more.
_FIRST = 128

# Tokens per block when every token may win: small enough that the intermediate values stay in the cache.
_BLOCK = 1 << 17


def row_key(seed: int, *parts: str | int) -> int:
    """A 63-bit key for one sample from the run's seed and whatever names the sample (task, label, language,
    number).

    Different tuples give different keys (BLAKE2b over an unambiguous encoding: ("ab",) is not ("a", "b"), 1 is
    not "1").
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        text = str(part).encode("utf-8")
        digest.update(f"{'i' if isinstance(part, int) else 's'}{len(text)}:".encode())
        digest.update(text)
    return int.from_bytes(digest.digest(), "big") >> 1


def keyed_uniform(
    keys: Int64[Tensor, "b"], step: Int64[Tensor, "b"], index: Int64[Tensor, "b v"]
) -> Float[Tensor, "b v"]:
    """Uniform float64 numbers in the open interval (0, 1) with 52 random bits, one for each (key, step, index).

    The same integers come out on every device. Values are (m + 1/2) / 2^52, so neither 0 nor 1 occurs.
    """
    return _uniform(_stream(keys, step)[:, None], index)


def gumbel(keys: Int64[Tensor, "b"], step: Int64[Tensor, "b"], index: Int64[Tensor, "b v"]) -> Float[Tensor, "b v"]:
    """Standard Gumbel noise `-log(-log(u))` in float64 for each (key, step, index)."""
    return _gumbel_(keyed_uniform(keys, step, index))


def sample(scores: Float[Tensor, "b v"], keys: Int64[Tensor, "b"], steps: Int64[Tensor, "b"]) -> Int64[Tensor, "b"]:
    """One token per row from softmax(scores): argmax(scores + gumbel), ties to the lowest id.

    `scores` are log-probabilities up to a constant per row, -inf where a token is excluded. `steps` counts the
    row's own generated tokens. Noise is drawn only for tokens that can win. Raises `SteerlabError` where a row
    holds NaN or +inf or excludes every token.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    possible = scores >= (_best(scores) - _REACH)[:, None]
    stream = _stream(keys, steps)
    if int(possible.sum()) > scores.numel() // 4:
        return _sample_every(scores, stream)
    rows, tokens = possible.nonzero(as_tuple=True)
    values = _gumbel_(_uniform(stream[rows], tokens)).add_(scores[rows, tokens])
    best = values.new_full((len(scores),), -math.inf).scatter_reduce_(0, rows, values, "amax")
    candidates = tokens.masked_fill(values != best[rows], scores.shape[1])
    return tokens.new_full((len(scores),), scores.shape[1]).scatter_reduce_(0, rows, candidates, "amin")


def greedy(scores: Float[Tensor, "b v"]) -> Int64[Tensor, "b"]:
    """The best token of each row, ties to the lowest id. Raises `SteerlabError` as `sample` does."""
    _best(scores)
    return scores.argmax(dim=-1)


def nucleus(scores: Float[Tensor, "b v"], mass: float) -> Float[Tensor, "b v"]:
    """The scores with -inf outside the smallest set of best tokens whose probability reaches `mass` (top-p, Holtzman et al. 2019,
    arXiv 1904.09751).

    The same set as transformers' `TopPLogitsWarper` up to rounding at its edge; tokens exactly as probable as the last one
    inside stay as well, so nothing hangs on the order of a sort. Only as many of the best tokens are sorted as the rows need.
    """
    if mass >= 1:
        return scores
    probability = scores.float().softmax(dim=-1)
    last = probability.new_zeros(len(scores))
    rows, width = torch.arange(len(scores), device=scores.device), _FIRST
    while len(rows):
        width = min(width, scores.shape[1])
        best = (probability if len(rows) == len(scores) else probability[rows]).topk(width, dim=-1).values
        before = best.double().cumsum(dim=-1) - best.double()
        inside = (before < mass).sum(dim=-1)
        last[rows] = best.gather(1, (inside - 1).clamp(min=0)[:, None])[:, 0]  # a row of NaN has none inside
        rows = rows[inside == width] if width < scores.shape[1] else rows[:0]
        width *= 8
    return scores.masked_fill(probability < last[:, None], -math.inf)


def _sample_every(scores: Tensor, stream: Tensor) -> Tensor:
    """`sample` where most tokens may win: the same numbers, computed a block of rows at a time."""
    vocab = torch.arange(scores.shape[1], device=scores.device)
    rows = max(1, _BLOCK // scores.shape[1])
    parts = [
        _gumbel_(_uniform(some[:, None], vocab)).add_(block).argmax(dim=-1)
        for block, some in zip(scores.split(rows), stream.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _best(scores: Tensor) -> Tensor:
    """The best score of each row; refuses rows from which nothing can be drawn."""
    if scores.shape[1] == 0:
        raise SteerlabError("the scores have no tokens: give at least one column per row.")
    best = scores.amax(dim=-1)  # NaN wins, so this one pass sees it
    bad = ~best.isfinite()
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        seen = {"-inf": "-inf for every token", "inf": "+inf", "nan": "NaN"}[str(float(best[row]))]
        raise SteerlabError(
            f"row {row} of the scores holds {seen}, but at least one finite score and no NaN or +inf is needed to choose a token: "
            "loosen the filters that exclude tokens, or check the model's output and the steering strength."
        )
    return best


def _stream(keys: Tensor, step: Tensor) -> Tensor:
    return _mix_(_mix_(keys + _GAMMA).add_(step * _GAMMA))


def _uniform(stream: Tensor, index: Tensor) -> Tensor:
    bits = _mix_(stream + (index + 1) * _GAMMA)
    return _shift(bits, 12).to(torch.float64).add_(0.5).mul_(2.0**-52)


def _gumbel_(u: Tensor) -> Tensor:
    """`-log(-log(u))`, written over `u`."""
    return u.log_().neg_().log_().neg_()


def _mix_(z: Tensor) -> Tensor:
    """The SplitMix64 finaliser, written over `z`: 64-bit integers to 64-bit integers, one to one. Products
    wrap.
    """
    z ^= _shift(z, 30)
    z *= _MIX1
    z ^= _shift(z, 27)
    z *= _MIX2
    z ^= _shift(z, 31)
    return z


def _shift(z: Tensor, k: int) -> Tensor:
    """Logical right shift: torch's own carries the sign bit along."""
    return (z >> k).bitwise_and_((1 << (64 - k)) - 1)
