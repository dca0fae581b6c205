"""Judging many sets at once gives what judging each alone gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.diversity import vendi_score
from steerlab.evaluation.downstream import TextClassifier, train_and_test
from steerlab.evaluation.pool import NgramPool

WORDS = {
    "a": "ball team goal match score win",
    "b": "hospital doctor nurse virus fever pain",
    "c": "vote party law senate court tax",
}


def _texts(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Distinct texts of three labels that share some words."""
    rng = np.random.default_rng(seed)
    labels = [("a", "b", "c")[i % 3] for i in range(n)]
    shared = [*" ".join(WORDS.values()).split(), "and", "the"]
    return [
        " ".join([*rng.choice(WORDS[label].split(), 2), *rng.choice(shared, 4), str(i)])
        for i, label in enumerate(labels)
    ], labels


@pytest.fixture(scope="module")
def parts() -> tuple[list[str], list[str], list[str], list[str]]:
    return (*_texts(60, 1), *_texts(45, 2))


def test_every_subset_scores_as_if_it_stood_alone(parts: tuple[list[str], list[str], list[str], list[str]]) -> None:
    texts, labels, test, truth = parts
    pool = NgramPool(texts, test, truth)
    scores = []
    for rows in (np.arange(30), np.arange(7, 60, 2), np.array([59, 0, 31, 2, 1, 30])):
        alone = train_and_test([texts[i] for i in rows], [labels[i] for i in rows], test, truth, seeds=[1, 2, 3])
        got = pool.judge(rows, [labels[i] for i in rows], [1, 2, 3])
        assert got.per_seed == pytest.approx(alone.per_seed)
        assert got.full == pytest.approx(alone.full)
        scores.append(got.full)
    assert len(set(scores)) == 3  # other training texts, another classifier


def test_the_vendi_score_is_that_of_the_tfidf_vectors(parts: tuple[list[str], list[str], list[str], list[str]]) -> None:
    texts, labels, test, truth = parts
    rows = np.arange(20)
    features: Any = TextClassifier([texts[i] for i in rows], [labels[i] for i in rows]).vectoriser.transform(
        [texts[i] for i in rows]
    )
    got = NgramPool(texts, test, truth).judge(rows, [labels[i] for i in rows], [1]).vendi
    assert got == pytest.approx(vendi_score(np.asarray(features.todense())))
    twice = [*texts[:10], *[text + " ." for text in texts[:10]]]
    again = NgramPool(twice, test, truth).judge(rows, [*labels[:10], *labels[:10]], [1]).vendi
    assert again < got


def test_what_cannot_be_judged_is_refused(parts: tuple[list[str], list[str], list[str], list[str]]) -> None:
    texts, _, test, truth = parts
    with pytest.raises(SteerlabError, match="at least two labels"):
        NgramPool(texts, test, truth).judge(np.array([0, 3]), ["a", "a"], [1])
    with pytest.raises(SteerlabError, match="at least one text"):
        NgramPool(texts, [], [])
    with pytest.raises(SteerlabError, match="each with its label"):
        NgramPool(texts, test, truth[:-1])
