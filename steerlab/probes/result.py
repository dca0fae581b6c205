"""What a probe found: scores with intervals, the direction it reads, and that direction as a steering vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.errors import SteerlabError
from steerlab.provenance import Provenance
from steerlab.types import Stream
from steerlab.vectors import SteeringVector

Metric = Literal["accuracy", "macro_f1", "auroc"]
METRICS: tuple[Metric, ...] = ("accuracy", "macro_f1", "auroc")
WORDS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "auroc": "AUROC"}


@dataclass(frozen=True)
class Score:
    """A held-out score, its 95 % bootstrap interval over groups, and the mean score of the same procedure on shuffled labels
    (NaN where none was run).
    """

    value: float
    low: float
    high: float
    shuffled: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Scores:
    """The three scores of one probe."""

    accuracy: Score
    macro_f1: Score
    auroc: Score

    def of(self, metric: Metric) -> Score:
        """One of them by its name."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "auroc": self.auroc}[metric]

    def row(self, metric: Metric) -> dict[str, Any]:
        """The columns of a table: `metric`, its value, interval and score on shuffled labels, then every score by name."""
        main = self.of(metric)
        row: dict[str, Any] = {"metric": metric, "value": main.value, "low": main.low, "high": main.high}
        row["shuffled"] = main.shuffled
        for name in METRICS:
            own = self.of(name)
            row |= {name: own.value, f"{name}_low": own.low, f"{name}_high": own.high, f"{name}_shuffled": own.shuffled}
        return row


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """One probe, scored on groups it was not fitted on.

    `scores` "n r": held-out scores, r = 1 for two classes (above 0 means `classes[1]`), else one column per class; `fold` "n":
    where each row was held out; `counts`: rows of each class. `direction` "r d": unit rows in raw activation space, fitted on
    everything, `gap` "r" how far the mean of the class lies from the mean of the others along them, in activation units, and
    `c` the inverse penalty of that fit; None and NaN for text baselines.
    """

    kind: str
    measured: Scores
    n: int
    groups: int
    classes: tuple[int, ...]
    counts: tuple[int, ...]
    scores: Float[Tensor, "n r"]
    fold: Int[Tensor, "n"]
    direction: Float[Tensor, "r d"] | None = None
    gap: Float[Tensor, "r"] | None = None
    c: float = float("nan")

    @property
    def metric(self) -> Metric:
        """The score that speaks for the probe: "auroc" for two classes, "macro_f1" for more."""
        return "auroc" if len(self.classes) == 2 else "macro_f1"

    @property
    def accuracy(self) -> Score:
        return self.measured.accuracy

    @property
    def macro_f1(self) -> Score:
        return self.measured.macro_f1

    @property
    def auroc(self) -> Score:
        return self.measured.auroc

    @property
    def value(self) -> float:
        return self.measured.of(self.metric).value

    @property
    def low(self) -> float:
        return self.measured.of(self.metric).low

    @property
    def high(self) -> float:
        return self.measured.of(self.metric).high

    @property
    def shuffled(self) -> float:
        return self.measured.of(self.metric).shuffled

    def vector(
        self,
        layer: int,
        name: str,
        *,
        label: int | None = None,
        residual_norm: float | None = None,
        stream: Stream = "resid_post",
        provenance: Provenance | None = None,
    ) -> SteeringVector:
        """The direction as a steering vector of one layer; see `steering_vector`."""
        norm = None if residual_norm is None else torch.tensor([residual_norm])
        return steering_vector(
            [self], [layer], name=name, label=label, residual_norm=norm, stream=stream, provenance=provenance
        )

    def __repr__(self) -> str:
        return f"ProbeResult({self.kind}: {WORDS[self.metric]} {self.measured.of(self.metric)}, {self.n} rows, {self.groups} groups)"

    def _repr_html_(self) -> str:
        head = f"{self.kind}: {self.n} rows, {self.groups} groups, {len(self.classes)} classes"
        rows = [("", "value", "95 % interval", "shuffled labels")]
        for name in METRICS:
            own = self.measured.of(name)
            null = "–" if own.shuffled != own.shuffled else f"{own.shuffled:.3f}"
            rows.append((WORDS[name], f"{own.value:.3f}", f"{own.low:.3f} to {own.high:.3f}", null))
        return html_table(head, rows)


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe that was fitted and not scored, as far as its steering vector needs it: fields as in `ProbeResult`, classes of any
    kind.
    """

    kind: str
    classes: tuple[Any, ...]
    counts: tuple[int, ...]
    direction: Float[Tensor, "r d"] | None
    gap: Float[Tensor, "r"] | None

    @property
    def n(self) -> int:
        """Rows it was fitted on."""
        return sum(self.counts)


def html_table(head: str, rows: Sequence[Sequence[str]]) -> str:
    """A small table, everything escaped; the first row holds the names of the columns."""
    cells = [
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        for row, tag in ((row, "td" if k else "th") for k, row in enumerate(rows))
    ]
    return f"<table><caption>{escape(head)}</caption>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def table(results: Sequence[ProbeResult], layers: Sequence[int] | None = None) -> pd.DataFrame:
    """One row per result: layer (its place unless given), kind, and the columns of `Scores.row`."""
    numbers = range(len(results)) if layers is None else layers
    if len(numbers) != len(results):
        raise SteerlabError(f"{len(results)} results and {len(numbers)} layers were given: one layer each is needed.")
    rows = [
        {"layer": layer, "kind": own.kind, **own.measured.row(own.metric), "n": own.n, "groups": own.groups, "c": own.c}
        for layer, own in zip(numbers, results, strict=True)
    ]
    return pd.DataFrame(rows)


def steering_vector(
    results: Sequence[ProbeResult | FittedProbe],
    layers: Sequence[int] | None = None,
    *,
    name: str,
    label: Any = None,
    residual_norm: Float[Tensor, "l"] | None = None,
    stream: Stream = "resid_post",
    provenance: Provenance | None = None,
) -> SteeringVector:
    """The directions of one probe per layer as a steering vector towards the class `label` (two classes: `classes[1]` unless
    given).

    The raw norm is how far the class's mean lies from the mean of the others along the direction; the classifier's sign
    stands, even where it disagrees with the means. `residual_norm` is the mean norm of single activations there: without it
    strengths can only be given in raw units. Raises `SteerlabError` for a text baseline, and for more than two classes
    without a label.
    """
    numbers = list(range(len(results))) if layers is None else list(layers)
    if len(numbers) != len(results) or not results:
        raise SteerlabError(f"{len(results)} results and {len(numbers)} layers were given: one layer each is needed.")
    rows, counts = [], (0.0, 0.0)
    for own in results:
        if own.direction is None or own.gap is None:
            raise SteerlabError(f"the {own.kind} baseline reads no activations and has no direction: give a probe.")
        at, sign = _place(own, label)
        rows.append(sign * own.direction[at].double() * own.gap[at].abs().double())
        mine = own.counts[own.classes.index(label) if label is not None else 1]
        counts = float(mine), float(own.n - mine)
    kinds = "+".join(dict.fromkeys(own.kind for own in results))
    return SteeringVector.from_raw(
        name,
        torch.stack(rows),
        numbers,
        residual_norm=residual_norm,
        counts=counts,
        stream=stream,
        provenance=(provenance or Provenance()).by(f"probe({kinds})"),
    )


def _place(own: ProbeResult | FittedProbe, label: Any) -> tuple[int, float]:
    """The row of the direction, and its sign."""
    if len(own.classes) > 2 and label is None:
        raise SteerlabError(
            f"a probe of the classes {', '.join(map(str, own.classes))} was given: say which one the vector is to point to."
        )
    if label is not None and label not in own.classes:
        raise SteerlabError(
            f"label {label} is not among the classes {', '.join(map(str, own.classes))}: give one of them."
        )
    at = 1 if label is None else own.classes.index(label)
    return (at, 1.0) if len(own.classes) > 2 else (0, 1.0 if at == 1 else -1.0)
