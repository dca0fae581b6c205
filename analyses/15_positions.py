"""Which tokens have to be steered to change the language: the prompt's, its last one, the generated ones, or all?

Every language vector at its recommended layer and strength (chosen for all positions, on another seed), and a random
direction of the same length, at five sets of positions behind nine task prompts that name no language; all arms draw the
same random numbers. Measured against unsteered: share of texts in the language, repetition inside a text, and KL of the
next token along the same unsteered answers, token by token. Intervals are over the twelve languages.

    python -m analyses.15_positions            # about 4 minutes on one busy core
    python -m analyses.15_positions --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import _ablate, _bundled
from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.ablation import Arm, sweep
from steerlab.ablation.positions import (
    UNSTEERED,
    compare,
    in_language,
    kl_at_positions,
    position_arms,
    repetition,
)
from steerlab.bundled.tune import task_prompts
from steerlab.commands.synthesize import recommended
from steerlab.estimators import random_like
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.tasks import postprocess
from steerlab.vectors import SteeringVector

TABLE, TOKENS = "positions", "positions_kl"
ORDER = ("prompt", "last_prompt", "generated", "writing", "all")
NAMES = {
    "prompt": "prompt",
    "last_prompt": "its last\ntoken",
    "generated": "gener-\nated",
    "writing": "last +\ngenerated",
    "all": "all",
}
KINDS = {"vector": "language vector", "random": "random direction, same length"}


@dataclass(frozen=True)
class Config:
    """Texts per prompt and arm, answers that KL is measured along, and how many of their tokens are shown."""

    samples: int = 2
    answers: int = 9
    shown: int = 20
    max_new_tokens: int = 32
    seed: int = 1


def compute(config: Config) -> Result:
    """One table of texts by language, direction and positions, and one of KL by token."""
    model, vectors = load(), _bundled.known_vectors()
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    prompts = task_prompts(None)
    plain = sweep(model, [Arm(UNSTEERED)], prompts, config.samples, settings)
    answers = plain[plain["sample"] == 0]["text"].tolist()[: config.answers]
    written, forced = [], []
    for code, vector in vectors.items():
        for kind, own in (("vector", vector), ("random", random_like(vector, config.seed))):
            push = intervention(vector.name, own, model)
            facts = {"language": code, "direction": kind, "layer": push.at[0], "strength": push.strength}
            steered = sweep(model, position_arms(push)[1:], prompts, config.samples, settings)
            written.append(scored(pd.concat([plain, steered]), code).assign(**facts))
            spots = kl_at_positions(model, push, prompts[: len(answers)], answers)
            mean: Any = spots.groupby(["arm", "token"], sort=False)["kl"].agg(["mean", "count"]).reset_index()
            forced.append(mean.rename(columns={"mean": "value", "count": "n"}).assign(**facts))
    kl = pd.concat(forced, ignore_index=True)
    tables = {TABLE: pd.concat(written, ignore_index=True), TOKENS: kl[kl["token"] < config.shown]}
    return Result(tables, {}, model.revision, _bundled.vector_hashes(vectors))


def intervention(name: str, vector: SteeringVector, model: TracedModel) -> Intervention:
    """A direction at the layer and strength recommended for the vector of that name."""
    layer, strength = recommended(name) or (model.n_layers // 4, 0.5)
    return Intervention(vector, layer, strength=strength, unit="residual")


def scored(texts: pd.DataFrame, code: str) -> pd.DataFrame:
    """Share in the language, repetition and share that came to an end, by positions, and paired against unsteered."""
    texts = texts.assign(text=texts["text"].map(postprocess))
    scores = {"share": in_language(data.language(code).lid), "repetition": repetition(1)}
    return compare(texts, scores, group="prompt")


def draw(result: Result) -> dict[str, Figure]:
    """Share and repetition by positions; KL along the answer."""
    table: Any = result.tables[TABLE]
    kl: Any = result.tables[TOKENS]
    figure, panels = figures.new(columns=2, rows=2, height=7.0)
    bars(panels[0], table, "share", "Texts in the vector's language", 100)
    bars(panels[1], table, "repetition", "Repeated words inside a text", 100)
    for axes, kind in zip(panels[2:], KINDS, strict=True):
        along(axes, kl[kl["direction"] == kind], KINDS[kind])
    top = max(axes.get_ylim()[1] for axes in panels[2:])
    for axes in panels[2:]:
        axes.set_ylim(1e-4, top)
    panels[0].legend(loc="upper left", fontsize=8)
    handles, words = panels[2].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=5, title="KL: steered at", title_fontsize=9)
    own: Any = table[(table["direction"] == "vector") & (table["measure"] == "share")]
    share = 100 * own.groupby("arm")["value"].mean()
    far = kl[(kl["direction"] == "vector") & (kl["arm"] == "last_prompt")].groupby("token")["value"].mean()
    _ablate.headline(
        figure,
        f"Steered everywhere, {share['all']:.0f} % of texts are in the vector's language (unsteered {share[UNSTEERED]:.0f} %); "
        f"at the generated tokens alone {share['generated']:.0f} %, at the prompt alone {share['prompt']:.0f} %, at its last "
        f"token alone {share['last_prompt']:.0f} %, whose KL falls from {far.iloc[0]:.2f} to "
        f"{far.iloc[-5:].mean():.3f} nats",
    )
    return {TABLE: figure}


def bars(axes: Axes, table: Any, measure: str, title: str, scale: float) -> None:
    """The mean paired change over languages, by positions and direction."""
    own = table[(table["measure"] == measure) & (table["arm"] != UNSTEERED)]
    points: Any = _ablate.over(own, "language", ["arm", "direction"], "change")
    points[["value", "low", "high"]] *= scale
    figures.dots(
        axes, points, place="arm", series="direction", order=list(ORDER), series_order=list(KINDS), names=KINDS
    )
    axes.axhline(0, color="black", ls="--", lw=1, label="unsteered")
    axes.set_xticks(range(len(ORDER)), [NAMES[name] for name in ORDER], fontsize=8)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    _ablate.panel(axes, title, "steered at", "change against unsteered (points)")


def along(axes: Axes, kl: Any, title: str) -> None:
    """KL by token of the answer, a line per set of positions."""
    points = _ablate.over(kl, "language", ["arm", "token"])
    names = {name: NAMES[name].replace("-\n", "").replace("\n", " ") for name in ORDER}
    points["value"] = np.maximum(points["value"].to_numpy(float), 1e-4)
    points["low"] = np.maximum(points["low"].to_numpy(float), 1e-4)
    figures.lines(axes, points, x="token", series="arm", series_order=ORDER, names=names)
    axes.set_yscale("log")
    _ablate.panel(axes, title, "token of the answer", "KL (nats; 0 at the lower edge)")


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
