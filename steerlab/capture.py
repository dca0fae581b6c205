"""Read the residual stream of many texts: streaming moments in one pass, or the activations themselves in a
memory-mapped file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from steerlab.batch import Batch, left_pad, plan_batches
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.moments import Moments, MomentsAccumulator
from steerlab.provenance import Provenance
from steerlab.templates import leading_bos
from steerlab.types import ALL, Positions, Site

Weighting = Literal["token", "text"]
Pooling = Literal["mean", "last", "tokens"]
FileType = Literal["float32", "float16"]


def all_layers(model: TracedModel) -> tuple[Site, ...]:
    """`resid_post` of every block."""
    return tuple(Site(layer) for layer in range(model.n_layers))


@dataclass(frozen=True)
class Selection:
    """The token rows of the texts and which of their tokens count."""

    rows: list[list[int]]
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
    rows = model.token_rows(texts, chat)
    if max_tokens is not None and max_tokens < 1:
        raise SteerlabError(f"max_tokens is {max_tokens}: give at least 1, or None to cut nothing.")
    if max_tokens is not None:
        rows = [row[:max_tokens] for row in rows]
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


def _choice(name: str, given: str, known: object) -> None:
    if given not in get_args(known):
        raise SteerlabError(f"{name} {given!r} is not known: give one of {', '.join(get_args(known))}.")


def _passes(
    model: TracedModel, picked: Selection, token_budget: int, progress: bool, what: str
) -> Iterator[tuple[list[int], Batch, Bool[Tensor, "b s"]]]:
    """Length-bucketed batches with their masks, behind a progress bar that counts tokens."""
    lengths = [len(row) for row in picked.rows]
    with tqdm(total=sum(lengths), unit="tok", unit_scale=True, desc=what, disable=not progress) as bar:
        for members in plan_batches(lengths, token_budget):
            batch, mask = picked.batch(members, model.pad_id)
            yield members, batch.to(model.device), mask.to(model.device)
            bar.update(sum(lengths[i] for i in members))


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
    activations (naming the site and a text).
    """
    _choice("weighting", weighting, Weighting)
    chosen = all_layers(model) if sites is None else tuple(sites)
    model.check_sites(chosen)
    picked = select(model, texts, positions, chat, skip_bos, max_tokens)
    total = MomentsAccumulator(chosen, model.d_model, covariance, model.device)
    index = {site: k for k, site in enumerate(chosen)}
    for members, batch, mask in _passes(model, picked, token_budget, progress, "capture"):
        if not bool(mask.any()):
            continue
        share = (1.0 / mask.sum(1).clamp(min=1))[:, None].expand_as(mask)[mask] if weighting == "text" else None

        def add(site: Site, h: Tensor, mask: Tensor = mask, share: Tensor | None = share) -> None:
            total.update(index[site], h[mask], share)

        try:
            model.forward(batch, read=chosen, visit=add)
        except SteerlabError as error:
            raise SteerlabError(f"{error} First text of the batch: {texts[members[0]][:60]!r}.") from error
    return total.result()


