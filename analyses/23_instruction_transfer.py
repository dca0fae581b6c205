"""Two instruction vectors at once, and vectors carried from polyglot-mini-it to the model that never learned to obey.

Composition: five pairs of instructions, each vector at the cell chosen for it alone (analyses/22_instructions.py), with their
cosine, each instruction's follow rate under its own vector, under the other's and under both; the same with vectors from which the
direction shared by all instructions was taken out. Transfer: vectors of polyglot-mini-it steer polyglot-mini, layer and strength searched
again there, beside vectors fitted on polyglot-mini itself, random directions pushed as far, and the instruction in its prompt. All
behind prompts without an instruction, but for the arms that say so; greedy; loose checks; test subjects.

    python -m analyses.23_instruction_transfer              # about 8 minutes on one core
    python -m analyses.23_instruction_transfer --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from analyses import _instruct
from analyses._harness import Result, committed, main
from analyses._instruct import FORMS, ROWS, SETTINGS, TONGUES, by_kind, short
from steerlab import figures
from steerlab.data.ifeval import InstructedPrompt
from steerlab.following import Cell, compare_arms, instruct
from steerlab.generation import Request, generate
from steerlab.instructions import (
    Application,
    Placed,
    Pushes,
    carry,
    cells_of,
    choose_cells,
    fit_instructions,
    gather,
    interference,
    pair_name,
    plan_arms,
    plan_trials,
    reference_perplexity,
    tables_of,
)
from steerlab.instructions.composition import ALL, NONE, ORTHOGONAL
from steerlab.instructions.composition import TOGETHER as ACTING_TOGETHER
from steerlab.loading import BUNDLED, OBEYS, load
from steerlab.model import TracedModel
from steerlab.vectors import SteeringVector

PAIRS, COSINES, TRANSFER, WHERE = (
    "instruction_pairs", "instruction_cosines", "instruction_transfer", "instruction_transfer_cells",
)  # fmt: skip
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
CARRIED = (*FORMS, *(t for t in TONGUES if t[1]["language"] in ("de", "en", "he", "id", "sl")))
MODES = {
    "none": "unsteered",
    "random": "a random direction, as far",
    "own": "its own vectors",
    "carried": "vectors of polyglot-mini-it",
    "instructed": "instruction in its prompt",
}


@dataclass(frozen=True)
class Config:
    """Phrasings a pair; wordings of each subject for composing, choosing and testing the transfer; strengths and layers tried."""

    phrasings: int = 3
    composing: int = 3
    choosing: int = 1
    testing: int = 2
    strengths: tuple[float, ...] = (1.0, 2.0)
    layers: tuple[int, ...] = (1, 3, 5)
    seed: int = 0


def both_prompts(pair: tuple[Asked, Asked], config: Config) -> list[InstructedPrompt]:
    """The test subjects with both instructions of a pair."""
    found = []
    names, kwargs = tuple(name for name, _ in pair), tuple(own for _, own in pair)
    cells = tuple(pair_name(name, own) for name, own in pair)
    for query in _instruct.queries("test", config.composing):
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
    table = pd.concat(rates, ignore_index=True).rename(columns={"rate": "value"})
    table = table[["pair", "arm", "what", "value", "low", "high", "n"]]
    return table, pd.DataFrame(cosines, columns=["pair", "vectors", "layer", "cosine"])


def write(model: TracedModel, requests: Sequence[Request]) -> Any:
    """The samples of the requests, in batches of `ROWS`."""
    return generate(model, requests, SETTINGS, batch_rows=ROWS, progress=True)


def carried(base: TracedModel, vectors: Any, own_vectors: Any, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow rates on the base model, and the cells chosen there for both kinds of vectors."""
    valid = _instruct.prompts("valid", config.choosing, CARRIED, config.seed)
    names = [pair_name(*asked) for asked in CARRIED]
    there = carry({n: vectors[n] for n in names}, base)  # of equal width; that the model differs is meant
    kinds: dict[str, Any] = {"carried": there, "own": {n: own_vectors[n] for n in names}}
    cells = cells_of(base.n_layers, config.strengths, config.layers)
    plans = {mode: plan_trials(own, valid, cells, Application()) for mode, own in kinds.items()}
    texts = [s.text for s in write(base, [attempt.request for own in plans.values() for attempt in own])]
    pushes: dict[str, Pushes] = {}
    where, at = [], 0
    for mode, own in plans.items():
        found = choose_cells(
            tables_of(own, texts[at : at + len(own)], reference_perplexity(base)), Application(), seed=config.seed
        )
        pushes[mode] = found.pushes(kinds[mode])
        where += [(mode, n, *((-1, 0.0) if c is None else (c.layer, c.strength))) for n, c in found.cells.items()]
        at += len(own)
    return _tested(base, pushes, config), pd.DataFrame(where, columns=["vectors", "instruction", "layer", "strength"])


