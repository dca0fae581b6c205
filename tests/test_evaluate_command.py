"""`steerlab evaluate` with a transformer: the rows it adds are `fine_tune`'s, and nothing else changes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steerlab.cli import app
from steerlab.commands import evaluate
from steerlab.commands.evaluate import Classifier
from steerlab.errors import SteerlabError
from steerlab.evaluation.classifier import FineTuneConfig
from steerlab.evaluation.finetune import SEEDS, fine_tune
from steerlab.evaluation.human import human_texts
from steerlab.records import encode
from steerlab.store import read_rows
from tests.command import save_model

WORDS = {"positive": "aku seneng banget mangan sega enak", "negative": "aku sedih banget panganan iki ala"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rows = [
        {"language": "jv", "task": "sentiment", "condition": "plain", "label": label, "text": f"{text} {i}"}
        for label, text in WORDS.items()
        for i in range(6)
    ]
    one = {"language": "jv", "task": "sentiment", "condition": "one-label", "label": "positive", "text": "apik"}
    (tmp_path / "samples.jsonl").write_bytes(b"".join(encode(row) for row in [*rows, one]))
    return tmp_path / "samples.jsonl"


def _run(where: Path, classifier: Classifier | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    rows = evaluate.run(where, "sample", 2, "none", None, classifier)
    return {(row["condition"], row["metric"]): row for row in rows}


@pytest.mark.slow
def test_a_transformer_adds_its_rows_and_changes_no_other(model: str, samples: Path) -> None:
    plain, tuned = _run(samples), _run(samples, Classifier(model, 2, 1, 1e-3, progress=False))
    assert {key for key in tuned if key not in plain} == {
        ("plain", "macro_f1_finetuned"),
        ("one-label", "macro_f1_finetuned"),
    }
    assert {key: row for key, row in tuned.items() if key in plain} == plain
    human = human_texts("sentiment", "jv", None, "sample")
    rows = [row for row in read_rows(samples) if row["condition"] == "plain"]
    config = FineTuneConfig(model, epochs=1, learning_rate=1e-3, seeds=(1, 2))
    made = fine_tune(
        ([row["text"] for row in rows], [row["label"] for row in rows]),
        (human.test_texts, human.test_labels),
        config=config,
        progress=False,
    ).result.macro_f1
    row = tuned["plain", "macro_f1_finetuned"]
    assert (row["value"], row["low"], row["n"]) == pytest.approx((made.value, made.low, made.n))
    missing = tuned["one-label", "macro_f1_finetuned"]
    assert missing["value"] is None and "at least two labels" in missing["reason"]


def test_a_ceiling_needs_a_human_train_split_and_says_so(model: str, samples: Path) -> None:
    tuned = _run(samples, Classifier(model, 1, 1, ceiling=True, progress=False))
    row = tuned["plain", "macro_f1_ceiling_finetuned"]
    assert row["value"] is None and row["reason"] == "sample has no train split"


def test_finished_seeds_are_kept_in_a_folder(model: str, samples: Path, tmp_path: Path) -> None:
    first = _run(samples, Classifier(model, 1, 1, 1e-3, keep=tmp_path / "kept", progress=False))
    assert [row["seed"] for row in read_rows(tmp_path / "kept" / SEEDS)] == [1]
    more = _run(samples, Classifier(model, 2, 1, 1e-3, keep=tmp_path / "kept", progress=False))
    assert [row["seed"] for row in read_rows(tmp_path / "kept" / SEEDS)] == [1, 2]
    assert not math.isnan(first["plain", "macro_f1_finetuned"]["value"])
    assert more["plain", "macro_f1"] == first["plain", "macro_f1"]


def test_bad_choices_are_told_first(model: str, samples: Path) -> None:
    with pytest.raises(SteerlabError, match="--classifier-validation is 'test'"):
        Classifier(model, validation="test")
    with pytest.raises(SteerlabError, match="could not be loaded as a classifier"):
        _run(samples, Classifier("nowhere/no-model"))
    with pytest.raises(SteerlabError, match="'sample' has no split"):
        _run(samples, Classifier(model, 1, 1, validation="human", progress=False))


def test_human_texts_stop_training_and_make_the_ceiling_where_there_are_some(
    model: str, samples: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = human_texts("sentiment", "jv", shared)
    few = replace(some, train_texts=some.train_texts[:24], train_labels=some.train_labels[:24])
    monkeypatch.setattr(evaluate, "human_texts", lambda *words: few)
    classifier = Classifier(model, 1, 1, validation="human", ceiling=True, progress=False)
    rows: Any = evaluate.fine_tuned(read_rows(samples)[:12], shared, "", (), classifier)
    assert rows["metric"].tolist() == ["macro_f1_finetuned", "macro_f1_ceiling_finetuned"]
    assert rows["value"].notna().all() and (rows["n"] > 100).all()
    valid = evaluate._validation("nusax", "jv", "sentiment", shared, {some.test_texts[0]})
    assert len(valid[0]) > 50 and set(valid[1]) == {"positive", "negative"} and not set(valid[0]) & set(some.test_texts)


def test_the_command_passes_its_classifier_on(model: str, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(samples), "--source", "sample", "--seeds", "1", "--model", "none", "--json", "--quiet"]
    words += ["--classifier", model, "--classifier-seeds", "1", "--classifier-epochs", "1", "--learning-rate", "0.001"]
    assert app(words, standalone_mode=False) in (None, 0)
    rows = {(row["condition"], row["metric"]): row for row in json.loads(capsys.readouterr().out)}
    want = _run(samples, Classifier(model, 1, 1, 1e-3, progress=False))["plain", "macro_f1_finetuned"]
    assert rows["plain", "macro_f1_finetuned"]["value"] == pytest.approx(want["value"])


def test_options_of_no_classifier_are_refused(samples: Path) -> None:
    with pytest.raises(SteerlabError, match="without --classifier: name one, or leave them out"):
        app(["evaluate", str(samples), "--classifier-seeds", "3"], standalone_mode=False)
