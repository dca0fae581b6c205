"""From texts to a probe curve: read every layer, probe for the label, and hold the scores against controls and text baselines."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from steerlab import probes
from steerlab.capture import choice, provenance
from steerlab.errors import SteerlabError
from steerlab.layer_choice import read_streams
from steerlab.model import TracedModel
from steerlab.pieces import readable
from steerlab.probes import ProbeResult, Selectivity
from steerlab.probes.result import WORDS, html_table
from steerlab.provenance import Provenance
from steerlab.types import Site
from steerlab.vectors import SteeringVector

Pooling = Literal["mean", "tokens"]
EMBEDDING = Site(0, "resid_pre")


@dataclass(frozen=True, eq=False)
class ProbeRows:
    """Activations ready to be probed: a row per text (pooling "mean") or per token ("tokens").

    `x` "n l d": `resid_post` of the blocks `layers`; `embedding` "n d": what enters the first block; `y` "n": the place of the
    row's class in `names`; `groups` "n": rows that no fold may split; `types` "n": what a probe could know by heart, the id of
    the token, for whole texts their group; `strings`: the text or the token; `residual_norm` "l": mean norm of single tokens.
    """

    x: Float[Tensor, "n l d"]
    embedding: Float[Tensor, "n d"]
    y: Int[Tensor, "n"]
    groups: Int[Tensor, "n"]
    types: Int[Tensor, "n"]
    strings: tuple[str, ...]
    names: tuple[str, ...]
    layers: tuple[int, ...]
    residual_norm: Float[Tensor, "l"]
    pooling: Pooling
    provenance: Provenance

    def at(self, layer: int) -> probes.Labelled:
        """The rows of one layer, for `probes.transfer`. Raises `SteerlabError` for a layer that was not read."""
        if layer not in self.layers:
            raise SteerlabError(f"layer {layer} was not read: there are {', '.join(map(str, self.layers))}.")
        return probes.Labelled(self.x[:, self.layers.index(layer)], self.y, self.groups)


def read_rows(
    model: TracedModel,
    texts: Mapping[str, Sequence[str]],
    *,
    pooling: Pooling = "mean",
    per_text: int = 4,
    layers: Sequence[int] | None = None,
    groups: Mapping[str, Sequence[Hashable]] | None = None,
) -> ProbeRows:
    """Read the texts of every class in one pass: the mean over a text's tokens, or `per_text` tokens evenly spread over its
    inside (its first and last token, often a capital and a full stop, are left out where it has three or more).

    `groups`: for each class one value per text; texts of equal values are never parted. Without it, text i of every class is
    one group where all have as many (translations, pairs), else every text is its own. Equal texts are always one group.
    Raises `SteerlabError` for fewer than two classes, a class without texts or with a blank one, and unknown layers.
    """
    choice("pooling", pooling, Pooling)
    _check_texts(texts)
    if per_text < 1:
        raise SteerlabError(f"per_text is {per_text}: give at least 1.")
    chosen = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    sites = (EMBEDDING, *(Site(layer) for layer in chosen))
    model.check_sites(sites)
    number = _group_numbers(texts, groups)
    reading = read_streams(model, texts, per_text + 2 if pooling == "tokens" else 1, sites)
    if reading.ids is None or reading.norm is None:
        raise SteerlabError("this reading records no token ids and norms: read the texts again.")
    if pooling == "mean":
        own = [reading.means[name] for name in texts]
        if not all(one.tokens.all() for one in own):
            raise SteerlabError("a text has no tokens but BOS: leave out texts of special tokens alone.")
        values = torch.from_numpy(np.concatenate([one.mean for one in own]))
        y = torch.tensor([k for k, name in enumerate(texts) for _ in texts[name]])
        group = torch.from_numpy(np.concatenate([number[name] for name in texts]))
        types, strings = group, tuple(text for name in texts for text in texts[name])
    else:
        inside = _inside(reading.language, reading.text)
        values, y, types = reading.streams[inside], reading.language[inside], reading.ids[inside]
        order, text = [number[name] for name in texts], reading.text[inside]
        group = torch.tensor([int(order[k][i]) for k, i in zip(y.tolist(), text.tolist(), strict=True)])
        known = {i: readable(model.tokenizer, i) for i in types.unique().tolist()}
        strings = tuple(known[i] for i in types.tolist())
    norm = reading.norm[1:].float()
    record = provenance(model, texts, weighting="text" if pooling == "mean" else "token")
    return ProbeRows(values[:, 1:], values[:, 0], y, group, types, strings, tuple(texts), chosen, norm, pooling, record)


def _inside(language: Int[Tensor, "n"], text: Int[Tensor, "n"]) -> Int[Tensor, "m"]:
    """Rows that are not the first or last of their text; all rows of a text with fewer than three."""
    _, run, size = torch.unique_consecutive(
        torch.stack([language, text]), dim=1, return_inverse=True, return_counts=True
    )
    first = size.cumsum(0) - size
    place = torch.arange(len(run)) - first[run]
    own = size[run]
    return ((own < 3) | ((place > 0) & (place < own - 1))).nonzero()[:, 0]


def _check_texts(texts: Mapping[str, Sequence[str]]) -> None:
    if len(texts) < 2:
        raise SteerlabError(f"{len(texts)} classes were given: a probe needs texts of at least two.")
    for name, own in texts.items():
        if not own or not all(text.strip() for text in own):
            what = "no texts" if not own else "a blank text"
            raise SteerlabError(f"class {name!r} has {what}: give every class texts with at least one word.")


def _group_numbers(
    texts: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[Hashable]] | None
) -> dict[str, Int[np.ndarray, "n"]]:
    """A number per text, equal for texts that belong together: by the given values, by their place, or by being the same."""
    sizes = {name: len(own) for name, own in texts.items()}
    if groups is not None and {name: len(own) for name, own in groups.items()} != sizes:
        raise SteerlabError(f"groups do not fit the texts ({sizes}): give one value for every text of every class.")
    parallel = len(set(sizes.values())) == 1
    nodes: dict[Hashable, int] = {}
    edges = []
    for name, own in texts.items():
        keys: Sequence[Hashable] = range(len(own)) if parallel else [(name, i) for i in range(len(own))]
        for key, text in zip(keys if groups is None else groups[name], own, strict=True):
            edges.append(
                [nodes.setdefault(node, len(nodes)) for node in (("key", key), ("text", " ".join(text.split())))]
            )
    first, second = np.array(edges).T
    square = coo_matrix((np.ones(len(edges)), (first, second)), shape=(len(nodes), len(nodes)))
    _, part = connected_components(square, directed=False)
    found = part[first].astype(np.int64)
    ends = np.cumsum([0, *sizes.values()])
    return {name: found[a:b] for name, a, b in zip(texts, ends[:-1], ends[1:], strict=True)}


@dataclass(frozen=True, eq=False)
class ProbeCurve:
    """One kind of probe at every layer, beside its control task and what the text alone gives away."""

    kind: probes.Kind
    names: tuple[str, ...]
    layers: tuple[int, ...]
    results: tuple[ProbeResult, ...]
    controls: tuple[Selectivity, ...]
    baselines: tuple[ProbeResult, ...]
    residual_norm: Float[Tensor, "l"]
    pooling: Pooling
    provenance: Provenance

    def table(self) -> pd.DataFrame:
        """One row per layer, then one per baseline (without a layer): the columns of `probes.table`, accuracy on the control
        task and selectivity with its interval.
        """
        found = pd.concat([probes.table(self.results, self.layers), probes.table(self.baselines)], ignore_index=True)
        found["layer"] = pd.array([*self.layers, *[pd.NA] * len(self.baselines)], dtype="Int64")
        missing = [float("nan")] * (len(found) - len(self.controls))
        gains = [own.selectivity for own in self.controls]
        found["control_accuracy"] = [own.control.accuracy.value for own in self.controls] + missing
        found["selectivity"] = [own.value for own in gains] + missing
        found["selectivity_low"] = [own.low for own in gains] + missing
        found["selectivity_high"] = [own.high for own in gains] + missing
        return found

    def vector(self, label: str, name: str | None = None) -> SteeringVector:
        """The direction towards a class at every probed layer, ready for an `Intervention`. Raises `SteerlabError` for a class
        that was not probed.
        """
        if label not in self.names:
            raise SteerlabError(f"{label!r} is not among the classes: give one of {', '.join(self.names)}.")
        return probes.steering_vector(
            self.results,
            self.layers,
            name=name or f"probe-{label}",
            label=self.names.index(label),
            residual_norm=self.residual_norm,
            provenance=self.provenance,
        )

    def __repr__(self) -> str:
        best = max(zip(self.layers, self.results, strict=True), key=lambda pair: pair[1].value)
        return f"ProbeCurve({self.kind} of {', '.join(self.names)}: best at layer {best[0]}, {best[1]!r})"

    def _repr_html_(self) -> str:
        metric = self.results[0].metric
        rows = [("", WORDS[metric], "95 % interval", "shuffled labels", "selectivity")]
        gains = {k: f"{own.selectivity.value:.3f}" for k, own in enumerate(self.controls)}
        named = [(f"layer {layer}", own) for layer, own in zip(self.layers, self.results, strict=True)]
        for k, (what, own) in enumerate([*named, *((own.kind, own) for own in self.baselines)]):
            null = "–" if own.shuffled != own.shuffled else f"{own.shuffled:.3f}"
            rows.append((what, f"{own.value:.3f}", f"{own.low:.3f} to {own.high:.3f}", null, gains.get(k, "–")))
        return html_table(f"{self.kind} probe of {', '.join(self.names)} ({self.pooling})", rows)


def probe_rows(
    rows: ProbeRows,
    kind: probes.Kind = "logistic_cv",
    folds: int = 5,
    seed: int = 0,
    *,
    c: float = 1.0,
    shuffles: int = 1,
    resamples: int = 1000,
    control: bool = True,
    baselines: Sequence[str] = (probes.EMBEDDINGS, probes.NGRAMS, probes.LENGTH),
) -> ProbeCurve:
    """Probe every layer of rows that were read, on the same folds throughout.

    Without `control` the control task, which doubles the time, is left out. Raises `SteerlabError` for an unknown kind or
    baseline, and too few texts for the folds.
    """
    y, groups, how = rows.y, rows.groups, {"shuffles": shuffles, "resamples": resamples}
    controls: list[Selectivity] = []
    if control:
        controls = probes.selectivity(rows.x, y, groups, rows.types, kind, folds, seed, c=c, **how)
        results = [own.real for own in controls]
    else:
        results = probes.layerwise(rows.x, y, groups, kind, folds, seed, c=c, **how)
    known: dict[str, Any] = {
        probes.EMBEDDINGS: lambda: probes.bag_of_embeddings(rows.embedding, y, groups, kind, folds, seed, c=c, **how),
        probes.NGRAMS: lambda: probes.char_ngram_baseline(rows.strings, y, groups, folds, seed, **how),
        probes.LENGTH: lambda: probes.length_baseline(rows.strings, y, groups, folds, seed, **how),
    }
    for name in baselines:
        if name not in known:
            raise SteerlabError(f"baseline {name!r} is not known: choose among {', '.join(known)}.")
    return ProbeCurve(
        kind=kind,
        names=rows.names,
        layers=rows.layers,
        results=tuple(results),
        controls=tuple(controls),
        baselines=tuple(known[name]() for name in baselines),
        residual_norm=rows.residual_norm,
        pooling=rows.pooling,
        provenance=rows.provenance,
    )


def probe_texts(
    model: TracedModel, texts: Mapping[str, Sequence[str]], kind: probes.Kind = "logistic_cv", **options: Any
) -> ProbeCurve:
    """`probe_rows(read_rows(model, texts))`: options of the reading (pooling, per_text, layers, groups) go there, the rest to
    the probe.
    """
    reading = {k: options.pop(k) for k in ("pooling", "per_text", "layers", "groups") if k in options}
    return probe_rows(read_rows(model, texts, **reading), kind, **options)