def _tested(base: TracedModel, pushes: Mapping[str, Pushes], config: Config) -> pd.DataFrame:
    """Rates per kind of instruction and over all, with exact McNemar tests against unsteered."""
    rows = _instruct.prompts("test", config.testing, CARRIED, config.seed)
    main = plan_arms(rows, pushes["carried"], arms=("none", "random", "steered", "instructed"), seed=config.seed)
    own = plan_arms(rows, pushes["own"], arms=("steered",))
    samples = write(base, [request for _, _, request in (*main, *own)])
    first = gather(main, samples[: len(main)])
    second = gather([*main[: len(rows)], *own], [*samples[: len(rows)], *samples[len(main) :]])
    found = []
    for answers, names in (
        (first, {"none": "none", "random": "random", "steered": "carried", "instructed": "instructed"}),
        (second, {"steered": "own"}),
    ):
        four = compare_arms([by_kind(answer) for answer in answers.answers])
        rates: Any = four.rates()
        tests = four.changes()
        tests = tests[tests["before"] == "none"].rename(columns={"after": "arm"})
        both: Any = rates.merge(
            tests[["instruction", "arm", "gained", "lost", "p"]], how="left", on=["instruction", "arm"]
        )
        found.append(both[both["arm"].isin(list(names))].assign(mode=both["arm"].map(names)))
    table = pd.concat(found, ignore_index=True).rename(columns={"rate": "value"})
    return table[["instruction", "mode", "value", "low", "high", "n", "gained", "lost", "p"]]


def compute(config: Config) -> Result:
    """Both questions."""
    model, base = load(OBEYS), load(BUNDLED)
    pairs = _instruct.fitting_pairs(config.phrasings, config.seed)
    vectors = fit_instructions(model, pairs, splits=0, seed=config.seed)
    unshared = fit_instructions(model, pairs, against="unshared", splits=0, seed=config.seed)
    together, cosines = compose_all(model, vectors, unshared, config)
    own_vectors = fit_instructions(base, pairs, splits=0, seed=config.seed)
    on_base, where = carried(base, vectors, own_vectors, config)
    for name in (pair_name(*asked) for asked in CARRIED):  # how alike the two models' vectors are
        for layer in range(model.n_layers):
            cosine = float(torch.dot(vectors[name].at(layer), own_vectors[name].at(layer)))
            cosines.loc[len(cosines)] = [short(name), "it and base", layer, cosine]
    tables = {PAIRS: together, COSINES: cosines, TRANSFER: on_base, WHERE: where}
    rows = _instruct.prompts("test", config.testing, CARRIED, config.seed)
    return Result(tables, {"base": base.revision}, model.revision, _instruct.prompt_hashes(rows, pairs))


def draw(result: Result) -> Mapping[str, Figure]:
    """Composition: each pair's share of answers that follow both. Transfer: kinds of instruction on the base model."""
    table: Any = result.tables[PAIRS]
    first, panels = figures.new(columns=1, rows=3, height=8.4)
    order = list(dict.fromkeys(table["pair"]))
    for axes, what in zip(panels, ("first", "second", "both"), strict=True):
        own = table[table["what"] == what]
        figures.dots(
            axes, own, place="pair", series="arm", order=order, series_order=list(ARMS), names=ARMS, percent=True
        )
        axes.set_xticks(range(len(order)), [p.replace(" + ", "\n+ ") for p in order])
        mean = own.groupby("arm")["value"].mean() * 100
        alone = {"first": mean["first"], "second": mean["second"], "both": max(mean["first"], mean["second"])}[what]
        told = "both instructions" if what == "both" else f"the {what} instruction"
        vector = "the better single vector" if what == "both" else "its own vector"
        axes.set_title(f"Follow {told}: {mean['both']:.0f} % with both vectors, {alone:.0f} % with {vector}")
        axes.set(ylim=(-3, 103), ylabel="follow (%)")
    first.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return {PAIRS: first, TRANSFER: _carried(result)}


def _carried(result: Result) -> Figure:
    table: Any = result.tables[TRANSFER]
    order = ["all", *sorted(set(table["instruction"]) - {"all"})]
    figure, (axes,) = figures.new(columns=1, height=4.0)
    figures.dots(
        axes,
        table,
        place="instruction",
        series="mode",
        order=order,
        series_order=list(MODES),
        names=MODES,
        percent=True,
    )
    n = table.drop_duplicates("instruction").set_index("instruction")["n"]
    axes.set_xticks(range(len(order)), [f"{name.replace(' ', chr(10))}\n(n {n[name]})" for name in order])
    mean = table[table["instruction"] == "all"].set_index("mode")["value"] * 100
    told = (
        f"On polyglot-mini, vectors carried over take following from {mean['none']:.0f} to {mean['carried']:.0f} %, its own to "
        f"{mean['own']:.0f} %, the instruction itself to {mean['instructed']:.0f} %"
    )
    axes.set_title(textwrap.fill(told, 70))
    axes.set(ylabel="answers that follow (%)", ylim=(-3, 103))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
