"""How much of a vector, and where: what does a stronger push buy, and what does it cost?

Six language vectors of polyglot-mini at every layer and four strengths, behind seven topic prompts that name no language;
all arms in mixed batches with common random numbers, beside the unsteered model and two random directions of equal norm.
Measured: target-language share (lid.176), KL of the next token along the bundled sample sentences, surprise of the unsteered model
at the text behind its prompt, distinct-2, repetition, and agreement with the topic asked for (character n-gram judge
trained on SIB-200 train texts of all twelve languages). Intervals of single arms are over prompts, those
of the curves (means over layers) over languages, and for random directions, the same for all languages, over layers.

    python -m analyses.10_dose_response --data DIR   # about 8 minutes on one busy core
    python -m analyses.10_dose_response --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses._bundled import known_vectors, sample_texts, text_hashes, vector_hashes
from analyses._dose import kl_texts, over, over_layers, percent, topic_prompts
from analyses._harness import Result, main
from steerlab import figures
from steerlab.ablation.dose import Design, dose_response
from steerlab.ablation.outcomes import human_judge
from steerlab.bundled.corpus import LANGUAGES
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.tasks import TOPIC

NAME = "dose_response"
ARMS = {"vector": "language vector", "random": "random direction, equal norm"}


@dataclass(frozen=True)
class Config:
    """Strengths are fractions of the layer's mean residual norm. `samples` texts per prompt and arm."""

    languages: tuple[str, ...] = ("am", "de", "he", "jv", "mt", "sl")
    strengths: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    samples: int = 2
    directions: int = 2
    max_new_tokens: int = 40
    seed: int = 1  # the recommended strengths were chosen on seed 0


def compute(config: Config) -> Result:
    """The table of `dose_response`, without texts."""
    known = known_vectors()
    vectors = {code: known[code] for code in config.languages}
    judge = human_judge("topic", LANGUAGES)
    model = load()
    design = Design(vectors, tuple(range(model.n_layers)), config.strengths, directions=config.directions)
    found = dose_response(
        model, design, topic_prompts(), config.samples, Settings(max_new_tokens=config.max_new_tokens, seed=config.seed),
        targets={code: code for code in vectors}, labels=TOPIC.labels, judge=judge, texts=kl_texts(), progress=True,
    )  # fmt: skip
    table = found.table.rename(columns={"vector": "language"})
    hashes = vector_hashes(vectors) | text_hashes("sample", {c: own[:1] for c, own in sample_texts().items()})
    return Result({NAME: table}, {"texts": len(found.texts)}, model.revision, hashes)


def draw(result: Result) -> Mapping[str, Figure]:
    """Maps of the target-language share, and what a push costs by strength."""
    table: Any = result.tables[NAME]
    plain: Any = table[table["arm"] == "unsteered"].groupby("measure")["value"].mean()
    last = float(table["strength"].max())
    figure, panels = figures.new(columns=2, rows=3, height=8.6)
    _maps(panels[0], panels[1], table, float(plain["in_target"]))
    moved, surprise, spread = (_series(table, name) for name in ("kl_95", "log_perplexity", "distinct_2"))
    topic = percent(_series(table, "agreement"))
    _curves(panels[2], moved, "KL, 95th percentile (nats)", None)
    panels[2].set(yscale="log")
    panels[2].set_title(
        f"Strength {last:g} moves the next token by\n{_at(moved, 'vector'):.1f} nats, random {_at(moved, 'random'):.1f}"
    )
    _curves(panels[3], surprise, "surprise (nats a token)", float(plain["log_perplexity"]))
    panels[3].set_title(
        f"Surprise rises from {plain['log_perplexity']:.1f} to {_at(surprise, 'vector'):.1f},\nunder random directions to "
        f"{_at(surprise, 'random'):.1f}"
    )
    _curves(panels[4], spread, "distinct-2 of an arm's texts", float(plain["distinct_2"]))
    panels[4].set_title(
        f"Distinct-2 falls from {plain['distinct_2']:.2f} to {_at(spread, 'vector'):.2f},\nrandom to {_at(spread, 'random'):.2f}"
    )
    _curves(panels[5], topic, "topic recognised (%)", float(plain["agreement"]) * 100)
    panels[5].axhline(100 / 7, color="grey", ls=":", lw=1.2, label="chance")
    panels[5].set_title(
        f"Topic recognised: {plain['agreement'] * 100:.0f} % unsteered,\n{_at(topic, 'vector'):.0f} % at {last:g}, "
        f"random {_at(topic, 'random'):.0f} %"
    )
    handles = dict(zip(*reversed(panels[5].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return {NAME: figure}


def _maps(left: Any, right: Any, table: Any, plain: float) -> None:
    """Target-language share by layer and strength, of the vectors and of random directions."""
    maps = {}
    for axes, arm in ((left, "vector"), (right, "random")):
        own = table.query("measure == 'in_target' and arm == @arm and against == 'nothing'")
        maps[arm] = own.pivot_table("value", "layer", "strength", aggfunc="mean") * 100
        figures.heat(axes, maps[arm], low=0.0, high=100.0, label="in the target language (%)")
        axes.set(xlabel="strength / stream's norm", ylabel="layer")
    best = maps["vector"].stack().idxmax()
    left.set_title(f"Language vectors: {maps['vector'].max().max():.0f} % at\nlayer {best[0]}, strength {best[1]:g}")
    right.set_title(f"Random directions: at most {maps['random'].max().max():.0f} %\n(unsteered {plain * 100:.0f} %)")


def _series(table: Any, measure: str) -> pd.DataFrame:
    """Mean over layers at each strength, with an interval over languages; of random directions over layers."""
    own = table.query("measure == @measure and against == 'nothing'")
    vector = over(own[own["arm"] == "vector"], "strength", "language").assign(arm="vector")
    random = over_layers(own[own["arm"] == "random"], "strength").assign(arm="random")
    return pd.concat([vector, random], ignore_index=True)


def _at(series: pd.DataFrame, arm: str) -> float:
    """The value of an arm at the largest strength."""
    own: Any = series[series["arm"] == arm]
    return float(own.sort_values("strength")["value"].iloc[-1])


def _curves(axes: Any, series: pd.DataFrame, label: str, plain: float | None) -> None:
    figures.lines(axes, series, x="strength", series="arm", series_order=tuple(ARMS), names=ARMS)
    if plain is not None:
        axes.axhline(plain, color="black", ls="--", lw=1.2, label="unsteered")
    axes.set(xlabel="strength / stream's norm", ylabel=label)


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
