"""Can the best layer for a language vector be told without writing a text?

Four scores per layer of polyglot-mini that need no generation (gain of the language's tokens by the logit lens, AUROC
of telling the language on single tokens, split-half reliability, KL of the next token), the mean of their ranks, and
the rule "the earlier the better", each against the measured sweep (steerlab/bundled/vectors/sweep.csv: share of texts
in the language by vector, layer and strength, mean over strengths): Spearman's rank correlation over layers, mean
over the twelve languages with a bootstrap interval over languages. Chance permutes the layers, the same way in all
languages. The mean of the four ranks was named the predictor before any correlation was looked at; the gain of the
language's tokens in the steered model, which costs nothing more, was added after a first look. Also: what a
layer chosen by score loses against the best one, what sweep and predictor cost, and how well the sweep would rank
the layers of the sweep measured anew (binomial draws of its shares).

    python -m analyses.layer_predictor            # about 2 minutes on one core
    python -m analyses.layer_predictor --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses.lens_polyglot import sample_texts
from steerlab import figures
from steerlab.bridge import readout
from steerlab.bundled.corpus import LANGUAGES
from steerlab.bundled.tune import TOKENS, task_prompts
from steerlab.bundled.vectors import bundled_vectors
from steerlab.commands.synthesize import recommended
from steerlab.evaluation.ranking import Agreement, agreement, measured_layers, noise_ceiling
from steerlab.generation import Request, Settings, generate
from steerlab.layer_choice import PREDICTORS, Scoring, score_layers, sweep_cost
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Intervention

FOLDER, NAME = Path("figures"), "layer_predictor"
NAMES = {
    "combined": "mean of\nthe four",
    "lens": "logit lens",
    "probe": "probe\nAUROC",
    "reliability": "split-half\nreliability",
    "kl": "KL",
    "gain": "gain of the\nlanguage",
    "depth": "earlier is\nbetter",
}


@dataclass(frozen=True)
class Config:
    """How to score, and how long the texts of the sweep may be (as in steerlab.bundled.tune)."""

    scoring: Scoring = field(default_factory=Scoring)
    max_new_tokens: int = TOKENS
    seed: int = 0


def read_sweep() -> pd.DataFrame:
    """The measured sweep of the bundled model."""
    with resources.as_file(resources.files("steerlab.bundled") / "vectors" / "sweep.csv") as path:
        return pd.read_csv(path)


def text_length(config: Config, model: TracedModel) -> float:
    """Mean tokens of a steered text, from one per language and prompt at the recommended layer and strength; only the
    cost of the sweep is told from it.
    """
    requests = []
    for code in LANGUAGES:
        vector = bundled_vectors()[f"language-{code}"]
        layer, strength = recommended(vector.name) or (model.n_layers // 4, 0.5)
        push = Intervention(vector, layer, strength=strength, unit="residual")
        requests += [Request(text, ("length", code, i), (push,)) for i, text in enumerate(task_prompts(None))]
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    return float(np.mean([len(s.tokens) for s in generate(model, requests, settings, batch_rows=64)]))


def compute(config: Config, model: TracedModel, sweep: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """One row per language and layer: every score, the measured mean and best share; the two costs, and the ceiling."""
    vectors = {code: bundled_vectors()[f"language-{code}"] for code in LANGUAGES}
    prompts = task_prompts(None)
    scores, cost = score_layers(model, readout(model), vectors, sample_texts(), prompts, config.scoring)
    measured = measured_layers(sweep)
    table = scores.merge(measured, on=["arm", "layer"], how="outer", validate="one_to_one")
    length = float(np.mean([len(row) for row in model.token_rows(prompts, chat=True)]))
    written = sweep_cost(int(sweep["n"].to_numpy().sum()), length, text_length(config, model))
    return table, {"predictor": asdict(cost), "sweep": asdict(written), "ceiling": noise_ceiling(sweep)}


def compare(table: pd.DataFrame, seed: int = 0) -> dict[str, Agreement]:
    """Every predictor against the sweep."""
    return {name: agreement(table, table, name, seed) for name in PREDICTORS}


def summary(found: dict[str, Agreement]) -> pd.DataFrame:
    """One row per predictor and measure, as `figures.dots` wants them."""
    rows = []
    for name, own in found.items():
        for measure, estimate in (("correlation", own.correlation), ("lost", own.lost)):
            rows.append({"predictor": name, "measure": measure, "p": own.p, **asdict(estimate)})
    return pd.DataFrame(rows)


def draw(table: Any, facts: dict[str, Any], seed: int = 0) -> Figure:
    """Above: rank correlation with the sweep beside chance. Below: points lost by choosing the layer by score."""
    found, order = compare(table, seed), list(NAMES)
    points = summary(found)
    figure, (top, bottom) = figures.new(rows=2, height=6.2)
    for axes, measure, scale in ((top, "correlation", 1.0), (bottom, "lost", 100.0)):
        own: Any = points[points["measure"] == measure].copy()
        own[["value", "low", "high"]] *= scale
        figures.dots(axes, own, place="predictor", series="measure", order=order, series_order=[measure])
        axes.set_xticks(range(len(order)), [NAMES[name] for name in order])
    marks = [found[name].chance for name in order]
    top.plot(range(len(order)), marks, ls="", marker="_", ms=22, color="grey", label="95 % of layer orders stay below")
    top.axhline(0, color="black", lw=0.8)
    top.axhline(facts["ceiling"], color="black", ls="--", lw=1, label="the sweep measured anew")
    top.set(ylabel="rank correlation with the sweep", ylim=(-1.05, 1.35))
    chance = 100 * found["depth"].lost_at_random
    bottom.axhline(chance, color="grey", ls=":", lw=1.2, label="a layer at random")
    bottom.set(ylabel="lost against the best layer (points)", ylim=(0, None))
    for axes in (top, bottom):
        handles, labels = axes.get_legend_handles_labels()
        kept = [(h, text) for h, text in zip(handles, labels, strict=True) if text not in ("correlation", "lost")]
        axes.legend(*zip(*kept, strict=True), loc="upper right", ncols=2)
    whole, tokens = found["combined"], facts["sweep"]["tokens"] / facts["predictor"]["tokens"]
    verdict = "above chance" if whole.correlation.value > whole.chance else "not above chance"
    top.set_title(
        f"Four scores that need no text rank the layers at {whole.correlation.value:.2f} with the sweep\n"
        f"(mean of their ranks): {verdict} (p = {whole.p:.2g})"
    )
    bottom.set_title(
        f"The layer it prefers is {100 * whole.lost.value:.1f} points below the best (a random one {chance:.1f}),\n"
        f"for 1/{tokens:.0f} of the tokens the sweep costs"
    )
    return figure


def main() -> None:
    """Compute (or read), draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redraw", action="store_true", help="draw again from figures/*.csv, computing nothing")
    if parser.parse_args().redraw:
        table: Any = pd.read_csv(FOLDER / f"{NAME}.csv")
        record = json.loads((FOLDER / f"{NAME}.json").read_text(encoding="utf-8"))
    else:
        config, model = Config(), load()
        table, facts = compute(config, model, read_sweep())
        record = {**asdict(config), "model_revision": model.revision, "facts": facts}
    paths = figures.save(draw(table, record["facts"], record["seed"]), table, FOLDER, NAME, record)
    for name, own in compare(table, record["seed"]).items():
        print(
            f"{name:<12} correlation {own.correlation}  chance {own.chance:.2f}  p {own.p:.3f}  lost {own.lost:.3f}"
            f" (random {own.lost_at_random:.3f})"
        )
        print(" " * 12, {code: round(value, 2) for code, value in own.each.items()})
    print(record["facts"])
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    main()
