"""`steerlab similarity`: how alike saved or freshly fitted vectors are, layer by layer, beside what chance and noise show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from steerlab import clustering, figures, reliability, similarity
from steerlab.bundled.vectors import bundled_vectors
from steerlab.data import read_texts
from steerlab.data.families import LINEAGES, grouping
from steerlab.data.means import mean_vectors
from steerlab.errors import SteerlabError
from steerlab.loading import load
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set

NO_CEILING = "no noise ceiling: it needs the texts (--texts), and these vectors were fitted elsewhere"
WIDE = 14  # vectors whose matrix still fits a terminal


@dataclass(frozen=True)
class Compared:
    """The vectors to compare and, where their texts were at hand, each one's reliability per layer."""

    vectors: dict[str, SteeringVector]
    reliability: dict[str, torch.Tensor] | None = None


def saved(where: Sequence[Path], means: Path | None, only: str) -> Compared:
    """Vectors from files and folders of vectors or from a file of language means, else the bundled ones; `only` is a
    pattern of names. Two of one name are told apart by their folder.
    """
    if means is not None and where:
        raise SteerlabError("vectors and --means were given: give one of the two.")
    found: dict[str, SteeringVector] = {}
    for path in where:
        own = load_set(path) if path.is_dir() else {path.stem: SteeringVector.load(path)}
        for name, vector in own.items():
            place = path if path.is_dir() else path.parent
            found[f"{place.name}/{name}" if name in found else name] = vector
    if means is not None:
        found = {f"language-{code}": vector for code, vector in mean_vectors(means).items()}
    elif not where:
        found = bundled_vectors()
    kept = {name: vector for name, vector in found.items() if fnmatch(name, only)}
    if len(kept) < 2:
        raise SteerlabError(
            f"{len(kept)} of {len(found)} vectors match {only!r} ({', '.join(list(found)[:6])} ...): two or more are needed."
        )
    return Compared(kept)


def fitted(texts: Sequence[str], column: str, model: str, splits: int, seed: int, progress: bool) -> Compared:
    """Language vectors of NAME=FILE texts, and their reliability from `splits` random halvings."""
    sides: dict[str, list[str]] = {}
    for given in texts:
        label, equals, path = given.partition("=")
        if not equals or not label or label in sides:
            raise SteerlabError(
                f"--texts {given!r} is not NAME=FILE with a NAME of its own: write, say, --texts jv=jv.txt."
            )
        sides[label] = list(read_texts(path, column))
    if splits < 1:
        raise SteerlabError(f"--splits is {splits}: give at least 1.")
    traced = load(model)
    means = {"texts": {name: reliability.text_means(traced, own, progress=progress) for name, own in sides.items()}}
    vectors = {f"language-{name}": vector for name, vector in reliability.language_fit(means).items()}
    halves = [reliability.language_halves(means, seed + split) for split in range(splits)]
    sure = {f"language-{name}": reliability.split_half([(a[name], b[name]) for a, b in halves]) for name in sides}
    return Compared(vectors, sure)


def by_layer(compared: Compared) -> list[dict[str, Any]]:
    """One row per layer: mean cosine beside chance, the closest and the most opposed pair, agreement of the tree with the
    genera beside permuted genera, and the noise ceiling of the closest pair.
    """
    names, vectors = list(compared.vectors), list(compared.vectors.values())
    layers, cosines = similarity.shared_layers(vectors), similarity.cosine_matrix(vectors)
    genera = _genera(names)
    off = ~torch.eye(len(names), dtype=torch.bool)
    rows = []
    for at, (layer, own) in enumerate(zip(layers, cosines, strict=True)):
        low, _, high = _chance(vectors, layer)
        first, last = (_pair(own, names, largest) for largest in (True, False))
        row: dict[str, Any] = {
            "layer": layer,
            "mean cosine": float(own[off].mean()),
            "random directions (95 %)": f"{low:.2f} to {high:.2f}",
            "closest": first[0],
            "cosine": first[1],
            "noise ceiling": _ceiling(compared, at, first[0]),
            "most opposed": last[0],
            "cosine of those": last[1],
        }
        if genera is not None:
            found = clustering.family_agreement(own, genera)
            row |= {"tree and genera (ARI)": found.value, "permuted genera, up to": found.high, "p": found.p}
        rows.append(row)
    return rows


def matrix(compared: Compared, layer: int) -> list[dict[str, Any]]:
    """One row per vector in the order of the tree: its nearest, and its cosine with every other."""
    square = frame(compared, layer)
    order = [str(square.index[k]) for k in clustering.leaves(clustering.tree(_tensor(square)))]
    rows = []
    for name in order:
        nearest = str(square.loc[name].drop(name).idxmax())
        row: dict[str, Any] = {"vector": name, "nearest": nearest, "cosine": float(square.loc[name, nearest])}
        rows.append(row | {other: float(square.loc[name, other]) for other in order})
    return rows


