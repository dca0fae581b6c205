"""Diversity measures have their textbook values, and the report their intervals and notes."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.errors import SteerlabError
from steerlab.evaluation import diversity
from steerlab.evaluation.diversity import (
    compression_ratio,
    distinct_n,
    diversity_report,
    duplicate_rate,
    moving_type_token_ratio,
    ngram_diversity,
    self_bleu,
    type_token_ratio,
    vendi_score,
)

RNG = np.random.default_rng(0)
TEXTS = [" ".join(f"w{k}" for k in RNG.zipf(1.6, size=size) % 97) for size in RNG.integers(6, 20, size=40)]
token_lists = st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=8), max_size=6)


def test_distinct_n_counts_over_the_whole_set() -> None:
    texts = ["the cat sat", "The cat, ran!"]
    assert [distinct_n(texts, n) for n in (1, 2, 3)] == [4 / 6, 3 / 4, 1.0]
    assert type_token_ratio(texts) == distinct_n(texts, 1)
    assert math.isnan(distinct_n(texts, 4)) and math.isnan(distinct_n([], 1))
    with pytest.raises(SteerlabError, match="at least 1"):
        distinct_n(texts, 0)


def test_no_ngram_crosses_from_text_to_text() -> None:
    assert distinct_n(["a b", "b a"], 2) == 1
    assert distinct_n(["a b b a a b"], 2) == 4 / 5


@given(token_lists, st.integers(2, 6))
def test_the_moving_ratio_equals_the_mean_over_windows(tokens: list[list[str]], window: int) -> None:
    row = [token for text in tokens for token in text]
    window_used = min(window, len(row))
    windows = [row[i : i + window_used] for i in range(len(row) - window_used + 1)] if row else []
    got = moving_type_token_ratio([" ".join(text) for text in tokens], window)
    if windows:
        assert got == pytest.approx(np.mean([len(set(w)) / len(w) for w in windows]))
    else:
        assert math.isnan(got)


def test_the_moving_ratio_does_not_fall_with_more_of_the_same_source() -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{k}" for k in rng.integers(60, size=20)) for _ in range(200)]
    few, many = texts[:20], texts
    assert type_token_ratio(many) < 0.3 * type_token_ratio(few)
    assert moving_type_token_ratio(many) == pytest.approx(moving_type_token_ratio(few), abs=0.02)


@given(token_lists)
def test_ngram_diversity_is_the_product_of_what_is_not_repeated_within_texts(tokens: list[list[str]]) -> None:
    product = 1.0
    for n in (2, 3, 4):
        per_text = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1)] for text in tokens]
        total = sum(len(grams) for grams in per_text)
        product *= sum(len(set(grams)) for grams in per_text) / total if total else math.nan
    assert ngram_diversity([" ".join(text) for text in tokens]) == pytest.approx(product, nan_ok=True)


def test_ngram_diversity_sees_loops_and_not_likeness() -> None:
    assert ngram_diversity(["a b c d e"] * 9) == 1
    assert ngram_diversity(["a b a b a b a b"]) < 0.1


def test_self_bleu_of_texts_reads_our_words() -> None:
    assert self_bleu(["Das ist gut so!", "das ist, gut so"]) == pytest.approx(1)
    assert self_bleu(["Das ist gut so!", "ganz anderer Satz hier"]) == 0


def test_the_compression_ratio_is_that_of_zlib_on_utf8() -> None:
    joined = "\n".join(TEXTS).encode()
    assert compression_ratio(TEXTS) == len(joined) / len(zlib.compress(joined, 9))
    assert compression_ratio([TEXTS[0]] * 40) > 3 * compression_ratio(TEXTS)
    assert compression_ratio(["ሰላም"]) == 9 / len(zlib.compress("ሰላም".encode(), 9))
    assert math.isnan(compression_ratio([])) and math.isnan(compression_ratio([""]))


def test_vendi_of_equal_rows_is_one_and_of_orthogonal_rows_their_number() -> None:
    row = RNG.normal(size=(1, 5))
    assert vendi_score(np.repeat(row, 9, axis=0)) == pytest.approx(1)
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3)
    assert math.isnan(vendi_score(np.zeros((0, 4))))


def test_vendi_equals_its_definition_on_the_kernel_for_wide_and_long_data() -> None:
    for shape in ((6, 20), (20, 6)):
        x = RNG.normal(size=shape)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        values = np.linalg.eigvalsh(unit @ unit.T / len(x))
        values = values[values > 0]
        assert vendi_score(x) == pytest.approx(np.exp(-(values * np.log(values)).sum()))
        assert vendi_score(x) == pytest.approx(vendi_score(x * RNG.uniform(1, 9, size=(shape[0], 1))))
        assert vendi_score(x) != pytest.approx(vendi_score(x[:-2]))


def test_vendi_refuses_rows_without_a_direction() -> None:
    for bad in (0.0, np.nan, np.inf):
        x = np.eye(3)
        x[1] = bad
        with pytest.raises(SteerlabError, match="first: row 1"):
            vendi_score(x)


def test_duplicates_count_every_text_but_the_first() -> None:
    texts = ["One cat sat there.", "one cat sat there", "Two dogs ran off.", "One cat sat there."]
    assert duplicate_rate(texts) == 0.25
    assert duplicate_rate(texts, near=1.0) == 0.5
    assert duplicate_rate(["a"] * 5) == 0.8
    assert duplicate_rate(["a", "b", ""]) == 0
    assert math.isnan(duplicate_rate([]))
    with pytest.raises(SteerlabError, match="above 0"):
        duplicate_rate(texts, near=0.0)


def test_near_duplicates_are_those_whose_shingles_overlap_enough() -> None:
    long = "the committee will publish its final report on the harbour in the coming week"
    changed = long.replace("coming", "second")
    grams = [{t[i : i + 5] for i in range(len(t) - 4)} for t in (long, changed)]
    jaccard = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
    assert duplicate_rate([long, changed], near=jaccard - 1e-9) == 0.5
    assert duplicate_rate([long, changed], near=jaccard + 1e-9) == 0


def test_near_duplicates_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"sentence number {i} about something of its own {i * i}" for i in range(12)]
    texts += [text.upper() for text in texts[:6]]
    whole = duplicate_rate(texts, near=0.95)
    monkeypatch.setattr(diversity, "_BLOCK", 5)
    assert duplicate_rate(texts, near=0.95) == whole == 6 / 18


def test_the_report_holds_every_measure_around_its_value() -> None:
    embeddings = np.random.default_rng(2).normal(size=(40, 8))
    report = diversity_report(TEXTS, embeddings, seed=3)
    values = {
        **{f"distinct_{n}": distinct_n(TEXTS, n) for n in range(1, 5)},
        "type_token_ratio": type_token_ratio(TEXTS),
        "moving_type_token_ratio": moving_type_token_ratio(TEXTS),
        "ngram_diversity": ngram_diversity(TEXTS),
        "self_bleu": self_bleu(TEXTS),
        "compression_ratio": compression_ratio(TEXTS),
        "vendi_score": vendi_score(embeddings),
        "duplicate_rate": duplicate_rate(TEXTS),
        "near_duplicate_rate": duplicate_rate(TEXTS, near=0.8),
        "words_per_text": np.mean([len(text.split()) for text in TEXTS]),
    }
    assert list(report) == list(values)
    for name, value in values.items():
        assert report[name].value == pytest.approx(value), name
        assert report[name].low <= value <= report[name].high, name
        assert report[name].low < report[name].high and report[name].n == 40, name


def test_the_report_depends_on_its_seed_alone() -> None:
    report = diversity_report(TEXTS, seed=3, subsets=10)
    assert report == diversity_report(TEXTS, seed=3, subsets=10)
    assert report["distinct_2"] != diversity_report(TEXTS, seed=4, subsets=10)["distinct_2"]
    assert "vendi_score" not in report


def test_the_report_tells_copies_from_variety() -> None:
    varied, copies = (diversity_report(texts, subsets=50) for texts in (TEXTS, TEXTS[:4] * 10))
    for name in ("distinct_2", "distinct_4"):
        assert varied[name].low > copies[name].high
    for name in ("self_bleu", "compression_ratio", "duplicate_rate", "near_duplicate_rate"):
        assert varied[name].high < copies[name].value


def test_no_duplicate_seen_still_has_an_upper_bound() -> None:
    estimate = diversity_report(TEXTS)["duplicate_rate"]
    assert estimate.value == 0 and 0.05 < estimate.high < 0.15


def test_the_report_leaves_out_empty_texts_and_says_so() -> None:
    embeddings = np.random.default_rng(5).normal(size=(42, 4))
    with_empty = diversity_report(["", *TEXTS, " !"], embeddings, subsets=10)
    without = diversity_report(TEXTS, embeddings[1:-1], subsets=10)
    assert {k: v.value for k, v in with_empty.items()} == {k: v.value for k, v in without.items()}
    assert with_empty["distinct_2"].reason == "2 of 42 texts have no words and are left out"
    assert without["distinct_2"].reason == ""


def test_the_report_of_a_given_size_measures_a_sample_and_never_fewer() -> None:
    sized = diversity_report(TEXTS, size=20, subsets=10)
    assert sized["distinct_2"].n == 20
    assert sized["distinct_2"].value > distinct_n(TEXTS, 2)
    short = diversity_report(TEXTS[:10], size=20)
    assert list(short) == list(sized)
    assert not any(e.known for e in short.values())
    assert "fewer than the 20" in short["self_bleu"].reason


def test_the_report_samples_for_self_bleu_above_the_cap() -> None:
    estimate = diversity_report(TEXTS, cap=15, subsets=10)["self_bleu"]
    assert estimate.n == 15 and estimate.reason == "on a sample of 15 texts"
    assert estimate.value == self_bleu(TEXTS, cap=15)


def test_the_report_of_few_or_no_texts_has_no_interval_and_says_why() -> None:
    none = diversity_report([])
    assert not any(e.known for e in none.values()) and all(e.reason for e in none.values())
    few = diversity_report(TEXTS[:2])
    assert few["distinct_1"].known and math.isnan(few["distinct_1"].low)


def test_embeddings_must_belong_to_the_texts() -> None:
    with pytest.raises(SteerlabError, match="one embedding per text"):
        diversity_report(TEXTS, np.ones((3, 2)))
    with pytest.raises(SteerlabError, match="one string"):
        diversity_report("text")