@dataclass(frozen=True)
class Activations:
    """Activations on disk, memory-mapped: `values[i]` is (k d) for pooled texts; for pooling "tokens" rows
    `offsets[i]:offsets[i+1]` are text i.
    """

    path: Path
    sites: tuple[Site, ...]
    offsets: np.ndarray
    values: np.ndarray

    def site(self, site: Site) -> np.ndarray:
        """(n d) at one site, still mapped from disk."""
        return self.values[:, self.sites.index(site)]

    @staticmethod
    def open(path: str | Path) -> Activations:
        """Map a file written by `capture_activations`. Raises `SteerlabError` when it is not one."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size)) if 0 < size < 100_000_000 else None
            facts = json.loads(header["__metadata__"]["steerlab"])
            entry = header["activations"]
            start, stop = entry["data_offsets"]
            dtype = {"F32": np.float32, "F16": np.float16}[entry["dtype"]]
            if path.stat().st_size != 8 + size + stop:
                raise ValueError("its size is not what its header says")
            values = np.memmap(path, dtype=dtype, mode="r", offset=8 + size + start, shape=tuple(entry["shape"]))
            return Activations(path, tuple(Site(*s) for s in facts["sites"]), np.asarray(facts["offsets"]), values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SteerlabError(f"{path} is not a readable activations file ({error}): capture it again.") from error


def capture_activations(
    model: TracedModel,
    texts: Sequence[str],
    path: str | Path,
    sites: Sequence[Site] | None = None,
    *,
    pooling: Pooling = "mean",
    positions: Positions | str = ALL,
    dtype: FileType = "float32",
    chat: bool = False,
    skip_bos: bool = True,
    max_tokens: int | None = None,
    token_budget: int = 4096,
    progress: bool = False,
) -> Activations:
    """Write the activations of every text to one safetensors file and map it.

    pooling "mean": mean over the chosen tokens, (n k d). "last": the last chosen token. "tokens": every chosen
    token, (tokens k d), text by text. The file appears whole or not at all.

    Raises `SteerlabError` as `capture_moments` does, and for a text none of whose tokens is chosen.
    """
    _choice("pooling", pooling, Pooling)
    _choice("dtype", dtype, FileType)
    chosen = all_layers(model) if sites is None else tuple(sites)
    if not chosen or len(set(chosen)) != len(chosen):
        raise SteerlabError(
            f"{len(chosen)} sites were given, {len(set(chosen))} of them different: name at least one site, each once."
        )
    model.check_sites(chosen)
    picked = select(model, texts, positions, chat, skip_bos, max_tokens)
    counts = np.zeros(len(texts), dtype=np.int64)
    for i in range(len(texts)):
        counts[i] = int(picked.batch([i], model.pad_id)[1].sum())
        if counts[i] == 0:
            raise SteerlabError(
                f"no token of the text {texts[i][:60]!r} is at positions {picked.positions}: choose other positions."
            )
    widths = counts if pooling == "tokens" else np.ones_like(counts)
    offsets = np.concatenate([[0], np.cumsum(widths)])
    shape = (int(offsets[-1]), len(chosen), model.d_model)
    limit = float(np.finfo(dtype).max)
    record = {
        "sites": [list(s) for s in chosen],
        "offsets": offsets.tolist(),
        "pooling": pooling,
        "model": model.name,
        "revision": model.revision,
    }

    def fill(values: np.ndarray) -> None:
        for members, batch, mask in _passes(model, picked, token_budget, progress, "activations"):

            def keep(site: Site, h: Tensor, members: list[int] = members, mask: Tensor = mask) -> None:
                k = chosen.index(site)
                for r, i in enumerate(members):
                    rows = h[r][mask[r]].float()
                    rows = rows.mean(0, keepdim=True) if pooling == "mean" else rows[-1:] if pooling == "last" else rows
                    if not bool((rows.abs() <= limit).all()):  # NaN fails too
                        raise SteerlabError(
                            f"an activation at {site.stream} of layer {site.layer} is NaN or too large for {dtype}: store float32, "
                            f"or run the model in float32 or bfloat16. The text is {texts[i][:60]!r}."
                        )
                    values[offsets[i] : offsets[i + 1], k] = rows.cpu().numpy()

            model.forward(batch, read=chosen, visit=keep)

    write_mapped(Path(path), shape, dtype, record, fill)
    return Activations.open(path)


def write_mapped(
    path: Path,
    shape: tuple[int, ...],
    dtype: str,
    record: Mapping[str, object],
    fill: Callable[[np.ndarray], None],
) -> None:
    """Write one safetensors file with the tensor "activations" through a memory map, then rename it into place."""
    code, item = {"float32": ("F32", 4), "float16": ("F16", 2)}[dtype]
    size = int(np.prod(shape)) * item
    header = json.dumps(
        {
            "__metadata__": {"steerlab": json.dumps(dict(record))},
            "activations": {"dtype": code, "shape": list(shape), "data_offsets": [0, size]},
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            # Real space and not a hole: on a full disk, writing into a mapped hole kills the process (SIGBUS). Not on macOS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, 8 + len(header) + size)
            else:
                file.truncate(8 + len(header) + size)
        values = np.memmap(temporary, dtype=dtype, mode="r+", offset=8 + len(header), shape=shape)
        fill(values)
        values.flush()
        os.replace(temporary, path)
    except OSError as error:
        raise SteerlabError(
            f"{path} could not be written ({error.strerror}): choose a folder you may write to, with enough space."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


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