def narrow(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `matrix` for a terminal: without the cosines with every other where these are many."""
    return rows if len(rows) <= WIDE else [{key: row[key] for key in ("vector", "nearest", "cosine")} for row in rows]


def against(compared: Compared, name: str) -> list[dict[str, Any]]:
    """One row per other vector: its cosine with the vector of this name at every layer; last, the two bounds of chance."""
    if name not in compared.vectors:
        raise SteerlabError(f"--against {name!r} is not among the vectors: give one of {', '.join(compared.vectors)}.")
    given = compared.vectors[name]
    others = {other: vector for other, vector in compared.vectors.items() if other != name}
    layers = similarity.shared_layers([given, *others.values()])
    rows = []
    for other, vector in others.items():
        curve = similarity.cosine_curve(given.select(layers), vector.select(layers)).tolist()
        rows.append({"vector": other} | {f"layer {layer}": x for layer, x in zip(layers, curve, strict=True)})
    for word, at in (("random directions, 2.5 %", 0), ("random directions, 97.5 %", 2)):
        bound = similarity.random_cosine_quantiles(given.d_model)[at]
        rows.append({"vector": word} | {f"layer {layer}": bound for layer in layers})
    return rows


def frame(compared: Compared, layer: int) -> pd.DataFrame:
    """The cosines of all vectors at one layer. Raises `SteerlabError` for a layer they do not share."""
    names, vectors = list(compared.vectors), list(compared.vectors.values())
    layers = similarity.shared_layers(vectors)
    if layer not in layers:
        raise SteerlabError(f"--layer {layer} is not shared by the vectors: they share {', '.join(map(str, layers))}.")
    cosines = similarity.cosine_matrix([vector.select((layer,)) for vector in vectors])[0]
    return pd.DataFrame(cosines.numpy(), index=pd.Index(names), columns=pd.Index(names))


def picture(compared: Compared, layer: int, out: Path) -> list[Path]:
    """Save the matrix of a layer beside its tree, rows marked by genus, as PNG, PDF, CSV and JSON."""
    square = frame(compared, layer)
    names = [str(name) for name in square.index]
    short = {name: name.removeprefix("language-") for name in names}
    groups = {short[name]: LINEAGES[short[name]].genus if short[name] in LINEAGES else name for name in names}
    shown = square.rename(index=short, columns=short)
    low = float(shown.to_numpy().min())
    tree = clustering.tree(_tensor(square))
    figure, _ = figures.clustered(shown, tree, groups, low=low, high=1.0, label=f"cosine at layer {layer}")
    models = sorted({vector.provenance.model for vector in compared.vectors.values()})
    record = {"layer": layer, "models": models, "linkage": "average, on 1 - cosine"}
    return figures.save(figure, square.rename_axis("vector").reset_index(), out, f"similarity_layer{layer}", record)


def _tensor(square: pd.DataFrame) -> torch.Tensor:
    return torch.tensor(square.to_numpy(float))


def _genera(names: Sequence[str]) -> list[str] | None:
    """The genus of each vector, where all are of languages we know and there is something to agree with."""
    codes = [name.removeprefix("language-") for name in names]
    if not all(code in LINEAGES for code in codes):
        return None
    genera = grouping(codes, "genus")
    return genera if 1 < len(set(genera)) < len(genera) else None


def _chance(vectors: Sequence[SteeringVector], layer: int) -> list[float]:
    """What random directions show; less the mean of the others, if that is how these were made: they sum to zero."""
    rows = torch.stack([vector.raw(layer).double() for vector in vectors])
    centred = float(rows.sum(0).norm()) < 1e-3 * float(rows.norm(dim=1).max())
    return similarity.random_cosine_quantiles(vectors[0].d_model, centred=len(vectors) if centred else None)


def _pair(own: torch.Tensor, names: Sequence[str], largest: bool) -> tuple[str, float]:
    sign = 1.0 if largest else -1.0
    off = (sign * own).clone().fill_diagonal_(-torch.inf)
    i, j = divmod(int(off.argmax()), len(names))
    return f"{names[i]} {names[j]}", float(own[i, j])


def _ceiling(compared: Compared, at: int, pair: str) -> float:
    if compared.reliability is None:
        return float("nan")
    both: Mapping[str, torch.Tensor] = compared.reliability
    return float(similarity.noise_ceiling(torch.stack([both[name][at] for name in pair.split(" ")]))[0, 1])
