"""The registry on the real data: rows, labels, splits that keep apart, licences."""

from __future__ import annotations

from collections import Counter

import pytest

from steerlab.data.labelled import lcc_split
from steerlab.data.languages import LANGUAGES
from steerlab.data.leakage import normalise
from steerlab.data.parallel import NTREX_LINES, NTREX_SPANS, load_pairs
from steerlab.data.sources import SOURCES, find_source, load
from steerlab.errors import SteerlabError
from steerlab.tasks import TASKS


def test_every_card_states_licence_citation_and_address():
    for name, source in SOURCES.items():
        assert source.card.name == name and source.card.licence and source.card.citation and source.card.url
        assert set(source.languages) <= set(LANGUAGES) and source.splits


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("sib-200", "jv", None), r"data set 'sib-200' is not known: give one of .*did you mean 'sib200'\?"),
        (("sib200", "javanese", None), "language 'javanese' is not known"),
        (
            ("ntrex", "jv", None),
            "data set 'ntrex' has no 'jv': it has am, cs, da, de, en, he, id, mt, sk, sl",
        ),
        (
            ("ntrex", "da", "test"),
            "data set 'ntrex' has no split 'test': it has train, vectors, heldout, all",
        ),
    ],
)
def test_unknown_names_languages_and_splits_are_told(arguments: tuple[str, str, str | None], told: str):
    with pytest.raises(SteerlabError, match=told):
        load(*arguments)
    assert find_source("ntrex") is SOURCES["ntrex"]


SIZES = {
    ("nusax", "jv"): {"train": 500, "valid": 100, "test": 400, "lm": 300},
    ("nusa-writes-topic", "jv"): {"train": 2650, "valid": 448, "test": 800},
    ("nusa-writes-topic", "su"): {"train": 2800, "valid": 468, "test": 900},
    ("lcc-danish", "da"): {"train": 309, "valid": 44, "test": 146},
    ("ntrex", "de"): {"train": 1226, "vectors": 405, "heldout": 361, "all": 1997},
    ("nusax-mt", "su"): {"train": 300, "vectors": 300, "heldout": 400, "all": 1000},
    ("slovene-backtranslation", "sl"): {"train": 3000, "vectors": 900, "heldout": 900, "all": 4800},
}


@pytest.mark.parametrize("key", SIZES, ids="-".join)
def test_splits_have_the_documented_sizes(shared, key: tuple[str, str]):
    found = {split: load(*key, split, root=shared) for split in SOURCES[key[0]].splits}
    assert {split: len(corpus) for split, corpus in found.items()} == SIZES[key]
    for split, corpus in found.items():
        assert {(e.source, e.language, e.split) for e in corpus.examples} == {(*key, split)}
        assert len({e.id for e in corpus.examples}) == len(corpus)


def test_sib200_is_parallel_and_its_labels_are_the_task_s(shared):
    for split, size in (("train", 701), ("valid", 99), ("test", 204)):
        reference = load("sib200", "en", split, root=shared)
        assert len(reference) == size
        for code in LANGUAGES:
            found = load("sib200", code, split, root=shared)
            assert set(found.labels) == set(TASKS["topic"].labels)
            assert found.dropped == (1 if (code, split) == ("su", "train") else 0)
            assert {e.id for e in found.examples} <= {e.id for e in reference.examples}
    assert load("sib200", "jv", "dev", root=shared).sha256 == load("sib200", "jv", "validation", root=shared).sha256


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nusa-writes-sentiment", "jv"),
        ("nusa-writes-sentiment", "su"),
        ("nusa-writes-topic", "jv"),
        ("afrisenti", "am"),
    ],
)
def test_no_evaluation_row_stands_in_train(shared, name: str, code: str):
    trained = {normalise(text) for text in load(name, code, root=shared).texts}
    for split in ("valid", "test"):
        assert trained.isdisjoint(map(normalise, load(name, code, split, root=shared).texts))


def test_repeated_nusawrites_rows_are_dropped_and_counted(shared):
    found = {code: load("nusa-writes-sentiment", code, "test", root=shared) for code in ("jv", "su")}
    assert all(len(corpus) + corpus.dropped == 1200 and corpus.dropped >= 6 for corpus in found.values())


