"""Instruction steering: fit a vector per instruction, find where it acts best, write under it, and count what was followed.

After Stolfo et al. 2025 (ICLR, arXiv 2410.12877), with what their issues and reviewers asked for. The path, top to bottom:

    prompts = simple_prompts(split_queries(own_queries())["train"])        # steerlab.following: instruction behind base query
    vectors = fit_instructions(model, pairs_of(prompts))                   # name -> SteeringVector with its `projections`
    found = select_cells(model, vectors, valid_prompts, strengths=(1.0, 2.0), perplexity=reference_perplexity(model))
    vectors = found.chosen(vectors)                                        # the choice in each header; not steering is strength 0
    save_instructions(vectors, "runs/instructions")                        # load_instruction_vectors reads them back
    run = run_arms(model, test_prompts, found.pushes(vectors), arms=ARMS)
    print(run.table); run.followed.changes(); run.quality(embed=...)       # follow rates, gained and lost, McNemar, quality

**Fit**: `Pairs`, `pairs_of(prompts)` or `build_pairs(queries, instruction, kwargs, phrasings=3)`;
`fit_instructions(model, pairs, against="bare" | "others" | "unshared", form=CHAT | QA, last=1, splits=10)`. Each vector has `raw_norm`,
`projections.instructed`, `.bare` and split-half `.reliability`, one number per layer.

**Apply**: `Application(kind="match" | "match_up" | "add" | "subtract", unit=, cap=, gate=, positions=)` turns a vector and a
`Cell(layer, strength)` into interventions: `application.at(vector, cell)`. Several instructions at once: concatenate the tuples.

**Select**: `select_cells(model, vectors, prompts, application, strengths=, layers=, shown=, rule="shrunken" | "paper")`; `shown=True`
chooses for prompts that show the instruction. In parts, for runs that keep their texts: `cells_of`, `plan_trials`, `tables_of`,
`choose_cells`.

**Words**: `keyword_pairs(words, queries)` for a vector per word, and `keyword_placing(vectors)`, which adds it or, to exclude, takes
it away; give that to `select_cells` in place of vectors, and `found.placed(placing)` to `run_arms`.

**Compose**: `compose([Placed(vector, cell, application), ...], orthogonal=)`; `interference(model, {name: Placed}, prompts)` has cosines
and the follow rate of each instruction alone and together, `joined(prompts, cells)` prompts with several instructions.

**Transfer**: `carry(vectors, model)` for a model of equal width and vocabulary, layers searched again there; `fit_map(donor, model, texts,
kind="ridge" | "procrustes")` with its held-out fit and `map_vectors` for others.

**Back off**: a `Request(..., backoff=BackOff(...))` (steerlab.backoff) is weakened where its text begins to repeat itself or becomes
implausible; `sample.lowered` says where.

**Generate and evaluate**: arms are none, random (a push of the same length in a random direction), steered, instructed, both, guided
(classifier-free guidance). `run_arms(model, prompts, pushes, shown_pushes=, arms=, scale=)`; in parts `plan_arms` and `gather`. `pushes`
maps an instruction to its interventions: `found.pushes(vectors)`, or `recommended_pushes(vectors)` from the headers.
"""

from __future__ import annotations

from steerlab.following.arms import ARMS
from steerlab.instructions.application import KINDS, Application, Placing, Pushes, projections, target
from steerlab.instructions.asking import GREEDY, SCALE, ask, pushed
from steerlab.instructions.composition import Interference, Placed, compose, interference
from steerlab.instructions.controls import random_pushes, randomised
from steerlab.instructions.ends import end_activations, prompt_ends
from steerlab.instructions.fit import AGAINST, fit_instructions
from steerlab.instructions.forms import CHAT, FORMS, QA, Form, find_form
from steerlab.instructions.four_arms import FOUR, ArmAnswers, gather, plan_arms, run_arms
from steerlab.instructions.keeping import load_instruction_vectors, save_instructions
from steerlab.instructions.keywords import keyword_pairs, keyword_placing
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
from steerlab.instructions.sources import joined, prompt_source
from steerlab.instructions.transfer import LayerMap, carry, fit_map, map_vectors

__all__ = [
    "AGAINST",
    "ARMS",
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
    "Interference",
    "LayerMap",
    "Pairs",
    "Placed",
    "Placing",
    "Pushes",
    "ask",
    "build_pairs",
    "carry",
    "cells_of",
    "choose_cells",
    "compose",
    "end_activations",
    "find_form",
    "fit_instructions",
    "fit_map",
    "gather",
    "interference",
    "joined",
    "keyword_pairs",
    "keyword_placing",
    "load_instruction_vectors",
    "map_vectors",
    "pair_name",
    "pairs_of",
    "plan_arms",
    "plan_trials",
    "projections",
    "prompt_ends",
    "prompt_source",
    "pushed",
    "random_pushes",
    "randomised",
    "recommended_pushes",
    "reference_perplexity",
    "run_arms",
    "save_instructions",
    "select_cells",
    "tables_of",
    "target",
]
