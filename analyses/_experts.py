"""What the scripts on guidance share: experts that were trained before, and the tables of estimates they write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analyses._harness import NotThere
from steerlab.evaluation.stats import Estimate
from steerlab.loading import load
from steerlab.model import TracedModel


def trained(experts: str, name: str, asked: str) -> TracedModel:
    """polyglot-mini with the adapter of that name. Raises `NotThere` with the command that trains it."""
    folder = Path(experts) / name
    if not (folder / "adapter_config.json").is_file():
        command = f"steerlab expert train {asked} --steps 80 --out {folder}"
        raise NotThere(f"{folder} holds no expert yet: run {command} first.")
    return load(adapter=folder)


def rows_of(place: Mapping[str, Any], found: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    """A row per measure: where it was taken, its name, value, bounds, n and reason."""
    return [{**place, "metric": name, **asdict(one)} for name, one in found.items()]


def pick(table: Any, metric: str, **place: Any) -> Any:
    """The rows of one measure at one place."""
    own = table[table["metric"] == metric]
    for name, value in place.items():
        own = own[own[name] == value]
    return own
