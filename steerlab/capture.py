"""Read the residual stream of many texts: streaming moments in one pass, or the activations themselves in a
memory-mapped file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from steerlab.batch import Batch, left_pad, plan_batches
from steerlab.errors import SteerlabError
from steerlab.halving import Halving
from steerlab.model import TracedModel
from steerlab.moments import Moments, MomentsAccumulator
from steerlab.provenance import Provenance
from steerlab.templates import leading_bos
from steerlab.types import ALL, Positions, Site

Weighting = Literal["token", "text"]
_CHUNK = 512  # texts tokenised at a time


def all_layers(model: TracedModel) -> tuple[Site, ...]:
    """`resid_post` of every block."""
    return tuple(Site(layer) for layer in range(model.n_layers))


@dataclass(frozen=True)
class Selection:
    """The token rows of the texts and which of their tokens count."""

    rows: Sequence[Sequence[int]]
    prompt_lengths: list[int]
    positions: Positions

    def batch(self, members: Sequence[int], pad_id: int) -> tuple[Batch, Bool[Tensor, "b s"]]:
        """The left-padded batch of these texts, and the mask of the tokens that count."""
        made = left_pad([self.rows[i] for i in members], pad_id, [self.prompt_lengths[i] for i in members])
        return made, self.positions.mask(made.relative, made.input_ids, made.real)


def select(
    model: TracedModel,
    texts: Sequence[str],
    positions: Positions | str,
    chat: bool,
    skip_bos: bool,
    max_tokens: int | None,
) -> Selection:
    """Tokenise, cut to `max_tokens`, and settle which tokens count. Raises `SteerlabError` for a text longer
    than the context.
    """
    if max_tokens is not None and max_tokens < 1:
        raise SteerlabError(f"max_tokens is {max_tokens}: give at least 1, or None to cut nothing.")
    # Arrays, a chunk of texts at a time: the tokenizer's record of a text is some 40 times as large, and would grow with the data.
    chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)] or [texts]
    rows = [array("i", row[:max_tokens]) for chunk in chunks for row in model.token_rows(chunk, chat)]
    for text, row in zip(texts, rows, strict=True):
        if len(row) > model.context_length:
            raise SteerlabError(
                f"a text of {len(row)} tokens ({text[:40]!r}...) does not fit the {model.context_length} positions of {model.name}: "
                f"give max_tokens={model.context_length} to cut long texts, or split them."
            )
    chosen = Positions.parse(positions) if isinstance(positions, str) else positions
    bos = leading_bos(model.tokenizer)
    if skip_bos and bos is not None and bos not in chosen.only_ids:
        chosen = Positions(chosen.start, chosen.stop, chosen.only_ids, (*chosen.skip_ids, bos))
    return Selection(rows, [len(row) for row in rows], chosen)


def choice(name: str, given: str, known: object) -> None:
    """Raise `SteerlabError` unless `given` is one of the words of the Literal `known`."""
    if given not in get_args(known):
        raise SteerlabError(f"{name} {given!r} is not known: give one of {', '.join(get_args(known))}.")


def passes(
    model: TracedModel, picked: Selection, token_budget: int, progress: bool, what: str
) -> Iterator[tuple[list[int], Batch, Bool[Tensor, "b s"]]]:
    """Length-bucketed batches with their masks, behind a progress bar that counts tokens.

    Longest first: what does not fit in memory fails at once and not after an hour, and what malloc freed fits what follows.
    """
    lengths = [len(row) for row in picked.rows]
    with tqdm(total=sum(lengths), unit="tok", unit_scale=True, desc=what, disable=not progress) as bar:
        for members in reversed(plan_batches(lengths, token_budget)):
            batch, mask = picked.batch(members, model.pad_id)
            yield members, batch.to(model.device), mask.to(model.device)
            bar.update(sum(lengths[i] for i in members))


Look = Callable[[Site, Tensor, Sequence[int], Tensor], None]


def read_texts(
    model: TracedModel,
    picked: Selection,
    sites: Sequence[Site],
    look: Look,
    token_budget: int,
    progress: bool,
    what: str,
) -> None:
    """Every text forward once: `look` is told each site in order, its activations (b s d), which texts they are and their mask (b s).

    A batch that does not fit in memory is read again in halves, so `look` may be told sites it has seen.
    """
    memory = Halving("texts")
    for members, whole, whole_mask in passes(model, picked, token_budget, progress, what):

        def read(some: list[int], all: list[int] = members, given: tuple[Batch, Tensor] = (whole, whole_mask)) -> None:
            batch, mask = given if some == all else picked.batch(some, model.pad_id)
            batch, mask = batch.to(model.device), mask.to(model.device)
            if bool(mask.any()):
                model.forward(batch, read=sites, visit=lambda site, h: look(site, h, some, mask))

        memory.run(members, read)


def capture_moments(
    model: TracedModel,
    texts: Sequence[str],
    sites: Sequence[Site] | None = None,
    *,
    positions: Positions | str = ALL,
    weighting: Weighting = "token",
    covariance: bool = False,
    chat: bool = False,
    skip_bos: bool = True,
    max_tokens: int | None = None,
    token_budget: int = 4096,
    progress: bool = False,
) -> Moments:
    """Count, mean and variance (optionally covariance) of the activations at every site, in one pass over the
    texts.

    No LM head is run and the pass stops at the last site. weighting: "token" counts every token once (the mean
    of the low-resource study), "text" counts every text once. positions: which tokens, counted from the end of
    the text; BOS is left out unless skip_bos=False. Memory does not grow with the number of texts.

    Raises `SteerlabError` for no texts, a text too long, a layer the model does not have, or NaN/inf
    activations (naming the site and the text).
    """
    choice("weighting", weighting, Weighting)
    chosen = all_layers(model) if sites is None else tuple(sites)
    model.check_sites(chosen)
    picked = select(model, texts, positions, chat, skip_bos, max_tokens)
    total = MomentsAccumulator(chosen, model.d_model, covariance, model.device)
    index = {site: k for k, site in enumerate(chosen)}
    seen: dict[int, int] = {}  # the last site at which a text of the batch counts already

    def add(site: Site, h: Tensor, members: Sequence[int], mask: Tensor) -> None:
        if members[0] not in seen:
            seen.clear()
        if order[site] <= seen.get(members[0], -1):  # counted by a pass that then ran out of memory
            return
        share = (1.0 / mask.sum(1).clamp(min=1))[:, None].expand_as(mask)[mask] if weighting == "text" else None
        try:
            total.update(index[site], h[mask], share)
        except SteerlabError as error:
            raise SteerlabError(f"{error} The text is {_unsound(texts, members, h, mask)[:60]!r}.") from error
        seen.update(dict.fromkeys(members, order[site]))

    order = {site: place for place, site in enumerate(model.layout.order(chosen))}
    read_texts(model, picked, chosen, add, token_budget, progress, "capture")
    return total.result()


def _unsound(texts: Sequence[str], members: Sequence[int], h: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"]) -> str:
    """The first text of a batch with a chosen activation that is NaN or infinite; the first of all where it is their sum."""
    bad = (mask & ~h.isfinite().all(-1)).any(1)
    return texts[members[int(bad.int().argmax())]]


def texts_digest(texts: Sequence[str]) -> str:
    """SHA-256 of the texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


def provenance(
    model: TracedModel,
    data: Mapping[str, Sequence[str]],
    method: str = "",
    positions: str = "all",
    weighting: str = "token",
    seed: int | None = None,
) -> Provenance:
    """The record that travels with a vector fitted on this model: model, tokenizer, template, data hashes,
    method, versions.
    """
    vocabulary = json.dumps(sorted(model.tokenizer.get_vocab().items())).encode()
    versions = tuple((name, importlib.metadata.version(name)) for name in ("torch", "transformers", "nnsight"))
    return Provenance(
        model=model.name,
        revision=model.revision,
        tokenizer_hash=hashlib.sha256(vocabulary).hexdigest(),
        template_hash=model.template.digest(model.tokenizer),
        dtype=str(model.dtype).removeprefix("torch."),
        data=tuple((name, texts_digest(texts)) for name, texts in data.items()),
        method=method,
        positions=positions,
        weighting=weighting,
        seed=seed,
        versions=versions,
    )
