"""Streaming equals batch, merging equals one go, weights mean what they say, and NaN never passes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from steerlab import moments as module
from steerlab.errors import SteerlabError
from steerlab.moments import Moments, MomentsAccumulator
from steerlab.types import Site
from tests.reference.moments import weighted_moments

SITES = (Site(0), Site(2), Site(2, "attn_out"))


def _data(n: int = 40, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(3, n, d, generator=torch.Generator().manual_seed(seed)) * torch.arange(1, 4).view(3, 1, 1) + 7


def _moments(x: torch.Tensor, weight: torch.Tensor | None = None, cuts: tuple[int, ...] = ()) -> Moments:
    sums = MomentsAccumulator(SITES, x.shape[2], covariance=True)
    edges = [0, *cuts, x.shape[1]]
    for a, b in pairwise(edges):
        for k in range(3):
            sums.update(k, x[k, a:b], None if weight is None else weight[a:b])
    return sums.result()


def _assert_same(a: Moments, b: Moments) -> None:
    assert a.sites == b.sites
    for name in ("count", "mean", "variance", "norm", "covariance"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("cuts", [(), (1,), (13, 13, 27)])
@pytest.mark.parametrize("weighted", [False, True])
def test_streaming_equals_the_slow_reference(cuts: tuple[int, ...], weighted: bool) -> None:
    x = _data()
    weight = torch.linspace(0.1, 2, 40) if weighted else None
    got = _moments(x, weight, cuts)
    for k in range(3):
        want = weighted_moments(x[k].tolist(), [1.0] * 40 if weight is None else weight.tolist())
        assert float(got.count[k]) == pytest.approx(want.count)
        assert got.mean[k].tolist() == pytest.approx(want.mean)
        assert got.variance[k].tolist() == pytest.approx(want.variance)
        assert float(got.norm[k]) == pytest.approx(want.norm)
        assert got.covariance is not None
        assert [v for row in got.covariance[k].tolist() for v in row] == pytest.approx(
            [v for row in want.covariance for v in row]
        )


def test_the_result_does_not_depend_on_how_values_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _moments(_data())
    monkeypatch.setattr(module, "_BLOCK", 18)
    _assert_same(_moments(_data()), whole)


def test_update_many_is_update_at_every_site() -> None:
    x, weight = _data(), torch.rand(40, generator=torch.Generator().manual_seed(3))
    sums = MomentsAccumulator(SITES, 6, covariance=True)
    sums.update_many(x, weight)
    _assert_same(sums.result(), _moments(x, weight))


def test_merging_accumulators_and_moments_equals_one_go() -> None:
    x = _data()
    parts = [MomentsAccumulator(SITES, 6, covariance=True) for _ in range(3)]
    for part, (a, b) in zip(parts, [(0, 11), (11, 12), (12, 40)], strict=True):
        part.update_many(x[:, a:b])
    merged = parts[0].result().merge(parts[1].result()).merge(parts[2].result())
    empty = MomentsAccumulator(SITES, 6, covariance=True)
    for part in parts:
        empty.merge(part)
    _assert_same(merged, _moments(x))
    _assert_same(empty.result(), _moments(x))


def test_merging_with_an_accumulator_that_saw_nothing_changes_nothing() -> None:
    sums = MomentsAccumulator(SITES, 6, covariance=True)
    sums.update_many(_data())
    sums.merge(MomentsAccumulator(SITES, 6, covariance=True))
    _assert_same(sums.result(), _moments(_data()))


def test_variance_survives_a_mean_a_million_times_larger() -> None:
    noise = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = MomentsAccumulator([Site(0)], 4)
    for part in (noise + 1e6).split(7):
        sums.update(0, part)
    torch.testing.assert_close(sums.result().variance[0], noise.var(0, correction=0), rtol=1e-9, atol=0)


def test_token_weights_differ_from_text_weights_when_lengths_differ() -> None:
    short, long = torch.zeros(1, 2), torch.ones(3, 2)
    tokens, texts = MomentsAccumulator([Site(0)], 2), MomentsAccumulator([Site(0)], 2)
    for text in (short, long):
        tokens.update(0, text)
        texts.update(0, text, torch.full((len(text),), 1 / len(text)))
    assert tokens.result().mean[0].tolist() == pytest.approx([0.75, 0.75])
    assert texts.result().mean[0].tolist() == pytest.approx([0.5, 0.5])
    assert tokens.result().count.tolist() == [4.0]
    assert texts.result().count.tolist() == pytest.approx([2.0])


def test_weight_zero_leaves_an_activation_out_even_when_it_is_nan() -> None:
    x = _data()[0]
    padded = torch.cat([torch.full((2, 6), float("nan")), x])
    weight = torch.cat([torch.zeros(2), torch.ones(40)])
    masked, plain = MomentsAccumulator([Site(0)], 6), MomentsAccumulator([Site(0)], 6)
    masked.update(0, padded, weight)
    masked.update(0, padded[:2], weight[:2])
    plain.update(0, x)
    assert torch.equal(masked.result().mean, plain.result().mean)
    assert float(masked.result().count) == 40


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 20])
def test_nan_and_infinity_are_refused_with_the_site_and_leave_the_sums_alone(bad: float, at: int) -> None:
    x = _data()
    sums = MomentsAccumulator(SITES, 6, covariance=True)
    sums.update_many(x)
    x[1, at, 3] = bad
    with pytest.raises(SteerlabError, match="attn_out of layer 2 is NaN or infinite"):
        sums.update(2, x[1])
    _assert_same(sums.result(), _moments(_data()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_widened_before_they_are_summed(dtype: torch.dtype) -> None:
    x = _data(n=300)[0].to(dtype)
    before = x.clone()
    sums = MomentsAccumulator([Site(0)], 6)
    sums.update(0, x)
    assert torch.equal(x, before)
    torch.testing.assert_close(sums.result().mean[0], x.double().mean(0), rtol=1e-12, atol=0)
    assert sums.result().mean.dtype == torch.float64


def test_streams_and_sites_are_selected_with_their_rows() -> None:
    got = _moments(_data())
    assert got.stream("resid_post").layers == (0, 2)
    assert torch.equal(got.stream("attn_out").mean, got.mean[2:])
    assert torch.equal(got.site(Site(2)).mean, got.mean[1:2])
    with pytest.raises(SteerlabError, match="'mlp_out' was not captured"):
        got.stream("mlp_out")
    with pytest.raises(SteerlabError, match="resid_post of layer 1 was not captured"):
        got.site(Site(1))


def test_a_site_that_saw_nothing_is_an_error_and_not_a_mean_of_zero() -> None:
    sums = MomentsAccumulator(SITES, 6)
    sums.update(0, _data()[0])
    with pytest.raises(SteerlabError, match="no activation was seen at resid_post of layer 2"):
        sums.result()


def test_bad_arguments_are_refused() -> None:
    sums = MomentsAccumulator(SITES, 6)
    with pytest.raises(SteerlabError, match="width 5 were given, 6"):
        sums.update(0, torch.zeros(3, 5))
    for weight in (
        torch.tensor([1.0, -1.0]),
        torch.tensor([1.0, float("nan")]),
        torch.tensor([1.0, float("inf")]),
    ):
        with pytest.raises(SteerlabError, match="negative or not finite"):
            sums.update(0, torch.zeros(2, 6), weight)
    with pytest.raises(SteerlabError, match="2 sites were given, 3"):
        sums.update_many(torch.zeros(2, 4, 6))
    with pytest.raises(SteerlabError, match="at least one site"):
        MomentsAccumulator([], 6)
    with pytest.raises(SteerlabError, match="given twice"):
        MomentsAccumulator([Site(0), Site(0)], 6)
    with pytest.raises(SteerlabError, match="differ in sites, width or covariance"):
        sums.merge(MomentsAccumulator(SITES, 6, covariance=True))
    with pytest.raises(SteerlabError, match="differ in sites, width or covariance"):
        _moments(_data()).merge(_moments(_data(d=5)))


def test_the_result_is_a_copy() -> None:
    sums = MomentsAccumulator(SITES, 6)
    sums.update_many(_data())
    first = sums.result()
    mean = first.mean.clone()
    sums.update_many(_data() + 5)
    assert torch.equal(first.mean, mean)
    assert not torch.equal(sums.result().mean, mean)
