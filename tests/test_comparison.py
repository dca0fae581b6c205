"""Methods beside each other: equal numbers, one real set, negatives of their own, and runs that go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steerlab import comparison
from steerlab.baselines import Method
from steerlab.comparison import REAL, WORTH, Plan, Subject, compare, slug, subject, worth
from steerlab.errors import SteerlabError
from steerlab.evaluation.distinguish import definition
from steerlab.experts.pairs import Pair
from steerlab.guidance import Guide
from steerlab.negatives import Draw
from tests.tiny import tiny


def _texts(n: int, seed: int) -> tuple[str, ...]:
    rng = np.random.default_rng(seed)
    return tuple(" ".join(f"{chr(97 + k % 26)}{k}" for k in rng.integers(60, size=6)) for _ in range(n))


WHAT = Subject("made-up", ("say a ", "say another "), _texts(30, 1), _texts(20, 2))
METHODS = {"sampling": Method(), "greedy": Method(greedy=True), "STEER": Method(top_k=10, guide=Guide(0.2, 0.6))}
PLAN = Plan(texts=12, chunk=5, draw=Draw(3), max_new_tokens=12)


def test_every_method_has_every_measure_of_sets_of_one_size() -> None:
    found = compare(tiny("llama"), WHAT, METHODS, PLAN, base=tiny("llama", seed=3), subsets=5)
    table: Any = found.table
    assert set(table["method"]) == {REAL, *METHODS} and set(table["task"]) == {"made-up"}
    assert not table.duplicated(["method", "metric"]).any()
    measures = {name: set(own["metric"]) for name, own in table.groupby("method")}
    assert measures["sampling"] == measures["greedy"] == measures["STEER"]
    assert measures[REAL] < measures["STEER"] | {"surprise_base", "surprise_expert"}
    ratio = table[table["metric"] == "diversity_2_4_ratio"].set_index("method")["value"]
    assert ratio[REAL] == 1 and ratio["greedy"] < ratio["sampling"]
    assert all(definition(metric) for metric in measures["STEER"])
    sizes = table[table["metric"] == "texts"].set_index("method")["value"]
    assert len(set(sizes)) == 1 and 0 < sizes.iloc[0] <= 12
    tokens = table[table["metric"] == "tokens_per_text"]
    assert (tokens["n"] == 12).all() and (tokens["value"] <= 12).all()
    assert {len(texts) for texts in found.texts.values()} == {12}
    greedy = found.texts["made-up", "greedy"]
    assert greedy[0] == greedy[2] and greedy[0] != greedy[1]  # prompts take turns


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, base, methods = tiny("llama"), tiny("llama", seed=3), {"STEER": METHODS["STEER"]}
    whole = compare(model, WHAT, methods, PLAN, base=base, folder=tmp_path / "whole", subsets=3)
    real, calls = comparison.write, []

    def dies(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(comparison, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        compare(model, WHAT, methods, PLAN, base=base, folder=tmp_path / "again", subsets=3)
    found = compare(model, WHAT, methods, PLAN, base=base, folder=tmp_path / "again", subsets=3)
    assert len(calls) == 4 and found.texts == whole.texts
    rows = [(tmp_path / name / "made-up" / "steer" / "samples.jsonl").read_bytes() for name in ("whole", "again")]
    assert rows[0] == rows[1]
    compare(model, WHAT, methods, PLAN, base=base, folder=tmp_path / "again", subsets=3)
    assert len(calls) == 4  # finished: nothing is written again
    with pytest.raises(SteerlabError, match="another configuration"):
        compare(model, WHAT, methods, Plan(texts=13, chunk=5), base=base, folder=tmp_path / "again", subsets=3)


def test_negatives_are_kept_and_accepted_texts_join_the_pool(tmp_path: Path) -> None:
    model, methods = tiny("llama"), {"away": Method(top_k=10, guide=Guide(0.0, 0.6))}
    rows = {}
    for grow in (True, False):
        plan = Plan(texts=12, chunk=4, draw=Draw(15), grow=grow, max_new_tokens=8)
        rows[grow] = comparison._written(model, WHAT, "away", methods["away"], plan, None, tmp_path / str(grow))
    assert rows[True][:4] == rows[False][:4]
    assert all(len(row["negatives"]) == len(set(row["negatives"])) > 3 for row in rows[True])
    grown = {one for row in rows[True][4:] for one in row["negatives"] if one.startswith("synthetic")}
    assert grown and all(one.startswith("train") for row in rows[False] for one in row["negatives"])
    assert not {f"synthetic-{i}" for i in range(8, 12)} & grown  # nothing moves away from what is not there yet


def test_texts_are_worth_what_a_classifier_learns_from_them() -> None:
    good, bad = [f"lovely day number {i}" for i in range(12)], [f"dreadful hour number {i}" for i in range(12)]
    taught = tuple(Pair("a", text) for text in good) + tuple(Pair("b", text) for text in bad)
    tested = tuple(Pair("a", f"lovely town {i}") for i in range(6)) + tuple(
        Pair("b", f"dreadful town {i}") for i in range(6)
    )
    what = Subject("told", ("a", "b"), ("x",), ("y",), taught=taught, tested=tested)
    labels = ["a"] * 12 + ["b"] * 12
    assert worth(what, [*good, *bad], labels).value == 1.0
    assert worth(what, [*bad, *good], labels).value == 0.0  # texts for the other prompt
    assert "labels" in worth(WHAT, [*good, *bad], labels).reason  # nothing to tell apart
    assert worth(what, ["", ""], ["a", "b"]).reason
    texts, prompts = comparison._as_taught(what, 9, 0)
    assert len(texts) == len(set(texts)) == 9 and prompts.count("a") == 5
    assert all(("lovely" in text) == (own == "a") for text, own in zip(texts, prompts, strict=True))
    found: Any = compare(tiny("llama"), what, {"sampling": Method()}, PLAN, subsets=3).table
    value = found[found["metric"] == WORTH].set_index("method")["value"]
    assert value[REAL] > 0.9 and value["sampling"] < value[REAL]


def test_a_task_with_splits_is_a_subject(shared: Path) -> None:
    found = subject("hypotheses", root=shared)
    assert len(found.prompts) == 1 and not found.chat and found.finish == "sentence"
    assert len(found.train) > 500 and len(found.real) > 100 and not set(found.train) & set(found.real)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(SteerlabError, match="0 prompts"):
        Subject("none", (), ("a",), ("b",))
    with pytest.raises(SteerlabError, match="chunks of 0"):
        Plan(chunk=0)
    assert slug("temperature 0.5 (the paper's 'greedy')") == "temperature-0.5-the-paper-s-greedy"
