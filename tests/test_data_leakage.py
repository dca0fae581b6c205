"""Leakage: what counts as shared, what does not, against a slow obvious version, and at speed."""

from __future__ import annotations

import itertools
import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.data.leakage import CHARACTERS, JACCARD, normalise, overlap_report
from steerlab.data.parallel import NTREX_QUOTED, NTREX_SPANS
from steerlab.data.sources import load
from steerlab.errors import SteerlabError

A = "The old harbour was closed to fishing boats during the winter storms."
B = "Nobody expected the small museum to attract so many visitors in March."
LONG = " ".join(f"word{i}" for i in range(40))


def words(rng: random.Random, n: int) -> str:
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(n))


def test_disjoint_groups_are_clean():
    report = overlap_report({"vectors": [A], "test": [B, "Ya."]})
    assert report.clean and report.ignored == {"vectors": 0, "test": 1}
    report.assert_clean()


def test_case_punctuation_width_and_spacing_do_not_hide_a_shared_text():
    report = overlap_report(
        {
            "vectors": [B, A],
            "test": ["«ｔhe OLD harbour»,  was closed to fishing boats during the winter storms"],
        }
    )
    (overlap,) = report.overlaps
    assert (overlap.exact, overlap.near, report.clean) == (1, 0, False)
    assert (overlap.matches[0].first, overlap.matches[0].second, overlap.matches[0].kind) == (1, 0, "exact")


def test_one_changed_word_in_ten_is_near_and_half_changed_is_not():
    changed = A.replace("winter", "autumn")
    (overlap,) = overlap_report({"a": [A], "b": [changed]}).overlaps
    assert (overlap.exact, overlap.near) == (0, 1) and JACCARD <= overlap.matches[0].similarity < 1
    assert overlap_report({"a": [A], "b": ["The old harbour was opened for tourists and painters last summer."]}).clean


def test_thirteen_shared_words_in_a_row_are_near_however_long_the_rest_and_twelve_are_not():
    rng = random.Random(0)
    run = LONG.split()
    thirteen = f"{words(rng, 60)} {' '.join(run[5:18])} {words(rng, 60)}"
    twelve = f"{words(rng, 60)} {' '.join(run[5:17])} {words(rng, 60)}"
    assert overlap_report({"a": [LONG], "b": [thirteen]}).overlaps[0].near == 1
    assert overlap_report({"a": [LONG], "b": [twelve]}).clean


def test_repeats_inside_a_group_are_not_leakage():
    assert overlap_report({"a": [A, A, A.upper()], "b": [B, B]}).clean


def test_rows_to_leave_out_make_the_groups_clean():
    groups = {"train": [A, B, LONG, A], "test": [A.lower(), "x " * 30, LONG + " more"], "vectors": [B]}
    report = overlap_report(groups)
    assert report.rows("train") == (0, 1, 2, 3) and report.rows("test") == (0, 2) and report.rows("vectors") == (0,)
    kept = {name: [t for i, t in enumerate(texts) if i not in report.rows(name)] for name, texts in groups.items()}
    assert overlap_report(kept).clean
    with pytest.raises(SteerlabError, match="give one of train, test, vectors"):
        report.rows("dev")


def test_assert_clean_names_groups_counts_and_an_example():
    with pytest.raises(SteerlabError) as caught:
        overlap_report({"vectors": [A], "test": [A]}).assert_clean()
    assert "vectors and test share 1 exact and 0 near texts" in str(caught.value) and A[:30] in str(caught.value)


def test_the_report_is_json_with_the_thresholds_and_few_examples():
    report = overlap_report({"a": [f"{A} {i}" for i in range(20)], "b": [f"{A} {i}" for i in range(20)]})
    told = json.loads(report.to_json())
    assert told["clean"] is False and told["sizes"] == {"a": 20, "b": 20} and told["rules"]["jaccard"] == JACCARD
    assert told["pairs"][0]["exact"] == 20 and len(told["pairs"][0]["examples"]) == 3
    assert report.describe() == "a / b: 20 exact, 20 near"


def test_one_group_is_not_a_comparison():
    with pytest.raises(SteerlabError, match="at least two"):
        overlap_report({"a": [A]})


def grams(text: str) -> set[str]:
    return {text[i : i + CHARACTERS] for i in range(max(1, len(text) - CHARACTERS + 1))}


def slow(first: list[str], second: list[str]) -> set[tuple[int, int]]:
    """Every pair compared, gram sets as sets of strings."""
    found = set()
    for (i, a), (j, b) in itertools.product(enumerate(map(normalise, first)), enumerate(map(normalise, second))):
        if min(len(a), len(b)) >= 20 and len(grams(a) & grams(b)) >= JACCARD * len(grams(a) | grams(b)):
            found.add((i, j))
    return found


@given(st.integers(0, 10_000))
def test_the_join_finds_what_comparing_every_pair_finds(seed: int):
    rng = random.Random(seed)
    first = [words(rng, rng.randint(3, 11)) for _ in range(6)]
    second = []
    for _ in range(8):
        tokens = rng.choice(first).split()
        for _ in range(rng.randint(0, 3)):
            tokens[rng.randrange(len(tokens))] = words(rng, 1)
        second.append(" ".join(tokens))
    (overlap,) = overlap_report({"a": first, "b": second}).overlaps
    assert {(match.first, match.second) for match in overlap.matches} == slow(first, second)


@pytest.mark.slow
def test_twenty_thousand_texts_take_seconds():
    rng = random.Random(0)
    texts = [words(rng, 20) for _ in range(20_000)]
    started = time.process_time()
    report = overlap_report({"a": texts[:10_000], "b": [*texts[10_000:], texts[0]]})
    assert report.overlaps[0].exact == 1 and report.overlaps[0].near == 0
    assert time.process_time() - started < 60


@pytest.mark.slow
def test_ntrex_splits_share_no_sentence_in_any_language(shared):
    """And the quoted lines that `heldout` leaves out are all needed: each matches an earlier split somewhere."""
    quoted = set()
    for code in ("da", "de", "en", "mt", "sk"):
        splits = {name: load("ntrex", code, name, root=shared) for name in ("train", "vectors", "heldout")}
        overlap_report({name: corpus.texts for name, corpus in splits.items()}).assert_clean()
        rest = load("ntrex", code, "all", root=shared)
        left_out = {e.id: e.text for e in rest.examples}
        for corpus in splits.values():
            for example in corpus.examples:
                left_out.pop(example.id)
        report = overlap_report({"left_out": list(left_out.values()), "train": splits["train"].texts})
        quoted |= {list(left_out)[row] for row in report.rows("left_out")}
    assert quoted == {f"ntrex-{line}" for line in NTREX_QUOTED}
    assert all(NTREX_SPANS["heldout"][0] <= line < NTREX_SPANS["heldout"][1] for line in NTREX_QUOTED)


def test_vector_texts_do_not_stand_in_the_tests_of_sib200(shared):
    for code in ("am", "id"):
        vectors = load("ntrex", code, "vectors", root=shared).texts
        overlap_report({"vectors": vectors, "test": load("sib200", code, "test", root=shared).texts}).assert_clean()


def test_parallel_reviews_leak_into_the_sentiment_set_they_come_from_and_the_lm_split_does_not(shared):
    vectors = load("nusax-mt", "jv", "vectors", root=shared).texts
    assert (
        overlap_report({"vectors": vectors, "train": load("nusax", "jv", "train", root=shared).texts}).overlaps[0].exact
        == 200
    )
    overlap_report({"vectors": vectors, "lm": load("nusax", "jv", "lm", root=shared).texts}).assert_clean()
