"""The card of a data set tells how its texts were made and what was measured, and claims nothing that is not known."""

from __future__ import annotations

import json
from pathlib import Path

from steerlab.datacard import described
from steerlab.dataset import CARD, Choice, export
from steerlab.tasks import TOPIC
from tests.labelled_run import STEERED, labelled_run, loaded


def test_the_card_says_how_the_texts_were_made_and_what_was_measured(tmp_path: Path) -> None:
    export(
        labelled_run(tmp_path / "run"), tmp_path / "out", Choice(languages=("jv",), validation=0.25), name="Javanese"
    )
    text = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    front = text.split("---\n")[1]
    for line in (
        'license: "cc-by-sa-4.0"',
        'language: ["jv"]',
        'size_categories: ["n<1K"]',
        'task_categories: ["text-classification"]',
    ):
        assert f"{line}\n" in front
    for fact in (
        "# Javanese", "`polyglot-mini`, revision `weights-1234`", "temperature 0.8", "seed: 7", "0.31 [0.21, 0.41]", "0.42 [0.32, 0.52]",
        "why not", "add 0.6 of the residual norm of language-jv at block 1", TOPIC.zero_shot, "names no language: steered",
        "sample", "CC0-1.0", "2606.18389", "| topic-jv | 18 | 6 |", "24 (another language)",
    ):  # fmt: skip
        assert fact in text, fact
    assert "topic-su" not in text and "before texts were left out" in text


def test_a_file_from_elsewhere_is_taken_and_the_card_claims_nothing(tmp_path: Path) -> None:
    rows = [
        {"language": "jv", "task": "colour", "label": label, "text": f"teks {label} {i}"}
        for label in "ba"
        for i in range(2)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    export(tmp_path / "mine.jsonl", tmp_path / "out", Choice())
    train = loaded(tmp_path / "out")["train"]
    assert (
        train.features["label"].names == ["a", "b"]
        and set(train["condition"]) == {"all"}
        and len(set(train["id"])) == 4
    )
    text = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    assert "Not recorded" in text and "Not measured" in text and "No human texts were used" in text
    assert 'license: "unknown"' in text and "No licence is stated" in text and "# mine" in text


def test_steering_is_told_in_words() -> None:
    assert described([]) == "none"
    raw = {**STEERED, "unit": "raw", "strength": 25.0, "layers": [3, 4], "positions": "generated", "operator": "ablate"}
    assert described([STEERED, raw]) == (
        "add 0.6 of the residual norm of language-jv at block 1; ablate 25 of language-jv at block 3, 4, positions generated"
    )
    assert described([{"vector": "v", "layers": [2]}]) == "add 1 of v at block 2"
