"""What is each block's attention, MLP and whole contribution worth, for prediction and for language?

Every part of every block of polyglot-mini is replaced, one at a time, while it reads held-out human lines (NTREX, parallel
in ten languages): by zero, by its mean over other lines, by what it does in a line of another language, and, as control,
by what it does in another line of the same language (which takes the content and leaves the language). Measured:
change of the loss, KL of the next token, and how much is left of the distance between a language's lines and their
translations along its vector behind the last block; and, for parts at their mean, how far human and back-translated
Slovene lie apart along the quality vector. Intervals are over lines (pairs).

    python -m analyses.14_layer_ablation            # about 7 minutes on one core
    python -m analyses.14_layer_ablation --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import _ablate
from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.ablation.components import left_of
from steerlab.ablation.edited import Readouts
from steerlab.ablation.layers import PARTS, every_part, layer_effects
from steerlab.bundled.vectors import bundled_vectors
from steerlab.evaluation.stats import bootstrap
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.types import Site

TABLE = "layer_ablation"
WAYS = {
    "zero": "by zero",
    "mean": "by its mean",
    "resample": "by another line's, other language",
    "resample same": "by another line's, same language",
}
PART_NAMES = {"attn_out": "attention", "mlp_out": "MLP", "block": "whole block"}


@dataclass(frozen=True)
class Config:
    """Lines (each in ten languages), Slovene pairs, and texts that means are taken over."""

    lines: int = 10
    pairs: int = 160
    reference: int = 12
    most_tokens: int = 40
    seed: int = 0


def compute(config: Config) -> Result:
    """One row per ablation, set of texts and measure."""
    model, vectors = load(), bundled_vectors()
    lines = _ablate.heldout_lines(model, config.lines, config.most_tokens, config.seed)
    reference = [
        text for code in _ablate.NTREX for text in data.load("ntrex", code, split="vectors").texts[: config.reference]
    ]
    last = Site(model.n_layers - 1)
    gauges = {code: (last, vectors[f"language-{code}"].at(last.layer)) for code in _ablate.NTREX}
    spoken = languages(config, model, lines, reference, gauges)
    human, translated = _ablate.slovene_pairs(model, config.pairs, config.most_tokens, config.seed)
    quality = {"quality": (last, vectors[_ablate.QUALITY].at(last.layer))}
    pairs = slovene(config, model, human, translated, reference, quality)
    facts = {"lines": config.lines, "pairs": len(human)}
    hashes = {**lines.hashes(), **_ablate.pair_hashes(human, translated), "reference": data.texts_sha256(reference)}
    return Result({TABLE: pd.concat([spoken, pairs], ignore_index=True)}, facts, model.revision, hashes)


def languages(
    config: Config, model: TracedModel, lines: _ablate.Lines, reference: Sequence[str], gauges: Readouts
) -> pd.DataFrame:
    """All languages at once: text i * languages + k is line i in language k."""
    codes, n = _ablate.NTREX, config.lines
    texts = [lines.ntrex[code][i] for i in range(n) for code in codes]
    k = len(codes)
    # The next line, in the same language or in the next one.
    same = [((i + 1) % n) * k + c for i in range(n) for c in range(k)]
    other = [((i + 1) % n) * k + (c + 1) % k for i in range(n) for c in range(k)]
    plain = every_part(model.n_layers)
    found = layer_effects(model, texts, plain, reference=reference, donor=other, readouts=gauges)
    control = every_part(model.n_layers, hows=("resample",))
    again = layer_effects(model, texts, control, donor=same, readouts=gauges)
    again = again[again["layer"] >= 0].assign(how="resample same")
    table = pd.concat([found, again], ignore_index=True)
    table["line"] = table["text"].to_numpy() // k

    def separation(part: Any) -> np.ndarray:
        """(pairs of a line and a language, own projection and mean of the line's others), over all vectors."""
        values = np.stack([part[code].to_numpy(float).reshape(n, k) for code in codes], axis=-1)  # line, text, vector
        own = np.einsum("ikk->ik", values)
        return np.stack([own, (values.sum(1) - own) / (k - 1)], axis=-1)

    def left(plain: Any, edited: Any) -> tuple[float, float, float]:
        # Lines are drawn, with all their languages: their means over languages are what is resampled.
        return left_of(separation(plain).mean(1), separation(edited).mean(1), seed=config.seed)

    return rows(table, "languages", left)


def slovene(
    config: Config,
    model: TracedModel,
    human: Sequence[str],
    translated: Sequence[str],
    reference: Sequence[str],
    gauges: Readouts,
) -> pd.DataFrame:
    """How far human and back-translated Slovene lie apart along the quality vector, in standard deviations of the pairs'
    differences: too little for shares of it. Part "none" is the unedited model.
    """
    n = len(human)
    plain = every_part(model.n_layers, hows=("mean",))
    table: Any = layer_effects(model, [*human, *translated], plain, reference=reference, readouts=gauges)
    found = []
    for (layer, part, how), own in table.groupby(["layer", "part", "how"], sort=False):
        sides = own["quality"].to_numpy(float).reshape(2, n)
        e = bootstrap(sides[0] - sides[1], lambda gap: gap.mean() / gap.std(), seed=config.seed)
        facts = {"texts": "quality", "layer": layer, "part": part, "how": how, "measure": "apart"}
        found.append({**facts, "value": e.value, "low": e.low, "high": e.high, "n": n})
    return pd.DataFrame(found)


def rows(table: Any, texts: str, left: Any) -> pd.DataFrame:
    """Loss change, KL and what is left of the separation, by ablation."""
    plain = table[table["layer"] < 0]
    found: list[dict[str, Any]] = []
    for (layer, part, how), own in table[table["layer"] >= 0].groupby(["layer", "part", "how"], sort=False):
        facts = {"texts": texts, "layer": layer, "part": part, "how": how}
        for measure in ("loss_change", "kl"):
            e = bootstrap(own[measure].to_numpy(float), groups=own["line"].to_numpy())
            found.append({**facts, "measure": measure, "value": e.value, "low": e.low, "high": e.high, "n": len(own)})
        value, low, high = left(plain, own)
        found.append({**facts, "measure": "left", "value": value, "low": low, "high": high, "n": len(own)})
    return pd.DataFrame(found)


def draw(result: Result) -> dict[str, Figure]:
    """By part: change of the loss, and what is left of languages and of quality behind the last block."""
    table: Any = result.tables[TABLE]
    figure, panels = figures.new(columns=3, rows=3, height=8.6)
    apart = table[table["part"] == "none"]
    for column, part in enumerate(PARTS):
        own = table[table["part"] == part]
        spoken, quality = own[own["texts"] == "languages"], own[own["texts"] == "quality"]
        curves(panels[column], spoken[spoken["measure"] == "loss_change"], 0.0)
        curves(panels[3 + column], spoken[spoken["measure"] == "left"], 1.0)
        curves(panels[6 + column], quality, float(apart["value"].iloc[0]), ("mean",))
        panels[6 + column].axhspan(
            float(apart["low"].iloc[0]), float(apart["high"].iloc[0]), color="grey", alpha=0.15, lw=0
        )
        panels[column].set_title(f"{PART_NAMES[part]} replaced", fontsize=9.5)
        panels[6 + column].set_xlabel("layer")
    for row, label in enumerate(
        (
            "change of the loss\n(nats per token)",
            "language separation\nleft (share)",
            "human and translated\napart (sd of pairs)",
        )
    ):
        panels[3 * row].set_ylabel(label)
        _same_range(panels[3 * row : 3 * row + 3])
    for axes in panels[:3]:
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_yticks([0, 0.1, 0.3, 1, 3, 10], ["0", "0.1", "0.3", "1", "3", "10"])
        axes.set_ylim(-0.1, 10)
    handles, words = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, words, loc="outside lower center", ncols=2, title="part of one block replaced", title_fontsize=9
    )
    _ablate.headline(figure, finding(table))
    return {TABLE: figure}


