"""`steerlab vectors fit` and `show`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab.bundled.vectors import bundled_vectors
from steerlab.data import read_texts
from steerlab.errors import SteerlabError
from steerlab.fitting import fit_contrast_vector, fit_language_vectors
from steerlab.loading import load
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set


@dataclass(frozen=True)
class FitOptions:
    """How to fit: `kind` is language, contrast or quality."""

    model: str
    kind: str
    name: str
    column: str
    positions: str
    weighting: str
    surface: bool
    dtype: str
    device: str | None


def fit(texts: Sequence[str], out: Path, options: FitOptions, progress: bool) -> str:
    """Fit from NAME=FILE texts and save to `out`; returns the sentence to print. Bad input is refused before the model is loaded."""
    sides: dict[str, list[str]] = {}
    for given in texts:
        label, equals, path = given.partition("=")
        if not equals or not label or label in sides:
            raise SteerlabError(
                f"--texts {given!r} is not NAME=FILE with a NAME of its own: write, say, --texts jv=jv.txt."
            )
        sides[label] = list(read_texts(path, options.column))
    if options.kind not in ("language", "contrast", "quality"):
        raise SteerlabError(f"kind {options.kind!r} is not known: give language, contrast or quality.")
    if options.kind != "language" and set(sides) != {"positive", "negative"}:
        raise SteerlabError(
            f"kind {options.kind!r} was given texts named {sorted(sides)}: name them positive and negative."
        )
    if options.weighting not in ("token", "text"):
        raise SteerlabError(f"weighting {options.weighting!r} is not known: give token or text.")
    weighting = "text" if options.weighting == "text" else "token"
    model = load(options.model, dtype=options.dtype, device=options.device)
    if options.kind == "language":
        found = fit_language_vectors(
            model, {"texts": sides}, positions=options.positions, weighting=weighting, progress=progress
        )
        vectors = {vector.name: vector for vector in found.values()}
    else:
        vectors = {
            options.name: fit_contrast_vector(
                model,
                sides["positive"],
                sides["negative"],
                name=options.name,
                kind=options.kind,
                surface=options.surface,
                positions=options.positions,
                weighting=weighting,
                progress=progress,
            )
        }
    save_set(vectors, out)
    return f"{len(vectors)} vectors over {model.n_layers} layers of {model.name} in {out}; look at them: steerlab vectors show {out}"


def facts(where: Path | None) -> list[dict[str, Any]]:
    """One row per vector of a file, a folder, or the bundled set."""
    if where is None:
        found = bundled_vectors()
    elif where.is_file():
        found = {where.stem: SteeringVector.load(where)}
    else:
        found = load_set(where)
    rows = []
    for name, v in found.items():
        share = zip(v.raw_norm.tolist(), v.residual_norm.tolist(), strict=True)
        rows.append(
            {
                "vector": name,
                "model": v.provenance.model,
                "method": v.provenance.method,
                "stream": v.stream,
                "layers": len(v.layers),
                "tokens": f"{v.counts[0]:.0f} / {v.counts[1]:.0f}",
                "norm / residual norm by layer": " ".join(f"{a / b:.2f}" for a, b in share),
            }
        )
    return rows
