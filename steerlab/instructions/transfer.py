"""Vectors of one model on another: carried over where the two share a space, mapped linearly where they do not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.capture import provenance
from steerlab.errors import SteerlabError
from steerlab.instructions.ends import end_activations, prompt_ends
from steerlab.instructions.forms import CHAT, Form
from steerlab.model import TracedModel
from steerlab.projections import Projections
from steerlab.vectors import SteeringVector

MapKind = Literal["ridge", "procrustes"]
PENALTIES = np.logspace(-4, 4, 17)  # of the mean variance of a feature


def carry(
    vectors: Mapping[str, SteeringVector], model: TracedModel, allow: Collection[str] = ()
) -> dict[str, SteeringVector]:
    """The vectors of a model of equal width, as vectors of this one (an instruct model's on its base, say), projections included.

    Their choices of layer and strength go: search them again on this model (`select_cells`). Raises `SteerlabError` for another width, a
    layer this model does not have, and another vocabulary, unless `allow` names "tokenizer": ends of prompts may then mean
    something else.
    """
    unknown = set(allow) - {"tokenizer"}
    if unknown:
        raise SteerlabError(f"allow={sorted(unknown)} was given: only 'tokenizer' can be overridden.")
    mine = provenance(model, {})
    found = {}
    for name, vector in vectors.items():
        own = vector.provenance
        vector.check(model.name, model.revision, model.d_model, model.n_layers, allow=("model", "revision"))
        if own.tokenizer_hash != mine.tokenizer_hash and "tokenizer" not in allow:
            raise SteerlabError(
                f"vector {name!r} was fitted on {own.model or 'a model not recorded'} with another vocabulary than {model.name} has: "
                "allow 'tokenizer' if the two end a prompt alike, or map the vector (fit_map)."
            )
        record = replace(
            own, model=mine.model, revision=mine.revision, tokenizer_hash=mine.tokenizer_hash, dtype=mine.dtype,
            method=f"{own.method}, carried from {own.model}",
        )  # fmt: skip
        found[name] = replace(vector, choice=None, provenance=record)
    return found


@dataclass(frozen=True, eq=False)
class LayerMap:
    """A linear map between the streams of two models, layer by layer of the target.

    `weight` "l d e": what a difference of the donor's activations (d) becomes in the target (e), row i from the donor's layer `donor[i]`
    into the target's layer i. `fit`: layer, donor layer, r2 (share of the target's variance that is predicted on texts held out), cosine
    (mean, of predicted and true activations around the mean), r2_shuffled (the same map fitted on texts paired at random).
    """

    weight: Float[Tensor, "l d e"]
    donor: tuple[int, ...]
    fit: pd.DataFrame
    kind: MapKind
    names: tuple[str, str]

    def _repr_html_(self) -> str:
        head = f"<p>{self.kind} map from {self.names[0]} to {self.names[1]}, on texts held out</p>"
        return head + self.fit.to_html(index=False, float_format=lambda x: f"{x:.2f}", border=0)


def fit_map(
    donor: TracedModel,
    model: TracedModel,
    texts: Sequence[str],
    *,
    kind: MapKind = "ridge",
    donor_form: Form = CHAT,
    form: Form = CHAT,
    last: int = 1,
    groups: Sequence[str] | None = None,
    held_out: float = 0.25,
    seed: int = 0,
    token_budget: int = 4096,
    progress: bool = False,
) -> LayerMap:
    """Learn, from the ends of the same texts in both models, what an activation of one is in the other.

    Each layer of `model` is predicted from the layer of `donor` at the same relative depth. "ridge": least squares with the penalty that
    leave-one-out prefers. "procrustes": an orthogonal map (rows of equal length where widths differ) and one scale. Give prompts with
    and without instructions, so that what tells them apart is in the texts. `held_out`: the share of texts the fit is measured on;
    the map itself is then fitted on all. Raises `SteerlabError` for fewer than eight texts and an unknown kind.
    """
    if kind not in ("ridge", "procrustes"):
        raise SteerlabError(f"kind {kind!r} is not known: give 'ridge' or 'procrustes'.")
    if groups is not None and len(groups) != len(texts):
        raise SteerlabError(f"{len(texts)} texts and {len(groups)} groups were given: give one group per text.")
    group = dict(zip(texts, texts if groups is None else groups, strict=True))
    own, rng = list(group), np.random.default_rng(seed)
    names = np.array(sorted(set(group.values())))
    out = set(rng.permutation(names)[: round(held_out * len(names))].tolist())
    test, train = (
        np.array([i for i, text in enumerate(own) if (group[text] in out) is side], dtype=int) for side in (True, False)
    )
    if len(train) < 6 or len(test) < 2:
        raise SteerlabError(
            f"{len(own)} texts of {len(names)} groups were given, {len(test)} texts held out: give at least eight, and hold out some."
        )
    common: dict[str, Any] = {"last": last, "token_budget": token_budget, "progress": progress}
    x = end_activations(donor, own, form=donor_form, **common).double().numpy()
    y = end_activations(model, own, form=form, **common).double().numpy()
    mixed = rng.permutation(train)
    deepest = max(model.n_layers - 1, 1)
    pairs = tuple(round(layer * (donor.n_layers - 1) / deepest) for layer in range(model.n_layers))
    weights, rows = [], []
    for layer, source in enumerate(pairs):
        a, b = x[:, source], y[:, layer]
        told = _score(_weight(a[train], b[train], kind), a, b, train, test)
        noise = _score(_weight(a[train], b[mixed], kind), a, b, train, test)
        rows.append((layer, source, *told, noise[0]))
        weights.append(torch.from_numpy(_weight(a, b, kind)))
    table = pd.DataFrame(rows, columns=["layer", "donor_layer", "r2", "cosine", "r2_shuffled"])
    return LayerMap(torch.stack(weights), pairs, table, kind, (donor.name, model.name))


def map_vectors(
    vectors: Mapping[str, SteeringVector],
    learned: LayerMap,
    model: TracedModel,
    bare: Sequence[str],
    *,
    form: Form = CHAT,
    last: int = 1,
    token_budget: int = 4096,
) -> dict[str, SteeringVector]:
    """The vectors in the target's space. Where its prompts lie along them is measured on `bare`, prompts without an instruction; where
    they lie with one is that plus the mapped difference, which nothing on this model has confirmed.

    Raises `SteerlabError` for another donor than the map's, and a vector without a layer the map reads.
    """
    if model.name != learned.names[1]:
        raise SteerlabError(
            f"the map leads to {learned.names[1]} and {model.name} was given: give the model it was fitted for."
        )
    ends = prompt_ends(
        model, bare, torch.full((1, len(bare)), 1 / len(bare)), form=form, last=last, token_budget=token_budget
    )
    mine, found = provenance(model, {}), {}
    for name, vector in vectors.items():
        if vector.provenance.model != learned.names[0] or vector.d_model != learned.weight.shape[1]:
            raise SteerlabError(
                f"vector {name!r} is of {vector.provenance.model or 'no recorded model'}, and the map reads {learned.names[0]}: "
                "fit the map from the model the vector was fitted on."
            )
        raw = torch.stack(
            [vector.raw(source).double() @ w for source, w in zip(learned.donor, learned.weight, strict=True)]
        )
        record = replace(
            mine, data=vector.provenance.data, positions=vector.provenance.positions, seed=vector.provenance.seed
        )
        method = f"{vector.provenance.method}, mapped ({learned.kind}) from {learned.names[0]}"
        made = SteeringVector.from_raw(
            name,
            raw,
            tuple(range(model.n_layers)),
            residual_norm=ends.norm,
            counts=vector.counts,
            provenance=record.by(method),
        )
        along = (ends.means[0] * made.direction.double()).sum(-1)
        sides = (tuple((along + made.raw_norm.double()).tolist()), tuple(along.tolist()))
        found[name] = replace(made, projections=Projections(*sides))
    return found


def _weight(a: np.ndarray, b: np.ndarray, kind: MapKind) -> np.ndarray:
    """The map "d e" between activations taken from their means."""
    x, y = a - a.mean(0), b - b.mean(0)
    if kind == "procrustes":
        u, s, v = np.linalg.svd(x.T @ y, full_matrices=False)
        return s.sum() / ((x @ u @ v) ** 2).sum() * (u @ v)
    from sklearn.linear_model import RidgeCV  # slow to import, and nothing else here needs it

    fit = RidgeCV(alphas=PENALTIES * float(x.var(0).mean()) * len(x), fit_intercept=False).fit(x, y)
    return np.asarray(fit.coef_).T


def _score(
    weight: np.ndarray, a: np.ndarray, b: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[float, float]:
    """Share of the variance predicted, and mean cosine, on held-out texts, both sides taken from the means of the others."""
    x, y = a[test] - a[train].mean(0), b[test] - b[train].mean(0)
    guess = x @ weight
    r2 = 1 - float(((y - guess) ** 2).sum() / (y**2).sum())
    size = np.linalg.norm(guess, axis=1) * np.linalg.norm(y, axis=1)
    cosine = np.divide((guess * y).sum(1), size, out=np.full(len(y), np.nan), where=size > 0)
    return r2, float(np.nanmean(cosine))
