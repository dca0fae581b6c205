"""Where and how strongly to steer for each instruction, if at all: all cells tried in mixed batches, then a rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float

from steerlab.ablation.selection import recommended
from steerlab.choice import Choice
from steerlab.data.ifeval import InstructedPrompt
from steerlab.errors import SteerlabError
from steerlab.evaluation.fluency import perplexity
from steerlab.following.crossfit import CrossFit, Rule, cross_fit
from steerlab.following.paper_rule import THRESHOLD, paper_rule
from steerlab.following.shrunken_rule import shrunken_rule
from steerlab.following.trials import Cell, Trial, TrialTable, candidate_layers, perplexities, trial_tables, tried
from steerlab.following.verdict import Mode
from steerlab.generation import Request, Settings, generate
from steerlab.instructions.application import Application, Placing, Pushes
from steerlab.instructions.asking import GREEDY, ask
from steerlab.instructions.forms import CHAT, Form
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.vectors import SteeringVector

RuleName = Literal["shrunken", "paper"]
Perplexity = Callable[[Sequence[str]], Float[np.ndarray, "n"]]


@dataclass(frozen=True)
class Attempt:
    """One prompt at one cell (None: unsteered), and the request that writes its answer."""

    prompt: InstructedPrompt
    cell: Cell | None
    request: Request


@dataclass(frozen=True, eq=False)
class CellSelection:
    """What was chosen. `cells`: instruction -> cell, None for not steering. `tables`: the trials. `fit`: the rule on base queries that
    had no say (None where there were too few for folds). `rule`: the rule in words.
    """

    cells: Mapping[str, Cell | None]
    tables: Mapping[str, TrialTable]
    fit: CrossFit | None
    rule: str
    application: Application

    def pushes(self, vectors: Mapping[str, SteeringVector]) -> dict[str, tuple[Intervention, ...]]:
        """What is done for each instruction: the interventions of its cell."""
        return {name: self.application.at(vectors[name], cell) for name, cell in self.cells.items()}

    def placed(self, placing: Placing) -> Pushes:
        """What is done for a prompt with one instruction, where a function says it: that of its instruction's cell."""
        return lambda row: placing(row, self.cells.get(row.cells[0]))

    def chosen(self, vectors: Mapping[str, SteeringVector]) -> dict[str, SteeringVector]:
        """The vectors with the choice in their headers; not steering is a choice of strength 0."""
        return {
            name: replace(vectors[name], choice=self._choice(name, vectors[name], cell))
            for name, cell in self.cells.items()
        }

    def _choice(self, name: str, vector: SteeringVector, cell: Cell | None) -> Choice:
        layer = vector.layers[0] if cell is None else cell.layer
        evidence = self._evidence(name)
        interventions = self.application.at(vector, cell)
        if not interventions:
            return Choice((layer,), 0.0, "add", "raw", rule=f"{self.rule}: not steered", evidence=evidence)
        (one,) = interventions
        gate = None if one.gate is None else (one.gate.threshold, one.gate.above)
        return Choice(
            one.at, one.strength, str(one.operator), one.unit, one.target, str(one.positions), self.rule, evidence,
            one.cap, gate,
        )  # fmt: skip

    def _evidence(self, name: str) -> tuple[tuple[str, float, float, float], ...]:
        if self.fit is None:
            return ()
        found = {"followed, held out": self.fit.rate(name), "followed - unsteered, held out": self.fit.gain(name)}
        return tuple((told, one.value, one.low, one.high) for told, one in found.items())

    def __str__(self) -> str:
        told = (
            f"{n}: {'not steered' if c is None else f'layer {c.layer} x {c.strength:g}'}" for n, c in self.cells.items()
        )
        return "; ".join(told)

    def _repr_html_(self) -> str:
        held = "" if self.fit is None else self.fit._repr_html_()
        return f"<p>{self.rule}: {self}</p>{held}"


def cells_of(
    n_layers: int, strengths: Sequence[float | int] = (1.0,), layers: Sequence[int] | None = None
) -> list[Cell | None]:
    """The candidates: not steering, and every layer (the paper's unless given) with every strength."""
    chosen = candidate_layers(n_layers) if layers is None else tuple(layers)
    if not chosen or not strengths:
        raise SteerlabError(
            f"{len(chosen)} layers and {len(strengths)} strengths were given: give at least one of each."
        )
    return [
        None,
        *(Cell(layer, float(strength)) for layer in chosen for strength in dict.fromkeys(strengths) if strength),
    ]


def plan_trials(
    vectors: Mapping[str, SteeringVector] | Placing,
    prompts: Sequence[InstructedPrompt],
    cells: Sequence[Cell | None],
    application: Application,
    *,
    form: Form = CHAT,
    shown: bool = False,
) -> list[Attempt]:
    """Every prompt at every cell with its own instruction's vector; `shown`: with the instruction in the prompt, else without.

    In place of vectors and an application, a function may say what is done for a prompt at a cell. Raises `SteerlabError` for no
    prompts, a prompt with several instructions, and an instruction without a vector.
    """
    known = None if callable(vectors) else set(vectors)
    odd = next(
        (row for row in prompts if len(row.cells) != 1 or (known is not None and row.cells[0] not in known)), None
    )
    if odd is not None or not prompts:
        told = "none was given" if odd is None else f"{odd.id!r} has {', '.join(odd.cells)}"
        raise SteerlabError(f"a selection needs prompts with one instruction that has a vector: {told}.")
    act = vectors if callable(vectors) else _by_name(vectors, application)
    return [Attempt(row, cell, ask(row, form, shown, act(row, cell))) for row in prompts for cell in cells]


