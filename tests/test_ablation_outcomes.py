"""What is measured on texts: planted outcomes come back as shares, means and paired differences, with the unit that was meant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab.ablation.forced import ForcedKL
from steerlab.ablation.outcomes import Cell, human_judge, label_judge, score_texts, summarise
from steerlab.errors import SteerlabError
from steerlab.evaluation.diversity import distinct_n
from steerlab.evaluation.fluency import perplexity
from steerlab.evaluation.stats import wilson
from tests.tiny import tiny

PROMPTS = ("Tell me of the river.", "Say it again.")
WRITTEN = pd.DataFrame(
    {
        "arm": "a", "layer": 0, "strength": 0.5, "prompt": [0, 0, 1, 1], "sample": [0, 1, 0, 1], "tokens": 5,
        "text": ["ein kleiner Fluss fließt durch das Land", "the old town lies by the river", "", "no no no no"],
        "ended": [True, False, True, True],
    }
)  # fmt: skip


def test_texts_are_scored_one_by_one() -> None:
    found: Any = score_texts(tiny("llama"), WRITTEN, PROMPTS)
    assert found["language"].tolist()[:3] == ["de", "en", "und"]
    want = np.log(perplexity(tiny("llama"), WRITTEN["text"].tolist(), [PROMPTS[p] for p in WRITTEN["prompt"]]))
    np.testing.assert_allclose(found["log_perplexity"], want)
    assert math.isnan(found["log_perplexity"].iloc[2])
    assert found["repetition"].iloc[1] == 0 and found["repetition"].iloc[3] == pytest.approx(2 / 3)
    assert found["agreement"].isna().all() and found["ended"].tolist() == [1, 0, 1, 1]


def test_a_judge_reads_labels_and_empty_texts_agree_with_none() -> None:
    judge = label_judge(
        ["river and sea", "sea and river bank", "town and street", "street in town"] * 2, ["w", "w", "t", "t"] * 2
    )
    assert list(judge(["the sea", "a town"])) == ["w", "t"] and list(judge([])) == []
    found = score_texts(tiny("llama"), WRITTEN.iloc[[1, 2]], PROMPTS, ["w", "t"], lambda own: ["t"] * len(own))
    assert found["agreement"].tolist() == [0.0, 0.0]
    with pytest.raises(SteerlabError, match="give one label per prompt and a judge, or neither"):
        score_texts(tiny("llama"), WRITTEN, PROMPTS, ["w"], judge)
    with pytest.raises(SteerlabError, match="go without one"):
        human_judge("sentiment", ["cs", "mt"])


def _texts(prompts: int, samples: int, **outcomes: dict[str, Any]) -> pd.DataFrame:
    """Arms of one vector with planted outcomes: unsteered, the vector at one dose, two random directions."""
    arms = [
        ("unsteered", 0, "none", -1, 0.0),
        ("vector", 0, "add", 2, 0.5),
        ("random", 0, "add", 2, 0.5),
        ("random", 1, "add", 2, 0.5),
    ]
    parts = []
    for arm, direction, operator, layer, strength in arms:
        name = f"{arm}{direction}" if arm == "random" else arm
        places = pd.MultiIndex.from_product([range(prompts), range(samples)], names=["prompt", "sample"]).to_frame(
            index=False
        )
        facts = {
            "vector": "v",
            "arm": arm,
            "direction": direction,
            "operator": operator,
            "layer": layer,
            "strength": strength,
        }
        fixed = {
            "in_target": 0.0,
            "agreement": math.nan,
            "ended": 1.0,
            "log_perplexity": 2.0,
            "repetition": 0.0,
            "tokens": 9,
            "text": "a b c",
        }
        parts.append(places.assign(**facts, **{**fixed, **outcomes.get(name, {})}))
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0)  # the order of rows says nothing


def _cell(table: pd.DataFrame, measure: str, arm: str = "vector", against: str = "nothing") -> Any:
    own = table.query("measure == @measure and arm == @arm and against == @against")
    assert len(own) == 1
    return own.iloc[0]


def test_arms_are_compared_in_pairs() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(3, 2, 24)  # texts differ much, the arms by nearly 0.5
    shift = 0.5 + np.tile([-0.01, 0.0, 0.01], 8) + np.repeat(np.linspace(-0.01, 0.01, 8), 3)
    table = summarise(
        _texts(8, 3, unsteered={"log_perplexity": base}, vector={"log_perplexity": base + shift, "in_target": [0.0, 1.0, 1.0] * 8},
               random0={"log_perplexity": base + 0.1}, random1={"log_perplexity": base + 0.3})
    )  # fmt: skip
    gap = _cell(table, "log_perplexity", against="unsteered")
    assert gap["value"] == pytest.approx(0.5) and 0 < gap["high"] - gap["low"] < 0.02
    own = _cell(table, "log_perplexity")
    assert own["high"] - own["low"] > 0.5 and own["value"] == pytest.approx(base.mean() + 0.5)
    assert _cell(table, "log_perplexity", against="random")["value"] == pytest.approx(
        0.3
    )  # the mean of both directions
    assert _cell(table, "log_perplexity", "random", "unsteered")["value"] == pytest.approx(0.2)
    share, want = _cell(table, "in_target"), wilson(16, 24)
    assert (share["value"], share["low"], share["high"]) == pytest.approx((want.value, want.low, want.high))
    assert _cell(table, "in_target", "random")["n"] == 48
    assert "agreement" not in set(table["measure"])  # nothing judged, nothing claimed
    assert _cell(table, "repetition")["reason"] == "it is the same for every text"


def test_intervals_are_over_prompts_where_there_are_six() -> None:
    """Outcomes that differ between prompts only: as many independent values as prompts, not as texts."""
    for prompts, samples in ((6, 20), (5, 24)):
        values = np.repeat(np.arange(prompts, dtype=float), samples)
        row = _cell(summarise(_texts(prompts, samples, vector={"log_perplexity": values})), "log_perplexity")
        by_text = 2 * 1.96 * values.std() / math.sqrt(len(values))
        assert (row["high"] - row["low"] > 2 * by_text) == (prompts == 6)


def test_diversity_is_that_of_the_set_and_compared_on_the_same_rows() -> None:
    rng = np.random.default_rng(1)
    plain = [" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(24)]
    poor = [" ".join(rng.choice(list("abc"), 3)) for _ in range(24)]
    table = summarise(
        _texts(8, 3, unsteered={"text": plain}, vector={"text": poor}, random0={"text": plain}, random1={"text": plain})
    )
    own, gap = _cell(table, "distinct_2"), _cell(table, "distinct_2", against="unsteered")
    assert own["value"] == pytest.approx(distinct_n(poor, 2)) and own["low"] < own["value"] < own["high"]
    assert gap["value"] == pytest.approx(distinct_n(poor, 2) - distinct_n(plain, 2)) and gap["high"] < 0
    same = _cell(table, "distinct_2", "random", "unsteered")
    assert same["value"] == 0 and same["reason"] != "" and math.isnan(same["low"])


def test_kl_is_paired_by_text_and_directions_are_averaged() -> None:
    cell = Cell("v", "add", 2, 0.5)
    text = np.repeat(np.arange(6), 4)
    level = np.repeat(np.linspace(1, 6, 6), 4)
    found = ForcedKL(np.stack([level + 1, level, level + 0.5]), text)
    table = summarise(_texts(6, 1), {(cell, "vector"): (found, [0]), (cell, "random"): (found, [1, 2])})
    assert _cell(table, "kl")["value"] == pytest.approx(4.5) and _cell(table, "kl", "random")["value"] == pytest.approx(
        3.75
    )
    gap = _cell(table, "kl", against="random")
    assert gap["value"] == pytest.approx(0.75) and gap["high"] - gap["low"] < 1e-9
    assert _cell(table, "kl_95")["value"] == pytest.approx(np.quantile(level + 1, 0.95))
