"""Whole experiments: every number has an interval or a reason, good data scores high and bad data low, conditions stay apart."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from steerlab import data, recipes
from steerlab.errors import SteerlabError
from steerlab.evaluation.human import HumanTexts, human_texts
from steerlab.generation import Settings
from steerlab.recipes import Condition, SynthesisConfig, cells_of, evaluate, leakage, write_data
from steerlab.steering import Intervention
from steerlab.store import RunFolder
from tests.tiny import tiny, vector

WORDS = {"positive": "lovely superb friendly delicious", "negative": "dreadful broken rude stale"}


def _human_like(start: int, n: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rows = [
        (f"The {words.split()[i % 4]} place number{i} was {words.split()[(i // 4) % 4]} today", label)
        for label, words in WORDS.items()
        for i in range(start, start + n)
    ]
    return tuple(text for text, _ in rows), tuple(label for _, label in rows)


HUMAN = HumanTexts("made up", "CC0", *_human_like(0, 30), *_human_like(100, 20))


@pytest.fixture
def human(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "human_texts", lambda *_: HUMAN)


def _samples(
    labels: Mapping[str, str] | None = None, condition: str = "good", code: str = "en"
) -> list[dict[str, str]]:
    """Unseen texts of the same making; `labels` renames what each was written for."""
    texts, wanted = _human_like(200, 15)
    named = [(labels or {}).get(label, label) for label in wanted]
    row = {"language": code, "task": "sentiment", "condition": condition}
    return [{**row, "text": text, "label": label} for text, label in zip(texts, named, strict=True)]


def _value(table: Any, metric: str, condition: str = "good", column: str = "value") -> float:
    (found,) = table[(table["metric"] == metric) & (table["condition"] == condition)][column].tolist()
    return float(found)


def _complete(table: Any) -> None:
    for row in table.to_dict("records"):
        known = pd.notna(row["value"]) and pd.notna(row["low"]) and pd.notna(row["high"])
        assert known or row["reason"], row
        if known:
            assert row["low"] <= row["value"] + 1e-9 and row["value"] - 1e-9 <= row["high"], row


def test_good_data_reaches_the_ceiling_and_wrong_labels_do_not(human: None) -> None:
    shuffled = [row["label"] for row in _samples()]
    random.Random(0).shuffle(shuffled)
    noise = [{**row, "label": label} for row, label in zip(_samples(condition="noise"), shuffled, strict=True)]
    swapped = _samples({"positive": "negative", "negative": "positive"}, "swapped")
    table = evaluate([*_samples(), *noise, *swapped], seeds=range(4))
    _complete(table)
    assert _value(table, "macro_f1") >= _value(table, "macro_f1_ceiling") - 0.05 >= 0.9
    assert _value(table, "macro_f1_floor") == pytest.approx(1 / 3)
    assert abs(_value(table, "macro_f1", "noise") - 0.5) < 0.25
    assert _value(table, "macro_f1", "swapped") < 0.1
    assert _value(table, "faithfulness") == _value(table, "judge_accuracy") == 1
    assert _value(table, "faithfulness", "swapped") == 0
    assert _value(table, "language_share") > 0.5
    assert "log_perplexity" not in set(table["metric"])


def test_conditions_languages_and_tasks_are_judged_apart(human: None) -> None:
    good, other = _samples(), [{**row, "text": "same words again"} for row in _samples(condition="other")]
    danish = _samples(code="da")
    apart = [evaluate(rows, seeds=range(2)) for rows in (good, other, danish)]
    mixed = [row for trio in zip(good, other, danish, strict=True) for row in trio]
    together = evaluate(mixed, seeds=range(2))
    pd.testing.assert_frame_equal(together, pd.concat(apart).reset_index(drop=True))
    assert _value(together[together["language"] == "en"], "duplicate_rate", "other") > 0.9
    assert _value(together[together["language"] == "en"], "duplicate_rate", "good") == 0
    english, danes = (together[together["language"] == c] for c in ("en", "da"))
    assert _value(english, "language_share", "good") > _value(danes, "language_share", "good")


def test_a_model_adds_perplexity_and_embeddings(human: None) -> None:
    bare: Any = evaluate(_samples(), seeds=range(2))
    full: Any = evaluate(_samples(), model=tiny("llama"), seeds=range(2))
    _complete(full)
    vendi = [name for name in full["metric"] if "vendi" in name]
    assert _value(full, "log_perplexity") > 0 and vendi
    shared = full[full["metric"].isin(bare["metric"]) & ~full["metric"].isin(vendi)]
    rest = bare[~bare["metric"].isin(vendi)]
    pd.testing.assert_frame_equal(shared.reset_index(drop=True), rest.reset_index(drop=True))


def test_what_cannot_be_computed_has_a_reason(human: None, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = [{**row, "text": ""} for row in _samples()]
    table = evaluate([*empty[:3], *_samples(condition="one")[:1]], model=tiny("llama"), seeds=range(2))
    _complete(table)
    assert pd.isna(_value(table, "macro_f1")) and pd.isna(_value(table, "log_perplexity"))
    assert pd.isna(_value(table, "macro_f1", "one"))
    monkeypatch.setattr(recipes, "human_texts", lambda *_: replace(HUMAN, train_texts=(), train_labels=()))
    table = evaluate(_samples(), seeds=range(2))
    _complete(table)
    assert _value(table, "macro_f1") > 0.9
    for metric in ("macro_f1_ceiling", "faithfulness"):
        assert pd.isna(_value(table, metric))
        assert "made up has no train split" in set(table[table["metric"] == metric]["reason"])


@pytest.mark.slow
def test_human_train_texts_reach_the_ceiling_on_a_public_set(shared: Path) -> None:
    texts = human_texts("sentiment", "id", shared)
    row = {"language": "id", "task": "sentiment", "condition": "good"}
    rows = [{**row, "text": t, "label": n} for t, n in zip(texts.train_texts, texts.train_labels, strict=True)]
    labels = list(texts.train_labels)
    random.Random(1).shuffle(labels)
    noise = [{**r, "condition": "noise", "label": label} for r, label in zip(rows, labels, strict=True)]
    table = evaluate([*rows, *noise], root=shared, seeds=range(3))
    assert _value(table, "macro_f1") == pytest.approx(_value(table, "macro_f1_ceiling"), abs=1e-9)
    # One-sided: what is learnt from shuffled labels may be lopsided and fall below chance, but must not beat it as the labels do.
    assert _value(table, "macro_f1", "noise") - 0.5 < 0.12 < _value(table, "macro_f1") - 0.5


def test_a_config_refuses_what_it_does_not_know() -> None:
    for change, because in (
        ({"prompt": "french"}, "prompt 'french'"),
        ({"languages": ()}, "no languages or no tasks"),
        ({"tasks": ()}, "no languages or no tasks"),
        ({"languages": ("xx",)}, "language 'xx'"),
        ({"tasks": ("poetry",)}, "task 'poetry'"),
        ({"per_label": 0}, "0 samples per label"),
    ):
        with pytest.raises(SteerlabError, match=because):
            SynthesisConfig(**{"languages": ("jv",), **change})
    config = SynthesisConfig(("jv",), settings=Settings(seed=2))
    assert config.to_json()["settings"]["seed"] == 2 and config.to_json()["languages"] == ("jv",)


def test_cells_are_every_language_task_and_condition() -> None:
    config = SynthesisConfig(("jv", "su"), ("topic", "sentiment"), shots=2, source="sample", prompt="english")
    steered = {"jv": (Intervention(vector(0), 1),)}
    conditions = [Condition("plain", {}), Condition("steered", steered, prompt="target"), Condition("bare", {}, "none")]
    cells = cells_of(config, conditions)
    assert len({cell.name for cell in cells}) == len(cells) == 2 * 2 * 3
    by_name = {cell.name: cell for cell in cells}
    assert by_name["jv/topic/steered"].interventions == steered["jv"]
    assert by_name["su/topic/steered"].interventions == by_name["jv/topic/plain"].interventions == ()
    named = {c: by_name[f"su/topic/{c}"].prompt_language for c in ("plain", "steered", "bare")}
    assert named == {"plain": "en", "steered": "su", "bare": None}
    sample = human_texts("sentiment", "su", source="sample")
    own = dict(zip(sample.test_texts, sample.test_labels, strict=True))
    for label, shots in by_name["su/sentiment/plain"].shots.items():
        assert len(shots) == 2 and {own[text] for text in shots} == {label}
    assert cells_of(replace(config, shots=0), conditions)[0].shots == {}


CONFIG = SynthesisConfig(("jv",), ("sentiment",), "tiny", per_label=2, settings=Settings(max_new_tokens=6))


def test_a_failed_run_gives_its_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same process can go on with it."""

    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "synthesize", fails)
        with pytest.raises(KeyboardInterrupt):
            write_data(tiny("llama"), CONFIG, [Condition("plain", {})], tmp_path / "run", progress=False)
    written, cells, run = write_data(tiny("llama"), CONFIG, [Condition("plain", {})], tmp_path / "run", progress=False)
    with run:
        assert len(written.samples) == 4 and [cell.name for cell in cells] == ["jv/sentiment/plain"]
        with pytest.raises(SteerlabError, match="written by another process"):
            RunFolder.open(tmp_path / "run", run.config)


