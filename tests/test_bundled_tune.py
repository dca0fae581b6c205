"""How the recommended layers and strengths are chosen, and that what ships was chosen so."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest

from steerlab import data
from steerlab.bundled import tune, vectors
from steerlab.bundled.corpus import LANGUAGES
from steerlab.loading import load
from tests.tiny import LAYERS, tiny

FOLDER = Path(str(resources.files("steerlab.bundled"))) / "vectors"


def _scores(*rows: tuple[int, float, float, float], ended: float = 0.8) -> pd.DataFrame:
    facts = [{"arm": "jv", "layer": la, "strength": s, "value": v, "distinct_2": d} for la, s, v, d in rows]
    return pd.DataFrame(facts).assign(ended=ended)


def test_of_arms_within_five_points_the_most_diverse_wins_then_the_weaker_then_the_earlier() -> None:
    best = tune.best_language(
        _scores(
            (0, 1.5, 1.0, 0.5),
            (1, 0.6, 0.96, 0.8),
            (2, 0.3, 0.9, 0.99),
            (3, 0.6, 0.99, 0.9),
            (4, 0.3, 0.97, 0.9),
            (5, 0.3, 1.0, 0.9),
        )
    )
    assert (best["layer"], best["strength"]) == (4, 0.3)
    assert tune.best_language(_scores((0, 1.5, 1.0, 0.1), (1, 0.3, 0.5, 0.9)))["strength"] == 1.5
    endless = pd.concat([_scores((0, 1.5, 1.0, 0.9), ended=0.1), _scores((1, 0.6, 1.0, 0.7), ended=0.6)])
    assert tune.best_language(endless)["strength"] == 0.6
    assert tune.best_language(endless.assign(ended=0.2))["strength"] == 1.5  # none ends: then none is refused


def _quality(*rows: tuple[int, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame([{"layer": la, "strength": s, "distinct_2": d, "language_share": x} for la, s, d, x in rows])


def test_quality_takes_the_most_diverse_arm_that_keeps_the_language() -> None:
    plain = (-1, 0.0, 0.8, 0.9)
    assert tune.best_quality(_quality(plain, (2, 0.4, 0.99, 0.5), (3, 0.4, 0.9, 0.86), (1, 0.15, 0.85, 0.95)), 6) == (
        3,
        0.4,
    )
    assert tune.best_quality(_quality(plain, (2, 0.4, 0.99, 0.5)), 6) == (1, tune.QUALITY_STRENGTHS[0])


def test_prompts_are_the_nine_of_both_tasks_and_may_name_no_language() -> None:
    named, nameless = tune.task_prompts("jv"), tune.task_prompts(None)
    assert len(named) == len(nameless) == 9
    assert all("Javanese" in p for p in named) and not any("Javanese" in p for p in nameless)


def test_what_ships_is_what_the_sweep_says() -> None:
    scores = pd.read_csv(FOLDER / "sweep.csv")
    chosen = json.loads((FOLDER / "recommended.json").read_text(encoding="utf-8"))
    assert set(chosen) == {f"{kind}-{code}" for kind in ("language", "quality") for code in LANGUAGES}
    for code in LANGUAGES:
        best = tune.best_language(scores[scores["arm"] == code])
        assert chosen[f"language-{code}"] == {"layer": best["layer"], "strength": best["strength"]}


@pytest.mark.slow
def test_the_sweep_finds_where_the_amharic_vector_works() -> None:
    scores = tune.language_sweep(load(), ("am",), (0.01, 1.0), samples=1)
    assert len(scores) == 2 * 6 and set(scores["n"]) == {9}
    best = tune.best_language(scores)
    assert best["strength"] == 1.0 and best["value"] > scores[scores["strength"] == 0.01]["value"].max()


def test_fit_makes_every_bundled_vector_from_the_vector_splits(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    """On a tiny model and the first texts of each corpus: names, layers, kinds and the data they say they come from."""
    whole = vectors.vector_texts(shared)
    assert set(whole) == {"ntrex", "nusax"} and set(whole["nusax"]) == {"id", "en", "jv", "su"}
    assert all(len(texts) > 200 for by in whole.values() for texts in by.values())
    short = {corpus: {code: texts[:3] for code, texts in by.items()} for corpus, by in whole.items()}
    monkeypatch.setattr(vectors, "vector_texts", lambda root: short)
    few = data.ContrastPairs(data.load_pairs(root=shared, hops=2, split="vectors")[:4])
    monkeypatch.setattr(data, "load_pairs", lambda root, hops, split: few)
    found = vectors.fit(tiny("llama", max_position_embeddings=2048), shared)
    assert set(found) == {f"{k}-{c}" for k in ("language", "quality") for c in LANGUAGES} | {
        "quality-sl-backtranslated"
    }
    for name, vector in found.items():
        assert vector.layers == tuple(range(LAYERS)) and vector.name == name
        assert "quality" in vector.provenance.method or name.startswith("language")
