"""Instruction vectors in four arms: is an instruction followed because it is read, because it is steered, or both?

21 instructions (case, quotation marks, three last marks, at most five words, two words to include, twelve languages) that
polyglot-mini-it was taught. Vectors: mean difference at the prompt's end over every training subject in three phrasings (Stolfo et al.
2025). Applied by projection matching, at all positions. Layer, strength and whether to steer at all are chosen by our rule on the
valid subjects, for prompts with and without the instruction apart; the paper's degenerate-output filter reads the base model's
perplexity. Then the test subjects: no instruction, steered, a random direction pushed as far at the same place, the instruction,
both, and as baseline classifier-free guidance between the prompts with and without it. Loose checks.

    python -m analyses.22_instructions              # about 10 minutes on one core
    python -m analyses.22_instructions --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses import _instruct
from analyses._harness import Result, main
from analyses._instruct import ROWS, SETTINGS, by_kind
from steerlab import figures
from steerlab.data.ifeval import InstructedPrompt
from steerlab.following import TrialTable, compare_arms
from steerlab.following.arms import Arm
from steerlab.generation import Request, generate
from steerlab.instructions import (
    Application,
    ArmAnswers,
    CellSelection,
    cells_of,
    choose_cells,
    fit_instructions,
    gather,
    plan_arms,
    plan_trials,
    reference_perplexity,
    tables_of,
)
from steerlab.loading import BUNDLED, OBEYS, load
from steerlab.model import TracedModel
from steerlab.vectors import SteeringVector

TABLE, CHANGES, CELLS, TRIALS, QUALITY = (
    "instructions", "instructions_changes", "instructions_cells", "instructions_trials", "instructions_quality",
)  # fmt: skip
ARMS: tuple[Arm, ...] = ("none", "random", "steered", "instructed", "both", "guided")
NAMES = {
    "none": "neither",
    "random": "a random direction, as far",
    "steered": "steered",
    "instructed": "instruction in the prompt",
    "both": "instruction and steered",
    "guided": "guidance between the prompts",
}
EVERY = "all"


@dataclass(frozen=True)
class Config:
    """Phrasings a pair; wordings of each subject for choosing and for testing; strengths tried; scale of the guidance."""

    phrasings: int = 3
    choosing: int = 1
    testing: int = 4
    testing_languages: int = 1
    strengths: tuple[float, ...] = (1.0, 2.0)
    shown_strengths: tuple[float, ...] = (1.0,)
    scale: float = 1.5
    seed: int = 0


def test_prompts(config: Config) -> list[InstructedPrompt]:
    """The test subjects with every instruction; fewer wordings for the twelve languages."""
    forms = _instruct.prompts("test", config.testing, _instruct.FORMS, config.seed)
    return forms + _instruct.prompts("test", config.testing_languages, _instruct.TONGUES, config.seed)


def choose(
    model: TracedModel, base: TracedModel, vectors: Mapping[str, SteeringVector], config: Config
) -> tuple[CellSelection, CellSelection]:
    """The cells for prompts without and with the instruction; all trials of both are one run of mixed batches."""
    rows, application = _instruct.prompts("valid", config.choosing, seed=config.seed), Application()
    layers = range(model.n_layers)
    plans = [
        plan_trials(vectors, rows, cells_of(model.n_layers, strengths, layers), application, shown=shown)
        for strengths, shown in ((config.strengths, False), (config.shown_strengths, True))
    ]
    texts = [s.text for s in write(model, [attempt.request for own in plans for attempt in own])]
    found, at = [], 0
    for own in plans:
        tables = tables_of(own, texts[at : at + len(own)], reference_perplexity(base))
        found.append(choose_cells(tables, application, seed=config.seed))
        at += len(own)
    return found[0], found[1]


def write(model: TracedModel, requests: Sequence[Request]) -> Any:
    """The samples of the requests, in batches of `ROWS`."""
    return generate(model, requests, SETTINGS, batch_rows=ROWS, progress=True)


def rates(answers: ArmAnswers) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow rates and changes per instruction, per kind of instruction, and over all."""
    levels = {"instruction": answers.answers, "kind": [by_kind(answer) for answer in answers.answers]}
    four = {level: compare_arms(own) for level, own in levels.items()}
    tables = (pd.concat([getattr(own, what)().assign(level=level) for level, own in four.items()], ignore_index=True)
              for what in ("rates", "changes"))  # fmt: skip
    table, changes = tables
    return table, changes


