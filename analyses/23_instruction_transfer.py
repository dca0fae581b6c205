"""Do vectors of polyglot-mini-it steer polyglot-mini, the model that never learned to obey?

Of equal width and vocabulary: the vectors are carried over as they are, layer and strength searched again there by our rule, beside
vectors fitted on polyglot-mini itself, random directions pushed as far, and the instruction in its prompt. Behind prompts without an
instruction, but for that arm; test subjects, greedy, loose checks. Also: how alike the two models' vectors are, layer by layer.

    python -m analyses.23_instruction_transfer              # some minutes on one core
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
from analyses._harness import Result, main
from analyses._instruct import FORMS, ROWS, SETTINGS, TONGUES, by_kind, short
from steerlab import figures
from steerlab.following import compare_arms
from steerlab.generation import Request, generate
from steerlab.instructions import (
    Application,
    Pushes,
    carry,
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

TRANSFER, WHERE, ALIKE = "instruction_transfer", "instruction_transfer_cells", "instruction_transfer_cosines"
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
    """Phrasings a pair; wordings of each subject for choosing and testing; strengths and layers tried."""

    phrasings: int = 3
    choosing: int = 1
    testing: int = 2
    strengths: tuple[float, ...] = (1.0, 2.0)
    layers: tuple[int, ...] = (1, 3, 5)
    seed: int = 0


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
        tests: Any = four.changes()
        tests = tests[tests["before"] == "none"].rename(columns={"after": "arm"})
        both: Any = rates.merge(
            tests[["instruction", "arm", "gained", "lost", "p"]], how="left", on=["instruction", "arm"]
        )
        found.append(both[both["arm"].isin(list(names))].assign(mode=both["arm"].map(names)))
    table: Any = pd.concat(found, ignore_index=True).rename(columns={"rate": "value"})
    return table[["instruction", "mode", "value", "low", "high", "n", "gained", "lost", "p"]]


def compute(config: Config) -> Result:
    """Fit on both models, search on polyglot-mini, and test there."""
    model, base = load(OBEYS), load(BUNDLED)
    pairs = _instruct.fitting_pairs(config.phrasings, config.seed)
    vectors = fit_instructions(model, pairs, splits=0, seed=config.seed)
    own = fit_instructions(base, pairs, splits=0, seed=config.seed)
    table, where = carried(base, vectors, own, config)
    alike = pd.DataFrame(
        [
            (short(name), layer, float(torch.dot(vectors[name].at(layer), own[name].at(layer))))
            for name in (pair_name(*asked) for asked in CARRIED)
            for layer in range(model.n_layers)
        ],
        columns=["instruction", "layer", "cosine"],
    )
    rows = _instruct.prompts("test", config.testing, CARRIED, config.seed)
    tables = {TRANSFER: table, WHERE: where, ALIKE: alike}
    return Result(tables, {"base": base.revision}, model.revision, _instruct.prompt_hashes(rows, pairs))


def draw(result: Result) -> Mapping[str, Figure]:
    """Kinds of instruction by arm."""
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
    return {TRANSFER: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
