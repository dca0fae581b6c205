"""`steerlab vectors import`, `export`, `push` and `pull`: vectors from and to other programs and the hub."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from steerlab.data import read_texts
from steerlab.errors import SteerlabError
from steerlab.interop.exchange import export_vector, import_vectors
from steerlab.interop.foreign import placed
from steerlab.interop.hub import pull, push_to_hub
from steerlab.loading import load
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set

MOST = 10_000


def layers_of(given: str) -> tuple[int, ...]:
    """Layers written as 3, 0-5 or 0-5,9. Raises `SteerlabError` for anything else."""
    found: list[int] = []
    for part in filter(None, given.replace(" ", "").split(",")):
        ends = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if ends is None:
            raise SteerlabError(f"layers {given!r} can not be read: write 3, 0-5, or 0-5,9.")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    if len(found) > MOST:
        raise SteerlabError(f"layers {given!r} are {len(found)}: no model has so many.")
    return tuple(found)


def bring(
    file: Path, out: Path, layers: str, embedding_first: bool, model: str, texts: Path | None, column: str
) -> tuple[list[str], str]:
    """Import a file of another program into the folder `out`; returns the vectors' keys and the sentence to print."""
    if texts is not None and not model:
        raise SteerlabError("--texts measures the stream of a model: name it with --model.")
    found = import_vectors(file, layers=layers_of(layers), embedding_first=embedding_first)
    if model:
        traced = load(model)
        measured = list(read_texts(texts, column)) if texts is not None else []
        found = {name: placed(vector, traced, measured) for name, vector in found.items()}
    keys = _keys(list(found))
    save_set(dict(zip(keys, found.values(), strict=True)), out)
    whose = f"of {model}" if model else "of a model that is not recorded (name it with --model to steer with them)"
    return keys, f"{len(found)} vectors {whose} in {out}; look at them: steerlab vectors show {out}"


def send(
    where: Path, key: str, out: Path, format: str, layers: str, scale: str, coefficient: float, hint: str, blocks: str
) -> str:
    """Export one vector, of a file or a folder, and say what was written."""
    vector = _one(where, key)
    chosen = layers_of(layers)
    path = export_vector(
        vector, out, format, layers=chosen, scale=scale, coefficient=coefficient, hint=hint, blocks=blocks
    )
    return f"{vector.name} at layers {', '.join(map(str, chosen or vector.layers))} as {format}: {path}"


def share(where: Path, repo_id: str, licence: str, public: bool) -> str:
    """Upload a vector file or a folder of vectors with its card; returns the address."""
    vectors = {where.stem: SteeringVector.load(where)} if where.is_file() else load_set(where)
    return push_to_hub(vectors, repo_id, licence=licence, private=not public)


def fetch(repo_id: str, out: Path, revision: str) -> str:
    """Fetch vectors into `out`; returns the sentence that pins them."""
    commit = pull(repo_id, out, revision=revision)
    return f"{repo_id} at commit {commit} in {out}; the same again: steerlab vectors pull {repo_id} --revision {commit} --out {out}"


def _one(where: Path, key: str) -> SteeringVector:
    if where.is_file():
        return SteeringVector.load(where)
    vectors = load_set(where)
    if not key and len(vectors) == 1:
        return next(iter(vectors.values()))
    if key not in vectors:
        raise SteerlabError(f"{where} has the vectors {', '.join(vectors)}: choose one with --key.")
    return vectors[key]


def _keys(names: list[str]) -> list[str]:
    """The names as file names, each once."""
    plain = [re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".") or "vector" for name in names]
    seen: Counter[str] = Counter()
    for i, key in enumerate(plain):
        seen[key] += 1
        plain[i] = key if seen[key] == 1 else f"{key}-{seen[key]}"
    return plain
