"""Can a vector choose the language where the prompt does not?

For each of the twelve languages: share of texts in that language (lid.176) behind nine task prompts that name
no language, unsteered, with the language vector at its recommended layer and strength, and with random
directions of the same norm there; the same behind prompts that name English; and unsteered behind prompts that
name the language (also the topic prompts alone: six languages had no sentiment data to learn that prompt from).
Layers and strengths were chosen on seed 0 (steerlab.bundled.tune), this uses seed 1.

    python -m analyses.02_language_control            # about 4 minutes on 2 cores
    python -m analyses.02_language_control --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses import _bundled
from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.ablation import Arm, sweep
from steerlab.bundled.corpus import LANGUAGES
from steerlab.bundled.tune import task_prompts
from steerlab.commands.synthesize import recommended
from steerlab.estimators import random_like
from steerlab.evaluation.language import identify, language_share
from steerlab.evaluation.stats import bootstrap
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.steering import Intervention
from steerlab.tasks import postprocess

TABLE = "language_control"
TOPIC_PROMPTS = 7  # of the nine, the first
HUMAN = "human"  # what lid.176 says of human SIB-200 test sentences: with STEERLAB_DATA only
NAMES = {
    "unsteered": "no language named, unsteered",
    "random": "no language named, random directions, same norm",
    "steered": "no language named, language vector",
    "english unsteered": "English named, unsteered",
    "english steered": "English named, language vector",
    "prompted": "target language named, unsteered",
    "prompted topic": "target language named, unsteered, topic prompts",
    "human": "human sentences (SIB-200 test)",
}


SHOWN = ("unsteered", "random", "steered", "prompted topic", "human")  # the rest stands in the table


@dataclass(frozen=True)
class Config:
    """Texts per language and condition = 9 prompts x samples; the control has that many for each of several directions."""

    samples: int = 12
    directions: int = 8  # one random direction may happen to point at a language
    control_samples: int = 6  # of each direction; unsteered has as many in all
    seed: int = 1
    max_new_tokens: int = 40


def compute(config: Config) -> Result:
    """One row per language and condition: value, low, high, n, and for "random" the paired difference from
    unsteered.
    """
    model, vectors = load(), _bundled.known_vectors()
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    steered: dict[str, Arm] = {}
    random: list[Arm] = []
    for code in LANGUAGES:
        vector = vectors[code]
        layer, strength = recommended(vector.name) or (model.n_layers // 4, 0.5)
        steered[code] = Arm(code, (Intervention(vector, layer, strength=strength, unit="residual"),), layer, strength)
        for seed in range(config.directions):
            shuffled = Intervention(random_like(vector, seed), layer, strength=strength, unit="residual")
            random.append(Arm(f"{code}/{seed}", (shuffled,), layer, strength))
    plain = Arm("plain")

    def write(arms: list[Arm], named: str | None, samples: int) -> dict[str, pd.DataFrame]:
        table = sweep(model, arms, task_prompts(named), samples, settings, progress=True)
        table["text"] = table["text"].map(postprocess)
        return {str(arm): own for arm, own in table.groupby("arm", sort=False)}

    base = write([plain], None, config.control_samples * config.directions)["plain"]
    english = write([plain], "en", config.samples)["plain"]
    control = write(random, None, config.control_samples)
    prompted = {code: write([plain], code, config.samples)["plain"] for code in LANGUAGES}
    by_condition = {
        "steered": write(list(steered.values()), None, config.samples),
        "random": {c: pd.concat([control[f"{c}/{seed}"] for seed in range(config.directions)]) for c in LANGUAGES},
        "english steered": write(list(steered.values()), "en", config.samples),
        "unsteered": dict.fromkeys(LANGUAGES, base),
        "english unsteered": dict.fromkeys(LANGUAGES, english),
        "prompted": prompted,
        "prompted topic": {code: own[own["prompt"] < TOPIC_PROMPTS] for code, own in prompted.items()},
    }
    texts = {name: {code: list(own["text"]) for code, own in by.items()} for name, by in by_condition.items()}
    hashes = _bundled.vector_hashes(vectors)
    if data.find_root() is not None:
        texts[HUMAN] = {code: list(data.load("sib200", code, split="test").texts) for code in LANGUAGES}
        hashes |= _bundled.text_hashes("sib200 test", texts[HUMAN])
    table = pd.DataFrame(list(_rows(texts, by_condition["random"], steered)))
    return Result({TABLE: table}, {}, model.revision, hashes)


def _rows(texts: Any, random: Any, steered: dict[str, Arm]) -> Iterator[dict[str, Any]]:
    """Shares, and for the random directions their mean change with an interval over directions, and the largest of one direction."""
    for condition, by in texts.items():
        for code in LANGUAGES:
            lid = data.language(code).lid
            share = language_share(by[code], lid)
            row = {
                "language": code,
                "condition": condition,
                "value": share.value,
                "low": share.low,
                "high": share.high,
                "n": share.n,
            }
            if condition == "random":
                was = language_share(texts["unsteered"][code], lid).value
                own = random[code].assign(hit=[g.language == lid for g in identify(by[code])])
                change = own.groupby("arm", sort=False)["hit"].mean().to_numpy(float) - was
                mean = bootstrap(change)
                row |= {
                    "change": mean.value,
                    "change_low": mean.low,
                    "change_high": mean.high,
                    "largest": abs(change).max(),
                }
            if condition in ("steered", "english steered"):
                row |= {"layer": steered[code].layer, "strength": steered[code].strength}
            yield row


def draw(result: Result) -> dict[str, Figure]:
    """Every condition in every language."""
    table: Any = result.tables[TABLE]
    figure, (axes,) = figures.new(height=4.4)
    shown = [name for name in SHOWN if name in set(table["condition"])]
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
    moved = table[table["condition"] == "random"]["change"].abs().sort_values() * 100
    more = moved[moved >= 5]
    rest = f", the other {len(more)} by {more.min():.0f} to {more.max():.0f}" if len(more) else ""
    figure.suptitle(
        f"A language vector alone brings {reached} of 12 languages to 80 % or more;\n"
        f"random directions as long move {int((moved < 5).sum())} by less than 5 points{rest}",
        fontsize=10.5, fontweight="bold", x=0.01, ha="left",
    )  # fmt: skip
    axes.set_ylabel("texts in the target language (%)")
    axes.set_xlabel("target language (intervals: 95 %)")
    axes.set_ylim(-3, 103)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return {TABLE: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
