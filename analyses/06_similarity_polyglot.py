"""In polyglot-mini, which directions are alike, how much of a cosine is noise, and do language and quality oppose each other?

Language vectors of twelve languages (the "vectors" splits of NTREX and NusaX) and quality vectors (the same sentences
against a copy with 30 % of the tokens corrupted; Slovene also against back-translation) after every block. Per layer:
cosines by kinship, agreement of the tree with genus, family and script, cosine of each language vector with its own
quality vector, principal angles between the two subspaces, turning from layer to layer, and, with the means of
Llama-3.1-8B at hand, how alike the two models' matrices are. Beside each: permuted labels (also vectors of texts whose
languages were shuffled), random directions, and the noise ceiling from disjoint halves of the texts. Halves and
shuffles keep parallel sentences together.

    python -m analyses.06_similarity_polyglot --data DIR     # about 6 minutes on one core
    python -m analyses.06_similarity_polyglot --redraw       # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analyses import _language_quality
from analyses import _similarity as shared
from analyses._bundled import text_hashes
from analyses._harness import Result, main
from steerlab import clustering, data, figures, reliability, similarity
from steerlab.bundled.corpus import LANGUAGES
from steerlab.data.means import CLAS_FILE, mean_vectors
from steerlab.data.surface import normalise_surface
from steerlab.evaluation.stats import bootstrap
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.reliability import TextMeans
from steerlab.vectors import SteeringVector

MATRIX, LAYERS = "similarity_polyglot_matrix", "similarity_polyglot_layers"
BACK = "sl back-translated"
Means = Mapping[str, Mapping[str, TextMeans]]
Texts = dict[str, dict[str, list[str]]]
Pairs = dict[str, tuple[list[int], list[str], list[str]]]


@dataclass(frozen=True)
class Config:
    """`splits` halvings and `shuffles` of the texts; `llama_layer` is the layer of the 8B model to compare with."""

    rate: float = 0.3
    splits: int = 20
    shuffles: int = 20
    llama_layer: int = 10
    nulls: shared.Nulls = field(default_factory=shared.Nulls)


def collect(config: Config) -> tuple[Texts, Pairs]:
    """corpus -> language -> sentences, those all languages of the corpus have; language -> (rows, human, corrupted), whose
    rows count those sentences.
    """
    codes = {"ntrex": [c for c in LANGUAGES if c not in ("jv", "su")], "nusax": ["id", "en", "jv", "su"]}
    texts: Texts = {}
    for corpus, names in codes.items():
        source = "ntrex" if corpus == "ntrex" else "nusax-mt"
        read = {code: data.load(source, code, split="vectors").examples for code in names}
        common = reduce(set.intersection, ({e.id for e in own} for own in read.values()))
        texts[corpus] = {code: [e.text for e in own if e.id in common] for code, own in read.items()}
    pairs: Pairs = {}
    for code in LANGUAGES:
        own = texts["nusax" if code in ("jv", "su") else "ntrex"][code]
        made = data.degraded_pairs(own, rate=config.rate, seed=config.nulls.seed)
        pairs[code] = _clean([int(pair.id.rpartition("-")[2]) for pair in made], made.human, made.degraded)
    back = data.load_pairs(hops=2, split="vectors")
    pairs[BACK] = _clean(range(len(back)), back.human, back.degraded)
    return texts, pairs


def _clean(
    rows: Sequence[int], human: Sequence[str], degraded: Sequence[str]
) -> tuple[list[int], list[str], list[str]]:
    """Typography taken out of both sides; pairs that became equal are left out."""
    sides = [(r, normalise_surface(a), normalise_surface(b)) for r, a, b in zip(rows, human, degraded, strict=True)]
    kept = [(r, a, b) for r, a, b in sides if a and b and a != b]
    return [r for r, _, _ in kept], [a for _, a, _ in kept], [b for _, _, b in kept]


def compute(config: Config) -> Result:
    """The matrix of every layer and the curves, from the "vectors" splits and, where they are, the 8B model's means."""
    model, (texts, pairs) = load(), collect(config)
    hashes: dict[str, str] = {}
    for corpus, own in texts.items():
        hashes |= text_hashes(corpus, own)
    hashes[BACK] = data.texts_sha256([*pairs[BACK][1], *pairs[BACK][2]])
    llama, root = None, data.find_root()
    if root is not None and (root / CLAS_FILE).is_file():
        llama = mean_vectors(root / CLAS_FILE)
        hashes |= dict(next(iter(llama.values())).provenance.data)
    matrix, curves = measure(config, model, texts, pairs, llama)
    facts = {"layer": int(shared.best_layer(curves, "genus")["layer"])}
    return Result({MATRIX: matrix, LAYERS: curves}, facts, model.revision, hashes)


