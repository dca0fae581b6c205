"""The claim's arithmetic on tables whose answer is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab.errors import SteerlabError
from steerlab.studies import claims

LANGUAGES = ("am", "cs", "da", "de", "en", "he", "id", "jv", "mt", "sk", "sl", "su")


def cells(
    effect: dict[tuple[str, str, float], float],
    seeds: int = 3,
    noise: float = 0.0,
    modes: tuple[str, ...] = ("zero-shot",),
) -> Any:
    """A study in which an arm (kind, group, strength) moves macro-F1 by its effect, over twelve languages."""
    rng = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for mode, language, seed in itertools.product(modes, LANGUAGES, range(seeds)):
        base = 0.3 + rng.normal(0, 0.05)
        for (kind, group, strength), gain in {("none", "", 0.0): 0.0, **effect}.items():
            value = base + gain + rng.normal(0, noise)
            rows.append(
                {
                    "model": "m", "language": language, "task": "topic", "mode": mode, "kind": kind, "group": group,
                    "layer": 1, "strength": strength, "seed": seed, "asked": 10, "n": 10, "drafts": 12, "tokens": 100,
                    "prompt_tokens": 50 if mode == "zero-shot" else 500, "macro_f1": value, "self_bleu": 0.5 - gain,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _row(table: Any, **wanted: str) -> dict[str, Any]:
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1, table
    return table.iloc[0].to_dict()


def test_gain_is_the_paired_difference_and_its_sign_follows_the_metric() -> None:
    table = cells({("quality", "early", 1.0): 0.02})
    assert claims.gains(table, "macro_f1")["gain"].to_numpy() == pytest.approx(0.02)
    assert claims.gains(table, "self_bleu")["gain"].to_numpy() == pytest.approx(0.02)  # it fell, which is better
    with pytest.raises(SteerlabError, match="no better direction"):
        claims.gains(table, "tokens")


def test_a_seed_that_lacks_one_side_counts_for_neither() -> None:
    table = cells({("quality", "early", 1.0): 0.02})
    first = (table["language"] == "am") & (table["seed"] == 0)
    table.loc[first & (table["kind"] == "quality"), "macro_f1"] = math.nan
    table.loc[first & (table["kind"] == "none"), "macro_f1"] = 99.0  # would dwarf the gain if it entered
    found = claims.gains(table, "macro_f1")
    assert found["gain"].to_numpy() == pytest.approx(0.02)
    assert dict(zip(found["language"], found["seeds"], strict=True))["am"] == 2


def test_a_real_effect_is_claimed_and_a_random_direction_is_not() -> None:
    effect = {("quality", "early", s): 0.03 for s in (0.5, 1.0)} | {("random", "early", s): 0.0 for s in (0.5, 1.0)}
    table = claims.claim_table(cells(effect, noise=0.01), ["macro_f1"])
    good, control = (_row(table, kind=kind, strengths="every") for kind in ("quality", "random"))
    assert good["cases"] == 24 and good["places"] == 12
    assert good["share_low"] > 0.6 and good["p"] < 0.001 and good["wins"] == 12
    assert good["gain_low"] < good["gain"] < good["gain_high"] and good["gain"] == pytest.approx(0.03, abs=0.01)
    assert good["vs_random_low"] > 0
    assert control["share_low"] <= 0.5 and control["p"] > 0.05 and control["gain_low"] < 0 < control["gain_high"]
    assert math.isnan(control["vs_random"])


def test_unanimous_places_still_have_an_interval() -> None:
    row = _row(claims.claim_table(cells({("quality", "early", 1.0): 0.1}), ["macro_f1"]), strengths="every")
    assert row["share"] == 1.0 and 0.6 < row["share_low"] < 0.9


def test_the_strength_is_chosen_on_the_first_seed_and_measured_on_the_others() -> None:
    table = cells({("quality", "early", s): 0.0 for s in np.arange(0.1, 1.3, 0.1).round(1).tolist()}, noise=0.05)
    every: Any = claims.gains(table, "macro_f1")
    flattered = every.groupby(["language"])["gain"].max().mean()
    honest: Any = claims.chosen_gains(table, "macro_f1")
    assert len(honest) == 12 and set(honest["seeds"]) == {2}
    assert abs(honest["gain"].mean()) < flattered / 2
    lucky = table.copy()
    on_first = (lucky["seed"] == 0) & (lucky["strength"] == 0.3)
    lucky.loc[on_first, "macro_f1"] = 5.0
    assert set(claims.chosen_gains(lucky, "macro_f1")["strength"]) == {0.3}
    assert not len(claims.chosen_gains(table[table["seed"] == 0], "macro_f1"))


def test_shrinkage_compares_the_prompt_modes() -> None:
    zero = cells({("quality", "early", 1.0): 0.05})
    few = cells({("quality", "early", 1.0): 0.01}, modes=("few-shot",))
    both = pd.concat([zero, few], ignore_index=True)
    assert claims.shrinkage(both, "macro_f1", "quality", "early").value == pytest.approx(0.04)
    assert not claims.shrinkage(zero, "macro_f1", "quality", "early").known


def test_cost_counts_prompts_and_rejected_drafts() -> None:
    both = pd.concat([cells({("quality", "early", 1.0): 0.0}, modes=(m,)) for m in ("zero-shot", "few-shot")])
    table = claims.cost_table(both)
    row = _row(table, mode="zero-shot", kind="quality")
    assert row["tokens_per_text"] == 10 and row["prompt_tokens_per_text"] == 5
    assert row["to_few_shot"] == pytest.approx(150 / 600)
    assert _row(table, mode="few-shot", kind="none")["to_few_shot"] == pytest.approx(1.0)


def test_correlation_finds_order_and_admits_its_absence() -> None:
    x = np.arange(30.0)
    groups = [i // 3 for i in range(30)]
    assert claims.correlation(x, x**3, groups).low > 0.9
    none = claims.correlation(x, np.random.default_rng(3).normal(size=30), groups)
    assert none.low < 0 < none.high
    assert not claims.correlation(x, np.ones(30), groups).known
    assert not claims.correlation(x[:2], x[:2], groups[:2]).known


def test_a_study_without_a_counterpart_claims_nothing() -> None:
    table = cells({("quality", "early", 1.0): 0.02})
    for part in (table[table["kind"] == "none"], table[table["kind"] != "none"]):
        with pytest.raises(SteerlabError, match="compares steered cells with unsteered"):
            claims.claim_table(part, ["macro_f1"])
