"""A finished run with texts that a page must not trust: markup, right-to-left script, odd characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlab.store import RunFolder
from tests.labelled_run import STEERED

EVIL = '</script><script>alert(1)</script><img src=x onerror=alert(2)> & "quoted" \x00 \u202e'
HEBREW = "הספורט הוא טוב מאוד לבריאות"
LABELS = ("science/technology", "travel")
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63680000008200"
    "8177cd72b60000000049454e44ae426082"
)


def sample(language: str, condition: str, label: str, index: int, text: str, **more: Any) -> dict[str, Any]:
    return {
        "cell": f"{condition}/{language}/topic",
        "condition": condition,
        "language": language,
        "task": "topic",
        "label": label,
        "index": index,
        "attempt": 0,
        "key": [language, "topic", label, index, 0],
        "text": text,
        "interventions": [] if condition.startswith("plain") else [STEERED],
        **more,
    }


def config(**more: Any) -> dict[str, Any]:
    cells = [
        {"condition": c, "language": code, "task": "topic", "prompt_language": prompt, "labels": list(LABELS)}
        for code in ("jv", "he")
        for c, prompt in (("plain", code), ("plain-nameless", None), ("steered", code), ("steered-nameless", None))
    ]
    found = {"model": "polyglot-mini", "per_label": 2, "cells": cells, "settings": {"seed": 7, "temperature": 0.8}}
    return {**found, "hub_token": "hf_abcdefghijkl", "note": EVIL + " hf_abcdefghijkl", **more}


def samples() -> list[dict[str, Any]]:
    found = []
    for code, words in (("jv", "Aku mangan sega goreng"), ("he", HEBREW)):
        for condition in ("plain", "plain-nameless", "steered", "steered-nameless"):
            for label in LABELS:
                for i in range(2):
                    text = f"{words} {condition.replace('-', ' ')} {i}"
                    found.append(sample(code, condition, label, i, text))
    found[0]["text"] = EVIL
    return found


def metrics() -> list[dict[str, Any]]:
    return [
        {"language": code, "task": "topic", "condition": condition, "metric": metric, "value": value, "low": value - 0.1,
         "high": value + 0.1, "n": 4, "reason": ""}
        for metric in ("macro_f1", "language_share")
        for code in ("jv", "he")
        for condition, value in (("plain", 0.3), ("steered", 0.6))
    ] + [
        {"language": "jv", "task": "topic", "condition": EVIL, "metric": "faithfulness", "value": None, "low": None, "high": None,
         "n": 0, "reason": f"no train split {EVIL}"},
        {"language": "jv", "task": "topic", "condition": "plain", "metric": "log_perplexity", "value": 5.25, "low": 4.0, "high": 7.5,
         "n": 4, "reason": ""},
    ]  # fmt: skip


def reported_run(folder: Path, finish: bool = True, **more: Any) -> Path:
    with RunFolder.open(folder, config(**more)) as run:
        run.append("samples.jsonl", samples(), batch="0")
        run.write_json("metrics.json", {"metrics": metrics(), "rejected": {"steered/jv": {"empty": 2}}})
        run.write_text("tables/cost.csv", f'name,seconds\n"{EVIL.replace(chr(34), "")}",3\nb,20\nc,100\n')
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / "demo.png").write_bytes(PNG)
        if finish:
            run.finish()
    return folder
