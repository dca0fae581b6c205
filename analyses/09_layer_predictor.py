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

    python -m analyses.09_layer_predictor            # about 2 minutes on one core
    python -m analyses.09_layer_predictor --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses._bundled import known_vectors, sample_texts, text_hashes, vector_hashes
from analyses._harness import Result, main
from steerlab import figures
from steerlab.bridge import readout
from steerlab.bundled.tune import TOKENS, task_prompts
from steerlab.commands.synthesize import recommended
from steerlab.evaluation.ranking import Agreement, agreement, measured_layers, noise_ceiling
from steerlab.generation import Request, Settings, generate
from steerlab.layer_choice import PREDICTORS, Scoring, score_layers, sweep_cost
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Intervention

NAME = "layer_predictor"
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
    for code, vector in known_vectors().items():
        layer, strength = recommended(vector.name) or (model.n_layers // 4, 0.5)
        push = Intervention(vector, layer, strength=strength, unit="residual")
        requests += [Request(text, ("length", code, i), (push,)) for i, text in enumerate(task_prompts(None))]
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    return float(np.mean([len(s.tokens) for s in generate(model, requests, settings, batch_rows=64)]))


def compute(config: Config) -> Result:
    """One row per language and layer: every score, the measured mean and best share; the two costs, and the ceiling."""
    model, vectors, prompts, sweep = load(), known_vectors(), task_prompts(None), read_sweep()
    scores, cost = score_layers(model, readout(model), vectors, sample_texts(), prompts, config.scoring)
    table = scores.merge(measured_layers(sweep), on=["arm", "layer"], how="outer", validate="one_to_one")
    length = float(np.mean([len(row) for row in model.token_rows(prompts, chat=True)]))
    written = sweep_cost(int(sweep["n"].to_numpy().sum()), length, text_length(config, model))
    costs = {"predictor": asdict(cost), "sweep": asdict(written)}
    facts = {**costs, "ceiling": noise_ceiling(sweep), "seed": config.seed}
    hashes = {**text_hashes("sample", sample_texts()), **vector_hashes(vectors), **sweep_hash()}
    return Result({NAME: table}, facts, model.revision, hashes)


def sweep_hash() -> dict[str, str]:
    """sha256 of the sweep's file."""
    file = resources.files("steerlab.bundled") / "vectors" / "sweep.csv"
    return {"sweep.csv": hashlib.sha256(file.read_bytes()).hexdigest()}


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


def draw(result: Result) -> dict[str, Figure]:
    """Above: rank correlation with the sweep beside chance. Below: points lost by choosing the layer by score."""
    facts = result.facts
    found, order = compare(result.tables[NAME], facts["seed"]), list(NAMES)
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
    return {NAME: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
