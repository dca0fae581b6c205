"""Corrupted tokens: the recipe, its seeds, and pairs."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.data.contrast import ContrastPair, ContrastPairs, corrupt_tokens, degraded_pairs, length_matched
from steerlab.errors import SteerlabError

WORDS = st.lists(st.text(alphabet="abcdef", min_size=1, max_size=4), min_size=1, max_size=30)
SENTENCE = " ".join(f"w{i}" for i in range(200))


@given(WORDS, st.floats(0, 1), st.integers(0, 99))
def test_corruption_is_never_empty_invents_no_word_and_keeps_its_seed(words: list[str], rate: float, seed: int):
    text = " ".join(words)
    found = corrupt_tokens(text, rate, seed)
    assert found and set(found.split()) <= set(words)
    assert found == corrupt_tokens(text, rate, seed)


def test_rate_zero_changes_nothing_but_white_space():
    assert corrupt_tokens("a  b\tc", rate=0.0) == "a b c"


def edits(text: str) -> Counter[str]:
    """How the numbered words of `SENTENCE` came out: how many dropped, repeated, and standing after a higher number."""
    numbers = [int(word[1:]) for word in text.split()]
    counts = Counter(numbers)
    swapped = sum(a > b for a, b in pairwise(numbers))
    return Counter(dropped=200 - len(counts), repeated=sum(n == 2 for n in counts.values()), swapped=swapped)


def test_about_thirty_percent_are_hit_by_three_equally_likely_kinds():
    total: Counter[str] = Counter()
    for seed in range(60):
        total += edits(corrupt_tokens(SENTENCE, 0.3, seed))
    assert 0.27 < total.total() / (60 * 200) <= 0.30  # a token that a swap has moved is not hit again
    for kind in ("dropped", "repeated", "swapped"):
        assert 0.29 < total[kind] / total.total() < 0.38, kind


def test_a_short_text_is_hit_once_at_a_positive_rate():
    assert all(corrupt_tokens("one two three", 0.1, seed) != "one two three" for seed in range(20))


def test_the_result_depends_on_seed_and_key_alone():
    assert corrupt_tokens(SENTENCE, seed=1) != corrupt_tokens(SENTENCE, seed=2)
    assert corrupt_tokens(SENTENCE, key="a") != corrupt_tokens(SENTENCE, key="b")
    assert corrupt_tokens(SENTENCE, key=SENTENCE) == corrupt_tokens(SENTENCE)


def test_the_pair_of_a_text_does_not_depend_on_the_other_texts():
    texts = [f"{SENTENCE} {i}" for i in range(8)]
    forward = {pair.human: pair.degraded for pair in degraded_pairs(texts, seed=3)}
    backward = {pair.human: pair.degraded for pair in degraded_pairs(texts[::-1][:4], seed=3)}
    assert len(forward) == 8 and backward.items() <= forward.items()


def test_identical_and_blank_pairs_are_dropped_and_counted():
    found = degraded_pairs(["a a", " ", "one two three four five six"], rate=0.3, seed=0)
    assert all(pair.human != pair.degraded for pair in found)
    assert len(found) + found.dropped == 3 and found.dropped >= 1
    assert len(degraded_pairs(["x y z"], rate=0.0)) == 0


def test_white_space_does_not_tell_the_sides_apart():
    pair = degraded_pairs(["one  two\tthree   four five"], seed=1)[0]
    assert "  " not in pair.human + pair.degraded and "\t" not in pair.human


def test_pairs_are_a_sequence_with_sides_and_a_hash_of_both():
    pairs = ContrastPairs.of(ContrastPair(str(i), f"good {i}", f"bad {i}", "mine") for i in range(3))
    assert (len(pairs), pairs[1].degraded, pairs[:2], list(pairs)[2].id) == (3, "bad 1", pairs.pairs[:2], "2")
    assert pairs.human == ("good 0", "good 1", "good 2") and pairs.degraded[0] == "bad 0"
    swapped = ContrastPairs.of(ContrastPair(p.id, p.degraded, p.human, p.source) for p in pairs)
    assert swapped.sha256 != pairs.sha256 == ContrastPairs(pairs.pairs[::-1]).sha256


@pytest.mark.parametrize(
    ("text", "rate", "told"), [(" \n", 0.3, "blank text"), ("a b", 1.5, "1.5"), ("a", -0.1, "-0.1")]
)
def test_blank_texts_and_impossible_rates_are_refused(text: str, rate: float, told: str):
    with pytest.raises(SteerlabError, match=told):
        corrupt_tokens(text, rate)


CHINESE = "水是生命之源，我们每天都要喝水。"


def test_scripts_without_spaces_are_corrupted_letter_by_letter():
    for seed in range(30):
        found = corrupt_tokens(CHINESE, 0.3, seed)
        assert found != CHINESE and " " not in found and set(found) <= set(CHINESE)
        assert 0.6 * len(CHINESE) < len(found) < 1.4 * len(CHINESE)  # not the whole sentence twice
    assert corrupt_tokens(CHINESE, 0.0) == CHINESE
    mixed = "我 有 iPhone 手机。 ภาษา ไทย"
    assert corrupt_tokens(mixed, 0.0) == mixed
    for seed in range(60):
        found = corrupt_tokens(mixed, 0.4, seed)
        assert set(found) <= set(mixed) and ("iPhone" in found) >= (
            "P" in found
        )  # a word of another script stays whole
        assert "  " not in found and found == found.strip()


def of_lengths(differences: list[int], base: int = 40) -> ContrastPairs:
    """Pairs whose human side is longer by what is given (degraded where negative), each about `base` letters long."""
    pairs = []
    for number, k in enumerate(differences):
        short = f"{number:06d}" + "x" * (base - 6)
        human, degraded = (short + "h" * k, short[::-1]) if k > 0 else (short, short[::-1] + "d" * -k)
        pairs.append(ContrastPair(str(number), human, degraded, "mine"))
    return ContrastPairs.of(pairs)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=60))
def test_length_matching_keeps_the_most_pairs_that_balance(differences: list[int]):
    pairs = of_lengths(differences)
    counts = Counter(differences)
    most = counts[0] + 2 * sum(min(counts[k], counts[-k]) for k in range(1, 5))
    if not most:
        with pytest.raises(SteerlabError, match="none of .* pairs is left when lengths are matched"):
            length_matched(pairs)
        return
    found = length_matched(pairs)
    signed = Counter(len(pair.human) - len(pair.degraded) for pair in found)
    assert all(signed[k] == signed[-k] for k in range(1, 5)) and signed[0] == counts[0]
    assert (len(found), found.dropped) == (most, len(pairs) - most)
    assert [pair.id for pair in found] == [pair.id for pair in pairs if pair in found.pairs]  # in order
    assert found == length_matched(pairs)


def test_the_pairs_that_stay_mirror_the_others_in_length():
    """Ten pairs longer on the human side, two on the degraded side: the two of about the same total length stay."""
    pairs = [ContrastPair(f"h{n}", "a" * (10 * n + 1), "b" * (10 * n), "s") for n in range(1, 11)]
    pairs += [ContrastPair(f"d{n}", "a" * (10 * n), "b" * (10 * n + 1), "s") for n in (3, 7)]
    found = length_matched(ContrastPairs.of(pairs))
    assert [pair.id for pair in found] == ["h3", "h7", "d3", "d7"] and found.dropped == 8
    lengths = [sorted(len(text) for text in side) for side in (found.human, found.degraded)]
    assert lengths[0] == lengths[1]  # exchangeable: no length statistic can tell the sides apart


def test_lengths_are_matched_in_the_unit_and_on_the_surface_asked_for():
    sides = [("a b c", "aaaa"), ("aaaa", "b c d"), ("ab", "„ba“"), ("abc", "bc")]
    pairs = ContrastPairs.of(ContrastPair(str(i), *side, "s") for i, side in enumerate(sides))
    assert [p.id for p in length_matched(pairs, lambda t: len(t.split()))] == ["0", "1", "2", "3"]
    assert [p.id for p in length_matched(pairs)] == ["0", "1", "2"]
    assert [p.id for p in length_matched(pairs, surface=False)] == ["0", "1"]
