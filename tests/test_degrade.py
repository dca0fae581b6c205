"""Degraded texts are made of words of the language, keep its word frequencies, and break what the rates say."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab import data
from steerlab.data.degrade import Rates, degrade, degrade_text, learn_endings
from steerlab.errors import SteerlabError

STEMS = ("mačk", "hiš", "knjig", "gor", "rek", "vod", "mest", "pesm", "slik", "cest")
ENDINGS = ("a", "e", "i", "o", "ami")


def paradigm(n: int = 400, seed: int = 0) -> list[str]:
    """Sentences over ten stems with five endings, the first far more frequent than the last."""
    rng = random.Random(seed)
    words = lambda: rng.choice(STEMS) + rng.choices(ENDINGS, (8, 4, 2, 2, 1))[0]  # noqa: E731
    return [" ".join(words() for _ in range(rng.randint(4, 9))).capitalize() + "." for _ in range(n)]


TEXTS = paradigm()
LEARNED = learn_endings(TEXTS)
ONLY_ENDINGS = Rates(0.0, 0.0, 0.0, 0.3)


def test_endings_alternate_where_enough_stems_show_it() -> None:
    assert set(LEARNED.forms) == {stem + ending for stem in STEMS for ending in ENDINGS}
    assert {form for form, _ in LEARNED.forms["hiša"]} == {"hiše", "hiši", "hišo", "hišami"}
    few = learn_endings([" ".join(s + e for s in STEMS[:4] for e in ENDINGS)])
    assert few.forms == {} and few.share == 0.0
    assert learn_endings([" ".join(s + e for s in STEMS[:4] for e in ENDINGS)], stems=4).forms
    assert learn_endings(["on ona ono in ta to ti te tu kdo"] * 20).forms == {}  # no stem of three letters


def test_forms_are_drawn_so_that_words_keep_their_frequencies() -> None:
    """f(w) p(w -> v) is the same both ways, and no word turns with more than certainty."""
    count = Counter(word.lower().rstrip(".") for text in TEXTS for word in text.split())
    for word, forms in LEARNED.forms.items():
        assert 0 < sum(p for _, p in forms) <= 1
        for form, p in forms:
            back = dict(LEARNED.forms[form])[word]
            assert count[word] * p == pytest.approx(count[form] * back)
    many = paradigm(3000)
    after = Counter(w.lower().strip(".") for pair in degrade(many, ONLY_ENDINGS) for w in pair.degraded.split())
    before = Counter(w.lower().strip(".") for pair in degrade(many, ONLY_ENDINGS) for w in pair.human.split())
    for ending in ENDINGS:
        share = [sum(n for w, n in c.items() if w.endswith(ending)) / c.total() for c in (before, after)]
        assert share[1] == pytest.approx(share[0], abs=0.015), ending


def test_the_rates_are_what_is_changed() -> None:
    def changed(rates: Rates) -> Counter[str]:
        total: Counter[str] = Counter()
        for text in TEXTS:
            own, worse = text.split(), degrade_text(text, LEARNED, rates).split()
            total.update(words=len(own), longer=len(worse) - len(own))
            if len(own) == len(worse):
                total.update(other=sum(a.lower() != b.lower() for a, b in zip(own, worse, strict=True)))
        return total

    found = changed(ONLY_ENDINGS)
    assert found["longer"] == 0 and found["other"] / found["words"] == pytest.approx(0.3, abs=0.03)
    assert changed(Rates(0.1, 0.0, 0.0, 0.0))["longer"] / found["words"] == pytest.approx(-0.1, abs=0.02)
    assert changed(Rates(0.0, 0.0, 0.1, 0.0))["longer"] / found["words"] == pytest.approx(0.1, abs=0.02)
    assert changed(Rates(0.1, 0.0, 0.1, 0.0))["longer"] / found["words"] == pytest.approx(0, abs=0.02)
    swapped = changed(Rates(0.0, 0.1, 0.0, 0.0))
    assert swapped["longer"] == 0 and 0.1 < swapped["other"] / swapped["words"] <= 0.2
    assert changed(Rates(0.0, 0.0, 0.0, 0.0))["other"] == 0
    assert astuple(Rates.of(0.3)) == pytest.approx(astuple(Rates()))


def test_words_stay_words_and_stems_stay() -> None:
    known = set(LEARNED.forms)
    for pair in degrade(TEXTS, Rates(0.1, 0.1, 0.1, 0.5)):
        assert {word.lower() for word in pair.degraded.rstrip(".").split()} <= known
    for pair in degrade(TEXTS, ONLY_ENDINGS):
        own, worse = (side.lower().rstrip(".").split() for side in (pair.human, pair.degraded))
        stems = [[next(s for s in STEMS if w.startswith(s)) for w in side] for side in (own, worse)]
        assert stems[0] == stems[1] and own != worse


def test_frame_and_case_give_nothing_away() -> None:
    for pair in degrade(TEXTS, Rates(0.2, 0.2, 0.2, 0.3)):
        assert pair.degraded.endswith(".") and pair.degraded[0].isupper()
        assert all(word.islower() for word in pair.degraded.split()[1:])
    always = Rates(0.0, 0.0, 0.0, 1.0)
    found = {degrade_text("»HIŠA!«", LEARNED, always, seed) for seed in range(30)}
    assert found > {"»HIŠE!«"} and all(text.isupper() for text in found)
    odd = degrade_text("hišA Hiša", LEARNED, always, 3)
    assert odd.startswith("hišA ")  # of mixed case: left alone


def test_a_pair_depends_on_its_seed_and_id_and_not_on_the_other_texts() -> None:
    ids = [f"id-{i}" for i in range(len(TEXTS))]
    whole = {p.id: p for p in degrade(TEXTS, seed=1, endings=LEARNED, ids=ids)}
    part = degrade(TEXTS[100:50:-1], seed=1, endings=LEARNED, ids=ids[100:50:-1])
    assert len(part) > 30 and all(whole[pair.id] == pair for pair in part)
    assert {p.source for p in part} == {"degraded"}
    other = {p.id: p for p in degrade(TEXTS, seed=2, endings=LEARNED, ids=ids)}
    assert sum(whole[i].degraded != other[i].degraded for i in whole.keys() & other.keys()) > 0.8 * len(whole)
    same = degrade(["Hiša reka voda gora."] * 20, endings=LEARNED, ids=ids[:20])
    assert len(set(same.degraded)) > 5  # one text under many ids


def test_equal_and_blank_pairs_are_dropped_and_counted() -> None:
    found = degrade(["Hiša.", " ", "..."], Rates(0.0, 0.0, 0.0, 0.0), endings=LEARNED)
    assert (len(found), found.dropped) == (0, 3)
    with pytest.raises(SteerlabError, match="blank text"):
        degrade_text(" \n", LEARNED)
    with pytest.raises(SteerlabError, match="degrading rates .*from 0 to 1"):
        Rates(drop=1.5)
    with pytest.raises(SteerlabError, match="at most 1 together"):
        Rates(0.5, 0.4, 0.3, 0.0)


@given(st.text(alphabet="ab Ć.ć́שָׁלוםቤትች「我", min_size=1, max_size=40), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_any_text_is_degraded_to_something_of_its_own_letters(text: str, seed: int) -> None:
    if not text.strip():
        return
    worse = degrade_text(text, learn_endings([text]), Rates(0.3, 0.3, 0.3, 0.9), seed)
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    assert worse and set(worse.lower()) <= {*plain.lower(), " "}


SCRIPTS = {
    "he": ["ילד", "מורה", "תלמיד", "שכנ", "רופא", "נהג", "שחקנ"],
    "am": ["ተማሪ", "አስተማሪ", "ሐኪም", "ገበሬ", "ነጋዴ", "ልጅ", "ሰው"],
}
SUFFIXES = {"he": ("", "ים", "ות"), "am": ("", "ው", "ዎች")}


@pytest.mark.parametrize("code", SCRIPTS)
def test_no_letter_is_broken_in_hebrew_and_ethiopic(code: str) -> None:
    texts = [" ".join(stem + suffix for stem in SCRIPTS[code]) for suffix in SUFFIXES[code]] * 3
    learned = learn_endings(texts)
    assert set(learned.forms) == {stem + suffix for stem in SCRIPTS[code] for suffix in SUFFIXES[code]}
    for pair in degrade(texts, ONLY_ENDINGS, endings=learned):
        assert set(pair.degraded.split()) <= set(learned.forms)


def test_marks_stay_on_their_letters() -> None:
    """Pointed Hebrew that differs in its last vowel sign: the letter with its sign is exchanged, never the sign alone."""
    stems = ["דָבָר", "מֶלֶכ", "סֵפֶר", "שָׁמַי", "כֶלֶב"]
    texts = [" ".join(stem + ending for stem in stems) for ending in ("ִי", "ָה")]
    for word, forms in learn_endings(texts).forms.items():
        for form, _ in forms:
            cut = next(i for i, (a, b) in enumerate(zip(word, form, strict=False)) if a != b)
            assert not any(unicodedata.combining(w[cut]) and cut == 0 for w in (word, form))
            assert unicodedata.is_normalized("NFC", form)
    decomposed = [unicodedata.normalize("NFD", text) for text in TEXTS]
    assert learn_endings(decomposed).forms == LEARNED.forms
    assert all(unicodedata.is_normalized("NFC", pair.degraded) for pair in degrade(decomposed))


@pytest.mark.parametrize("code", ["sl", "am", "he", "id"])
def test_real_texts_lose_agreement_and_nothing_else(shared: Path, code: str) -> None:
    texts = data.load("ntrex", code, "train", root=shared).texts
    learned = learn_endings(texts)
    assert len(learned.forms) > 500 and 0.05 < learned.share < 0.5
    pairs = degrade(texts, ONLY_ENDINGS, endings=learned)
    assert len(pairs) > 0.5 * len(texts)
    attested = {w.lower() for t in texts for w in unicodedata.normalize("NFC", t).split()}
    strip = ".,;:!?\"'()[]»«“”„‘’‚/-–።፡፣፤"
    words = {w.strip(strip) for w in attested}
    changed = [
        (a.strip(strip), b.strip(strip).lower())
        for pair in pairs
        for a, b in zip(pair.human.split(), pair.degraded.split(), strict=True)
        if a != b
    ]
    assert len(changed) > 1000
    assert np.mean([b in words for _, b in changed]) > 0.9  # the rest are parts of hyphenated and glued words
    share = len(changed) / sum(len(pair.human.split()) for pair in pairs)
    assert share == pytest.approx(min(0.3, learned.share), rel=0.35)
    shift = [len(pair.degraded) - len(pair.human) for pair in pairs]
    assert abs(np.mean(shift)) < 4 * np.std(shift) / len(shift) ** 0.5 + 0.1
