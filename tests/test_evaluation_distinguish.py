"""The report: every measure defined, an interval or a reason for each, and planted sets that it tells apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from steerlab.errors import SteerlabError
from steerlab.evaluation.distinguish import COLUMNS, DEFINITIONS, definition, distinguish
from steerlab.evaluation.embeddings import Embedder, character_grams, embedder, pooled
from steerlab.evaluation.fluency import perplexity
from tests.tiny import tiny


def _texts(n: int, seed: int, first: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"{chr(97 + k % 26)}{k:02d}" for k in rng.integers(60, size=8) + first) for _ in range(n)]


def _values(table: pd.DataFrame) -> dict[str, float]:
    return dict(zip(table["metric"], table["value"], strict=True))


@pytest.fixture(scope="module")
def same() -> pd.DataFrame:
    return distinguish(_texts(50, 1), _texts(60, 2), train=_texts(60, 3), subsets=20)


def test_every_row_is_defined_and_has_an_interval_or_a_reason(same: pd.DataFrame) -> None:
    assert tuple(same.columns) == COLUMNS and same["metric"].is_unique
    for row in same.to_dict("records"):
        assert len(definition(row["metric"])) > 20
        whole = row["low"] <= row["value"] <= row["high"]
        assert whole or row["reason"], row
    silent = {name for name in DEFINITIONS if not name.startswith(("surprise", "tokens", "downstream"))} - set(
        same["metric"]
    )
    assert not silent
    with pytest.raises(SteerlabError, match="not known"):
        definition("beauty")


def test_texts_of_one_source_are_alike_in_every_measure(same: pd.DataFrame) -> None:
    found = _values(same)
    assert found["texts"] == 50 and found["empty"] == 0 and found["copied_nearly"] == 0 and found["duplicates"] == 0
    assert found["ngrams_3_ratio"] == pytest.approx(1, abs=0.05)
    for name, estimate in found.items():
        if name.startswith("auroc"):
            assert abs(estimate - 0.5) < 0.25, name
    for name in ("mauve", "cosine_pairwise", "knn_precision"):
        assert abs(found[name] - found[f"real_{name}"]) < 0.35, name


def test_other_texts_are_not() -> None:
    found = _values(distinguish(_texts(50, 1, first=50), _texts(60, 2), subsets=5, controls=False))
    assert {name for name in found if name.startswith("real_")} == {"real_ngrams_3", "real_diversity_2_4"}
    assert found["auroc_logistic_letters"] > 0.9 and found["mauve"] < 0.3 and found["cosine_pairwise"] < 0.5
    assert math.isnan(found["copied_exactly"])


def test_one_text_over_and_over_is_no_diversity_and_all_copies() -> None:
    train = _texts(60, 3)
    found = _values(distinguish([train[0]] * 40 + [""] * 10, _texts(60, 2), train=train, subsets=5))
    assert found["duplicates"] == pytest.approx(39 / 40) and found["copied_exactly"] == 1 and found["empty"] == 0.2
    assert found["texts"] == 40 and found["diversity_2_4"] < 0.01 < found["real_diversity_2_4"]
    assert found["knn_recall"] < 0.1 and math.isnan(found["auroc_logistic_letters"])


def test_expert_and_base_read_the_texts_behind_their_prompts() -> None:
    model, base = tiny("llama"), tiny("llama", seed=3)
    texts, prompts = _texts(12, 1), [f"prompt {i}" for i in range(12)]
    table = distinguish(texts, _texts(12, 2), model=model, base=base, prompts=prompts, subsets=5)
    found = _values(table)
    for name, reader in (("surprise_expert", model), ("surprise_base", base)):
        want = float(np.log(perplexity(reader, texts, prompts)).mean())
        assert found[name] == pytest.approx(want, rel=1e-4)
    assert found["surprise_expert"] != found["surprise_base"]
    with pytest.raises(SteerlabError, match="prompt of every text"):
        distinguish(texts, texts, prompts=["one"])
    with pytest.raises(SteerlabError, match="nothing to compare"):
        distinguish(texts, ["", "..."])


def test_embeddings_come_from_whom_they_are_asked_of() -> None:
    model, texts = tiny("llama"), _texts(6, 1)
    assert pooled(model)(texts).shape == (6, model.d_model) and "layer 2" in embedder(model=model).name
    assert not np.allclose(pooled(model, 0)(texts), pooled(model, 3)(texts))
    grams = character_grams(texts)
    np.testing.assert_allclose(grams(texts[:2]), grams(texts)[:2], atol=1e-9)  # a text's numbers are its own
    assert not grams(["ÄÖÜ"]).any()
    assert embedder(texts=texts).name.startswith("character")
    with pytest.raises(SteerlabError, match="no embedding model"):
        embedder()
    with pytest.raises(SteerlabError, match="sentence-transformers"):
        embedder("some/model")
    mine = Embedder("mine", lambda own: np.array([[len(t), 1.0] for t in own]))
    found = _values(distinguish(_texts(30, 1), _texts(30, 2), embed=mine, subsets=5, controls=False))
    assert found["cosine_pairwise"] > 0.999
