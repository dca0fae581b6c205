"""Corpus offsets are removed where languages are shared, and refused where they are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlab.alignment import align_corpora
from steerlab.errors import SteerlabError
from steerlab.estimators import language_vectors
from steerlab.moments import Moments, MomentsAccumulator
from steerlab.types import Site

D = 16
SITES = [Site(0), Site(3)]
LANGUAGES = ("cs", "da", "he", "id", "jv", "su")


def _effect(seed: int) -> Tensor:
    return torch.randn(2, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EFFECT = {code: _effect(i) for i, code in enumerate(LANGUAGES)}
TOPIC = {"news": _effect(50) * 8, "reviews": _effect(51) * 8, "wiki": _effect(52) * 8}


def _moments(mean: Tensor, n: int = 50, noise: float = 0.05, seed: int = 0) -> Moments:
    x = noise * torch.randn(2, n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sums = MomentsAccumulator(SITES, D)
    sums.update_many(x - x.mean(1, keepdim=True) + mean[:, None])
    return sums.result()


def _corpus(topic: str, codes: tuple[str, ...]) -> dict[str, Moments]:
    return {code: _moments(TOPIC[topic] + EFFECT[code], 20 + 10 * i, seed=i) for i, code in enumerate(codes)}


def test_a_planted_topic_between_corpora_does_not_enter_the_language_vectors() -> None:
    corpora = {
        "news": _corpus("news", ("cs", "da", "he", "id")),
        "reviews": _corpus("reviews", ("he", "id", "jv", "su")),
    }
    want = language_vectors(_corpus("news", LANGUAGES))
    got = language_vectors(align_corpora(corpora))
    naive = language_vectors({**corpora["reviews"], **corpora["news"]})
    for code in LANGUAGES:
        right = (got[code].direction * want[code].direction).sum(-1)
        wrong = (naive[code].direction * want[code].direction).sum(-1)
        assert (right > 0.999).all(), code
        assert (wrong < 0.9).all(), code


def test_offsets_pass_through_a_third_corpus() -> None:
    corpora = {
        "news": _corpus("news", ("cs", "da")),
        "reviews": _corpus("reviews", ("jv", "su")),
        "wiki": _corpus("wiki", ("da", "jv")),
    }
    got = align_corpora(corpora)
    for code in ("cs", "da", "jv", "su"):
        torch.testing.assert_close(got[code].mean, TOPIC["news"] + EFFECT[code])


def test_one_corpus_is_left_as_it_is() -> None:
    corpus = _corpus("news", ("cs", "da"))
    got = align_corpora({"news": corpus})
    for code in corpus:
        torch.testing.assert_close(got[code].mean, corpus[code].mean)
        torch.testing.assert_close(got[code].variance, corpus[code].variance)
        torch.testing.assert_close(got[code].norm, corpus[code].norm)


def test_a_language_in_two_corpora_gets_the_sum_of_counts_and_the_spread_within_corpora() -> None:
    corpora = {"news": _corpus("news", ("cs", "da")), "reviews": _corpus("reviews", ("da",))}
    got = align_corpora(corpora)["da"]
    assert got.count.tolist() == [50.0, 50.0]
    within = [corpora["news"]["da"].variance, corpora["reviews"]["da"].variance]
    torch.testing.assert_close(got.variance, 0.6 * within[0] + 0.4 * within[1])
    assert got.variance.max() < 0.01 < (TOPIC["news"] - TOPIC["reviews"]).square().mean()
    share = torch.tensor([0.6, 0.4], dtype=torch.float64)
    norms = torch.stack([corpora["news"]["da"].norm, corpora["reviews"]["da"].norm])
    torch.testing.assert_close(got.norm, share @ norms)


def test_disagreeing_shared_languages_are_averaged() -> None:
    shift = {"da": 1.0, "he": 3.0}
    base = {code: _moments(EFFECT[code]) for code in shift}
    moved = {code: _moments(EFFECT[code] + by) for code, by in shift.items()}
    moved["su"] = _moments(EFFECT["su"] + 2.0)
    got = align_corpora({"news": base, "reviews": moved})
    torch.testing.assert_close(got["su"].mean, EFFECT["su"])
    torch.testing.assert_close(got["da"].mean, EFFECT["da"] - 0.5)
    torch.testing.assert_close(got["he"].mean, EFFECT["he"] + 0.5)


def test_a_corpus_without_a_shared_language_is_refused() -> None:
    corpora = {"news": _corpus("news", ("cs", "da")), "reviews": _corpus("reviews", ("jv", "su"))}
    with pytest.raises(SteerlabError, match=r"'reviews' shares no language .*\(jv, su\)"):
        align_corpora(corpora)
    with pytest.raises(SteerlabError, match="no means were given"):
        align_corpora({})


def test_other_sites_are_refused() -> None:
    other = MomentsAccumulator([Site(1)], D)
    other.update_many(torch.ones(1, 2, D))
    with pytest.raises(SteerlabError, match="means of da in reviews cover other sites"):
        align_corpora({"news": _corpus("news", ("cs", "da")), "reviews": {"da": other.result()}})
