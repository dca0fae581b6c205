"""What tells the two sides of contrast pairs apart before any model reads them?

A direction fitted on human text against a worse version of it is a quality direction only as far as it is nothing simpler. For
the Slovene back-translations (one and two hops), their length-matched part, and the pairs that `data.degrade` makes without a
model: AUROC of ranking the human side above the other by length, word frequency and character n-grams, on the texts as they are
and with typography taken out (quotation marks, dashes, spaces: translation normalises them). Cross-validated, pairs kept whole,
bootstrap intervals over pairs; lengths are also compared within pairs.

    python -m analyses.18_contrast_pairs            # about 6 minutes on one core; needs STEERLAB_DATA
    python -m analyses.18_contrast_pairs --redraw   # from figures/*.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.commands.contrast import token_counter
from steerlab.data import ContrastPairs
from steerlab.separability import NGRAMS, SURFACES, separability

NAME = "contrast_pairs"
SHORT = {"characters": "length in\ncharacters", "words": "length in\nwords", "tokens": "length in\ntokens",
         "word frequency": "word\nfrequency", NGRAMS: "character\nn-grams"}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Whose tokens are counted, and which languages the model-free degrader is tried on (NTREX texts of the vector split)."""

    model: str = "polyglot-mini"
    degraded: tuple[str, ...] = ("sl", "am", "he", "id")
    seed: int = 0


def sets(config: Config) -> dict[str, ContrastPairs]:
    """The pairs by name."""
    count, found = token_counter(config.model), {}
    for hops in (1, 2):
        pairs = data.load_pairs(hops=hops, split="all")
        found[f"Slovene, {hops} hop{'s' if hops > 1 else ''}"] = pairs
        found[f"Slovene, {hops} hop{'s' if hops > 1 else ''}, length-matched"] = data.length_matched(pairs, count)
    for code in config.degraded:
        corpus = data.load("ntrex", code, split="vectors")
        made = data.degrade(corpus.texts, seed=config.seed, ids=[e.id for e in corpus.examples])
        found[f"degraded, {code}"] = made
    return found


def compute(config: Config) -> Result:
    """One row per set, cue and surface; within-pair shares and verdicts as facts."""
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    for name, pairs in sets(config).items():
        found = separability(pairs, tokens=token_counter(config.model), seed=config.seed)
        rows += [{"set": name, "left_out": pairs.dropped, **row} for row in found.rows()]
        facts[name] = {"verdict": found.verdict, "within": found.to_json()["within"]}
        hashes[name] = pairs.sha256
    return Result({NAME: pd.DataFrame(rows)}, facts, data=hashes)


def draw(result: Result) -> dict[str, Figure]:
    """AUROC by cue, one mark per set: raw above, without typography below."""
    table: Any = result.tables[NAME]
    figure, panels = figures.new(rows=2, height=6.6)
    order = [SHORT[cue] for cue in SHORT]
    for axes, surface in zip(panels, SURFACES, strict=True):
        own = table[table["surface"] == surface].rename(columns={"auroc": "value"})
        own = own.assign(cue=own["cue"].map(SHORT))
        kept = list(dict.fromkeys(own["set"]))
        figures.dots(axes, own, place="cue", series="set", order=order, series_order=kept)
        axes.axhline(0.5, color="grey", ls=":", lw=1.2)
        axes.set(ylabel="AUROC, human above degraded", ylim=(0.47, 0.77))
    raw, plain = (_of(table, surface) for surface in SURFACES)
    lengths = table[table["cue"].isin(["characters", "words", "tokens"])]["auroc"]
    words = next(w for w in result.facts["Slovene, 2 hops"]["within"] if (w["unit"], w["surface"]) == ("words", "raw"))
    shorter, longer = (100 * words[f"degraded_{way}"]["value"] for way in ("shorter", "longer"))
    panels[0].set_title(
        f"After two hops {shorter:.0f} % of texts are shorter, {longer:.0f} % longer; over all texts\n"
        f"length tells little (AUROC {max(lengths.max(), 1 - lengths.min()):.2f}), letters more ({raw['Slovene, 2 hops']:.2f})"
    )
    made = [value for name, value in plain.items() if name.startswith("degraded")]
    panels[1].set_title(
        f"Part of it is typography ({plain['Slovene, 2 hops']:.2f} without it); pairs made without a model\n"
        f"are harder to tell ({min(made):.2f} to {max(made):.2f})"
    )
    panels[0].legend(ncols=2, loc="upper left", fontsize=7.5)
    return {NAME: figure}


def _of(table: Any, surface: str) -> dict[str, float]:
    own = table[(table["surface"] == surface) & (table["cue"] == NGRAMS)]
    return dict(zip(own["set"], own["auroc"], strict=True))


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
