"""Estimates with intervals: Wilson, bootstrap, jackknife, t over seeds, and exact paired tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from steerlab.errors import SteerlabError

Statistic = Callable[[np.ndarray], float | np.floating]
_CELLS = 2_000_000  # numbers drawn at a time, which bounds the memory


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval (unless made with another level) and the number of observations behind it.

    A value or a bound that does not exist is NaN, and `reason` says why; a reason beside a full interval is a note.
    Raises `SteerlabError` for an infinite number, and for NaN without a reason.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""

    def __post_init__(self) -> None:
        numbers = (self.value, self.low, self.high)
        if any(math.isinf(x) for x in numbers):
            raise SteerlabError(f"an estimate of {numbers} was made: give finite numbers, or NaN with a reason.")
        if any(math.isnan(x) for x in numbers) and not self.reason:
            raise SteerlabError(f"an estimate of {numbers} was made without a reason: say why it is missing.")

    @staticmethod
    def missing(reason: str, n: int = 0) -> Estimate:
        """An estimate that does not exist."""
        return Estimate(math.nan, math.nan, math.nan, n, reason)

    @staticmethod
    def point(value: float, n: int, reason: str) -> Estimate:
        """A value without an interval."""
        return Estimate(value, math.nan, math.nan, n, reason)

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)

    def __format__(self, spec: str) -> str:
        """`0.83 [0.79, 0.87]`, every number in the given format (default `.2f`); a missing one shows its reason."""
        spec = spec or ".2f"
        if not self.known:
            return f"missing ({self.reason})"
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{self.value:{spec}} [no interval: {self.reason}]"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)

    def to_json(self) -> dict[str, float | int | str | None]:
        """The fields, NaN as None."""
        fields = asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()}

    @staticmethod
    def from_json(fields: Mapping[str, float | int | str | None]) -> Estimate:
        """What `to_json` wrote. Raises `SteerlabError` when a field is absent or no number."""
        try:
            value, low, high = (
                math.nan if fields[name] is None else float(fields[name])  # type: ignore[arg-type]
                for name in ("value", "low", "high")
            )
            return Estimate(value, low, high, int(fields["n"]), str(fields.get("reason", "")))  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise SteerlabError(
                f"{dict(fields)} is no estimate ({error}): it needs the numbers value, low, high and n."
            ) from error


@dataclass(frozen=True)
class PairedTest:
    """An exact two-sided test on pairs: its p-value, how many pairs favoured the first side, the second, neither."""

    p: float
    wins: int
    losses: int
    ties: int


def wilson(k: int, n: int, level: float = 0.95) -> Estimate:
    """The share k/n with the Wilson score interval (Wilson 1927), which stays honest at 0 and 1 and for small n."""
    _check_level(level)
    if not 0 <= k <= n:
        raise SteerlabError(f"{k} of {n} was given: the count must lie between 0 and the number of trials.")
    if n == 0:
        return Estimate.missing("nothing to count")
    interval = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), n)


def bootstrap(
    values: Float[np.ndarray, "n"],
    statistic: Statistic = np.mean,
    groups: Sequence[Hashable] | np.ndarray | None = None,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 1000,
) -> Estimate:
    """A statistic of the values with its percentile bootstrap interval; with `groups`, whole groups are drawn.

    NaN values are left out and the reason says how many. The interval is somewhat narrow below about 20 values (or groups), and
    wrong for statistics that a repeated value distorts, such as shares of distinct items: see `jackknife`.
    """
    zeros = np.zeros(len(values))
    return _paired(values, zeros, groups, statistic, seed, level, resamples, single=True)


def paired_bootstrap(
    a: Float[np.ndarray, "n"],
    b: Float[np.ndarray, "m"],
    groups: Sequence[Hashable] | np.ndarray | None = None,
    statistic: Statistic = np.mean,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 1000,
) -> Estimate:
    """statistic(a) - statistic(b) where `a[i]` and `b[i]` belong together and are drawn together; a pair with a NaN is left out."""
    return _paired(a, b, groups, statistic, seed, level, resamples, single=False)


def jackknife(
    n: int,
    statistic: Callable[[Int[np.ndarray, "m"]], float],
    seed: int = 0,
    level: float = 0.95,
    subsets: int = 100,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    reason: str = "",
) -> Estimate:
    """A statistic of a *set* of n items with a delete-d jackknife interval (Shao and Wu 1989), d a quarter of n.

    `statistic` gets the rows that are kept, ascending. A bootstrap resample repeats items, so shares of distinct n-grams, duplicate
    rates and Vendi scores come out far from the value and its interval misses it; subsets without repeats do not. They still are
    smaller than the set, which shifts such statistics as well: only the spread of the subsets enters, variance = (n - d) / d times
    theirs, around the value on the whole set. What the interval covers is the expected value for n items of this source: compare
    sets of equal size only. `bounds`: what the statistic cannot leave.
    """
    _check_level(level)
    if subsets < 2:
        raise SteerlabError(f"{subsets} subsets were asked for: give at least 2.")
    value = float(statistic(np.arange(n))) if n else math.nan
    if math.isnan(value):
        return Estimate.missing(reason or "it does not exist for these texts", n)
    if n < 5:
        return Estimate.point(value, n, "fewer than 5 texts")
    d = max(1, n // 4)
    rng = np.random.default_rng(seed)
    found = np.array([statistic(np.sort(rng.choice(n, n - d, replace=False))) for _ in range(subsets)], dtype=float)
    if np.isnan(found).any():
        return Estimate.point(value, n, "it does not exist for some subsets of the texts")
    spread = math.sqrt((n - d) / d * float(found.var(ddof=1)))
    if spread <= 1e-12 * max(1.0, abs(value)):
        return Estimate.point(value, n, "it is the same for every subset of the texts")
    reach = float(stats.t.ppf((1 + level) / 2, n - 1)) * spread
    return Estimate(value, max(value - reach, bounds[0]), min(value + reach, bounds[1]), n, reason)


def over_seeds(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean over seeds with Student's t interval: what the mean of many more seeds would be, all else as it is."""
    _check_level(level)
    known = np.array([v for v in values if not math.isnan(v)], dtype=float)
    n, note = len(known), _left_out(len(values) - len(known), len(values))
    if n == 0:
        return Estimate.missing(note or "no seeds")
    mean = float(known.mean())
    if n == 1:
        return Estimate.point(mean, 1, "one seed")
    reach = float(stats.t.ppf((1 + level) / 2, n - 1) * known.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - reach, mean + reach, n, note)


