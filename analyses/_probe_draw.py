"""The figures of the probe curves: language, quality, transfer."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses._harness import Result
from analyses._probe_data import BACK, NTREX, NUSAX, TOPICS, WRITES
from steerlab import figures, probes
from steerlab.bundled.corpus import LANGUAGES
from steerlab.evaluation.stats import Estimate

LANGUAGE, EACH, QUALITY = "probe_language", "probe_language_each", "probe_quality"
LEARNING, TRANSFER, TRANSFER_LAYERS = "probe_quality_learning", "probe_transfer", "probe_transfer_layers"
NAMES = {
    "logistic_cv": "logistic",
    "logistic": "logistic",
    "ridge": "ridge",
    "lda": "shrinkage LDA",
    "diff_of_means": "DiffMean",
    probes.EMBEDDINGS: "bag of embeddings",
    probes.NGRAMS: "character n-grams",
    probes.LENGTH: "length",
}
SHORT = {BACK[1]: "sl 1", BACK[2]: "sl 2", WRITES: "Writes", TOPICS: "Topics"}
DASHES = {probes.EMBEDDINGS: "--", probes.NGRAMS: "-.", probes.LENGTH: (0, (1, 1))}


def draw(result: Result) -> dict[str, Figure]:
    """Every figure from the tables."""
    tables: dict[str, Any] = dict(result.tables)
    return {
        LANGUAGE: _language(tables[LANGUAGE], tables[EACH]),
        QUALITY: _quality(tables[QUALITY], tables[LEARNING], result.facts["layer"]),
        TRANSFER: _languages(tables[TRANSFER], result.facts),
        TRANSFER_LAYERS: _others(tables[TRANSFER_LAYERS], result.facts["layer"]),
    }


def _headline(figure: Figure, text: str) -> None:
    """The finding, over the panels."""
    figure.suptitle(text, fontsize=9.5, fontweight="bold", x=0.01, ha="left")


def _room(axes: Axes, low: float | None, high: float) -> None:
    """Room for the legend above 1, where no score lies and no tick stands."""
    axes.set_ylim(low, high)
    axes.set_yticks([tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= 1.001])


def _curves(axes: Axes, own: Any, order: list[str], baselines: tuple[str, ...]) -> None:
    """Probes over layers with shuffled labels, baselines as horizontal lines."""
    layered = own[own["layer"] >= 0]
    figures.lines(axes, layered, x="layer", series="kind", series_order=order, names=NAMES)
    first = layered[layered["kind"] == order[0]].sort_values("layer")
    axes.plot(first["layer"], first["shuffled"], color="grey", ls=":", label="shuffled labels")
    for kind in baselines:
        value = float(own[own["kind"] == kind]["value"].iloc[0])
        axes.axhline(value, color="black", ls=DASHES[kind], lw=1, label=NAMES[kind])
    axes.set_xticks(sorted(layered["layer"].unique()))
    axes.set_xlabel("layer")


def _best(own: Any, kind: str) -> Any:
    rows = own[(own["kind"] == kind) & (own["layer"] >= 0)]
    return rows.loc[rows["value"].idxmax()]


def _language(table: Any, each: Any) -> Figure:
    """Single tokens of ten languages; what is left beside the control task; the other corpora; every language."""
    figure, (a, b, c, d) = figures.new(columns=2, rows=2, height=7.4)
    tokens = table[table["level"] == "tokens"]
    own = tokens[tokens["set"] == NTREX]
    texts = table[(table["level"] == "texts") & (table["set"] == NTREX)].sort_values("layer")
    a.plot(texts["layer"], texts["value"], color="#777777", marker="P", ms=4.5, lw=1, label="whole texts, DiffMean")
    _curves(a, own, ["logistic", "lda", "diff_of_means"], (probes.EMBEDDINGS, probes.NGRAMS))
    a.set(ylabel="macro-F1, held-out sentences", ylim=(0, 1.45))
    a.set_yticks([0, 0.25, 0.5, 0.75, 1])
    a.legend(loc="upper left", ncols=2, fontsize=7, columnspacing=0.8, handlelength=1.8)
    top, base = _best(own, "logistic"), own[own["kind"] == probes.EMBEDDINGS].iloc[0]
    a.set_title(
        f"10 languages, one token: {base['value']:.2f} as input,\n{top['value']:.2f} at layer {top['layer']:.0f}"
    )
    _selectivity(b, tokens)
    for k, corpus in enumerate((NTREX, NUSAX, WRITES, TOPICS)):
        part = tokens[tokens["set"] == corpus]
        chance = 1 / float(part["classes"].iloc[0])
        line = part[part["kind"].isin(["logistic", probes.EMBEDDINGS])].sort_values("layer")
        rows = line.assign(series=corpus, value=line["accuracy"], low=line["accuracy_low"], high=line["accuracy_high"])
        _one(c, rows, k, f"{corpus} ({1 / chance:.0f}, chance {chance:.2f})")
    c.set_xticks(
        range(-1, int(tokens["layer"].max()) + 1), ["input", *(str(n) for n in range(int(tokens["layer"].max()) + 1))]
    )
    c.set(xlabel="layer", ylabel="accuracy, held-out sentences")
    _room(c, None, 1.32)
    c.legend(loc="upper left", fontsize=7.5, ncols=1)
    related = tokens[(tokens["set"] == WRITES) & (tokens["kind"] == "logistic")]["accuracy"].max()
    c.set_title(f"Javanese or Sundanese, a token:\n{related:.2f} at best (NusaWrites)")
    _every(d, each)
    worst = _per_language(each, int(top["layer"])).sort_values("value").iloc[0]
    d.set_title(f"Hardest: {worst['language']}, AUROC {worst['value']:.2f}\nat layer {top['layer']:.0f}")
    gain = own[own["kind"] == "logistic"].set_index("layer")["selectivity_value"][top["layer"]]
    _headline(
        figure,
        f"polyglot-mini: the language of a single token, one of ten, is read with macro-F1\n{base['value']:.2f} at the input and "
        f"{top['value']:.2f} at layer {top['layer']:.0f}; beyond what a control task learns by heart:\naccuracy "
        f"{_gain(own, probes.EMBEDDINGS):+.2f} at the input, {gain:+.2f} at layer {top['layer']:.0f}",
    )
    return figure


def _gain(own: Any, kind: str) -> float:
    return float(own[own["kind"] == kind]["selectivity_value"].iloc[0])


def _one(axes: Axes, rows: Any, k: int, label: str) -> None:
    """One line with its band in the k-th colour and mark."""
    colour = figures.COLOURS[k]
    axes.plot(rows["layer"], rows["value"], color=colour, marker=figures.MARKERS[k], ms=4.5, lw=1.5, label=label)
    axes.fill_between(rows["layer"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)


def _selectivity(axes: Axes, tokens: Any) -> None:
    own = tokens[(tokens["set"] == NTREX) & tokens["kind"].isin(["logistic", probes.EMBEDDINGS])].sort_values("layer")
    real = own.assign(value=own["accuracy"], low=own["accuracy_low"], high=own["accuracy_high"])
    _one(axes, real, 0, "language of the token")
    axes.plot(own["layer"], own["control"], color="#555555", marker="s", ms=4, ls="--", lw=1.2, label="control task")
    gain = own.assign(value=own["selectivity_value"], low=own["selectivity_low"], high=own["selectivity_high"])
    _one(axes, gain, 2, "selectivity")
    axes.axhline(0.1, color="grey", ls=":", lw=1, label="chance")
    axes.set_xticks(own["layer"], ["input" if n < 0 else str(int(n)) for n in own["layer"]])
    axes.set(xlabel="layer", ylabel="accuracy, held-out sentences")
    _room(axes, min(0, float(gain["low"].min()) - 0.02), 1.3)
    axes.legend(loc="upper left", ncols=2, fontsize=7.5)
    low, high = gain.loc[gain["value"].idxmin()], gain.loc[gain["value"].idxmax()]
    where = ["at the input" if n < 0 else f"at layer {n:.0f}" for n in (low["layer"], high["layer"])]
    axes.set_title(f"Selectivity {low['value']:.2f} {where[0]},\n{high['value']:.2f} {where[1]}")


def _per_language(each: Any, layer: int) -> Any:
    """Every language once: in NTREX where it is there, else in NusaX."""
    own = each[(each["layer"] == layer) & each["set"].isin([NTREX, NUSAX])]
    return own[(own["set"] == NTREX) | own["language"].isin(["jv", "su"])]


def _every(axes: Axes, each: Any) -> None:
    last = int(each["layer"].max())
    parts = [
        _per_language(each, n).assign(at=name)
        for n, name in ((-1, "input"), (last // 2, f"layer {last // 2}"), (last, f"layer {last}"))
    ]
    order = list(parts[0].assign(at="")["language"])
    names = [str(one["at"].iloc[0]) for one in parts]
    figures.dots(axes, pd.concat(parts), place="language", series="at", order=sorted(order), series_order=names)
    axes.axhline(0.5, color="grey", ls=":", lw=1)
    axes.set(xlabel="language (jv, su from NusaX)", ylabel="AUROC against the rest")
    _room(axes, 0.48, 1.12)
    axes.legend(loc="upper left", ncols=3, fontsize=7.5)


def _quality(table: Any, learning: Any, layer: int) -> Figure:
    """Slovene by layer, two hops and one; every language's copies; learning curve."""
    figure, (a, b, c, d) = figures.new(columns=2, rows=2, height=8.2)
    kinds = ["logistic_cv", "ridge", "lda", "diff_of_means"]
    for axes, hops in ((a, 2), (b, 1)):
        own = table[table["set"] == BACK[hops]]
        _curves(axes, own, kinds, (probes.EMBEDDINGS, probes.NGRAMS, probes.LENGTH))
        axes.set(ylabel="AUROC, held-out pairs", ylim=(0.42, 1.02))
        top, grams = _best(own, "logistic_cv"), own[own["kind"] == probes.NGRAMS]["value"].iloc[0]
        means = _best(own, "diff_of_means")
        what = "Two hops" if hops == 2 else "One hop"
        axes.set_title(f"{what}: logistic {top['value']:.2f},\nDiffMean {means['value']:.2f}, n-grams {grams:.2f}")
    a.legend(loc="upper left", ncols=2, fontsize=7, columnspacing=0.8, handlelength=1.8)
    _copies(c, table)
    order = ["logistic_cv", "diff_of_means", probes.EMBEDDINGS, probes.NGRAMS]
    figures.lines(d, learning, x="groups", series="kind", series_order=order, names=NAMES)
    d.axhline(0.5, color="grey", ls=":", lw=1)
    d.set_xscale("log")
    sizes = sorted(learning["groups"].unique())
    d.set_xticks(sizes, [str(n) for n in sizes])
    d.minorticks_off()
    d.set(xlabel="training pairs (Slovene, two hops)", ylabel="AUROC, held-out pairs", ylim=(0.45, 0.92))
    d.legend(loc="upper left", fontsize=7.5)
    ends = learning[learning["groups"].isin([sizes[0], sizes[-1]])].pivot(
        index="kind", columns="groups", values="value"
    )
    first, last = (ends.loc["logistic_cv", n] for n in (sizes[0], sizes[-1]))
    d.set_title(f"Layer {layer}: {first:.2f} from {sizes[0]} pairs,\n{last:.2f} from {sizes[-1]}")
    two = table[table["set"] == BACK[2]]
    top, grams = _best(two, "logistic_cv"), two[two["kind"] == probes.NGRAMS].iloc[0]
    bag = two[two["kind"] == probes.EMBEDDINGS].iloc[0]
    verdict = "better than" if top["low"] > bag["high"] else "no better than"
    compared = (
        "worse than"
        if top["high"] < grams["low"]
        else "better than"
        if top["low"] > grams["high"]
        else "no better or worse than"
    )
    _headline(
        figure,
        f"polyglot-mini's back-translated Slovene is read at AUROC {top['value']:.2f} [{top['low']:.2f}, {top['high']:.2f}] (layer "
        f"{top['layer']:.0f}),\n{verdict} from its input embeddings ({bag['value']:.2f} [{bag['low']:.2f}, {bag['high']:.2f}]), "
        f"{compared}\nfrom character n-grams ({grams['value']:.2f} [{grams['low']:.2f}, {grams['high']:.2f}])",
    )
    return figure