def measure(
    config: Config, model: TracedModel, texts: Texts, pairs: Pairs, llama: Mapping[str, SteeringVector] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All pairs of languages (one column per layer), and the curves over layers with nulls and ceilings."""
    means = {c: {code: reliability.text_means(model, own) for code, own in by.items()} for c, by in texts.items()}
    sides = {
        name: (reliability.text_means(model, human), reliability.text_means(model, worse))
        for name, (_, human, worse) in pairs.items()
    }
    fitted = reliability.language_fit(means)
    names = [code for code in LANGUAGES if code in fitted]
    vectors = [fitted[code] for code in names]
    quality = {name: reliability.contrast_fit(*both, name=name) for name, both in sides.items()}
    layers, cosines = similarity.shared_layers(vectors), similarity.cosine_matrix(vectors)
    halves = [reliability.language_halves(means, seed, parallel=True) for seed in range(config.splits)]
    sure = {code: reliability.split_half([(a[code], b[code]) for a, b in halves]) for code in names}
    sure_quality = {
        name: reliability.split_half([reliability.contrast_halves(*both, seed=seed) for seed in range(config.splits)])
        for name, both in sides.items()
    }
    ceilings = similarity.noise_ceiling(torch.stack([sure[code] for code in names], dim=1))
    rows = shared.nearest_rows(cosines, layers, config.nulls, ceilings, "")
    rows += shared.kin_rows(names, cosines, layers, config.nulls, ceilings, "")
    rows += shared.tree_rows(names, cosines, layers, config.nulls, "a grouping has no noise ceiling")
    rows += shared.turn_rows(vectors, layers, config.nulls, "a vector and itself a layer later share their noise")
    rows += _noise_rows(config, means, names, layers, {"language": sure, "quality": sure_quality})
    rows += _language_quality.quality_rows(config.nulls, fitted, quality, layers, sure, sure_quality)
    rows += _language_quality.disjoint_rows(means, sides, {name: own[0] for name, own in pairs.items()}, layers)
    rows += _language_quality.subspace_rows(vectors, list(quality.values()), layers)
    rows += _model_rows(config, names, cosines, layers, llama)
    return shared.pair_table(names, cosines, layers), pd.DataFrame(rows)


def _noise_rows(
    config: Config, means: Means, names: Sequence[str], layers: Sequence[int], sure: dict[str, dict[str, Tensor]]
) -> list[dict[str, Any]]:
    """Reliability per layer (interval over vectors) beside that of vectors of shuffled texts, and the latter's cosines by
    kinship.
    """
    null: list[Tensor] = []
    shuffled: list[Tensor] = []
    for seed in range(config.shuffles):
        mixed = reliability.shuffled_languages(means, seed, parallel=True)
        halves = [reliability.language_halves(mixed, split, parallel=True) for split in range(config.splits)]
        null += [reliability.split_half([(a[code], b[code]) for a, b in halves]) for code in names]
        vectors = reliability.language_fit(mixed)
        shuffled.append(similarity.cosine_matrix([vectors[code] for code in names]))
    drawn_null = torch.stack(null).numpy()
    rows = []
    for series, own in sure.items():
        for at, layer in enumerate(layers):
            found = bootstrap(np.array([float(r[at]) for r in own.values()]), seed=config.nulls.seed)
            low, high = np.quantile(drawn_null[:, at], (0.025, 0.975)).tolist()
            chance = {"null": float(drawn_null[:, at].mean()), "null_low": low, "null_high": high}
            rows.append(
                shared.row(
                    "reliability", series, layer, found.value, low=found.low, high=found.high, n=found.n, **chance
                )
            )
    for kind, mask in shared.kinship(names).items():
        for at, layer in enumerate(layers):
            if not mask.any():
                continue
            drawn = np.array([float(own[at].numpy()[mask].mean()) for own in shuffled])
            low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
            more = {"low": low, "high": high, "null": similarity.centred_cosine(len(names)), "n": len(drawn)}
            rows.append(shared.row("mean cosine, texts shuffled", kind, layer, float(drawn.mean()), **more))
    return rows


def _model_rows(
    config: Config,
    names: Sequence[str],
    cosines: Tensor,
    layers: Sequence[int],
    llama: Mapping[str, SteeringVector] | None,
) -> list[dict[str, Any]]:
    """Rank correlation of this model's matrix with the 8B model's, over the languages both have (Mantel's permutations)."""
    both = [code for code in names if llama is not None and code in llama]
    if llama is None or len(both) < 4:
        return []
    chosen = [llama[code].select((config.llama_layer,)) for code in both]
    other = similarity.cosine_matrix(chosen)[0]
    at = [list(names).index(code) for code in both]
    found = [
        clustering.matrix_agreement(own[at][:, at], other, config.nulls.permutations, config.nulls.seed)
        for own in cosines
    ]
    series = f"Llama-3.1-8B, layer {config.llama_layer}"
    return [
        shared.row(
            "model agreement", series, layer, a.value, null=a.null, null_low=a.low, null_high=a.high, p=a.p, n=a.n,
            reason="the 8B model's noise is not known",
        )
        for layer, a in zip(layers, found, strict=True)
    ]  # fmt: skip


def draw_layers(table: Any) -> Figure:
    """Kinship, tree, language against quality, reliability."""
    figure, (a, b, c, d) = figures.new(columns=2, rows=2, height=7.4)
    shared.kin_panel(a, table)
    near = shared.of(table, "mean cosine", shared.KIN[0])
    top = near.loc[near["value"].idxmax()]
    shared.title(a, f"Relatives: {top['value']:.2f} at layer {top['layer']}, ceiling {top['ceiling']:.2f}")
    shared.tree_panel(b, table)
    best = shared.best_layer(table, "genus")
    shared.title(b, f"Tree and genera: {best['value']:.2f} at layer {best['layer']}")
    own = shared.of(table, "language and quality")
    names = {"mean": "own quality vector", "halves, disjoint texts": "disjoint halves", BACK: "sl, back-transl."}
    order = [series for series in names if series in set(own["series"])]
    figures.lines(c, own, x="layer", series="series", series_order=order, names=names)
    mean = shared.of(own, "language and quality", "mean")
    figures.null_band(c, mean, x="layer", label="another's quality")
    c.plot(mean["layer"], mean["ceiling"], color="black", ls="--", lw=1, label="noise ceiling")
    c.set(xlabel="layer", ylabel="cosine of language and quality")
    shared.legend(c, room=0.28)
    shared.title(c, f"Language and quality: {mean['value'].min():.2f} to {mean['value'].max():.2f}")
    sure = shared.of(table, "reliability")
    figures.lines(d, sure, x="layer", series="series", series_order=("language", "quality"))
    figures.null_band(d, shared.of(sure, "reliability", "language"), x="layer", label="languages shuffled")
    d.set(xlabel="layer", ylabel="split-half reliability")
    shared.legend(d)
    least = sure[sure["series"] == "quality"]["value"]
    shared.title(d, f"Quality: reliability {least.min():.2f} to {least.max():.2f}")
    opposed, aligned = mean["high"].max() < mean["null_low"].min(), mean["low"].min() > mean["null_high"].max()
    sign = "against" if opposed else "along" if aligned else "neither along nor against"
    shared.headline(
        figure,
        f"polyglot-mini: relatives' directions are alike (cosine {top['value']:.2f}; languages permuted\n"
        f"{top['null_high']:.2f}), and a language's direction points {sign} its own quality direction",
    )
    return figure


def draw_matrix(pairs: pd.DataFrame, layer: int) -> Figure:
    """The matrix beside its tree."""
    kin, of = shared.nearest_kin(pairs, layer)
    title = (
        f"polyglot-mini, layer {layer}: of the {of} languages with a relative here,\n"
        f"{kin} have one as their nearest neighbour (same genus)"
    )
    return shared.draw_matrix(pairs, layer, title)


def draw(result: Result) -> dict[str, Figure]:
    """The matrix at the layer whose tree is closest to the genera, and the curves."""
    matrix = draw_matrix(result.tables[MATRIX], result.facts["layer"])
    return {MATRIX: matrix, LAYERS: draw_layers(result.tables[LAYERS])}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
