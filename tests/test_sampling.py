"""The noise is a function of (key, step, token) alone, it is Gumbel, and argmax(scores + noise) samples softmax(scores)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import TopPLogitsWarper

from steerlab import sampling
from steerlab.errors import SteerlabError
from steerlab.sampling import greedy, gumbel, keyed_uniform, nucleus, row_key, sample
from tests.reference import sampling as reference

P_MIN = 1e-4  # fixed keys: a test that passes once always passes


def _keys(n: int, seed: int = 0) -> Tensor:
    return torch.tensor([row_key(seed, "row", i) for i in range(n)])


def _scores(b: int, v: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(b, v, generator=torch.Generator().manual_seed(seed))


def _filtered(scores: Tensor, k: int) -> Tensor:
    return scores.masked_fill(scores < scores.topk(k, dim=-1).values[:, -1:], -math.inf)


def _uniform(keys: Tensor, steps: Tensor, v: int) -> np.ndarray:
    return keyed_uniform(keys, steps, torch.arange(v).expand(len(keys), v)).numpy()


def test_row_keys_tell_every_name_apart_and_fit_in_63_bits() -> None:
    names = [
        (0,),
        (1,),
        (0, "a"),
        (0, "ab"),
        (0, "a", "b"),
        (0, "b", "a"),
        (0, 1),
        (0, "1"),
        (0, 1, 1),
        (0, 11),
        (-1,),
        (0, ""),
    ]
    keys = [row_key(*name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(0 <= key < 1 << 63 for key in keys)
    assert row_key(0, "topic", "cs", 3) == row_key(0, "topic", "cs", 3)
    torch.tensor(keys, dtype=torch.int64)


def test_uniform_equals_the_integer_reference_bit_for_bit() -> None:
    keys = torch.tensor([0, 1, 1 << 62, (1 << 63) - 1, row_key(3, "x")])
    steps = torch.tensor([0, 1, 511, 7, 100_000])
    got = _uniform(keys, steps, 50)
    for row in range(5):
        assert got[row].tolist() == [reference.uniform(int(keys[row]), int(steps[row]), i) for i in range(50)]


def test_uniform_is_never_0_or_1_even_at_the_ends_of_the_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([[0, -1, 1 << 62, -(1 << 63)]])
    monkeypatch.setattr(sampling, "_mix_", lambda z: ends if z.ndim == 2 else z)
    u = keyed_uniform(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), torch.zeros_like(ends))
    assert u[0, 0] == 2.0**-53
    assert u[0, 1] == 1 - 2.0**-53
    assert ((u > 0) & (u < 1)).all()
    monkeypatch.setattr(sampling, "keyed_uniform", lambda *_: u.clone())
    noise = gumbel(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), torch.zeros_like(ends))
    assert float(noise.max() - noise.min()) < sampling._REACH
    assert noise.isfinite().all()


def test_uniform_is_uniform_along_tokens_steps_and_keys() -> None:
    along_tokens = _uniform(_keys(1), torch.zeros(1, dtype=torch.int64), 50_000)[0]
    along_steps = _uniform(_keys(1).expand(50_000), torch.arange(50_000), 1)[:, 0]
    along_keys = _uniform(_keys(20_000), torch.zeros(20_000, dtype=torch.int64), 1)[:, 0]
    adjacent_keys = _uniform(torch.arange(50_000), torch.zeros(50_000, dtype=torch.int64), 1)[:, 0]
    for u in (along_tokens, along_steps, along_keys, adjacent_keys):
        assert stats.kstest(u, "uniform").pvalue > P_MIN
        bits = (u[:, None] * 2.0 ** np.arange(1, 21) % 2).astype(int)  # the first 20 bits, each fair
        assert np.abs(bits.mean(0) - 0.5).max() < 4.5 * 0.5 / math.sqrt(len(u))


def test_noise_is_independent_across_tokens_steps_and_keys() -> None:
    n = 20_000
    zero = torch.zeros(n, dtype=torch.int64)
    key = _keys(1).expand(n)
    pairs = {
        "neighbouring tokens": _uniform(key, torch.arange(n), 2).T,
        "neighbouring steps": [_uniform(key, torch.arange(n) + s, 1)[:, 0] for s in (0, 1)],
        "neighbouring keys": [_uniform(torch.arange(n) * 2 + k, zero, 1)[:, 0] for k in (0, 1)],
        "token against step": [
            _uniform(key, torch.arange(n), 1)[:, 0],
            keyed_uniform(key, zero, torch.arange(n)[:, None]).numpy()[:, 0],
        ],
    }
    for name, (a, b) in pairs.items():
        table = np.histogram2d(a, b, bins=8, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(table.ravel()).pvalue > P_MIN, name
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / math.sqrt(n), name


def test_gumbel_noise_follows_its_distribution() -> None:
    noise = gumbel(_keys(50), torch.arange(50), torch.arange(1000).expand(50, 1000)).numpy().ravel()
    assert stats.kstest(noise, "gumbel_r").pvalue > P_MIN


@pytest.mark.parametrize("k", [5, 12, 40])
def test_sample_frequencies_are_softmax(k: int) -> None:
    n, v = 20_000, 40
    scores = _filtered(_scores(1, v), k)
    tokens = sample(scores.expand(n, v), _keys(1).expand(n), torch.arange(n))
    counts = np.bincount(tokens.numpy(), minlength=v)
    want = torch.softmax(scores[0].double(), -1).numpy() * n
    assert counts[want == 0].sum() == 0
    rare = (want > 0) & (want < 5)
    kept = (want > 0) & ~rare
    observed, expected = [*counts[kept], counts[rare].sum()], [*want[kept], want[rare].sum()]
    assert len(expected) > 3
    if not rare.any():
        observed, expected = observed[:-1], expected[:-1]
    assert stats.chisquare(observed, expected).pvalue > P_MIN
    wrong = np.full(len(expected), n / len(expected))
    assert stats.chisquare(observed, wrong).pvalue < 1e-10


@pytest.mark.parametrize("k", [3, 10, 30, 64])
def test_sample_equals_the_slow_reference(k: int) -> None:
    scores, keys, steps = _filtered(_scores(20, 64), k), _keys(20), torch.arange(20)
    want = [reference.sample(scores[i].tolist(), int(keys[i]), int(steps[i])) for i in range(20)]
    assert sample(scores, keys, steps).tolist() == want
    assert want != greedy(scores).tolist()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    b, v = 24, 500
    scores, keys, steps = _scores(b, v), _keys(b), torch.arange(b) * 5
    scores[::2] = _filtered(scores[::2], 20)
    together = sample(scores, keys, steps)
    order = torch.randperm(b, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sample(scores[order], keys[order], steps[order]), together[order])
    for i in range(b):
        assert int(sample(scores[i : i + 1], keys[i : i + 1], steps[i : i + 1])) == int(together[i])


def test_the_two_ways_of_drawing_give_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, keys, steps = _scores(16, 300), _keys(16), torch.arange(16)
    dense = sample(scores, keys, steps)
    wide = torch.cat([scores, torch.full((16, 3000), -math.inf)], 1)  # too few possible tokens for the dense way
    monkeypatch.setattr(sampling, "_sample_every", lambda *_: pytest.fail("the dense way was taken"))
    assert torch.equal(sample(wide, keys, steps), dense)


def test_leaving_out_hopeless_tokens_changes_nothing() -> None:
    scores = torch.linspace(0, -200, 400).expand(64, 400).contiguous()
    keys, steps = _keys(64), torch.zeros(64, dtype=torch.int64)
    want = [reference.sample(scores[i].tolist(), int(keys[i]), 0) for i in range(64)]
    assert sample(scores, keys, steps).tolist() == want
    assert len(set(want)) > 3


def test_rows_that_share_a_key_share_their_noise() -> None:
    scores, key = _scores(1, 200).expand(2, 200), _keys(1).expand(2)
    for step in range(20):
        a, b = sample(scores, key, torch.tensor([step, step])).tolist()
        assert a == b
    different = [sample(scores, _keys(2), torch.tensor([s, s])).tolist() for s in range(20)]
    assert any(a != b for a, b in different)


def test_a_shift_of_all_scores_changes_no_sample() -> None:
    scores, keys, steps = _scores(30, 100).double(), _keys(30), torch.arange(30)
    assert torch.equal(sample(scores + 8.0, keys, steps), sample(scores, keys, steps))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_of_any_float_dtype_give_the_tokens_of_their_values(dtype: torch.dtype) -> None:
    scores, keys, steps = _scores(10, 50).to(dtype), _keys(10), torch.arange(10)
    assert torch.equal(sample(scores, keys, steps), sample(scores.double(), keys, steps))


def test_ties_go_to_the_lowest_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_gumbel_", torch.zeros_like)
    keys, steps = _keys(2), torch.zeros(2, dtype=torch.int64)
    tied = torch.full((2, 40), -math.inf)
    tied[0, [7, 9, 30]], tied[1, [39, 12]] = 2.0, 1.0
    assert sample(tied, keys, steps).tolist() == [7, 12]
    assert sample(torch.zeros(2, 40), keys, steps).tolist() == [0, 0]
    assert greedy(tied).tolist() == [7, 12]


def test_greedy_takes_the_best_score_and_one_possible_token_is_always_taken() -> None:
    scores = _scores(8, 50)
    assert torch.equal(greedy(scores), scores.argmax(-1))
    only = _filtered(scores, 1)
    assert torch.equal(sample(only, _keys(8), torch.arange(8)), greedy(scores))


@pytest.mark.parametrize("choose", [lambda s: sample(s, _keys(3), torch.zeros(3, dtype=torch.int64)), greedy])
def test_a_row_without_a_choice_is_named(choose) -> None:
    for value, words in ((-math.inf, "-inf for every token"), (math.nan, "NaN"), (math.inf, r"\+inf")):
        scores = _scores(3, 20)
        scores[1, :] = value if value == -math.inf else scores[1]
        scores[1, 4] = value
        with pytest.raises(SteerlabError, match=f"row 1 of the scores holds {words}"):
            choose(scores)
    with pytest.raises(SteerlabError, match="no tokens"):
        choose(torch.zeros(3, 0))


def test_arguments_are_not_written_to() -> None:
    args = [_scores(4, 30), _keys(4), torch.arange(4)]
    before = [a.clone() for a in args]
    sample(*args)
    greedy(args[0])
    for now, then in itertools.zip_longest(args, before):
        assert torch.equal(now, then)


@pytest.mark.parametrize("mass", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_nucleus_is_what_transformers_sorting_everything_keeps(
    mass: float, spread: float, dtype: torch.dtype
) -> None:
    """Flat rows need thousands of tokens, peaked ones a few; a token at the very edge may differ by rounding, and ties stay together."""
    scores = (torch.randn(12, 3000, generator=torch.Generator().manual_seed(1)) * spread).to(dtype)
    scores[3, ::2] = -math.inf  # what top-k leaves out
    sorting: Any = TopPLogitsWarper(mass)
    got, want = nucleus(scores, mass), sorting(torch.zeros(12, 1, dtype=torch.long), scores.float())
    kept, wanted = got.isfinite(), want.isfinite()
    assert torch.equal(got[kept], scores[kept])
    probability = scores.float().softmax(-1)
    for row in range(12):
        differ = (kept[row] != wanted[row]).nonzero()[:, 0]
        edge = probability[row][kept[row]].min()
        if dtype == torch.float32 and len(differ):
            above = probability[row][probability[row] > probability[row][differ].max()].sum()
            assert len(differ) == 1 and abs(float(above) - mass) < 1e-5  # the mass is reached within rounding
        elif len(differ):
            assert (probability[row][differ] == edge).all()
        assert probability[row][kept[row]].sum() >= mass - 1e-5
    assert int(kept.sum(-1).min()) >= 1


def test_a_nucleus_of_everything_keeps_everything_and_of_nan_stays_nan() -> None:
    scores = torch.randn(2, 50)
    assert nucleus(scores, 1.0) is scores
    broken = scores.clone()
    broken[0, 3] = math.nan
    assert nucleus(broken, 0.5)[0].isnan().any() and torch.equal(nucleus(broken, 0.5)[1], nucleus(scores, 0.5)[1])
