"""Instruction vectors: the mean difference with and without an instruction at the prompt's end, all layers and instructions at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.capture import provenance, texts_digest
from steerlab.errors import SteerlabError
from steerlab.instructions.ends import prompt_ends
from steerlab.instructions.forms import CHAT, Form
from steerlab.instructions.pairs import Pairs
from steerlab.model import TracedModel
from steerlab.projections import Projections
from steerlab.similarity import spearman_brown
from steerlab.vectors import SteeringVector

Against = Literal["bare", "others", "unshared"]
AGAINST: tuple[Against, ...] = ("bare", "others", "unshared")


def fit_instructions(
    model: TracedModel,
    pairs: Sequence[Pairs],
    *,
    against: Against = "bare",
    form: Form = CHAT,
    last: int = 1,
    splits: int = 10,
    seed: int = 0,
    token_budget: int = 4096,
    progress: bool = False,
) -> dict[str, SteeringVector]:
    """One vector per instruction, at every layer, by its name; every different prompt is read once, all in full batches.

    Per layer u = d / |d| with d the mean over pairs of h(instructed) - h(bare), h the stream behind the block at the last token of
    the formatted prompt (`last` > 1: the mean over so many); the vector keeps |d| as raw norm and, as its `projections`, the mean of
    h.u with the instruction and without (Stolfo et al. 2025, section 2).

    against: "bare" is theirs. Their vectors share a direction that says no more than that some instruction is there; "others" takes
    the mean of the other instructions' d off, "unshared" the part of d along the mean of all d. `splits`: random halves of the base
    queries for the split-half reliability of each layer (0: none); the halves are the same for all instructions.

    Raises `SteerlabError` for no pairs, a name given twice, one instruction where others are needed, a prompt longer than the
    context, and an instruction that changes nothing at some layer.
    """
    names = [own.name for own in pairs]
    if not pairs or len(set(names)) < len(names):
        raise SteerlabError(f"pairs of {names} were given: give at least one instruction, each once.")
    if against not in AGAINST:
        raise SteerlabError(f"against {against!r} is not known: give one of {', '.join(AGAINST)}.")
    if against != "bare" and len(pairs) < 2:
        raise SteerlabError(
            f"one instruction was given, and {against!r} needs others to compare it with: give at least two."
        )
    texts = list(dict.fromkeys(text for own in pairs for text in (*own.instructed, *own.bare)))
    place = {text: number for number, text in enumerate(texts)}
    first = [_halves(pairs, seed, number) for number in range(splits)]
    weights = np.concatenate([_weights(own, place, [half.get(own.name) for half in first]) for own in pairs])
    found = prompt_ends(
        model, texts, torch.from_numpy(weights), form=form, last=last, token_budget=token_budget, progress=progress
    )
    means = found.means.unflatten(0, (len(pairs), 2 + splits))
    instructed, bare = means[:, 0], means[:, 1]
    raw = _contrast(instructed - bare, against)
    reliability = _reliability(instructed - bare, means[:, 2:], first, pairs, against)
    record = provenance(model, {}, f"instruction_vector({against}, {form.name})", f"last:{last}", "text", seed)
    vectors = {}
    for i, own in enumerate(pairs):
        data = tuple((side, texts_digest(list(getattr(own, side)))) for side in ("bare", "instructed"))
        made = SteeringVector.from_raw(
            own.name, raw[i], tuple(range(model.n_layers)), residual_norm=found.norm, counts=(float(len(own)), float(len(own))),
            provenance=replace(record, data=data),
        )  # fmt: skip
        unit = made.direction.double()
        shown, plain = (tuple((side[i] * unit).sum(-1).tolist()) for side in (instructed, bare))
        own_splits = tuple(reliability[i].tolist()) if splits else ()
        vectors[own.name] = replace(made, projections=Projections(shown, plain, own_splits))
    return vectors


def _contrast(d: Float[Tensor, "k l d"], against: Against) -> Float[Tensor, "k l d"]:
    """The raw directions from the mean differences of all instructions."""
    if against == "others":
        return d - (d.sum(0) - d) / (len(d) - 1)
    if against == "unshared":
        shared = d.mean(0) / d.mean(0).norm(dim=-1, keepdim=True)
        return d - (d * shared).sum(-1, keepdim=True) * shared
    return d


def _halves(pairs: Sequence[Pairs], seed: int, number: int) -> dict[str, tuple[int, ...]]:
    """For each instruction the pairs of the first half of a random split of all base queries; none where a half would be empty."""
    groups = sorted({group for own in pairs for group in own.groups})
    rng = np.random.default_rng([seed, number])
    half = {groups[i] for i in rng.permutation(len(groups))[: len(groups) // 2].tolist()}
    found = {own.name: tuple(i for i, group in enumerate(own.groups) if group in half) for own in pairs}
    return {own.name: found[own.name] for own in pairs if 0 < len(found[own.name]) < len(own)}


def _weights(own: Pairs, place: dict[str, int], halves: Sequence[tuple[int, ...] | None]) -> Float[np.ndarray, "r n"]:
    """Rows of weights over all texts: mean with the instruction, mean without, and the mean difference of every first half."""
    rows = np.zeros((2 + len(halves), len(place)))
    for side, sign, row in ((own.instructed, 1.0, 0), (own.bare, -1.0, 1)):
        at = np.array([place[text] for text in side])
        np.add.at(rows[row], at, 1.0 / len(own))
        for number, half in enumerate(halves, 2):
            if half is not None:
                np.add.at(rows[number], at[list(half)], sign / len(half))
    return rows


def _reliability(
    d: Float[Tensor, "k l d"],
    halves: Float[Tensor, "k s l d"],
    first: Sequence[dict[str, tuple[int, ...]]],
    pairs: Sequence[Pairs],
    against: Against,
) -> Float[Tensor, "k l"]:
    """The mean cosine of the two halves' directions over the splits, raised to all pairs; NaN where no split left two halves."""
    total = torch.full((len(first), *d.shape[:2]), math.nan, dtype=torch.float64)
    for number, half in enumerate(first):
        there = [i for i, own in enumerate(pairs) if own.name in half]
        if not there or (against != "bare" and len(there) < 2):
            continue
        share = torch.tensor([len(half[pairs[i].name]) / len(pairs[i]) for i in there], dtype=torch.float64)[
            :, None, None
        ]
        a = halves[there, number]
        b = (d[there] - share * a) / (1 - share)
        total[number, there] = torch.cosine_similarity(_contrast(a, against), _contrast(b, against), dim=-1)
    return spearman_brown(total.nanmean(0))