def nested(values: Float[np.ndarray, "g s"], level: float = 0.95) -> Estimate:
    """The mean over g generation seeds and s classifier seeds, with an interval for what many more of both would give.

    Random effects: value = mean + generation + classifier seed + rest. The squared half-width is Student's for the g generation means
    (g - 1 degrees of freedom; the rest is in it) plus Student's for what the s seed means vary beyond the rest, a sum after Graybill
    and Wang (1980), never below either alone. A generation with a missing value is left out; one alone has no interval.
    """
    _check_level(level)
    known = values[~np.isnan(values).any(axis=1)]
    (g, s), note = known.shape, _left_out(int(np.isnan(values).any(axis=1).sum()), len(values))
    if g == 0 or s == 0:
        return Estimate.missing(note or "no seeds")
    mean = float(known.mean())
    if g == 1:
        return Estimate.point(mean, s, "one generation seed")
    rows, columns = known.mean(axis=1), known.mean(axis=0)
    square = (float(stats.t.ppf((1 + level) / 2, g - 1)) ** 2) * float(rows.var(ddof=1)) / g
    if s > 1:
        noise = float(((known - rows[:, None] - columns + mean) ** 2).sum()) / ((g - 1) * (s - 1) * g * s)
        alone, t = float(columns.var(ddof=1)) / s, float(stats.t.ppf((1 + level) / 2, s - 1)) ** 2
        square = max(square + t * max(0.0, alone - noise), t * alone)
    return Estimate(mean, mean - math.sqrt(square), mean + math.sqrt(square), g * s, note)