@pytest.mark.parametrize(
    ("change", "conditions", "because"),
    [
        ({"settings": Settings(max_new_tokens=400)}, [Condition("plain", {})], "400 new ones need"),
        ({"max_tries": 0}, [Condition("plain", {})], "max_tries is 0"),
        ({"batch_rows": 0}, [Condition("plain", {})], "batch_rows is 0"),
        ({}, [Condition("plain", {}), Condition("plain", {})], "each once"),
        ({}, [], "give at least one"),
        ({}, [Condition("wide", {"jv": (Intervention(vector(0, width=16), 0),)})], "has width 16"),
        ({}, [Condition("deep", {"jv": (Intervention(vector(0, layers=6), 5),)})], "the model has layers 0 to 3"),
    ],
)
def test_bad_input_is_refused_before_the_folder_is_made(
    tmp_path: Path, change: dict[str, Any], conditions: list[Condition], because: str
) -> None:
    with pytest.raises(SteerlabError, match=because):
        write_data(tiny("llama"), replace(CONFIG, **change), conditions, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_leakage_finds_vector_texts_in_the_test_set() -> None:
    config = SynthesisConfig(("jv",), ("topic",), source="sample")
    test = human_texts("topic", "jv", source="sample").test_texts
    assert leakage(config, {"own": ["Ora ana sing padha ing kene, mung ukara biasa wae."]}).clean
    assert not leakage(config, {"own": ["Ukara liyane.", test[3]]}).clean
    assert not leakage(config, {"own": [test[3].upper()]}).clean


def test_texts_the_prompts_showed_are_not_tested_on() -> None:
    texts = data.load("sample", "jv", split="sentiment").examples
    rows = [
        {"language": "jv", "task": "sentiment", "condition": "all", "label": label, "text": f"{label} {word}"}
        for label in ("positive", "negative")
        for word in ("apik", "elek", "becik")
    ]
    shown = {e.text for e in texts[:4]}
    whole, rest = (evaluate(rows, source="sample", seeds=[1], without=w).set_index("metric") for w in ((), shown))
    assert whole.loc["macro_f1", "n"] == len(texts) and rest.loc["macro_f1", "n"] == len(texts) - 4


def test_judging_shows_a_bar_where_it_is_asked_for_and_none_before_a_refusal(
    human: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(_samples(), seeds=range(2))
    assert "judge" not in capsys.readouterr().err
    evaluate(_samples(), seeds=range(2), progress=True)
    assert "judge" in (said := capsys.readouterr().err) and "1/1" in said

    def refuses(*_: Any) -> HumanTexts:
        raise SteerlabError("no such texts")

    monkeypatch.setattr(recipes, "human_texts", refuses)
    with pytest.raises(SteerlabError, match="no such texts"):
        evaluate(_samples(), seeds=range(2), progress=True)
    assert capsys.readouterr().err == ""
