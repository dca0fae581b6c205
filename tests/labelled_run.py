"""A run folder as `synthesize` leaves it, with labelled samples under two conditions, for the tests of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from steerlab.store import RunFolder
from steerlab.tasks import TOPIC

LABELS = TOPIC.labels[:3]
STEERED = {
    "vector": "language-jv",
    "layers": [1],
    "operator": "add",
    "strength": 0.6,
    "unit": "residual",
    "positions": "all",
}
JAVANESE = "Aku mangan sega goreng ing omah karo kanca-kancaku nalika udan deres"
CONFIG = {
    "model": "polyglot-mini",
    "model_revision": "weights-1234",
    "per_label": 4,
    "shots": 0,
    "source": "sample",
    "settings": {"temperature": 0.8, "top_p": 0.9, "stop": ["\n"], "seed": 7},
    "cells": [
        {"condition": "plain", "language": "jv", "prompt_language": "jv"},
        {"condition": "steered", "language": "jv", "prompt_language": None},
    ],
}


def rows(languages: tuple[str, ...] = ("jv", "su"), count: int = 4) -> list[dict[str, Any]]:
    found = []
    for code in languages:
        for condition, steps in (("plain", []), ("steered", [STEERED])):
            for label in LABELS:
                for i in range(count):
                    own = {"language": code, "task": "topic", "condition": condition, "label": label, "index": i}
                    found.append({**own, "text": f"{JAVANESE} {code} {condition} {label} {i}", "interventions": steps})
    return found


def _metric(condition: str, metric: str, value: float | None, reason: str = "") -> dict[str, Any]:
    own = {"language": "jv", "task": "topic", "condition": condition, "metric": metric}
    known = value is not None
    return {
        **own,
        "value": value,
        "low": value - 0.1 if known else None,
        "high": value + 0.1 if known else None,
        "n": 12,
        "reason": reason,
    }


def labelled_run(folder: Path) -> Path:
    """The run with its metrics."""
    with RunFolder.open(folder, CONFIG) as run:
        run.append("samples.jsonl", rows(), batch="0")
        found = [_metric("plain", "macro_f1", 0.31), _metric("steered", "macro_f1", 0.42)]
        run.write_json("metrics.json", {"metrics": [*found, _metric("plain", "faithfulness", None, "why not")]})
        run.finish()
    return folder


def loaded(folder: Path, name: str | None = None) -> Any:
    """The exported data set through `load_dataset`, without a progress bar and with its cache beside the folder."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(str(folder), name, cache_dir=str(folder.parent / "cache"))
    finally:
        if shown:
            datasets.enable_progress_bars()