def exact_sign_test(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]) -> PairedTest:
    """Is `a` as often above `b` as below? Pairs that are equal, or miss one side, count as ties and carry no evidence."""
    _check_pairs(len(a), len(b))
    wins, losses = int((a > b).sum()), int((a < b).sum())
    return PairedTest(_binomial(wins, losses), wins, losses, len(a) - wins - losses)


def exact_mcnemar(a: Bool[np.ndarray, "n"], b: Bool[np.ndarray, "m"]) -> PairedTest:
    """Are two classifiers right equally often on the same rows (McNemar 1947, exact)? `a[i]` says whether the first is right on row i."""
    _check_pairs(len(a), len(b))
    wins, losses = int((a & ~b).sum()), int((~a & b).sum())
    return PairedTest(_binomial(wins, losses), wins, losses, len(a) - wins - losses)


def _binomial(wins: int, losses: int) -> float:
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise SteerlabError(f"a confidence level of {level} was given: it lies between 0 and 1, 0.95 say.")


def _check_pairs(n: int, m: int) -> None:
    if n != m:
        raise SteerlabError(f"{n} and {m} values were given: pairs need as many on both sides.")


def _left_out(k: int, n: int) -> str:
    return f"{k} of {n} values are missing and left out" if k else ""


def _codes(groups: Sequence[Hashable] | np.ndarray | None, n: int) -> Int[np.ndarray, "n"]:
    """The groups as numbers 0, 1, ... in order of appearance; without groups every row is its own."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise SteerlabError(f"{n} values and {len(groups)} groups were given: give one group per value.")
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(group, len(seen)) for group in groups], dtype=np.int64)


def _draws(k: int, resamples: int, seed: int) -> Iterator[Int[np.ndarray, "r k"]]:
    """`resamples` draws of k out of k groups with replacement, a bounded number at a time."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS // k)
    for first in range(0, resamples, rows):
        yield rng.integers(k, size=(min(rows, resamples - first), k))


def _paired(
    a: Float[np.ndarray, "n"],
    b: Float[np.ndarray, "m"],
    groups: Sequence[Hashable] | np.ndarray | None,
    statistic: Statistic,
    seed: int,
    level: float,
    resamples: int,
    single: bool,
) -> Estimate:
    """`bootstrap` (single) and `paired_bootstrap` in one; a mean is resampled as sums and counts of groups."""
    _check_level(level)
    _check_pairs(len(a), len(b))
    if resamples < 1:
        raise SteerlabError(f"{resamples} resamples were asked for: give at least 1.")
    code = _codes(groups, len(a))
    known = ~(np.isnan(a) | np.isnan(b))
    note = _left_out(int((~known).sum()), len(a))
    a, b = a[known].astype(float), b[known].astype(float)
    _, code = np.unique(code[known], return_inverse=True)
    n, k = len(a), int(code.max()) + 1 if len(code) else 0
    if n == 0:
        return Estimate.missing(note or "no values")
    value = float(statistic(a)) - (0.0 if single else float(statistic(b)))
    if not math.isfinite(value):
        return Estimate.missing("it is not finite for these values", n)
    if k == 1:
        return Estimate.point(value, n, "one value" if n == 1 else "one group")
    if statistic is np.mean:
        sums, sizes = np.bincount(code, weights=a - b), np.bincount(code)
        found = np.concatenate([sums[draw].sum(1) / sizes[draw].sum(1) for draw in _draws(k, resamples, seed)])
    else:
        members = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
        rows = (np.concatenate([members[g] for g in draw]) for part in _draws(k, resamples, seed) for draw in part)
        found = np.array([float(statistic(a[row])) - (0.0 if single else float(statistic(b[row]))) for row in rows])
    if np.isfinite(found).mean() < 0.9:
        return Estimate.point(value, n, "it is not finite for many resamples")
    low, high = np.quantile(found[np.isfinite(found)], ((1 - level) / 2, (1 + level) / 2))
    return Estimate(value, float(low), float(high), n, note)
