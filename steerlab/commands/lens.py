"""`steerlab lens`: which tokens a vector promotes and suppresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steerlab import lens
from steerlab.bridge import readout
from steerlab.bundled.vectors import bundled_vectors
from steerlab.data import read_texts
from steerlab.errors import SteerlabError
from steerlab.loading import BUNDLED, load
from steerlab.pieces import readable
from steerlab.vectors import SteeringVector


@dataclass(frozen=True)
class Reading:
    """How to read: with `texts` (a file) the exact change of logits at their tokens, else the direction alone."""

    layers: tuple[int, ...] | None
    top: int
    texts: Path | None
    column: str
    strength: float
    unit: str


def find(which: str, model: str) -> SteeringVector:
    """A vector file, or a bundled vector by its name or its language's code."""
    if Path(which).is_file():
        return SteeringVector.load(which)
    if model != BUNDLED:
        raise SteerlabError(f"there is no vector file {which!r}: give one that was fitted on {model}.")
    known = bundled_vectors()
    for name in (which, f"language-{which}"):
        if name in known:
            return known[name]
    raise SteerlabError(
        f"{which!r} is no vector file and no bundled vector: give a file, or one of {', '.join(known)}."
    )


def run(which: str, model: str, how: Reading, dtype: str, device: str | None) -> list[dict[str, Any]]:
    """One row per layer: the promoted and the suppressed tokens, each with its number, text and score.

    Bad input is refused before the model is loaded.
    """
    if how.top < 1:
        raise SteerlabError(f"--top is {how.top}: give at least 1.")
    if how.unit not in ("raw", "residual"):
        raise SteerlabError(f"unit {how.unit!r} is not known: give 'residual' or 'raw'.")
    vector = find(which, model)
    if how.layers:
        vector = vector.select(how.layers)
    texts = None if how.texts is None else list(read_texts(how.texts, how.column))
    loaded = load(model, dtype=dtype, device=device)
    vector.check(loaded.name, loaded.revision, loaded.d_model, loaded.n_layers)
    head = readout(loaded)
    if texts is None:
        scores = lens.promotion(head, vector)
    else:
        unit = "raw" if how.unit == "raw" else "residual"
        scores = lens.exact_promotion(loaded, head, vector, texts, how.strength, unit)
    # What all tokens gain changes no probability: scores are shown against the mean over the vocabulary.
    scores = scores - scores.mean(-1, keepdim=True)

    def named(own: torch.Tensor, lowest: bool) -> list[dict[str, Any]]:
        some = lens.top_tokens(own, how.top, lowest)
        return [{"id": i, "token": readable(loaded.tokenizer, i), "score": round(float(own[i]), 4)} for i in some]

    pairs = zip(vector.layers, scores, strict=True)
    return [{"layer": n, "promoted": named(own, False), "suppressed": named(own, True)} for n, own in pairs]


def words(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows for a table: tokens side by side."""
    return [
        {key: "  ".join(t["token"] for t in value) if key != "layer" else value for key, value in row.items()}
        for row in rows
    ]
