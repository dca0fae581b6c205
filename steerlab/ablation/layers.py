"""Layer ablation: what a block's attention, MLP or whole contribution is worth.

It is replaced by nothing, by its mean, or by what it does in another text.
BOS is left alone: its activations are the same in every text, so mean and resampling would not change them anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.ablation.edited import UNEDITED, Editor, Readouts, edited_texts, own_tokens, text_rows
from steerlab.batch import Batch, left_pad
from steerlab.capture import capture_moments
from steerlab.errors import SteerlabError
from steerlab.model import Edit, TracedModel
from steerlab.moments import Moments
from steerlab.templates import leading_bos
from steerlab.types import Site

Part = Literal["attn_out", "mlp_out", "block"]
How = Literal["zero", "mean", "resample"]
PARTS: tuple[Part, ...] = get_args(Part)
HOWS: tuple[How, ...] = get_args(How)


@dataclass(frozen=True)
class LayerAblation:
    """One part of one block, replaced. "block" is all the block adds: its output minus its input."""

    layer: int
    part: Part = "block"
    how: How = "mean"

    def __post_init__(self) -> None:
        if self.part not in PARTS or self.how not in HOWS:
            raise SteerlabError(
                f"part {self.part!r} replaced by {self.how!r} was asked for: give a part of {', '.join(PARTS)} "
                f"and one of {', '.join(HOWS)}."
            )

    @property
    def sites(self) -> tuple[Site, ...]:
        """What has to be known of the part: its own output, or the block's input and output."""
        return block_ends(self.layer) if self.part == "block" else (Site(self.layer, self.part),)

    def __str__(self) -> str:
        return f"{self.how} {self.part} {self.layer}"


def block_ends(layer: int) -> tuple[Site, Site]:
    """The block's input and its output."""
    return Site(layer, "resid_pre"), Site(layer, "resid_post")


def every_part(n_layers: int, parts: Sequence[Part] = PARTS, hows: Sequence[How] = HOWS) -> list[LayerAblation]:
    """Every part of every block, replaced in every way."""
    return [LayerAblation(layer, part, how) for how in hows for part in parts for layer in range(n_layers)]


def part_means(model: TracedModel, texts: Sequence[str], ablations: Sequence[LayerAblation]) -> Moments:
    """Means over the tokens of reference texts at all sites the ablations need, BOS left out. Texts beyond the context
    are cut.
    """
    sites = model.layout.order([site for one in ablations for site in one.sites])
    return capture_moments(model, texts, sites, max_tokens=model.context_length)


def donors(n: int, seed: int = 0) -> list[int]:
    """For each of `n` texts another one to take activations from, each lending once. Raises `SteerlabError` below two."""
    if n < 2:
        raise SteerlabError(f"{n} texts were given: resampling takes activations from another text, give at least two.")
    order = np.random.default_rng(seed).permutation(n)
    found = np.empty(n, dtype=np.int64)
    found[order] = np.roll(order, -1)
    return found.tolist()


class Lending:
    """What the donors of a batch do at some sites, read in one pass and kept until the next batch asks.

    A token takes the donor's activation at its own place; a donor too short starts again behind its BOS.
    """

    def __init__(
        self, model: TracedModel, rows: Sequence[Sequence[int]], donor: Sequence[int], sites: Sequence[Site]
    ) -> None:
        if len(donor) != len(rows) or not all(0 <= d < len(rows) for d in donor):
            raise SteerlabError(f"{len(donor)} donors were given for {len(rows)} texts: give each the number of one.")
        self.model, self.rows, self.donor, self.sites = model, rows, donor, tuple(sites)
        self.first = int(leading_bos(model.tokenizer) is not None)
        self.known: tuple[tuple[int, ...], dict[Site, Tensor]] = ((), {})

    def at(self, site: Site, batch: Batch, members: Sequence[int]) -> Float[Tensor, "b s d"]:
        """The donors' activations, in the places of the batch's own tokens."""
        if self.known[0] != tuple(members):
            self.known = tuple(members), self._read(batch, members)
        return self.known[1][site]

    def _read(self, batch: Batch, members: Sequence[int]) -> dict[Site, Tensor]:
        lent = left_pad([self.rows[self.donor[i]] for i in members], self.model.pad_id)
        seen = self.model.forward(lent, read=self.sites)
        size = lent.attention_mask.sum(1, keepdim=True).to(batch.input_ids)
        place, first = batch.position_ids, self.first
        wrapped = first + (place - first) % (size - first).clamp(min=1)
        column = torch.where(place < size, place, wrapped) + lent.input_ids.shape[1] - size
        rows = torch.arange(len(members), device=column.device)[:, None]
        return {site: seen[site][rows, column] for site in self.sites}


