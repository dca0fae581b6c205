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
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from analyses import _instruct
from analyses._harness import Result, committed, main
from analyses._instruct import FORMS, ROWS, SETTINGS, TONGUES, kind, rate, short
from steerlab import figures
from steerlab.data.ifeval import InstructedPrompt
from steerlab.following import Cell, check_all, compare_arms, instruct
from steerlab.generation import Request, generate
from steerlab.instructions import (
    CHAT,
    Application,
    Pushes,
    ask,
    cells_of,
    choose_cells,
    fit_instructions,
    gather,
    pair_name,
    plan_arms,
    plan_trials,
    reference_perplexity,
    tables_of,
)
from steerlab.loading import BUNDLED, OBEYS, load
from steerlab.model import TracedModel
from steerlab.steering import Intervention
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
    """Phrasings a pair; wordings of each subject in the composition, for choosing, and for testing the transfer; strengths tried."""

    phrasings: int = 3
    composing: int = 4
    choosing: int = 1
    testing: int = 2
    strengths: tuple[float, ...] = (1.0, 2.0)
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


def chosen_before(vectors: Mapping[str, SteeringVector], shown: bool) -> dict[str, tuple[Intervention, ...]]:
    """What analyses/22_instructions.py chose for these vectors; where that is not to steer, layer 2 at strength 1."""
    table: Any = committed("instructions").tables["instructions_cells"]
    own = table[table["shown"] == shown].set_index("instruction")
    cells = {n: Cell(int(own.at[n, "layer"]), float(own.at[n, "strength"])) for n in vectors}
    usual = Cell(2, 1.0)
    return {n: Application().at(vectors[n], usual if cells[n].layer < 0 else cells[n]) for n in vectors}


