"""The activations themselves, on disk: one memory-mapped safetensors file per capture."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from steerlab.capture import Selection, all_layers, choice, read_texts, select
from steerlab.disk import sync_folder
from steerlab.errors import SteerlabError
from steerlab.model import TracedModel
from steerlab.records import from_json
from steerlab.schema import upgraded
from steerlab.types import ALL, Positions, Site

Pooling = Literal["mean", "last", "tokens"]
FileType = Literal["float32", "float16"]
SCHEMA = 1
STEPS = {0: lambda facts: {**facts, "sha256": ""}}  # layout 0 had neither a number nor a checksum
_STRETCH = 1 << 24  # bytes


@dataclass(frozen=True)
class Activations:
    """Activations on disk, memory-mapped: `values[i]` is (k d) for pooled texts; for pooling "tokens" rows
    `offsets[i]:offsets[i+1]` are text i. `sha256` is that of the values, "" in files that were written without it.
    """

    path: Path
    sites: tuple[Site, ...]
    offsets: np.ndarray
    values: np.ndarray
    sha256: str = ""

    def verify(self) -> None:
        """Read all values once. Raises `SteerlabError` where they are not what was written."""
        if self.sha256 and _digest(self.values) != self.sha256:
            raise SteerlabError(
                f"the activations in {self.path} were changed after they were written: capture them again."
            )

    def site(self, site: Site) -> np.ndarray:
        """(n d) at one site, still mapped from disk."""
        return self.values[:, self.sites.index(site)]

    @staticmethod
    def open(path: str | Path) -> Activations:
        """Map a file written by `capture_activations`; `verify` tells whether its values are as they were.

        Raises `SteerlabError` when it is not one, or of a newer layout.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header: Any = from_json(file.read(size)) if 0 < size < 100_000_000 else None
            facts = from_json(header["__metadata__"]["steerlab"])
            if not isinstance(facts, dict):
                raise TypeError("its record is no object")
            facts = upgraded(path, "file of activations", facts, facts.get("schema", 0), SCHEMA, STEPS)
            entry = header["activations"]
            start, stop = entry["data_offsets"]
            dtype = {"F32": np.float32, "F16": np.float16}[entry["dtype"]]
            if path.stat().st_size != 8 + size + stop:
                raise ValueError("its size is not what its header says")
            values = np.memmap(path, dtype=dtype, mode="r", offset=8 + size + start, shape=tuple(entry["shape"]))
            sites, offsets = tuple(Site(*s) for s in facts["sites"]), np.asarray(facts["offsets"])
            whole = (
                values.ndim == 3 and len(sites) == values.shape[1] and offsets.ndim == 1 and offsets.dtype.kind == "i"
            )
            if not (
                whole
                and offsets.size
                and offsets[0] == 0
                and offsets[-1] == len(values)
                and (np.diff(offsets) >= 0).all()
            ):
                raise ValueError("its sites and offsets do not fit its values")
            return Activations(path, sites, offsets, values, facts["sha256"])
        except SteerlabError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
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
    choice("pooling", pooling, Pooling)
    choice("dtype", dtype, FileType)
    chosen = all_layers(model) if sites is None else tuple(sites)
    if not chosen or len(set(chosen)) != len(chosen):
        raise SteerlabError(
            f"{len(chosen)} sites were given, {len(set(chosen))} of them different: name at least one site, each once."
        )
    model.check_sites(chosen)
    picked = select(model, texts, positions, chat, skip_bos, max_tokens)
    counts = _counts(picked, texts)
    widths = counts if pooling == "tokens" else np.ones_like(counts)
    offsets = np.concatenate([[0], np.cumsum(widths)])
    record = {
        "sites": [list(s) for s in chosen],
        "offsets": offsets.tolist(),
        "pooling": pooling,
        "model": model.name,
        "revision": model.revision,
    }

    def fill(values: np.ndarray) -> None:
        def keep(site: Site, h: Tensor, members: Sequence[int], mask: Tensor) -> None:
            k = chosen.index(site)
            for r, i in enumerate(members):
                rows = _pooled(h[r][mask[r]].float(), pooling).cpu().numpy()
                if not (np.abs(rows) <= np.finfo(dtype).max).all():  # NaN fails too
                    raise SteerlabError(
                        f"an activation at {site.stream} of layer {site.layer} is NaN or too large for {dtype}: store float32, "
                        f"or run the model in float32 or bfloat16. The text is {texts[i][:60]!r}."
                    )
                values[offsets[i] : offsets[i + 1], k] = rows

        read_texts(model, picked, chosen, keep, token_budget, progress, "activations")

    write_mapped(Path(path), (int(offsets[-1]), len(chosen), model.d_model), dtype, record, fill)
    return Activations.open(path)


def _counts(picked: Selection, texts: Sequence[str]) -> np.ndarray:
    """How many tokens of each text are chosen; a text with none is refused."""
    counts = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        counts[i] = int(picked.batch([i], 0)[1].sum())
        if counts[i] == 0:
            raise SteerlabError(
                f"no token of the text {text[:60]!r} is at positions {picked.positions}: choose other positions."
            )
    return counts


def _pooled(rows: Float[Tensor, "n d"], pooling: Pooling) -> Float[Tensor, "m d"]:
    return {"mean": rows.mean(0, keepdim=True), "last": rows[-1:], "tokens": rows}[pooling]


def _digest(values: np.ndarray) -> str:
    """SHA-256 of the values, a stretch of rows at a time."""
    found, rows = hashlib.sha256(), max(1, _STRETCH // max(1, values[:1].nbytes))
    for at in range(0, len(values), rows):
        found.update(np.ascontiguousarray(values[at : at + rows]).data)
    return found.hexdigest()


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
    tensor = {"dtype": code, "shape": list(shape), "data_offsets": [0, size]}

    def head(sha256: str) -> bytes:
        facts = json.dumps({**record, "schema": SCHEMA, "sha256": sha256})
        made = json.dumps({"__metadata__": {"steerlab": facts}, "activations": tensor}).encode()
        return made + b" " * (-len(made) % 8)

    header = head("0" * 64)  # as long as the one with the checksum, which takes its place at the end
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
        with temporary.open("r+b") as file:
            file.seek(8)
            file.write(head(_digest(values)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise SteerlabError(
            f"{path} could not be written ({error.strerror}): choose a folder you may write to, with enough space."
        ) from error
    finally:
        with suppress(OSError):  # it cannot be there where its folder cannot be
            temporary.unlink(missing_ok=True)
