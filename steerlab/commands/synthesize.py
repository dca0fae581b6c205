"""`steerlab synthesize`: from a steering choice to a finished run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.ablation import selection
from steerlab.bundled.vectors import bundled_vectors, vector_texts
from steerlab.data import find_root
from steerlab.errors import SteerlabError
from steerlab.estimators import random_like
from steerlab.evaluation import table
from steerlab.evaluation.human import human_texts
from steerlab.loading import BUNDLED, load
from steerlab.model import TracedModel
from steerlab.recipes import Condition, SynthesisConfig, evaluate, leakage, write_data
from steerlab.steering import Intervention
from steerlab.synthesis import Written
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set

KINDS = ("none", "language", "quality", "random")


@dataclass(frozen=True)
class Steering:
    """Which vector, where and how strongly. `vector` is none, language, quality, random, a vector file or a
    folder of vectors.
    """

    vector: str = "none"
    layer: int | None = None
    strength: float | None = None
    unit: str = "residual"


def default_source(root: Path | None) -> str:
    """The bundled test set unless a data folder is at hand."""
    return "" if find_root(root) is not None else "sample"


def recommended(vector: str) -> tuple[int, float] | None:
    """(layer, strength as a fraction of the residual norm) found best for a bundled vector, or None."""
    file = resources.files("steerlab.bundled") / "vectors" / "recommended.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    entry = found.get(vector)
    return (int(entry["layer"]), float(entry["strength"])) if entry else None


def find_vector(kind: str, code: str, model: TracedModel, seed: int) -> SteeringVector:
    """The vector for one language. Raises `SteerlabError` when there is none, or when it was fitted on another
    model.
    """
    if kind in KINDS:
        if model.name != BUNDLED:
            raise SteerlabError(
                f"--vector {kind} uses the vectors that ship with {BUNDLED}, and the model is {model.name}: fit your own with "
                "`steerlab vectors fit` and give its folder."
            )
        vectors = bundled_vectors()
        chosen = vectors[f"quality-{code}" if kind == "quality" else f"language-{code}"]
        vector = random_like(chosen, seed) if kind == "random" else chosen
    else:
        path = Path(kind)
        if not path.exists():
            raise SteerlabError(
                f"--vector {kind!r} is none of {', '.join(KINDS)} and no file or folder of that name exists."
            )
        vector = SteeringVector.load(path) if path.is_file() else _from_folder(path, code)
    vector.check(model.name, model.revision, model.d_model, model.n_layers)
    return vector


def _from_folder(path: Path, code: str) -> SteeringVector:
    vectors = load_set(path)
    for name in (f"language-{code}", code, f"quality-{code}"):
        if name in vectors:
            return vectors[name]
    raise SteerlabError(f"{path} has no vector for {code!r} (it has {', '.join(vectors)}): give the file of one.")


def interventions(
    steering: Steering, codes: tuple[str, ...], model: TracedModel, seed: int
) -> dict[str, tuple[Intervention, ...]]:
    """The interventions per language: what was asked for, else what the vector's header or the package recommends."""
    found: dict[str, tuple[Intervention, ...]] = {}
    if steering.vector == "none":
        return found
    if steering.unit not in ("raw", "residual"):
        raise SteerlabError(f"unit {steering.unit!r} is not known: give 'residual' or 'raw'.")
    if steering.unit == "raw" and steering.strength is None:
        raise SteerlabError(
            "--unit raw needs a --strength: the recommended strengths are fractions of the residual norm."
        )
    for code in codes:
        vector = find_vector(steering.vector, code, model, seed)
        if vector.choice is not None and (steering.layer, steering.strength, steering.unit) == (None, None, "residual"):
            found[code] = (selection.recommended(vector),)
            continue
        kind = "quality" if steering.vector == "quality" else "language"  # a random one stands in for the language's
        best = recommended(f"{kind}-{code}") if steering.vector in KINDS else None  # found on the bundled vectors only
        layer, strength = best or (model.n_layers // 4, 0.5)
        layer = layer if steering.layer is None else steering.layer
        strength = strength if steering.strength is None else steering.strength
        unit = "raw" if steering.unit == "raw" else "residual"
        found[code] = (Intervention(vector, layer, strength=strength, unit=unit),)
    return found


def run(
    config: SynthesisConfig,
    out: Path,
    steering: Steering,
    root: Path | None,
    dtype: str,
    device: str | None,
    progress: bool,
    engine: str = "local",
) -> list[dict[str, Any]]:
    """Write, evaluate, report; the manifest comes last. Returns the metric rows.

    Raises `SteerlabError` before anything is written where the vector, the prompts or the human texts are not to be had.
    """
    for code in config.languages:
        for name in config.tasks:
            human_texts(name, code, root, config.source or None)
    model = load(config.model, engine, dtype=dtype, device=device)
    condition = Condition(steering.vector, interventions(steering, config.languages, model, config.settings.seed))
    written, cells, folder = write_data(model, config, [condition], out, root, progress)
    shown = {text for cell in cells for texts in cell.shots.values() for text in texts}
    with folder:
        metrics = evaluate(
            written.samples, model=model, root=root, source=config.source, without=shown, progress=progress
        )
        finish(folder, written, metrics, config, root, steering.vector in ("language", "quality", "random"))
    return records(metrics)


def finish(
    folder: Any,
    written: Written,
    metrics: pd.DataFrame,
    config: SynthesisConfig,
    root: Path | None,
    bundled: bool,
) -> None:
    """metrics.json, metrics.csv, report.md, and the manifest last."""
    found = {"metrics": records(metrics), "rejected": written.rejected, "unfilled": written.unfilled}
    if bundled:
        found["leakage"] = _leakage(config, root)
    folder.write_json("metrics.json", found)
    folder.write_table("metrics.csv", metrics)
    folder.write_text("report.md", report(written, metrics, found))
    folder.finish()


def _leakage(config: SynthesisConfig, root: Path | None) -> dict[str, Any]:
    """Overlap of the bundled vectors' texts with the test texts; the reason where the data folder lacks them.

    Without a data folder the test texts are the bundled sample set, and the comparison was made when the vectors were fitted.
    """
    if find_root(root) is None:
        file = resources.files("steerlab.bundled") / "vectors" / "leakage.json"
        if not file.is_file():
            return {"clean": None, "reason": "the bundled vectors stand without leakage.json: fit them again"}
        counts = json.loads(file.read_text(encoding="utf-8"))
        return {"clean": counts["exact"] + counts["near"] == 0, **counts}
    try:
        corpora = vector_texts(root)
        texts = {
            f"{corpus} {code}": own[code] for corpus, own in corpora.items() for code in config.languages if code in own
        }
        return json.loads(leakage(config, texts, root).to_json())
    except SteerlabError as error:
        return {"clean": None, "reason": str(error)}


def records(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a metrics table as plain values."""
    return json.loads(str(metrics.to_json(orient="records")))


def report(written: Written, metrics: pd.DataFrame, found: Mapping[str, Any]) -> str:
    """A page to read: metrics, what could not be filled, leakage, and two samples of every label in every cell."""
    parts = ["# Synthetic data\n", table.markdown(metrics), ""]
    if written.unfilled:
        parts += [
            "## Could not be filled\n",
            *[f"- {place}: {n} missing" for place, n in written.unfilled.items()],
            "",
        ]
    if "leakage" in found:
        clean = found["leakage"]["clean"]
        parts += [
            "## Leakage\n",
            f"not checked: {found['leakage']['reason']}" if clean is None else f"clean: {clean}",
            "",
        ]
    parts.append("## Samples\n")
    by_cell: dict[str, list[Mapping[str, Any]]] = {}
    for row in written.samples:
        by_cell.setdefault(str(row["cell"]), []).append(row)
    for cell, rows in by_cell.items():
        parts += [
            f"### {cell}\n",
            *[f"- **{row['label']}**: {row['text']}" for row in rows if int(row["index"]) < 2],
            "",
        ]
    return "\n".join(parts)