def compose(model: TracedModel, vectors: Any, unshared: Any, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow rates of every pair in every arm, and the cosines of the vectors where they act."""
    pushes, without = chosen_before(vectors, False), chosen_before(unshared, False)
    planned: list[tuple[InstructedPrompt, str, Request]] = []
    cosines = []
    for pair in TOGETHER:
        rows = both_prompts(pair, config)
        a, b = (pair_name(name, own) for name, own in pair)
        acts = {
            "none": (), "first": pushes[a], "second": pushes[b], "both": (*pushes[a], *pushes[b]),
            "unshared": (*without[a], *without[b]), "instructed": (), "all": (*pushes[a], *pushes[b]),
        }  # fmt: skip
        for arm, own in acts.items():
            planned += [(row, arm, ask(row, CHAT, arm in ("instructed", "all"), in_order(own))) for row in rows]
        for name, kept in (("bare", vectors), ("unshared", unshared)):
            for layer in range(model.n_layers):
                cosine = float(torch.dot(kept[a].at(layer), kept[b].at(layer)))
                cosines.append((f"{short(a)} + {short(b)}", name, layer, cosine))
    texts = [s.text for s in write(model, [request for _, _, request in planned])]
    return _together(planned, texts), pd.DataFrame(cosines, columns=["pair", "vectors", "layer", "cosine"])


def in_order(own: tuple[Intervention, ...]) -> tuple[Intervention, ...]:
    """The interventions by layer, so that what comes first in the model stands first."""
    return tuple(sorted(own, key=lambda one: one.at))


def write(model: TracedModel, requests: Sequence[Request]) -> Any:
    """The samples of the requests, in batches of `ROWS`."""
    return generate(model, requests, SETTINGS, batch_rows=ROWS, progress=True)


def _together(planned: Sequence[tuple[InstructedPrompt, str, Request]], texts: Sequence[str]) -> pd.DataFrame:
    """Per pair and arm: rate of the first, of the second, and of both."""
    kept: dict[tuple[str, str], list[tuple[bool, ...]]] = {}
    for (row, arm, _), text in zip(planned, texts, strict=True):
        told = " + ".join(map(short, row.cells))
        passed = tuple(own.passed for own in check_all(row.instructions, row.kwargs, text, "loose"))
        kept.setdefault((told, arm), []).append(passed)
    rows = []
    for (pair, arm), own in kept.items():
        for what, values in (
            ("first", [p[0] for p in own]),
            ("second", [p[1] for p in own]),
            ("both", [all(p) for p in own]),
        ):
            rows.append((pair, arm, what, *rate(values)))
    return pd.DataFrame(rows, columns=["pair", "arm", "what", "value", "low", "high", "n"])


def carry(base: TracedModel, vectors: Any, own_vectors: Any, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow rates on the base model, and the cells chosen there for both kinds of vectors."""
    valid = _instruct.prompts("valid", config.choosing, CARRIED, config.seed)
    names = [pair_name(*asked) for asked in CARRIED]
    kinds = {"carried": {n: vectors[n] for n in names}, "own": {n: own_vectors[n] for n in names}}
    for name in names:  # width, layers: the model and its weights are meant to differ
        vectors[name].check(base.name, base.revision, base.d_model, base.n_layers, allow=("model", "revision"))
    cells = cells_of(base.n_layers, config.strengths, range(base.n_layers))
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
    pushes["random"] = _instruct.random_pushes(pushes["carried"], vectors, config.seed)
    return _tested(base, pushes, config), pd.DataFrame(where, columns=["vectors", "instruction", "layer", "strength"])


def _tested(base: TracedModel, pushes: Mapping[str, Pushes], config: Config) -> pd.DataFrame:
    """Rates per kind of instruction and over all, with exact McNemar tests against unsteered."""
    rows = _instruct.prompts("test", config.testing, CARRIED, config.seed)
    plain = plan_arms(rows, {}, arms=("none", "instructed"))
    steered = {mode: plan_arms(rows, own, arms=("steered",)) for mode, own in pushes.items()}
    flat = [*plain, *(one for own in steered.values() for one in own)]
    samples = write(base, [request for _, _, request in flat])
    nothing, found, at = plain[: len(rows)], [], len(plain)
    parts = {"instructed": (plain, samples[: len(plain)])}
    for mode, own in steered.items():
        parts[mode] = ([*nothing, *own], [*samples[: len(rows)], *samples[at : at + len(own)]])
        at += len(own)
    for mode, (planned, written) in parts.items():
        answers = gather(planned, written).answers
        four = compare_arms([replace(a, cells=tuple(map(kind, a.cells))) for a in answers])
        arm = "instructed" if mode == "instructed" else "steered"
        rates, changes = four.rates(), four.changes().set_index("instruction")
        for row in rates[rates["arm"].isin((arm, "none") if mode == "instructed" else (arm,))].itertuples():
            own: Any = row
            test = changes.loc[own.instruction] if own.arm == arm else {"gained": 0, "lost": 0, "p": 1.0}
            told = "none" if own.arm == "none" else mode
            facts = (own.rate, own.low, own.high, own.n, int(test["gained"]), int(test["lost"]), float(test["p"]))
            found.append((own.instruction, told, *facts))
    return pd.DataFrame(found, columns=["instruction", "mode", "value", "low", "high", "n", "gained", "lost", "p"])


def compute(config: Config) -> Result:
    """Both questions."""
    model, base = load(OBEYS), load(BUNDLED)
    pairs = _instruct.fitting_pairs(config.phrasings, config.seed)
    vectors = fit_instructions(model, pairs, splits=0, seed=config.seed)
    unshared = fit_instructions(model, pairs, against="unshared", splits=0, seed=config.seed)
    together, cosines = compose(model, vectors, unshared, config)
    own_vectors = fit_instructions(base, pairs, splits=0, seed=config.seed)
    carried, where = carry(base, vectors, own_vectors, config)
    for name in (pair_name(*asked) for asked in CARRIED):  # how alike the two models' vectors are
        for layer in range(model.n_layers):
            cosine = float(torch.dot(vectors[name].at(layer), own_vectors[name].at(layer)))
            cosines.loc[len(cosines)] = [short(name), "it and base", layer, cosine]
    tables = {PAIRS: together, COSINES: cosines, TRANSFER: carried, WHERE: where}
    rows = _instruct.prompts("test", config.testing, CARRIED, config.seed)
    return Result(tables, {"base": base.revision}, model.revision, _instruct.prompt_hashes(rows, pairs))


def draw(result: Result) -> Mapping[str, Figure]:
    """Composition: each pair's share of answers that follow both. Transfer: kinds of instruction on the base model."""
    table: Any = result.tables[PAIRS]
    first, panels = figures.new(columns=3, height=4.2)
    order = list(dict.fromkeys(table["pair"]))
    for axes, (what, told) in zip(
        panels, {"first": "the first", "second": "the second", "both": "both"}.items(), strict=True
    ):
        own = table[table["what"] == what]
        figures.dots(
            axes, own, place="pair", series="arm", order=order, series_order=list(ARMS), names=ARMS, percent=True
        )
        axes.set_xticks(range(len(order)), [textwrap.fill(p.replace(" + ", "\n"), 11) for p in order], fontsize=7)
        mean = own.groupby("arm")["value"].mean() * 100
        alone = {"first": mean["first"], "second": mean["second"], "both": max(mean["first"], mean["second"])}[what]
        axes.set_title(f"{told}: one vector {alone:.0f} %,\nboth {mean['both']:.0f} %")
        axes.set(ylim=(-3, 103), ylabel="answers that follow (%)" if what == "first" else "")
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
    axes.set_title(textwrap.fill(told, 84))
    axes.set(ylabel="answers that follow (%)", ylim=(-3, 103))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