def test_binary_keeps_only_positive_and_negative_rows(shared):
    for name, code in (("nusax", "su"), ("afrisenti", "am"), ("lcc-danish", "da")):
        everything, two = (
            load(name, code, "test", root=shared),
            load(name, code, "test", root=shared, binary=True),
        )
        assert set(everything.labels) == {"positive", "neutral", "negative"} and set(two.labels) == {
            "positive",
            "negative",
        }
        assert len(two) == sum(label != "neutral" for label in everything.labels)
        assert len(two) + two.dropped == len(everything) + everything.dropped
    with pytest.raises(SteerlabError, match="no rows labelled positive or negative"):
        load("sib200", "jv", root=shared, binary=True)


def test_ntrex_documents_stay_whole_near_62_and_82_percent(shared):
    documents = (shared / "ntrex" / "DOCUMENT_IDS.tsv").read_text().splitlines()
    starts = [i for i in range(1, NTREX_LINES) if documents[i] != documents[i - 1]]
    for split, share in (("vectors", 0.62), ("heldout", 0.82)):
        assert NTREX_SPANS[split][0] == min(starts, key=lambda start: abs(start - share * NTREX_LINES))
    parts = [set(documents[slice(*NTREX_SPANS[split])]) for split in ("train", "vectors", "heldout")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(set(documents))


def test_parallel_ids_name_the_same_sentence_in_every_language(shared):
    german, danish = (load("ntrex", code, "heldout", root=shared) for code in ("de", "da"))
    assert [e.id for e in german.examples] == [e.id for e in danish.examples]
    reviews = [load("nusax-mt", code, "vectors", root=shared) for code in ("id", "jv", "su", "en")]
    assert len({tuple(e.id for e in corpus.examples) for corpus in reviews}) == 1
    assert reviews[0].examples[0].id == "nusax-mt-train-300" and reviews[0].examples[-1].id == "nusax-mt-valid-99"


def test_the_lm_split_is_the_first_three_hundred_training_rows(shared):
    for code in ("id", "jv", "su", "en"):
        lm, train = (load("nusax", code, split, root=shared) for split in ("lm", "train"))
        assert lm.texts == train.texts[:300] and lm.dropped == 200


def test_danish_plain_training_text_leaves_out_rated_test_sentences(shared):
    plain = set(load("lcc-danish-plain", "da", "train", root=shared).texts)
    for split in ("valid", "test"):
        texts = load("lcc-danish", "da", split, root=shared).texts
        assert plain.isdisjoint(texts) and all(lcc_split(text) == split for text in texts)
        assert set(texts) <= set(load("lcc-danish-plain", "da", "all", root=shared).texts)
    assert set(load("lcc-danish", "da", root=shared).texts) <= plain


def test_danish_valence_signs_are_those_of_the_published_counts(shared):
    counts = Counter(
        label for split in ("train", "valid", "test") for label in load("lcc-danish", "da", split, root=shared).labels
    )
    assert counts == {"positive": 129, "negative": 94, "neutral": 276}


def test_slovene_pairs_drop_and_count_identical_rows(shared):
    for hops, identical in ((1, 331), (2, 252)):
        whole = load_pairs(shared, hops)
        parts = [load_pairs(shared, hops, split) for split in ("train", "vectors", "heldout")]
        assert whole.dropped == identical == sum(part.dropped for part in parts)
        assert whole.pairs == tuple(pair for part in parts for pair in part)
        assert all(pair.human != pair.degraded for pair in whole)
    ids = {pair.id for pair in load_pairs(shared, 2, "vectors")}
    assert ids <= {f"slovene-{n}" for n in range(3000, 3900)}


def test_slovene_pairs_refuse_other_hops_and_splits(tmp_path):
    with pytest.raises(SteerlabError, match="hops 3"):
        load_pairs(tmp_path, hops=3)
    with pytest.raises(SteerlabError, match="no split 'test'"):
        load_pairs(tmp_path, split="test")