def ablation_editor(
    model: TracedModel, ablation: LayerAblation, means: Moments | None = None, lending: Lending | None = None
) -> Editor:
    """The ablation as an editor; "mean" needs the means of its sites, "resample" somebody who lends."""
    ends, whole = block_ends(ablation.layer), ablation.part == "block"

    def instead(site: Site, batch: Batch, members: Sequence[int]) -> Tensor:
        if ablation.how == "mean":
            assert means is not None
            return means.site(site).mean[0].to(model.device)
        assert lending is not None
        return lending.at(site, batch, members)

    def edits(batch: Batch, members: Sequence[int]) -> Mapping[Site, Edit]:
        mask = own_tokens(model, batch)[..., None]
        if ablation.how == "zero":
            new = torch.zeros(model.d_model, device=model.device)
        elif whole:
            new = instead(ends[1], batch, members) - instead(ends[0], batch, members)
        else:
            new = instead(ablation.sites[0], batch, members)
        if not whole:
            return {ablation.sites[0]: lambda h: torch.where(mask, new.to(h), h)}
        entered: list[Tensor] = []

        def keep(h: Tensor) -> Tensor:
            entered[:] = [h]
            return h

        return {ends[0]: keep, ends[1]: lambda h: torch.where(mask, entered[0] + new.to(h), h)}

    return edits


def layer_effects(
    model: TracedModel,
    texts: Sequence[str],
    ablations: Sequence[LayerAblation],
    *,
    reference: Sequence[str] | None = None,
    donor: Sequence[int] | None = None,
    readouts: Readouts | None = None,
    seed: int = 0,
    token_budget: int = 4096,
) -> pd.DataFrame:
    """One row per ablation and text: loss, loss_change and kl in nats per token, and the readouts' projections; the rows
    of layer -1 are the unedited model.

    reference: other texts whose means replace what is mean-ablated. donor: for every text the number of the one whose
    activations replace what is resampled (default: `donors`). Readouts and numbers: see `edited_texts`.

    Raises `SteerlabError` where mean ablation has no reference, for a layer the model does not have, and for
    attn_out or mlp_out of a model whose blocks do not simply add them.
    """
    wanted = {how: [one for one in ablations if one.how == how] for how in HOWS}
    model.check_sites([site for one in ablations for site in one.sites])
    if wanted["mean"] and not reference:
        raise SteerlabError("mean ablation was asked for without reference texts: give texts to take the means from.")
    means = part_means(model, reference or [], wanted["mean"]) if wanted["mean"] else None
    lending = None
    if wanted["resample"]:
        rows = text_rows(model, texts)
        sites = model.layout.order([site for one in wanted["resample"] for site in one.sites])
        lending = Lending(model, rows, donors(len(texts), seed) if donor is None else donor, sites)
    editors = {str(one): ablation_editor(model, one, means, lending) for one in ablations}
    table = edited_texts(model, texts, editors, readouts=readouts, token_budget=token_budget)
    facts = {UNEDITED: (-1, "none", "none")} | {str(one): (one.layer, one.part, one.how) for one in ablations}
    for place, column in enumerate(("layer", "part", "how")):
        table.insert(place, column, [facts[name][place] for name in table["condition"]])
    return table.drop(columns="condition")
