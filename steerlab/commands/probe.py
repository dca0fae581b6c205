"""`steerlab probe`: at which layer can it be read, and from more than the text gives away?"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from steerlab import data, figures, probes, probing
from steerlab.data.surface import normalise_surface
from steerlab.errors import SteerlabError
from steerlab.loading import load
from steerlab.probes.linear import check_kind
from steerlab.probes.result import WORDS
from steerlab.probing import Pooling, ProbeCurve
from steerlab.vectorset import save_set

By = Literal["language", "label", "quality"]
NAME = "probe"
LINES = {probes.EMBEDDINGS: "bag of embeddings", probes.NGRAMS: "character n-grams", probes.LENGTH: "length"}


@dataclass(frozen=True)
class Given:
    """The texts of every class, and one value per text that says which belong together (None: by their place)."""

    texts: dict[str, list[str]]
    groups: dict[str, list[Hashable]] | None = None


@dataclass(frozen=True)
class ProbeOptions:
    """How to read and probe; `seed` decides folds, shuffles, control labels and the bootstrap."""

    kind: str = "logistic_cv"
    pooling: str = "mean"
    per_text: int = 4
    layers: tuple[int, ...] | None = None
    folds: int = 5
    shuffles: int = 1
    resamples: int = 1000
    seed: int = 0

    def check(self) -> None:
        """Raise `SteerlabError` for what can be refused before the model is loaded."""
        check_kind(self.kind)
        if self.pooling not in get_args(Pooling):
            raise SteerlabError(f"pooling {self.pooling!r} is not known: give one of {', '.join(get_args(Pooling))}.")
        for name, value, least in (("--per-text", self.per_text, 1), ("--folds", self.folds, 2)):
            if value < least:
                raise SteerlabError(f"{name} is {value}: give at least {least}.")
        for name, value, least in (("--shuffles", self.shuffles, 0), ("--resamples", self.resamples, 20)):
            if value < least:
                raise SteerlabError(f"{name} is {value}: give at least {least}.")


def from_files(texts: Sequence[str], column: str, most: int | None) -> Given:
    """The texts of NAME=FILE. Text i of every class belongs together where all have as many."""
    sides: dict[str, list[str]] = {}
    for given in texts:
        label, equals, path = given.partition("=")
        if not equals or not label or label in sides:
            raise SteerlabError(
                f"--texts {given!r} is not NAME=FILE with a NAME of its own: write, say, --texts jv=jv.txt."
            )
        sides[label] = list(data.read_texts(path, column))[:most]
    return _checked(Given(sides))


def from_source(
    source: str, languages: Sequence[str], by: str, split: str, root: Path | None, most: int | None
) -> Given:
    """The texts of a data set by language, by its labels, or human beside degraded; equal ids belong together."""
    if by not in get_args(By):
        raise SteerlabError(f"--by {by!r} is not known: give one of {', '.join(get_args(By))}.")
    if by != "language" and len(languages) != 1:
        raise SteerlabError(f"{len(languages)} languages were given: --by {by} probes the texts of one.")
    if by == "quality":
        return _pairs(source, languages[0], split, root, most)
    texts: dict[str, list[str]] = {}
    groups: dict[str, list[Hashable]] = {}
    for code in languages:
        for example in data.load(source, code, split=split or None, root=root).examples:
            name = code if by == "language" else example.label
            if name is None:
                raise SteerlabError(f"data set {source!r} has texts without a label: probe it --by language.")
            texts.setdefault(name, []).append(example.text)
            groups.setdefault(name, []).append(example.id)
    cut = {name: own[:most] for name, own in texts.items()}
    return _checked(Given(cut, {name: own[:most] for name, own in groups.items()}))


def _pairs(source: str, language: str, split: str, root: Path | None, most: int | None) -> Given:
    """Human and degraded texts without what a keyboard decides; pairs that become equal are left out."""
    if source == "sample":
        pairs = data.load_sample_pairs(language)
    elif source == "slovene-backtranslation" and language == "sl":
        pairs = data.load_pairs(root=root, hops=2, split=split or "all")
    else:
        raise SteerlabError(
            f"{source!r} has no human and degraded pairs in {language!r}: give sample, or slovene-backtranslation with sl, or your "
            "own pairs with --texts human=FILE --texts degraded=FILE."
        )
    sides = [(pair.id, normalise_surface(pair.human), normalise_surface(pair.degraded)) for pair in pairs]
    kept = [(key, human, worse) for key, human, worse in sides if human and worse and human != worse][:most]
    keys: list[Hashable] = [key for key, _, _ in kept]
    texts = {"human": [human for _, human, _ in kept], "degraded": [worse for _, _, worse in kept]}
    return _checked(Given(texts, {"human": keys, "degraded": keys}))


def _checked(given: Given) -> Given:
    if len(given.texts) < 2:
        raise SteerlabError(
            f"texts of {len(given.texts)} class were given ({', '.join(given.texts) or 'none'}): a probe needs at least two."
        )
    return given


def run(given: Given, model: str, options: ProbeOptions, dtype: str, device: str | None) -> ProbeCurve:
    """Read the texts and probe every layer. Bad input is refused before the model is loaded."""
    options.check()
    kind: Any = options.kind
    pooling: Any = options.pooling
    loaded = load(model, dtype=dtype, device=device)
    rows = probing.read_rows(
        loaded, given.texts, pooling=pooling, per_text=options.per_text, layers=options.layers, groups=given.groups
    )
    return probing.probe_rows(
        rows, kind, options.folds, options.seed, shuffles=options.shuffles, resamples=options.resamples
    )


def shown(curve: ProbeCurve) -> list[dict[str, Any]]:
    """One row per layer, then one per baseline, with everything a claim needs beside its score."""
    table: Any = curve.table()
    rows = []
    for own in table.to_dict("records"):
        layer = None if pd.isna(own["layer"]) else int(own["layer"])
        row: dict[str, Any] = {"probe": LINES.get(own["kind"], own["kind"]), "layer": layer}
        row |= {WORDS[own["metric"]]: own["value"], "95 % interval": f"{own['low']:.3f} to {own['high']:.3f}"}
        row |= {"shuffled": own["shuffled"], "accuracy": own["accuracy"], "control task": own["control_accuracy"]}
        rows.append(row | {"selectivity": own["selectivity"]})
    return rows


def picture(curve: ProbeCurve, out: Path, record: dict[str, Any]) -> list[Path]:
    """Save the curve with shuffled labels and baselines as PNG, PDF, CSV and JSON."""
    table: Any = curve.table()
    layered = table[table["layer"].notna()].copy()
    metric = curve.results[0].metric
    figure, (axes,) = figures.new(height=3.6)
    figures.lines(axes, layered.astype({"layer": int}), x="layer", series="kind", series_order=[curve.kind])
    axes.plot(layered["layer"].astype(int), layered["shuffled"], color="grey", ls=":", label="shuffled labels")
    for own, dash in zip(curve.baselines, ("--", "-.", (0, (1, 1))), strict=False):
        axes.axhline(own.value, color="black", ls=dash, lw=1, label=LINES.get(own.kind, own.kind))
    axes.set(xlabel="layer", ylabel=f"{WORDS[metric]}, held-out groups")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    best: Any = layered.loc[layered["value"].idxmax()]
    others = [own.value for own in curve.baselines if own.kind != probes.LENGTH]
    versus = f"; the best baseline {max(others):.2f}" if others else ""
    axes.set_title(f"{', '.join(curve.names)}: {best['value']:.2f} at layer {int(best['layer'])}{versus}")
    return figures.save(figure, table, out, NAME, record)


def save_vectors(curve: ProbeCurve, folder: Path) -> None:
    """One vector file per class: the direction towards it at every probed layer."""
    keys = {name: re.sub(r"[^A-Za-z0-9._-]", "-", f"{NAME}-{name}") for name in curve.names}
    if len(set(keys.values())) < len(keys):
        raise SteerlabError(f"the classes {', '.join(keys)} make no different file names: name them in Latin letters.")
    save_set({key: curve.vector(name) for name, key in keys.items()}, folder)