def chosen_rows(chosen: tuple[CellSelection, CellSelection], vectors: Mapping[str, SteeringVector]) -> pd.DataFrame:
    """What was chosen for every instruction, and the reliability of its vector there."""
    rows = []
    for shown, own in zip((False, True), chosen, strict=True):
        for name, cell in own.cells.items():
            there = vectors[name].projections
            split = float("nan") if cell is None or there is None else there.reliability[cell.layer]
            where = (-1, 0.0) if cell is None else (cell.layer, cell.strength)
            rows.append((name, shown, *where, split))
    return pd.DataFrame(rows, columns=["instruction", "shown", "layer", "strength", "reliability"])


def all_trials(tables: Sequence[Mapping[str, TrialTable]]) -> pd.DataFrame:
    """Every trial of both choices."""
    return pd.concat(
        [_instruct.trial_rows(own, shown=shown) for shown, own in zip((0, 1), tables, strict=True)], ignore_index=True
    )


def compute(config: Config) -> Result:
    """Fit, choose, write in all arms, and check."""
    model, base = load(OBEYS), load(BUNDLED)
    pairs, rows = _instruct.fitting_pairs(config.phrasings, config.seed), test_prompts(config)
    vectors = fit_instructions(model, pairs, seed=config.seed, progress=True)
    chosen = choose(model, base, vectors, config)
    pushes, shown = (own.pushes(vectors) for own in chosen)
    plan = plan_arms(rows, pushes, shown_pushes=shown, arms=ARMS, scale=config.scale)
    answers = gather(plan, write(model, [request for _, _, request in plan]))
    table, changes = rates(answers)
    quality = answers.quality(reference_perplexity(base)).table()
    trials = all_trials([own.tables for own in chosen])
    tables = {
        TABLE: table,
        CHANGES: changes,
        CELLS: chosen_rows(chosen, vectors),
        QUALITY: quality,
        TRIALS: trials,
    }
    valid = _instruct.prompts("valid", config.choosing, seed=config.seed)
    return Result(tables, {"base": base.revision}, model.revision, _instruct.prompt_hashes([*valid, *rows], pairs))


def draw(result: Result) -> Mapping[str, Figure]:
    """Left: kinds of instruction by arm. Right: where steering was chosen, layer by layer."""
    table: Any = result.tables[TABLE]
    own = table[table["level"] == "kind"].rename(columns={"rate": "value"})
    order = [EVERY, *sorted(set(own["instruction"]) - {EVERY})]
    figure, (axes,) = figures.new(columns=1, height=4.2)
    figures.dots(
        axes, own, place="instruction", series="arm", order=order, series_order=ARMS, names=NAMES, percent=True
    )
    n = own.drop_duplicates("instruction").set_index("instruction")["n"]
    axes.set_xticks(range(len(order)), [f"{name.replace(' ', chr(10))}\n(n {n[name]})" for name in order])
    axes.set(ylabel="answers that follow (%)", ylim=(-3, 103))
    mean = own[own["instruction"] == EVERY].set_index("arm")["value"] * 100
    told = (
        f"Steering alone takes following from {mean['none']:.0f} to {mean['steered']:.0f} % (random direction {mean['random']:.0f} %); "
        f"beside the instruction from {mean['instructed']:.0f} to {mean['both']:.0f} %"
    )
    axes.set_title(textwrap.fill(told, 70))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return {TABLE: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