def finding(table: Any) -> str:
    """The part that matters most for the loss, and for language, with numbers."""
    spoken = table[(table["texts"] == "languages") & (table["how"] == "mean") & (table["part"] != "block")]
    costs = spoken[spoken["measure"] == "loss_change"]
    worst = costs.loc[costs["value"].idxmax()]
    kept = spoken[spoken["measure"] == "left"]
    least = kept.loc[kept["value"].idxmin()]
    swapped = table[(table["texts"] == "languages") & (table["measure"] == "left") & (table["part"] == "block")]
    by = swapped.set_index(["how", "layer"])["value"]
    deepest = int(swapped["layer"].max())
    same = _name(least) if _name(least) != _name(worst) else "it"
    return (
        f"At its mean, {_name(worst)} costs most ({worst['value']:.2f} nats per token), and {same} leaves least of the "
        f"language separation ({100 * least['value']:.0f} %); block {deepest} as in another "
        f"language leaves {100 * by['resample', deepest]:.0f} %, as in another line of the same language "
        f"{100 * by['resample same', deepest]:.0f} %"
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{'attention' if row['part'] == 'attn_out' else 'the MLP of block'} {int(row['layer'])}"


def curves(axes: Axes, own: Any, nothing: float, ways: Sequence[str] = tuple(WAYS)) -> None:
    """A line per way of replacing, with the value that means nothing changed."""
    for way in ways:  # one at a time, so that a way keeps its colour
        place = list(WAYS).index(way)
        colour, shape = figures.COLOURS[place], figures.MARKERS[place]
        line = own[own["how"] == way].sort_values("layer")
        axes.plot(line["layer"], line["value"], marker=shape, color=colour, lw=1.5, ms=4.5, label=WAYS[way])
        axes.fill_between(line["layer"], line["low"], line["high"], color=colour, alpha=0.15, lw=0)
    axes.axhline(nothing, color="black", ls="--", lw=1, label="unchanged")
    axes.set_xticks(sorted(own["layer"].unique()))


def _same_range(panels: Sequence[Axes]) -> None:
    low, high = min(a.get_ylim()[0] for a in panels), max(a.get_ylim()[1] for a in panels)
    for axes in panels:
        axes.set_ylim(low, high)


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
