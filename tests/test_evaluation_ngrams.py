"""n-grams of a set against length-matched real text, by hand and on repeated sentences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.ngrams import Matched, ngram_report, ngram_share, set_diversity
from steerlab.evaluation.words import words

RNG = np.random.default_rng(0)


def _texts(n: int, seed: int, vocabulary: int = 300) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{k}" for k in rng.integers(vocabulary, size=12)) for _ in range(n)]


def test_shares_counted_by_hand() -> None:
    ids = np.array([0, 1, 2, 0, 1, 2, 0])  # 012 120 201 012 120: three of five
    assert ngram_share(ids, 3) == 3 / 5
    assert ngram_share(ids, 1) == 3 / 7 and ngram_share(ids, 2) == 3 / 6
    assert set_diversity(ids) == pytest.approx(3 / 6 * 3 / 5 * 3 / 4)
    assert math.isnan(ngram_share(ids[:2], 3)) and math.isnan(set_diversity(ids[:3]))
    with pytest.raises(SteerlabError, match="0 tokens"):
        ngram_share(ids, 0)


def test_against_strings_of_a_plain_count() -> None:
    texts = _texts(20, 1, 12)
    joined = words(" ".join(texts))
    grams = [joined[i : i + 3] for i in range(len(joined) - 2)]
    found = ngram_report(texts, _texts(30, 2))
    assert found["ngrams_3"].value == pytest.approx(len(set(grams)) / len(grams))


def test_the_real_text_is_cut_to_the_same_number_of_characters() -> None:
    texts, real = ["ab cd", "ef"], ["one two three four", "five six seven"]
    mine, theirs = Matched(texts, real, seed=0).cut(np.arange(2))
    order = np.random.default_rng(0).permutation(2)
    joined = " ".join(real[i] for i in order)[: len("ab cd ef")]
    assert len(mine) == 3 and len(theirs) == len(words(joined))
    other = Matched([*_texts(40, 3)], real)  # less real text than synthetic: that is cut
    mine, theirs = other.cut(np.arange(40))
    assert other.shorter_real and len(theirs) == 7 and len(mine) == len(words(" ".join(_texts(40, 3))[:33]))
    assert "fewer" in ngram_report(_texts(40, 3), real)["ngrams_3"].reason


def test_a_repeated_sentence_has_its_own_trigrams_and_no_more() -> None:
    sentence, n = "a b c d e f", 50  # joined, a period of six words: six trigrams for ever
    real = _texts(200, 4, 5000)
    found = ngram_report([sentence] * n, real)
    assert found["ngrams_3"].value == pytest.approx(6 / (6 * n - 2))
    assert found["ngrams_3_ratio"].value < 0.05 and found["real_ngrams_3"].value > 0.95


def test_texts_of_one_source_are_as_varied_as_each_other() -> None:
    """With vocabulary so small that length matters: unmatched, the longer side would look poorer."""
    found = ngram_report(_texts(60, 5, 20), _texts(400, 6, 20))
    assert found["ngrams_3_ratio"].value == pytest.approx(1, abs=0.02)
    assert found["ngrams_3_ratio"].low < 1 < found["ngrams_3_ratio"].high
    assert found["diversity_2_4_ratio"].low < 1 < found["diversity_2_4_ratio"].high
    assert found["diversity_2_4"].value == pytest.approx(found["real_diversity_2_4"].value, abs=0.05)
    whole = [number for text in _texts(400, 6, 20) for number in map(hash, words(text))]
    assert ngram_share(np.unique(whole, return_inverse=True)[1], 3) < found["ngrams_3"].value - 0.1


def test_any_tokens_will_do_and_too_little_text_is_missing() -> None:
    letters = ngram_report(["abab", "baba"], ["abcdefghijklm"], tokenise=list)
    # "abab baba": aba bab ab_ b_b _ba bab aba, five of seven
    assert letters["ngrams_3"].value == 5 / 7 and letters["real_ngrams_3"].value == 1
    assert not ngram_report([], ["some real text here"])["ngrams_3"].known
    assert not ngram_report(["a"], ["b"])["ngrams_3"].known
