"""Noise has no reliability and a planted direction has; halves are disjoint, shuffles keep the texts, means lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steerlab.errors import SteerlabError
from steerlab.fitting import fit_contrast_vector, fit_language_vectors
from steerlab.reliability import (
    TextMeans,
    contrast_fit,
    contrast_halves,
    language_fit,
    language_halves,
    shuffled_languages,
    split_half,
    text_means,
)
from steerlab.similarity import centred_cosine, cosine_curve, cosine_matrix
from steerlab.types import Site
from tests.tiny import tiny

SITES, D = (Site(0), Site(3)), 48
WORDS = ["a river", "the old town", "we sang", "rain again", "seven small stones", "no", "it went on and on", "salt"]


def _cell(rng: np.random.Generator, n: int, shift: np.ndarray) -> TextMeans:
    mean = rng.standard_normal((n, len(SITES), D)) + shift
    return TextMeans(SITES, mean.astype(np.float32), rng.integers(3, 30, n).astype(float))


def _languages(strength: float, n: int = 120, seed: int = 0) -> dict[str, dict[str, TextMeans]]:
    """Two corpora that share a language; every language has its own direction of length `strength`, noise has length 7."""
    rng = np.random.default_rng(seed)
    own = {code: rng.standard_normal(D) / np.sqrt(D) * strength for code in ("cs", "sk", "jv", "su")}
    topic = rng.standard_normal(D)
    return {
        "news": {code: _cell(rng, n, own[code]) for code in ("cs", "sk", "jv")},
        "reviews": {code: _cell(rng, n, own[code] + topic) for code in ("jv", "su")},
    }


@pytest.mark.parametrize("parallel", [False, True])
def test_pure_noise_has_no_reliability_and_a_planted_direction_has(parallel: bool) -> None:
    planted, noise = _languages(8.0), _languages(0.0)
    for means, low, high in ((planted, 0.9, 1.0), (noise, -0.6, 0.6)):
        halves = [language_halves(means, seed, parallel) for seed in range(8)]
        for code in ("cs", "sk", "jv", "su"):
            got = split_half([(a[code], b[code]) for a, b in halves])
            assert got.shape == (2,)
            assert low < float(got.min()) and float(got.max()) < high
    spread = [float(split_half([(a[c], b[c]) for a, b in halves]).mean()) for c in ("cs", "sk", "jv", "su")]
    assert abs(np.mean(spread)) < 0.3


@pytest.mark.parametrize("parallel", [False, True])
def test_shuffled_languages_lose_the_planted_directions_and_keep_the_texts(parallel: bool) -> None:
    planted = _languages(8.0)
    mixed = shuffled_languages(planted, seed=1, parallel=parallel)
    for corpus, by in planted.items():
        assert [len(own.tokens) for own in mixed[corpus].values()] == [len(own.tokens) for own in by.values()]
        rows = [np.concatenate([own.mean[:, 0] for own in which.values()]) for which in (by, mixed[corpus])]
        np.testing.assert_array_equal(np.sort(rows[0], axis=0), np.sort(rows[1], axis=0))
        if parallel:  # every sentence still stands once in its row, under some language
            given, got = (np.stack([own.mean[:, 0, 0] for own in which.values()]) for which in (by, mixed[corpus]))
            np.testing.assert_array_equal(np.sort(given, axis=0), np.sort(got, axis=0))
            assert (given != got).mean() > 0.3
    true, same, sure = language_fit(planted), [], []
    for seed in range(12):
        mixed = shuffled_languages(planted, seed, parallel)
        shuffled = language_fit(mixed)
        same += [float(cosine_curve(true[code], shuffled[code]).mean()) for code in true]
        a, b = language_halves(mixed, seed, parallel)
        sure += [float(split_half([(a[code], b[code])]).mean()) for code in ("cs", "sk")]
    assert abs(np.mean(same)) < 0.25  # one shuffle may fall near a true direction: both lie among few dimensions
    assert abs(np.mean(sure)) < 0.4
    off = cosine_matrix(list(shuffled.values()))[0][~torch.eye(4, dtype=torch.bool)]
    assert float(off.mean()) == pytest.approx(centred_cosine(4), abs=0.12)


def test_halves_are_disjoint_cover_everything_and_keep_parallel_rows_together() -> None:
    rng = np.random.default_rng(3)
    numbered = {c: TextMeans(SITES, rng.standard_normal((9, 2, D)).astype(np.float32), np.ones(9)) for c in "ab"}
    for own in numbered.values():
        own.mean[:, :, 0] = 4.0 ** np.arange(9)[:, None]  # the sum of a half says which rows it has
    first, second = language_halves({"x": numbered}, 5, parallel=True)
    whole = language_fit({"x": numbered})
    for vectors in (first, second, whole):  # the same sentences on both sides: what they share cancels
        assert abs(float(vectors["a"].raw(0)[0])) < 1e-3
    apart, _ = language_halves({"x": numbered}, 5, parallel=False)
    assert abs(float(apart["a"].raw(0)[0])) > 1
    weights = (4, 5)
    joined = sum(n * v["a"].raw(3).double() for n, v in zip(weights, (first, second), strict=True)) / 9
    torch.testing.assert_close(joined, whole["a"].raw(3).double(), atol=1e-3, rtol=1e-4)
    again, _ = language_halves({"x": numbered}, 5, parallel=True)
    assert torch.equal(again["a"].direction, first["a"].direction)
    other, _ = language_halves({"x": numbered}, 6, parallel=True)
    assert not torch.equal(other["a"].direction, first["a"].direction)


def test_pairs_halve_together_and_a_planted_contrast_is_reliable() -> None:
    rng = np.random.default_rng(4)
    content = 20 * rng.standard_normal(
        (80, 1, D)
    )  # both sides of a pair share it, so it cancels only if pairs stay whole
    push = rng.standard_normal(D)

    def side(shift: np.ndarray) -> TextMeans:
        mean = content + shift + 0.5 * rng.standard_normal((80, 2, D))
        return TextMeans(SITES, mean.astype(np.float32), np.ones(80))

    good, bad = side(push / 2), side(-push / 2)
    sure = split_half([contrast_halves(good, bad, seed) for seed in range(5)])
    assert sure.shape == (2,)
    assert float(sure.min()) > 0.95
    same = split_half([contrast_halves(side(np.zeros(D)), side(np.zeros(D)), seed) for seed in range(12)])
    assert abs(float(same.mean())) < 0.25
    assert float(torch.cosine_similarity(contrast_fit(good, bad).at(0), torch.from_numpy(push).float(), dim=0)) > 0.98
    with pytest.raises(SteerlabError, match="80 and 79 texts"):
        contrast_halves(good, bad.rows(np.arange(79)), 0)


def test_text_means_hold_all_that_the_fit_needs() -> None:
    model = tiny("llama")
    texts = {
        "news": {"cs": WORDS[:5], "sk": [w.upper() for w in WORDS[:5]], "jv": [w[::-1] for w in WORDS[:5]]},
        "reviews": {"jv": [w + "!" for w in WORDS], "su": [w + " ?" for w in WORDS]},
    }
    means = {c: {code: text_means(model, own) for code, own in by.items()} for c, by in texts.items()}
    want, got = fit_language_vectors(model, texts), language_fit(means)
    assert set(got) == set(want)
    for code in want:
        assert got[code].counts == want[code].counts  # in tokens, without BOS
        torch.testing.assert_close(got[code].direction, want[code].direction, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got[code].raw_norm, want[code].raw_norm, atol=1e-5, rtol=1e-4)
        assert bool(got[code].residual_norm.isnan().all())
    side = [text_means(model, own, [Site(1)]) for own in (WORDS, WORDS[::2])]
    one = fit_contrast_vector(model, WORDS, WORDS[::2], name="c", surface=False, sites=[Site(1)])
    torch.testing.assert_close(contrast_fit(side[0], side[1]).direction, one.direction, atol=1e-5, rtol=1e-4)


def test_what_can_not_be_halved_is_refused() -> None:
    uneven = _languages(1.0)
    uneven["news"]["cs"] = uneven["news"]["cs"].rows(np.arange(7))
    with pytest.raises(SteerlabError, match="'cs': 7"):
        language_halves(uneven, 0, parallel=True)
    with pytest.raises(SteerlabError, match="'cs': 7"):
        shuffled_languages(uneven, 0, parallel=True)
    language_halves(uneven, 0)
    with pytest.raises(SteerlabError, match="halves need at least two"):
        language_halves({"x": {c: uneven["news"][c].rows(np.arange(1)) for c in ("cs", "sk")}}, 0)
    with pytest.raises(SteerlabError, match="at least one split"):
        split_half([])
