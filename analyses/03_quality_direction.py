"""Can quality be read from the residual stream, and is it more than typography?

Three-way comparison per contrast: (a) human against DeepL back-translated Slovene (sl-en-de-en-sl), (b) human
text against the same text with 30 % of tokens dropped, swapped or repeated, in all twelve languages. Quotes,
spacing and first-letter case are normalised on both sides. Pairs stay in one fold; AUROC of the DiffMean
direction and of a logistic probe on mean-pooled activations at every layer, beside shuffled labels, character
n-grams and length. Only texts that neither the model nor the bundled vectors have seen.

    python -m analyses.03_quality_direction --data DIR          # about 4 minutes on one core
    python -m analyses.03_quality_direction --redraw            # from figures/*.csv, without a model
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.activations import capture_activations
from steerlab.bundled.corpus import LANGUAGES
from steerlab.data.surface import normalise_surface
from steerlab.loading import load
from steerlab.probes import ProbeResult, char_ngram_baseline, layerwise, length_baseline

TABLE = "quality_direction"
BACK = "sl back-translated"


@dataclass(frozen=True)
class Config:
    """Pairs per contrast, and the corruption rate of (b)."""

    pairs: int = 350
    slovene_pairs: int = 850
    rate: float = 0.3
    seed: int = 0
    resamples: int = 500


def contrasts(config: Config) -> dict[str, tuple[list[str], list[str]]]:
    """name -> (human, degraded), surface-normalised, row by row a pair; rows that became equal are left out."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    pairs = data.load_pairs(hops=2, split="heldout")
    found[BACK] = _clean(list(pairs.human), list(pairs.degraded), config.slovene_pairs)
    for code in LANGUAGES:
        source = "nusax-mt" if code in ("jv", "su") else "ntrex"
        texts = data.load(source, code, split="heldout").texts
        made = data.degraded_pairs(texts, rate=config.rate, seed=config.seed)
        found[f"{code} corrupted"] = _clean(list(made.human), list(made.degraded), config.pairs)
    return found


def _clean(human: list[str], degraded: list[str], most: int) -> tuple[list[str], list[str]]:
    sides = [(normalise_surface(a), normalise_surface(b)) for a, b in zip(human, degraded, strict=True)]
    kept = [(a, b) for a, b in sides if a and b and a != b][:most]
    return [a for a, _ in kept], [b for _, b in kept]


def compute(config: Config) -> Result:
    """One row per contrast, method and layer (layer -1 for text baselines): AUROC, interval, shuffled-label
    AUROC.
    """
    model, hashes = load(), {}
    rows: list[dict[str, object]] = []
    for name, (human, degraded) in contrasts(config).items():
        texts = human + degraded
        hashes[name] = data.texts_sha256(texts)
        y = torch.tensor([1] * len(human) + [0] * len(degraded))
        groups = torch.arange(len(human)).repeat(2)
        with tempfile.TemporaryDirectory() as folder:
            kept = capture_activations(
                model, texts, Path(folder) / "activations.safetensors", max_tokens=model.context_length
            )
            x = torch.from_numpy(kept.values.copy())

        def add(result: ProbeResult, method: str, layer: int, contrast: str = name) -> None:
            facts = {
                "contrast": contrast,
                "method": method,
                "layer": layer,
                "value": result.value,
                "low": result.low,
                "high": result.high,
            }
            rows.append({**facts, "shuffled": result.shuffled, "n": result.n})

        for method in ("logistic", "diff_of_means"):
            found = layerwise(x, y, groups, method, seed=config.seed, shuffles=1, resamples=config.resamples)
            for layer, result in enumerate(found):
                add(result, method, layer)
        add(
            char_ngram_baseline(texts, y, groups, seed=config.seed, resamples=config.resamples),
            "character n-grams",
            -1,
        )
        add(
            length_baseline(texts, y, groups, seed=config.seed, shuffles=1, resamples=config.resamples),
            "length",
            -1,
        )
        print(pd.DataFrame(rows)[lambda t, n=name: t["contrast"] == n].to_string(index=False), flush=True)
    return Result({TABLE: pd.DataFrame(rows)}, {}, model.revision, hashes)


def draw(result: Result) -> dict[str, Figure]:
    """Left: Slovene by layer with baselines. Right: every language's corrupted contrast at its best layer, with
    baselines.
    """
    table: Any = result.tables[TABLE]
    figure, (left, right) = figures.new(columns=2, height=3.8)
    own = table[table["contrast"] == BACK]
    layered = own[own["layer"] >= 0]
    figures.lines(
        left,
        layered,
        x="layer",
        series="method",
        series_order=("logistic", "diff_of_means"),
        names={"diff_of_means": "DiffMean direction", "logistic": "logistic probe"},
    )
    left.plot(
        layered["layer"].unique(),
        layered[layered["method"] == "logistic"]["shuffled"],
        color="grey",
        ls=":",
        label="logistic, shuffled labels",
    )
    for name, dash in (("character n-grams", "--"), ("length", "-.")):
        value = float(own[own["method"] == name]["value"].iloc[0])
        left.axhline(value, color="black", ls=dash, lw=1, label=name)
    left.set(xlabel="layer", ylabel="AUROC, held-out pairs", ylim=(0.35, 1.0))
    left.set_title("Human vs DeepL Slovene")
    left.legend(loc="upper left")
    corrupted = table[table["contrast"].str.endswith("corrupted")].assign(language=lambda t: t["contrast"].str[:2])
    best = corrupted.sort_values("value", ascending=False).groupby(["language", "method"], sort=False).head(1)
    order = ("logistic", "diff_of_means", "character n-grams", "length")
    figures.dots(
        right,
        best,
        place="language",
        series="method",
        order=LANGUAGES,
        series_order=order,
        names={"diff_of_means": "DiffMean", "logistic": "logistic probe"},
    )
    right.axhline(0.5, color="grey", ls=":", lw=1)
    right.set(xlabel="language", ylabel="AUROC at the best layer", ylim=(0.35, 1.02))
    right.set_title("Human vs 30 % corrupted tokens")
    right.legend(loc="lower left", ncols=2, fontsize=8, columnspacing=0.8, handletextpad=0.2)
    top = layered.loc[layered["value"].idxmax()]
    text = float(own[own["method"] == "character n-grams"]["value"].iloc[0])
    wins = best.pivot(index="language", columns="method", values="value")
    ahead = int((wins["logistic"] > wins["character n-grams"]).sum())
    figure.suptitle(
        f"Back-translated Slovene: best probe {top['value']:.2f}, character n-grams {text:.2f}. Corrupted tokens:\n"
        f"the probe reads them at {wins['logistic'].min():.2f} to {wins['logistic'].max():.2f}, above n-grams in {ahead} of 12",
        fontsize=10, fontweight="bold", x=0.01, ha="left",
    )  # fmt: skip
    return {TABLE: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