def _copies(axes: Axes, table: Any) -> None:
    """AUROC x 100 of every language's corrupted copies: n-grams, input, layers."""
    own = table[table["set"].isin(LANGUAGES)]
    lda = own[own["kind"] == "lda"].assign(column=lambda t: t["layer"].astype(str))
    base = own[own["kind"].isin([probes.NGRAMS, probes.EMBEDDINGS])]
    base = base.assign(column=base["kind"].map({probes.NGRAMS: "ngr", probes.EMBEDDINGS: "in"}))
    square = pd.concat([lda, base]).pivot(index="set", columns="column", values="value")
    layers = [str(n) for n in sorted(lda["layer"].unique())]
    shown = 100 * square.loc[list(LANGUAGES), ["ngr", "in", *layers]]
    figures.heat(axes, shown, low=50, high=80, label="AUROC x 100")
    axes.set(xlabel="n-grams, input, layers (LDA)", ylabel="language")
    best, mean = shown[layers].max(axis=1), shown.mean()
    axes.set_title(
        f"Corrupted copies: best layer {best.min():.0f} to {best.max():.0f},\nn-grams on average {mean['ngr']:.0f}, layer "
        f"{mean[layers].idxmax()} {mean[layers].max():.0f}"
    )


def _square(table: Any, matrix: str) -> Any:
    own = table[table["matrix"] == matrix]
    order = list(dict.fromkeys(own["train"].astype(str)))
    return (
        100
        * own.astype({"train": str, "test": str}).pivot(index="train", columns="test", values="value").loc[order, order]
    )


