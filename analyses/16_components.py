"""Who writes a language into the stream: embedding, attention or MLPs, and which of them are needed?

The distance between a language's held-out lines and their translations along its vector, behind two layers of
polyglot-mini, is split exactly into what the embedding, each attention and each MLP adds (mean over the tokens of a line,
ten languages, NTREX); the same for human against back-translated Slovene along the quality vector. Control: the same
split along a random direction, as a share of the vector's own distance. Then each attention and MLP is replaced by its
mean over other lines: what is left of the distance says whether it is needed, which need not be what it adds. Intervals
are over languages, of quality over pairs.

    python -m analyses.16_components            # about 6 minutes on one busy core
    python -m analyses.16_components --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import _ablate
from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.ablation.components import component_name, contribution_shares, contributions, necessity
from steerlab.bundled.vectors import bundled_vectors
from steerlab.estimators import random_like
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.types import Site
from steerlab.vectors import SteeringVector

TABLE = "components"
SERIES = {
    "share": "adds (share of the distance)",
    "random": "adds along a random direction",
    "left": "left of the distance without it",
}


@dataclass(frozen=True)
class Config:
    """The two layers, lines per language, Slovene pairs, and texts that means are taken over."""

    layers: tuple[int, ...] = (2, 5)
    lines: int = 24
    needed_lines: int = 10
    pairs: int = 250
    needed_pairs: int = 120
    reference: int = 12
    most_tokens: int = 40
    seed: int = 0


def compute(config: Config) -> Result:
    """One row per contrast, layer, component and measure."""
    model, vectors = load(), bundled_vectors()
    lines = _ablate.heldout_lines(model, max(config.lines, config.needed_lines), config.most_tokens, config.seed)
    human, translated = _ablate.slovene_pairs(model, config.pairs, config.most_tokens, config.seed)
    reference = [
        text for code in _ablate.NTREX for text in data.load("ntrex", code, split="vectors").texts[: config.reference]
    ]
    parts = []
    for code in _ablate.NTREX:
        sides = lines.contrast(code, config.lines)
        parts += contrast(config, model, code, vectors[f"language-{code}"], sides, config.needed_lines, reference)
    sides = human, translated
    parts += contrast(config, model, "quality", vectors[_ablate.QUALITY], sides, config.needed_pairs, reference)
    hashes = {**lines.hashes(), **_ablate.pair_hashes(human, translated), "reference": data.texts_sha256(reference)}
    facts = {"layers": list(config.layers), "last": model.n_layers - 1}
    return Result({TABLE: pd.concat(parts, ignore_index=True)}, facts, model.revision, hashes)


def contrast(
    config: Config,
    model: TracedModel,
    name: str,
    vector: SteeringVector,
    sides: tuple[Sequence[str], Sequence[str]],
    needed: int,
    reference: Sequence[str],
) -> list[pd.DataFrame]:
    """What every component adds to the distance of two sides, along the vector and along a random direction, and what is
    left without it.
    """
    n, both = len(sides[0]), [*sides[0], *sides[1]]
    found = []
    for layer in config.layers:
        own = contributions(model, both, vector, layer)
        shares = contribution_shares(own.rows(0, n), own.rows(n, 2 * n), seed=config.seed)
        other = contributions(model, both, random_like(vector, config.seed), layer)
        total = float((own.total[:n] - own.total[n:]).mean())
        chance = (other.values[:n] - other.values[n:]).mean(0) / total
        control = pd.DataFrame({"component": list(map(component_name, other.components)), "value": chance, "n": n})
        tables = {"share": shares, "random": control}
        # Quality: behind the last layer the sides differ by 0.2 standard deviations, and shares of that would need many more pairs.
        if name != "quality" or layer == config.layers[0]:
            first = [side[:needed] for side in sides]
            tables["left"] = necessity(model, first[0], first[1], vector, layer, reference, seed=config.seed)
        found += [table.assign(contrast=name, target=layer, measure=measure) for measure, table in tables.items()]
    return found


def draw(result: Result) -> dict[str, Figure]:
    """Ten languages above, quality below; left the earlier target, right the last layer."""
    table: Any = result.tables[TABLE]
    layers = [int(layer) for layer in result.facts["layers"]]
    figure, panels = figures.new(columns=len(layers), rows=2, height=7.2)
    for column, layer in enumerate(layers):
        own = table[table["target"] == layer]
        language = _ablate.over(own[own["contrast"] != "quality"], "contrast", ["component", "measure"])
        show(panels[column], language, layer, f"Language, behind layer {layer}")
        quality = own[own["contrast"] == "quality"]
        show(panels[len(layers) + column], quality, layer, f"Quality of Slovene, behind layer {layer}")
    handles, words = panels[0].get_legend_handles_labels()
    key = "component: E embedding, A attention, M MLP of each block"
    figure.legend(handles, words, loc="outside lower center", ncols=3, title=key, title_fontsize=9)
    _ablate.headline(figure, finding(table, layers[-1]))
    return {TABLE: figure}


def finding(table: Any, layer: int) -> str:
    """What adds most, what is needed most, and what is needed although it adds nothing much."""
    own = table[(table["target"] == layer) & (table["contrast"] != "quality")]
    mean = own.groupby(["measure", "component"], sort=False)["value"].mean() * 100
    share, left = mean["share"], mean["left"]
    kinds = share.groupby(share.index.str.split(" ").str[0]).sum()
    most, needed = str(share.idxmax()), str(left.idxmin())
    silent = str((100 - left - share.reindex(left.index)).drop(needed).idxmax())
    return (
        f"Behind layer {layer} MLPs add {kinds['MLP']:.0f} % of a language's distance along its vector and attention "
        f"{kinds['attention']:.0f} %, {most} most of all ({share[most]:.0f} %). Adding is not being needed: without {needed}, which "
        f"adds {share[needed]:.0f} %, {left[needed]:.0f} % is left; without {silent}, which adds {share[silent]:.0f} %, "
        f"{left[silent]:.0f} %"
    )


def show(axes: Axes, points: Any, layer: int, title: str) -> None:
    """Shares, control and what is left, component by component from the bottom of the model up."""
    sites = [Site(0, "resid_pre"), *(Site(k, s) for k in range(layer + 1) for s in ("attn_out", "mlp_out"))]
    order = [component_name(site) for site in sites]
    names = dict(SERIES)
    figures.dots(axes, points, place="component", series="measure", order=order, series_order=list(names), names=names)
    short = [name.replace("embedding", "E").replace("attention ", "A").replace("MLP ", "M") for name in order]
    axes.set_xticks(np.arange(len(order)), short, fontsize=8)
    axes.axhline(0, color="black", lw=0.8)
    axes.axhline(1, color="black", ls="--", lw=0.8)
    _ablate.panel(axes, title, "component", "share of the distance")


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
