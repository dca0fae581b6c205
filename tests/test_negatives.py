"""Negatives: a draw is a function of seed, key and pool, every strategy picks what it says, and what does not fit is left out whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from steerlab.errors import SteerlabError
from steerlab.negatives import Draw, Negative, Pool, join, ngram_vectors, one_by_one

KEY = ("en", "topic", "sports", 3, 0)


def _real(n: int) -> list[Negative]:
    return [Negative(f"real/{i}", f"text number {i}", True) for i in range(n)]


def _ids(pool: Pool, how: Draw, seed: int = 0, key: tuple[str | int, ...] = KEY) -> list[str]:
    return [one.id for one in pool.draw(how, seed, key)]


def test_a_draw_hangs_on_seed_key_and_pool_alone() -> None:
    pool, same = Pool(_real(30)), Pool(_real(30))
    first = _ids(pool, Draw())
    assert len(first) == len(set(first)) == 10
    _ids(pool, Draw(), key=("another",))  # what was drawn before changes nothing
    assert _ids(pool, Draw()) == _ids(same, Draw()) == first
    assert _ids(pool, Draw(), seed=1) != first
    assert _ids(pool, Draw(), key=(*KEY[:-1], 1)) != first
    assert _ids(Pool(_real(30)[::-1]), Draw()) != first


def test_uniform_gives_every_text_its_turn() -> None:
    pool = Pool(_real(5))
    counts = Counter(id for i in range(3000) for id in _ids(pool, Draw(2), key=(i,)))
    assert set(counts) == {f"real/{i}" for i in range(5)}
    assert all(abs(n - 1200) < 4.5 * (3000 * 0.4 * 0.6) ** 0.5 for n in counts.values())
    firsts = Counter(_ids(pool, Draw(2), key=(i,))[0] for i in range(3000))
    assert all(abs(n - 600) < 4.5 * (3000 * 0.2 * 0.8) ** 0.5 for n in firsts.values())


def test_the_pool_grows_by_one_and_a_draw_changes_by_the_newcomer_alone() -> None:
    pool = Pool(_real(12))
    before = {i: _ids(pool, Draw(4), key=(i,)) for i in range(60)}
    pool.accept("good/0", "new")
    assert len(pool) == 13
    after = {i: _ids(pool, Draw(4), key=(i,)) for i in range(60)}
    moved = [i for i in before if before[i] != after[i]]
    assert 5 < len(moved) < 40  # 4/13 of them take it in
    for i in moved:
        assert [id for id in after[i] if id != "good/0"] == before[i][:3]
    with pytest.raises(SteerlabError, match="has 'good/0' already"):
        pool.accept("good/0", "again")


def test_an_empty_pool_gives_nothing_and_a_small_one_all_of_it() -> None:
    empty = Pool()
    assert empty.draw(Draw(strategy="nearest"), 0, KEY) == []
    empty.accept("a/0", "alone")
    for strategy in ("uniform", "nearest", "centroid", "recent"):
        assert _ids(empty, Draw(strategy=strategy)) == ["a/0"]


def _plane(texts: Sequence[str]) -> np.ndarray:
    """Texts that name their place: "30" is a direction of 30 degrees."""
    angle = np.radians([float(text) for text in texts])
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _circle(*degrees: int, real: bool = True) -> list[Negative]:
    return [Negative(f"{'r' if real else 's'}{d}", str(d), real) for d in degrees]


def test_the_nearest_are_one_text_and_its_neighbours() -> None:
    pool = Pool(_circle(0, 10, 21, 180, 191, 200), embed=_plane)
    seen = {tuple(_ids(pool, Draw(3, "nearest"), key=(i,))) for i in range(80)}
    sides = [{"r0", "r10", "r21"}, {"r180", "r191", "r200"}]
    assert {ids[0] for ids in seen} == sides[0] | sides[1]
    assert all(set(ids) in sides for ids in seen)
    assert ("r0", "r10", "r21") in seen and ("r21", "r10", "r0") in seen


def test_the_centroid_is_that_of_the_accepted_texts_where_there_are_any() -> None:
    real = _circle(0, 20, 40, 90, 100)
    assert _ids(Pool(real, embed=_plane), Draw(2, "centroid")) == ["r40", "r20"]  # the mean points to 48 degrees
    both = Pool(real, _circle(88, 96, real=False), embed=_plane)
    assert _ids(both, Draw(3, "centroid")) == ["r90", "s88", "s96"]
    assert _ids(both, Draw(3, "centroid"), key=("other",)) == ["r90", "s88", "s96"]
    nearest = {tuple(_ids(both, Draw(2, "nearest"), key=(i,))) for i in range(40)}
    assert nearest == {("s88", "r90"), ("s96", "r100")}


def test_the_recent_are_the_newest_first() -> None:
    pool = Pool(_real(3))
    pool.accept("a/0", "older")
    pool.accept("a/1", "newer")
    assert _ids(pool, Draw(3, "recent")) == ["a/1", "a/0", "real/2"]


@pytest.mark.parametrize("strategy", ["uniform", "nearest", "centroid", "recent"])
def test_quotas_hold_for_every_strategy(strategy: str) -> None:
    pool = Pool(_real(8))
    for i in range(8):
        pool.accept(f"a/{i}", f"sample {i}")

    def counts(**quota: int) -> tuple[int, int]:
        chosen = pool.draw(Draw(6, strategy, **quota), 0, KEY)
        return sum(one.real for one in chosen), sum(not one.real for one in chosen)

    assert counts(real=2) == (2, 4)
    assert counts(synthetic=1) == (5, 1)
    assert counts(real=1, synthetic=2) == (1, 2)
    assert counts(real=0) == (0, 6)
    assert sum(counts()) == 6
    free = [one for one in pool.draw(Draw(16, strategy), 0, KEY) if one.real]
    mine = [one for one in pool.draw(Draw(6, strategy, real=3), 0, KEY) if one.real]
    assert mine == free[:3]


def test_what_does_not_fit_is_left_out_whole_from_the_end() -> None:
    chosen = [Negative(str(i), text, True) for i, text in enumerate(("aa", "bbb", "c", "dd"))]
    assert join(chosen, 100, len) == ("aa bbb c dd", chosen)
    assert join(chosen, 11, len) == ("aa bbb c dd", chosen)
    assert join(chosen, 10, len) == ("aa bbb c", chosen[:3])
    assert join(chosen, 7, len) == ("aa bbb", chosen[:2])
    assert join(chosen, 1, len) == ("", [])
    assert join([], 9, len) == ("", [])


def test_ngrams_bring_like_texts_together_in_any_script() -> None:
    texts = ["the goalkeeper saved the penalty", "a goalkeeper saves penalties", "ቡናው ዛሬ ውድ ነው", "ቡናው ትናንት ውድ ነበር", ""]
    vectors = ngram_vectors(texts)
    cosine = vectors @ vectors.T
    assert vectors.shape == (5, 2048) and ngram_vectors([]).shape == (0, 2048)
    assert cosine[0, 1] > 0.3 > 0.1 > cosine[0, 2]
    assert cosine[2, 3] > 0.3
    assert not vectors[4].any()
    assert np.array_equal(vectors, ngram_vectors(texts))
    pool = Pool([Negative(str(i), text, True) for i, text in enumerate(texts)])
    assert set(_ids(pool, Draw(2, "nearest"), key=(0,))) in ({"0", "1"}, {"2", "3"}, {"4", "0"})


def test_one_by_one_asks_once_for_each_text() -> None:
    asked: list[Sequence[str]] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        asked.append(texts)
        return np.array([[len(text), 1.0] for text in texts])

    single = one_by_one(embed)
    assert single(["ab", "c"]).tolist() == [[2, 1], [1, 1]]
    assert single(["c", "def", "ab"]).tolist() == [[1, 1], [3, 1], [2, 1]]
    assert asked == [["ab"], ["c"], ["def"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "best"}, "strategy 'best' is not known: give one of uniform, nearest, centroid, recent"),
        ({"n": 0}, "0 negatives were asked for: ask for at least 1"),
        ({"real": 6, "synthetic": 5}, "quotas of 6 real and 5 synthetic .* for 10 in all"),
        ({"real": -1}, "quotas of -1 real"),
        ({"synthetic": 11}, "11 synthetic"),
    ],
)
def test_a_draw_that_means_nothing_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        Draw(**given)  # type: ignore[arg-type]


def test_vectors_that_are_none_are_refused() -> None:
    pool = Pool(_real(2), embed=lambda texts: np.full((2, 3), np.nan))
    with pytest.raises(SteerlabError, match="make"):
        pool.draw(Draw(strategy="nearest"), 0, KEY)
