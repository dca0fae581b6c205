"""Curves are paired and nested, their ends are what `downstream` computes, and texts like the human ones are worth their number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from steerlab.errors import SteerlabError
from steerlab.evaluation import mixing
from steerlab.evaluation.downstream import ceiling, floor, train_and_test
from steerlab.evaluation.mixing import CEILING, COLUMNS, FLOOR, HUMAN, MIXED, isotonic, mixing_curves, schedule

LABELS = ("health", "politics", "sports")
Texts = tuple[list[str], list[str]]


def _made(n: int, seed: int, signal: float = 0.2) -> Texts:
    """`n` texts per label: words of the label with probability `signal`, else shared words."""
    rng = np.random.default_rng(seed)
    texts, given = [], []
    for k, label in enumerate(LABELS):
        for _ in range(n):
            word = np.where(rng.random(12) < signal, 1000 * (k + 1), 0) + rng.integers(60, size=12)
            texts.append(" ".join(f"{w:04d}".translate(str.maketrans("0123456789", "abcdefghij")) for w in word))
            given.append(label)
    return texts, given


HUMAN_TEXTS, TEST = _made(40, 0), _made(40, 1)


def _row(found: mixing.Mixing, series: str, k: int) -> dict[str, Any]:
    own = found.table[(found.table["series"] == series) & (found.table["k"] == k)]
    assert len(own) == 1
    return own.iloc[0].to_dict()


def _curve(found: mixing.Mixing, series: str) -> list[float]:
    own: Any = found.table[found.table["series"] == series]
    own = own.sort_values("k")
    return own["value"].tolist()


def test_human_like_texts_are_worth_their_number_and_noise_is_worth_little() -> None:
    alike = mixing_curves(HUMAN_TEXTS, [_made(10, 7)], TEST, ks=(0, 6, 15, 30, 60, 90), seeds=range(6))
    assert alike.worth.low < 30 < alike.worth.high and 10 < alike.worth.value < 90
    assert alike.worth.n == 6
    curve = _curve(alike, HUMAN)
    assert curve[-1] > curve[0] + 0.15  # there is something to learn
    assert _row(alike, MIXED, 6)["value"] > _row(alike, HUMAN, 6)["value"] + 0.1
    noise = mixing_curves(HUMAN_TEXTS, [_made(10, 7, 0.0)], TEST, ks=(0, 6, 15, 30, 60, 90), seeds=range(6))
    assert noise.worth.value < 10 < alike.worth.value


def test_the_ends_are_what_downstream_computes() -> None:
    synthetic = _made(5, 3)
    found = mixing_curves(HUMAN_TEXTS, [synthetic], TEST, ks=(0, 120), seeds=range(3))
    assert list(found.table.columns) == list(COLUMNS)
    bottom, top = _row(found, FLOOR, 0), _row(found, CEILING, 120)
    assert bottom["value"] == pytest.approx(floor(*TEST).value)
    assert top["value"] == pytest.approx(ceiling(*HUMAN_TEXTS, *TEST, seeds=[0]).full)
    assert _row(found, HUMAN, 120)["value"] == pytest.approx(top["value"])
    alone = _row(found, MIXED, 0)
    assert alone["value"] == pytest.approx(train_and_test(*synthetic, *TEST, seeds=[0]).full)
    assert "one synthetic set" in alone["reason"] and alone["low"] < alone["value"] < alone["high"]
    everything = ([*HUMAN_TEXTS[0], *synthetic[0]], [*HUMAN_TEXTS[1], *synthetic[1]])
    assert _row(found, MIXED, 120)["value"] == pytest.approx(train_and_test(*everything, *TEST, seeds=[0]).full)
    assert bottom["value"] < alone["value"] < top["value"]


def test_both_curves_see_the_same_nested_balanced_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    real = mixing._Bench.answers

    def spy(bench: Any, train: Any) -> Any:
        seen.append(tuple(train[0]))
        return real(bench, train)

    monkeypatch.setattr(mixing._Bench, "answers", spy)
    synthetic = _made(4, 3)
    mixing_curves(HUMAN_TEXTS, [synthetic], TEST, ks=(3, 6), seeds=(5, 8))
    label = dict(zip(*HUMAN_TEXTS, strict=True))
    human = [tuple(t for t in texts if t in label) for texts in seen]
    alone = [h for h, texts in zip(human, seen, strict=True) if len(h) == len(texts) and len(h) < 120]
    mixed = [h for h, texts in zip(human, seen, strict=True) if h and len(h) < len(texts)]
    assert [len(h) for h in alone] == [3, 3, 6, 6] and alone == mixed
    assert all(alone[2 + i][:3] == alone[i] for i in range(2)) and alone[0] != alone[1]
    assert all(sorted(label[t] for t in h) == sorted(LABELS * (len(h) // 3)) for h in alone)
    assert all(
        set(synthetic[0]) <= set(texts) for texts, h in zip(seen, human, strict=True) if h in mixed and h not in alone
    )


def test_several_generation_seeds_enter_the_synthetic_interval() -> None:
    sets = [_made(8, seed, signal) for seed, signal in ((3, 0.15), (4, 0.2), (5, 0.5))]
    one, many = (mixing_curves(HUMAN_TEXTS, some, TEST, ks=(0, 9), seeds=range(3)) for some in (sets[:1], sets))
    scores = [train_and_test(*texts, *TEST, seeds=[0]).full for texts in sets]
    assert _row(many, MIXED, 0)["value"] == pytest.approx(np.mean(scores))
    assert _row(many, MIXED, 0)["reason"] == ""
    widths = [_row(found, MIXED, 0)["high"] - _row(found, MIXED, 0)["low"] for found in (one, many)]
    assert widths[1] > widths[0]


def test_what_is_better_than_all_human_texts_has_no_number() -> None:
    few = (
        [*HUMAN_TEXTS[0][:2], *HUMAN_TEXTS[0][40:42], *HUMAN_TEXTS[0][80:82]],
        ["health"] * 2 + ["politics"] * 2 + ["sports"] * 2,
    )
    found = mixing_curves(few, [_made(40, 3, 0.8)], TEST, ks=(3,), seeds=range(3)).worth
    assert math.isnan(found.value) and math.isnan(found.high) and "with all 6 in 100% of the draws" in found.reason


def test_points_that_cannot_be_had_say_why() -> None:
    found = mixing_curves(HUMAN_TEXTS, [_made(4, 3)], TEST, ks=(1, 3, 121), seeds=[0])
    assert math.isnan(_row(found, HUMAN, 1)["value"]) and "fewer than two labels" in _row(found, HUMAN, 1)["reason"]
    assert _row(found, MIXED, 1)["value"] > 0.3
    for series in (HUMAN, MIXED):
        assert math.isnan(_row(found, series, 121)["value"]) and "120 human texts" in _row(found, series, 121)["reason"]


def test_the_schedule_stops_where_the_texts_do() -> None:
    assert schedule(7, 701) == (0, 7, 14, 35, 70, 140, 350)
    assert schedule(2, 5) == (0, 2, 4)


def test_isotonic_is_sklearns_regression() -> None:
    values = np.random.default_rng(2).normal(size=(40, 7)).cumsum(axis=1)
    for row, got in zip(values, isotonic(values), strict=True):
        np.testing.assert_allclose(got, IsotonicRegression().fit_transform(np.arange(7), row))
    assert (isotonic(values) != values).any()


def test_a_curve_is_crossed_on_the_line_between_two_points() -> None:
    ks, curves = np.array([0.0, 10.0, 30.0]), np.array([[0.1, 0.3, 0.5]])
    wanted = {0.05: 0.0, 0.1: 0.0, 0.2: 5.0, 0.3: 10.0, 0.4: 20.0, 0.5: 30.0, 0.6: math.inf}
    for target, k in wanted.items():
        assert mixing._reached(ks, curves, np.array([target]))[0] == pytest.approx(k)
    flat = mixing._reached(ks, np.array([[0.1, 0.1, 0.1]]), np.array([0.2]))
    assert math.isinf(flat[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"synthetic": []}, "0 synthetic sets"),
        ({"synthetic": [([" "], ["health"])]}, "each needs a text"),
        ({"seeds": []}, "no seeds"),
        ({"ks": (-1, 3)}, r"\[-1, 3\] human examples"),
        ({"ks": (3, 3)}, "each once"),
        ({"synthetic": [(["a", "b"], ["Health", "Sports"])]}, "synthetic labels .* none in common"),
        ({"human": (["a"], ["health", "sports"])}, "1 human texts and 2 labels"),
    ],
)
def test_bad_input_is_told_in_one_sentence(arguments: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"human": HUMAN_TEXTS, "synthetic": [_made(4, 3)], "test": TEST, "seeds": [0], **arguments}
    with pytest.raises(SteerlabError, match=words) as error:
        mixing_curves(**given)
    assert "\n" not in str(error.value)
