"""Can a vector choose the language where the prompt does not?

For each of the twelve languages: share of texts in that language (lid.176) behind nine task prompts that name
no language, unsteered, with the language vector at its recommended layer and strength, and with a random
direction of the same norm there; the same behind prompts that name English; and unsteered behind prompts that
name the language. Layers and strengths were chosen on seed 0 (steerlab.bundled.tune), this uses seed 1.

    python -m analyses.language_control          # about 8 minutes on 2 cores
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steerlab import data, figures
from steerlab.ablation import Arm, sweep
from steerlab.bundled.corpus import LANGUAGES
from steerlab.bundled.tune import task_prompts
from steerlab.bundled.vectors import bundled_vectors
from steerlab.commands.synthesize import recommended
from steerlab.estimators import random_like
from steerlab.evaluation.language import identify, language_share
from steerlab.evaluation.stats import paired_bootstrap
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.tasks import postprocess

HUMAN = "human"  # what lid.176 says of human SIB-200 test sentences: with STEERLAB_DATA only
NAMES = {
    "unsteered": "no language named, unsteered",
    "random": "no language named, random direction, same norm",
    "steered": "no language named, language vector",
    "english unsteered": "English named, unsteered",
    "english steered": "English named, language vector",
    "prompted": "target language named, unsteered",
    "human": "human sentences (SIB-200 test)",
}


@dataclass(frozen=True)
class Config:
    """Texts per language and condition = 9 prompts x samples."""

    samples: int = 12
    control_samples: int = 36  # random and unsteered: a difference of a few points needs more texts
    seed: int = 1
    max_new_tokens: int = 40


def compute(config: Config, model: TracedModel) -> pd.DataFrame:
    """One row per language and condition: value, low, high, n, and for "random" the paired difference from
    unsteered.
    """
    vectors = bundled_vectors()
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    steered: dict[str, Arm] = {}
    random: dict[str, Arm] = {}
    for code in LANGUAGES:
        vector = vectors[f"language-{code}"]
        layer, strength = recommended(vector.name) or (model.n_layers // 4, 0.5)
        steered[code] = Arm(code, (Intervention(vector, layer, strength=strength, unit="residual"),), layer, strength)
        shuffled = random_like(vector, seed=7)
        random[code] = Arm(code, (Intervention(shuffled, layer, strength=strength, unit="residual"),), layer, strength)
    plain = Arm("plain")

    def write(arms: list[Arm], named: str | None, samples: int) -> dict[str, list[str]]:
        table = sweep(model, arms, task_prompts(named), samples, settings, progress=True)
        table["text"] = table["text"].map(postprocess)
        return {str(arm): list(own["text"]) for arm, own in table.groupby("arm", sort=False)}

    base = write([plain], None, config.control_samples)["plain"]
    english = write([plain], "en", config.samples)["plain"]
    by_condition = {
        "steered": write(list(steered.values()), None, config.samples),
        "random": write(list(random.values()), None, config.control_samples),
        "english steered": write(list(steered.values()), "en", config.samples),
        "unsteered": dict.fromkeys(LANGUAGES, base),
        "english unsteered": dict.fromkeys(LANGUAGES, english),
        "prompted": {code: write([plain], code, config.samples)["plain"] for code in LANGUAGES},
    }
    if data.find_root() is not None:
        by_condition[HUMAN] = {code: list(data.load("sib200", code, split="test").texts) for code in LANGUAGES}
    rows = []
    for condition in by_condition:
        for code in LANGUAGES:
            lid = data.language(code).lid
            texts = by_condition[condition][code]
            share = language_share(texts, lid)
            row = {
                "language": code,
                "condition": condition,
                "value": share.value,
                "low": share.low,
                "high": share.high,
                "n": share.n,
            }
            if condition == "random":
                hits = [np.array([g.language == lid for g in identify(own)], dtype=float) for own in (texts, base)]
                change = paired_bootstrap(hits[0], hits[1])
                row |= {"change": change.value, "change_low": change.low, "change_high": change.high}
            if "steered" in condition and "un" not in condition:
                row |= {"layer": steered[code].layer, "strength": steered[code].strength}
            rows.append(row)
    return pd.DataFrame(rows)


def draw(table: Any) -> Figure:
    """Every condition in every language."""
    figure, (axes,) = figures.new(height=4.4)
    shown = [name for name in NAMES if name in set(table["condition"])]
    figures.dots(
        axes,
        table,
        place="language",
        series="condition",
        order=LANGUAGES,
        series_order=shown,
        names=NAMES,
        percent=True,
    )
    steered = table[table["condition"] == "steered"]
    reached = int((steered["value"] >= 0.8).sum())
    moved = table[table["condition"] == "random"]["change"].abs().max() * 100
    axes.set_title(
        f"A language vector alone brings {reached} of 12 languages to 80 % or more;\n"
        f"a random direction of the same norm moves none by more than {moved:.0f} points"
    )
    axes.set_ylabel("texts in the target language (%)")
    axes.set_xlabel("target language (intervals: 95 %)")
    axes.set_ylim(-3, 103)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def main() -> None:
    """Compute, print, draw."""
    config, model = Config(), load()
    table: Any = compute(config, model)
    paths = figures.save(
        draw(table),
        table,
        Path("figures"),
        "language_control",
        {**asdict(config), "model_revision": model.revision},
    )
    print(table.pivot(index="language", columns="condition", values="value").round(2).to_string())
    print(
        table[table["condition"].isin(["steered", "prompted", "human"])]
        .groupby("condition")["value"]
        .mean()
        .round(3)
        .to_string()
    )
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    main()