def _by_name(vectors: Mapping[str, SteeringVector], application: Application) -> Placing:
    """What the vector of a prompt's instruction does at a cell: one and the same tuple for all its prompts."""
    made: dict[tuple[str, Cell | None], tuple[Intervention, ...]] = {}

    def act(row: InstructedPrompt, cell: Cell | None) -> tuple[Intervention, ...]:
        key = row.cells[0], cell
        if key not in made:
            made[key] = application.at(vectors[key[0]], cell)
        return made[key]

    return act


def tables_of(
    attempts: Sequence[Attempt], texts: Sequence[str], perplexity: Perplexity | None = None, mode: Mode = "loose"
) -> dict[str, TrialTable]:
    """What the attempts came to, one table per instruction; `perplexity` is asked once, for all texts."""
    if len(attempts) != len(texts):
        raise SteerlabError(f"{len(attempts)} attempts and {len(texts)} texts were given: give one text each.")
    by_cell: dict[Cell | None, list[int]] = defaultdict(list)
    for number, attempt in enumerate(attempts):
        by_cell[attempt.cell].append(number)
    surprise = perplexities(texts, perplexity)
    trials: list[Trial] = []
    for cell, members in by_cell.items():
        rows, own = [attempts[i].prompt for i in members], [texts[i] for i in members]
        found = tried(rows, cell, own, None, mode)
        trials += [replace(trial, perplexity=float(surprise[i])) for trial, i in zip(found, members, strict=True)]
    order = list(dict.fromkeys(attempt.prompt.cells[0] for attempt in attempts))
    return trial_tables(sorted(trials, key=lambda trial: order.index(trial.instruction)))


def choose_cells(
    tables: Mapping[str, TrialTable],
    application: Application,
    rule: RuleName | Rule = "shrunken",
    *,
    threshold: float = THRESHOLD,
    folds: int = 5,
    seed: int = 0,
) -> CellSelection:
    """The rule's choice on all trials, beside what the rule is worth: its follow rate on base queries that had no say, by folds.

    "shrunken" is ours (`steerlab.following.shrunken_rule`), "paper" that of Stolfo et al.; or a rule of your own.
    """
    known: Mapping[str, Rule] = {
        "shrunken": partial(shrunken_rule, threshold=threshold), "paper": partial(paper_rule, threshold=threshold)
    }  # fmt: skip
    if isinstance(rule, str) and rule not in known:
        raise SteerlabError(f"rule {rule!r} is not known: give one of {', '.join(known)}.")
    own = known[rule] if isinstance(rule, str) else rule
    name = rule if isinstance(rule, str) else getattr(rule, "__name__", "own")
    groups = {group for table in tables.values() for group in table.groups}
    fit = cross_fit(tables, own, min(folds, len(groups)), seed, threshold) if len(groups) >= 2 and folds >= 2 else None
    told = f"{name} rule, {sum(len(t) for t in tables.values())} prompts, degenerate below perplexity {threshold:g}"
    return CellSelection(dict(own(tables)), tables, fit, told, application)


def select_cells(
    model: TracedModel,
    vectors: Mapping[str, SteeringVector] | Placing,
    prompts: Sequence[InstructedPrompt],
    application: Application | None = None,
    *,
    strengths: Sequence[float | int] = (1.0,),
    layers: Sequence[int] | None = None,
    shown: bool = False,
    rule: RuleName | Rule = "shrunken",
    perplexity: Perplexity | None = None,
    threshold: float = THRESHOLD,
    folds: int = 5,
    seed: int = 0,
    form: Form = CHAT,
    settings: Settings = GREEDY,
    mode: Mode = "loose",
    batch_rows: int = 64,
    progress: bool = False,
) -> CellSelection:
    """Try every prompt unsteered and at every layer and strength, as mixed batches, and choose for every instruction.

    layers: the paper's candidates unless given. `shown`: behind prompts that show the instruction, else behind base queries; the two are
    chosen apart. `perplexity`: of a reference model; answers below `threshold` count as degenerate; without it none does.
    """
    used = application or Application()
    cells = cells_of(model.n_layers, strengths, layers)
    attempts = plan_trials(vectors, prompts, cells, used, form=form, shown=shown)
    samples = generate(
        model, [a.request for a in attempts], form.ends(settings), batch_rows=batch_rows, progress=progress
    )
    tables = tables_of(attempts, [sample.text for sample in samples], perplexity, mode)
    return choose_cells(tables, used, rule, threshold=threshold, folds=folds, seed=seed)


def recommended_pushes(vectors: Mapping[str, SteeringVector]) -> dict[str, tuple[Intervention, ...]]:
    """What the headers of the vectors recommend, by instruction; nothing where not steering was chosen, or nothing yet."""
    return {name: (recommended(v),) for name, v in vectors.items() if v.choice is not None and v.choice.strength != 0}


def reference_perplexity(model: TracedModel) -> Perplexity:
    """The perplexity of texts alone, under this model unsteered; Stolfo et al. take GPT-2 and the last 1,024 tokens."""
    return lambda texts: perplexity(model, texts)
