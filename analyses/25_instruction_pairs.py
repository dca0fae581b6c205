"""Two instruction vectors at once: does each still do what it does alone, and do both hold?

Five pairs of instructions, each vector at the cell chosen for it alone (analyses/22_instructions.py): their cosine, and each
instruction's follow rate with no vector, its own, the other's, both, both made orthogonal where they meet, and both after the direction
shared by all instructions was taken out of them; beside the two instructions in the prompt, and those with both vectors. Test subjects,
greedy, loose checks.

    python -m analyses.25_instruction_pairs              # some minutes on one core
    python -m analyses.25_instruction_pairs --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from analyses import _instruct
from analyses._harness import Result, committed, main
from analyses._instruct import ROWS, SETTINGS, short
from steerlab import figures
from steerlab.data.ifeval import InstructedPrompt
from steerlab.following import Cell, instruct
from steerlab.instructions import Application, Placed, fit_instructions, interference, pair_name
from steerlab.instructions.composition import ALL, NONE, ORTHOGONAL
from steerlab.instructions.composition import TOGETHER as ACTING_TOGETHER
from steerlab.loading import OBEYS, load
from steerlab.model import TracedModel
from steerlab.vectors import SteeringVector

PAIRS, COSINES = "instruction_pairs", "instruction_cosines"
Asked = tuple[str, dict[str, Any]]
TOGETHER: tuple[tuple[Asked, Asked], ...] = (
    (("simple:uppercase", {}), ("simple:language", {"language": "de"})),
    (("simple:lowercase", {}), ("simple:language", {"language": "sl"})),
    (("simple:uppercase", {}), ("simple:quotes", {})),
    (("simple:uppercase", {}), ("simple:end_mark", {"mark": "!"})),
    (("simple:lowercase", {}), ("simple:max_words", {"n": 5})),
)
ARMS = {
    "none": "neither",
    "first": "the first vector",
    "second": "the second vector",
    "both": "both vectors",
    "orthogonal": "both, made orthogonal",
    "unshared": "both, shared part taken out",
    "instructed": "both instructions in the prompt",
    "all": "instructions and vectors",
}


@dataclass(frozen=True)
class Config:
    """Phrasings a fitting pair; wordings of each test subject."""

    phrasings: int = 3
    wordings: int = 4
    seed: int = 0


def both_prompts(pair: tuple[Asked, Asked], config: Config) -> list[InstructedPrompt]:
    """The test subjects with both instructions of a pair."""
    found = []
    names, kwargs = tuple(name for name, _ in pair), tuple(own for _, own in pair)
    cells = tuple(pair_name(name, own) for name, own in pair)
    for query in _instruct.queries("test", config.wordings):
        text = query.text
        for name, own in pair:
            text = instruct(text, name, own, config.seed, query.id)
        row = (f"{query.id}-{'+'.join(cells)}", text, query.text, query.group, names, kwargs, cells, "test")
        found.append(InstructedPrompt(*row))
    return found


def places(vectors: Mapping[str, SteeringVector], pair: tuple[Asked, Asked]) -> dict[str, Placed]:
    """The vectors of a pair where analyses/22_instructions.py chose; where it chose not to steer, layer 2 at strength 1."""
    table: Any = committed("instructions").tables["instructions_cells"]
    own = table[~table["shown"].astype(bool)].set_index("instruction")
    found = {}
    for name in (pair_name(*asked) for asked in pair):
        layer = int(own.at[name, "layer"])
        cell = Cell(2) if layer < 0 else Cell(layer, float(own.at[name, "strength"]))
        found[name] = Placed(vectors[name], cell, Application())
    return found


def compose_all(model: TracedModel, vectors: Any, unshared: Any, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow rates of every pair in every arm, and the cosines of the vectors behind every block."""
    rates, cosines = [], []
    common: dict[str, Any] = {"settings": SETTINGS, "batch_rows": ROWS, "progress": True}
    for pair in TOGETHER:
        rows = both_prompts(pair, config)
        a, b = (pair_name(*asked) for asked in pair)
        told = f"{short(a)} + {short(b)}"
        bare = interference(model, places(vectors, pair), rows, **common).rates
        shared = interference(model, places(unshared, pair), rows, **common).rates
        shown = interference(model, places(vectors, pair), rows, shown=True, **common).rates
        named = {NONE: "none", a: "first", b: "second", ACTING_TOGETHER: "both", ORTHOGONAL: "orthogonal"}
        for table, names in (
            (bare, named),
            (shared, {ACTING_TOGETHER: "unshared"}),
            (shown, {NONE: "instructed", ACTING_TOGETHER: "all"}),
        ):
            own: Any = table[table["acting"].isin(list(names))]
            what = own["instruction"].map({a: "first", b: "second", ALL: "both"})
            rates.append(own.assign(pair=told, arm=own["acting"].map(names), what=what))
        for name, kept in (("bare", vectors), ("unshared", unshared)):
            for layer in range(model.n_layers):
                cosines.append((told, name, layer, float(torch.dot(kept[a].at(layer), kept[b].at(layer)))))
    table: Any = pd.concat(rates, ignore_index=True).rename(columns={"rate": "value"})
    table = table[["pair", "arm", "what", "value", "low", "high", "n"]]
    return table, pd.DataFrame(cosines, columns=["pair", "vectors", "layer", "cosine"])


def compute(config: Config) -> Result:
    """Fit both kinds of vectors, and write every pair in every arm."""
    model = load(OBEYS)
    pairs = _instruct.fitting_pairs(config.phrasings, config.seed)
    vectors = fit_instructions(model, pairs, splits=0, seed=config.seed)
    unshared = fit_instructions(model, pairs, against="unshared", splits=0, seed=config.seed)
    together, cosines = compose_all(model, vectors, unshared, config)
    rows = [row for pair in TOGETHER for row in both_prompts(pair, config)]
    return Result({PAIRS: together, COSINES: cosines}, {}, model.revision, _instruct.prompt_hashes(rows, pairs))


def draw(result: Result) -> Mapping[str, Figure]:
    """Every pair's follow rates: the first instruction, the second, and both."""
    table: Any = result.tables[PAIRS]
    figure, panels = figures.new(columns=1, rows=3, height=8.4)
    order = list(dict.fromkeys(table["pair"]))
    for axes, what in zip(panels, ("first", "second", "both"), strict=True):
        own = table[table["what"] == what]
        figures.dots(
            axes, own, place="pair", series="arm", order=order, series_order=list(ARMS), names=ARMS, percent=True
        )
        axes.set_xticks(range(len(order)), [p.replace(" + ", "\n+ ") for p in order])
        mean = own.groupby("arm")["value"].mean() * 100
        alone = {"first": mean["first"], "second": mean["second"], "both": max(mean["first"], mean["second"])}[what]
        vector = "the better one" if what == "both" else "its own"
        told = "Both" if what == "both" else f"The {what}"
        axes.set_title(
            f"{told}: {mean['both']:.0f} % under both vectors, {alone:.0f} % under {vector}, {mean['instructed']:.0f} % asked"
        )
        axes.set(ylim=(-3, 103), ylabel="follow (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return {PAIRS: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
