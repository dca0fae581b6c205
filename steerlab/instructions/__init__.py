"""Instruction steering: fit a vector per instruction, find where it acts best, write under it, and count what was followed.

After Stolfo et al. 2025 (ICLR, arXiv 2410.12877), with what their issues and reviewers asked for. The path, top to bottom:

    prompts = simple_prompts(split_queries(own_queries())["train"])        # steerlab.following: instruction behind base query
    vectors = fit_instructions(model, pairs_of(prompts))                   # name -> SteeringVector with its `projections`
    found = select_cells(model, vectors, valid_prompts, strengths=(1.0, 2.0), perplexity=reference_perplexity(model))
    vectors = found.chosen(vectors)                                        # the choice in each header; not steering is strength 0
    save_instructions(vectors, "runs/instructions")                        # load_instruction_vectors reads them back
    run = run_arms(model, test_prompts, found.pushes(vectors), arms=("none", "steered", "instructed", "both", "guided"))
    print(run.table); run.followed.changes(); run.quality(embed=...)       # follow rates, gained and lost, McNemar, quality

**Fit**: `Pairs`, `pairs_of(prompts)` or `build_pairs(queries, instruction, kwargs, phrasings=3)`;
`fit_instructions(model, pairs, against="bare" | "others" | "unshared", form=CHAT | QA, last=1, splits=10)`. Each vector has `raw_norm`,
`projections.instructed`, `.bare` and split-half `.reliability`, one number per layer.

**Apply**: `Application(kind="match" | "match_up" | "add" | "subtract", unit=, cap=, gate=, positions=)` turns a vector and a
`Cell(layer, strength)` into interventions: `application.at(vector, cell)`. Several instructions at once: concatenate the tuples.

**Select**: `select_cells(model, vectors, prompts, application, strengths=, layers=, shown=, rule="shrunken" | "paper")`; `shown=True`
chooses for prompts that show the instruction. In parts, for runs that keep their texts: `cells_of`, `plan_trials`, `tables_of`,
`choose_cells`.

**Generate and evaluate**: `run_arms(model, prompts, pushes, shown_pushes=, arms=, scale=)`; in parts `plan_arms` and `gather`. `pushes`
maps an instruction to its interventions: `found.pushes(vectors)`, or `recommended_pushes(vectors)` from the headers.
"""

from __future__ import annotations

from steerlab.instructions.application import KINDS, Application, Pushes, projections, target
from steerlab.instructions.asking import GREEDY, SCALE, ask, pushed
from steerlab.instructions.ends import end_activations, prompt_ends
from steerlab.instructions.fit import AGAINST, fit_instructions
from steerlab.instructions.forms import CHAT, FORMS, QA, Form, find_form
from steerlab.instructions.four_arms import FOUR, ArmAnswers, gather, plan_arms, run_arms
from steerlab.instructions.keeping import load_instruction_vectors, save_instructions
from steerlab.instructions.pairs import Pairs, build_pairs, pair_name, pairs_of
from steerlab.instructions.selection import (
    Attempt,
    CellSelection,
    cells_of,
    choose_cells,
    plan_trials,
    recommended_pushes,
    reference_perplexity,
    select_cells,
    tables_of,
)

__all__ = [
    "AGAINST",
    "CHAT",
    "FORMS",
    "FOUR",
    "GREEDY",
    "KINDS",
    "QA",
    "SCALE",
    "Application",
    "ArmAnswers",
    "Attempt",
    "CellSelection",
    "Form",
    "Pairs",
    "Pushes",
    "ask",
    "build_pairs",
    "cells_of",
    "choose_cells",
    "end_activations",
    "find_form",
    "fit_instructions",
    "gather",
    "load_instruction_vectors",
    "pair_name",
    "pairs_of",
    "plan_arms",
    "plan_trials",
    "projections",
    "prompt_ends",
    "pushed",
    "recommended_pushes",
    "reference_perplexity",
    "run_arms",
    "save_instructions",
    "select_cells",
    "tables_of",
    "target",
]