def _languages(table: Any, facts: dict[str, Any]) -> Figure:
    """Quality: trained in one language, tested in another."""
    square = _square(table, "language")
    figure, (axes,) = figures.new(height=6.4)
    figures.heat(axes, square, low=45, high=65, label="AUROC x 100, held-out pairs")
    axes.set_xticks(range(len(square)), [SHORT.get(str(name), str(name)) for name in square.columns])
    axes.set(xlabel="tested on", ylabel=f"trained on (logistic probe, layer {facts['layer']})")
    found = {name: Estimate.from_json(own) for name, own in facts["transfer"].items()}
    _headline(
        figure,
        f"Corrupted tokens: AUROC {found['within languages']} in the language trained on, {found['between languages']} in\n"
        f"another. From copies to back-translated Slovene {found['copies to back-translation']}, and back\n"
        f"{found['back-translation to copies']}; shuffled labels {_shuffled(table, 'language'):.2f}",
    )
    return figure


def _shuffled(table: Any, matrix: str) -> float:
    return float(table[table["matrix"] == matrix]["shuffled"].mean())


def _others(table: Any, layer: int) -> Figure:
    """Quality from layer to layer; Javanese against Sundanese from domain to domain."""
    figure, (a, b) = figures.new(columns=2, height=3.9)
    layers, domains = _square(table, "layer"), _square(table, "domain")
    figures.heat(a, layers, low=45, high=70, label="AUROC x 100")
    a.set(xlabel=f"tested at layer (shuffled labels: {100 * _shuffled(table, 'layer'):.0f})", ylabel="trained at layer")
    inner = layers.to_numpy()
    step = [inner[i, j] for i in range(len(inner)) for j in range(len(inner)) if abs(i - j) == 1]
    ends = (inner[0, -1] + inner[-1, 0]) / 2
    a.set_title(
        f"Slovene quality, 2 hops: trained a layer\naway {sum(step) / len(step):.0f}, {len(inner) - 1} away {ends:.0f}"
    )
    names = [SHORT.get(str(name), str(name)) for name in domains.columns]
    figures.heat(b, domains, low=50, high=100, label="AUROC x 100")
    b.set_xticks(range(len(names)), names)
    b.set_yticks(range(len(names)), names)
    b.set(xlabel=f"tested on (shuffled labels: {100 * _shuffled(table, 'domain'):.0f})", ylabel="trained on")
    values = domains.to_numpy()
    off = [values[i, j] for i in range(len(values)) for j in range(len(values)) if i != j]
    b.set_title(f"Javanese or Sundanese, a token,\nlayer {layer}: {min(off):.0f} to {max(off):.0f} across domains")
    return figure
