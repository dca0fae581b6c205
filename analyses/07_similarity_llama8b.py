"""Are the language directions of a real 8B model arranged as the languages are related, and at which depth?

From the published means of Llama-3.1-8B-Instruct over about 10M CulturaX tokens in each of 36 languages (CLaS-Bench,
arXiv 2601.08331): language vectors (mean minus the mean of the others' means) after each of its 32 blocks, counted
from 0, their cosines, the average-linkage tree at layer 10, and per layer how that tree and the nearest neighbours
agree with genus, family and script. Null: permuted labels, random directions, random rotations. A noise ceiling
needs the texts, and only means are published: it is missing (NaN), with that reason in the table.

    python -m analyses.07_similarity_llama8b --data DIR     # half a minute on one core; needs no model
    python -m analyses.07_similarity_llama8b --redraw       # from figures/*.csv
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses import _similarity as shared
from analyses._harness import Result, main
from steerlab import figures, similarity
from steerlab.data.means import clas_path, mean_vectors
from steerlab.vectors import SteeringVector

MATRIX, LAYERS = "similarity_llama8b_matrix", "similarity_llama8b_layers"
NO_CEILING = "no noise ceiling: only means are published, and halves need the texts"


@dataclass(frozen=True)
class Config:
    """The layer of the matrix, and the pairs with a curve of their own."""

    layer: int = 10
    pairs: tuple[tuple[str, str], ...] = (("da", "no"), ("sk", "cs"), ("ur", "hi"), ("de", "nl"))
    nulls: shared.Nulls = field(default_factory=shared.Nulls)


def compute(config: Config) -> Result:
    """The matrix of every layer and the curves, from the published means."""
    vectors = mean_vectors(clas_path())
    matrix, curves = measure(config, vectors)
    came = next(iter(vectors.values())).provenance
    facts = {"layer": config.layer, "model": came.model}
    revision = f"published means of {came.model}, revision not recorded"
    return Result({MATRIX: matrix, LAYERS: curves}, facts, revision, dict(came.data))


def measure(config: Config, vectors: dict[str, SteeringVector]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All pairs (one column per layer), and the curves over layers with their nulls."""
    names, every = list(vectors), list(vectors.values())
    layers, cosines = similarity.shared_layers(every), similarity.cosine_matrix(every)
    low, middle, high = similarity.random_cosine_quantiles(every[0].d_model, centred=len(names))
    chance = {"null": middle, "null_low": low, "null_high": high, "reason": NO_CEILING}
    rows: list[dict[str, Any]] = [
        shared.row("cosine", f"{a}-{b}", layer, float(own[names.index(a), names.index(b)]), n=1, **chance)
        for a, b in config.pairs
        for layer, own in zip(layers, cosines, strict=True)
    ]
    rows += shared.nearest_rows(cosines, layers, config.nulls, None, NO_CEILING)
    rows += shared.kin_rows(names, cosines, layers, config.nulls, None, NO_CEILING)
    rows += shared.tree_rows(names, cosines, layers, config.nulls, NO_CEILING)
    rows += shared.turn_rows(every, layers, config.nulls, NO_CEILING)
    return shared.pair_table(names, cosines, layers), pd.DataFrame(rows)


def draw_matrix(pairs: pd.DataFrame, layer: int) -> Figure:
    """The matrix beside its tree."""
    kin, of = shared.nearest_kin(pairs, layer)
    title = (
        f"Llama-3.1-8B, layer {layer}: of the {of} languages with a relative among the {len(shared.square(pairs, layer))},\n"
        f"{kin} have one as their nearest neighbour (same genus)"
    )
    return shared.draw_matrix(pairs, layer, title)


def draw_layers(table: Any) -> Figure:
    """Kinship, tree, pairs, and change from layer to layer."""
    figure, (a, b, c, d) = figures.new(columns=2, rows=2, height=7.4)
    shared.kin_panel(a, table)
    near = shared.of(table, "mean cosine", shared.KIN[0])
    top = near.loc[near["value"].idxmax()]
    shared.title(a, f"Relatives: closest at layer {top['layer']} ({top['value']:.2f})")
    shared.tree_panel(b, table)
    best, script = shared.best_layer(table, "genus"), shared.best_layer(table, "script")
    shared.title(b, f"Tree and genera: closest at layer {best['layer']}")
    own = shared.of(table, "cosine")
    pairs = list(dict.fromkeys(own["series"]))
    names = {pair: "–".join(shared.name_of(code) for code in pair.split("-")) for pair in pairs}
    figures.lines(c, own, x="layer", series="series", series_order=pairs, names=names)
    nearest = shared.of(table, "nearest cosine")
    figures.null_band(c, nearest, x="layer", label="")
    figures.null_band(c, shared.of(table, "cosine", pairs[0]), x="layer", label="", colour="black")
    c.annotate("nearest neighbour, if ungrouped", (0.5, nearest["null_low"].min() + 0.03), fontsize=8, color="#555555")
    c.annotate("random directions", (0.5, 0.03), fontsize=8)
    c.set(xlabel="layer", ylabel="cosine")
    shared.legend(c, room=0.14)
    edge = own[own["layer"] == own["layer"].max() - 1]["value"]
    shared.title(c, f"Close pairs: {edge.min():.2f} to {edge.max():.2f} at layer {own['layer'].max() - 1}")
    kept = shared.of(table, "kept from the layer before")
    order = ("one vector: cosine", "span of all: overlap", "turning's share of change")
    figures.lines(d, pd.concat([kept, shared.of(table, "turning")]), x="layer", series="series", series_order=order)
    figures.null_band(d, shared.of(kept, "kept from the layer before", order[0]), x="layer", label="random directions")
    d.set(xlabel="layer", ylabel="against the layer before", ylim=(-0.05, 1.02))
    lost = shared.of(kept, "kept from the layer before", order[0]).sort_values("value").iloc[0]
    shared.title(d, f"Most turning: into layer {lost['layer']}")
    d.legend(loc="lower left", bbox_to_anchor=(0, 0.08), fontsize=8)
    shared.headline(
        figure,
        f"Llama-3.1-8B: language directions cluster by genus (adjusted Rand index {best['value']:.2f} at\n"
        f"layer {best['layer']}; permuted labels reach {best['null_high']:.2f}), hardly by script (at most {script['value']:.2f})",
    )
    return figure


def draw(result: Result) -> dict[str, Figure]:
    """The matrix at one layer, and the curves."""
    matrix = draw_matrix(result.tables[MATRIX], result.facts["layer"])
    return {MATRIX: matrix, LAYERS: draw_layers(result.tables[LAYERS])}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
