"""`steerlab dataset`: from samples to a Hugging Face data set, its card alone, or its upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlab.dataset import Choice, Exported, described_parts, export, push, read_samples


def run(
    where: Path, out: Path, choice: Choice, licence: str, name: str, force: bool, push_to: str, public: bool
) -> tuple[list[dict[str, Any]], str]:
    """Export, and upload where `push_to` names a repository. Returns one row per configuration, and what to tell beside it."""
    made = export(where, out, choice, licence, name, force)
    address = push(made.path, push_to, private=not public) if push_to else ""
    return rows(made), address


def rows(made: Exported) -> list[dict[str, Any]]:
    """One row per configuration: its name and how many texts each split has."""
    splits = list(dict.fromkeys(split for own in made.counts.values() for split in own))
    return [
        {"configuration": config, **{split: own.get(split, 0) for split in splits}}
        for config, own in made.counts.items()
    ]


def preview(where: Path, choice: Choice, licence: str, name: str) -> str:
    """The card that `export` would write."""
    samples, origin = read_samples(where)
    return described_parts(samples, origin, choice, licence, name or where.stem, where)[-1]
