"""What the ablation scripts share: held-out parallel lines, Slovene pairs, their surroundings in figures, and hashes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlab import data
from steerlab.bundled.corpus import LANGUAGES
from steerlab.evaluation.stats import bootstrap
from steerlab.model import TracedModel

NTREX = tuple(code for code in LANGUAGES if code not in ("jv", "su"))
NUSAX = ("jv", "su", "id", "en")
QUALITY = "quality-sl-backtranslated"


@dataclass(frozen=True)
class Lines:
    """Line i of every language is one sentence: of NTREX in ten languages, of NusaX in four."""

    ntrex: Mapping[str, list[str]]
    nusax: Mapping[str, list[str]]

    def corpus(self, code: str) -> Mapping[str, list[str]]:
        """The corpus in which a language is contrasted with others: NusaX for Javanese and Sundanese only."""
        return self.nusax if code in ("jv", "su") else self.ntrex

    def contrast(self, code: str, n: int) -> tuple[list[str], list[str]]:
        """The first n lines in a language, and each of them in one of the other languages, which take turns."""
        by = self.corpus(code)
        others = [other for other in by if other != code]
        own = by[code][:n]
        return own, [by[others[i % len(others)]][i] for i in range(len(own))]

    def hashes(self) -> dict[str, str]:
        """sha256 of the lines by corpus and language."""
        pairs = (("ntrex heldout", self.ntrex), ("nusax-mt heldout", self.nusax))
        return {f"{name} {code}": data.texts_sha256(own) for name, by in pairs for code, own in by.items()}


def heldout_lines(model: TracedModel, n: int, most: int, seed: int = 0) -> Lines:
    """n random held-out lines of each corpus that no language needs more than `most` tokens for."""
    return Lines(_some(model, "ntrex", NTREX, n, most, seed), _some(model, "nusax-mt", NUSAX, n, most, seed))


def _some(model: TracedModel, source: str, codes: Sequence[str], n: int, most: int, seed: int) -> dict[str, list[str]]:
    found = {code: {e.id: e.text for e in data.load(source, code, split="heldout").examples} for code in codes}
    shared = [key for key in found[codes[0]] if all(key in own for own in found.values())]
    sizes = [[len(row) for row in model.token_rows([own[key] for key in shared])] for own in found.values()]
    short = [key for key, longest in zip(shared, np.max(sizes, axis=0), strict=True) if longest <= most]
    order = np.random.default_rng(seed).permutation(len(short))[:n]
    return {code: [own[short[i]] for i in order] for code, own in found.items()}


def slovene_pairs(model: TracedModel, n: int, most: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """n random held-out pairs, human and back-translated twice, quotes, spacing and first letters made alike."""
    pairs = data.load_pairs(hops=2, split="heldout")
    sides = [[data.normalise_surface(text) for text in side] for side in (pairs.human, pairs.degraded)]
    sizes = [[len(row) for row in model.token_rows(side)] for side in sides]
    kept = [i for i, (a, b) in enumerate(zip(*sides, strict=True)) if a != b and max(s[i] for s in sizes) <= most]
    order = [kept[i] for i in np.random.default_rng(seed).permutation(len(kept))[:n]]
    return [sides[0][i] for i in order], [sides[1][i] for i in order]


def pair_hashes(human: Sequence[str], translated: Sequence[str]) -> dict[str, str]:
    """sha256 of the Slovene pairs."""
    return {
        "slovene heldout human": data.texts_sha256(human),
        "slovene heldout back-translated": data.texts_sha256(translated),
    }


def over(table: pd.DataFrame, unit: str, by: Sequence[str], column: str = "value", seed: int = 0) -> pd.DataFrame:
    """The mean of a column over units (languages, say) for every combination of `by`, with its bootstrap interval."""
    rows = []
    groups: Any = table.groupby(list(by), sort=False, dropna=False)
    for key, part in groups:
        own = bootstrap(part[column].to_numpy(float), groups=part[unit].to_numpy(), seed=seed)
        facts = {"value": own.value, "low": own.low, "high": own.high, "n": own.n, "reason": own.reason}
        rows.append({**dict(zip(by, key, strict=True)), **facts})
    return pd.DataFrame(rows)


def headline(figure: Figure, text: str) -> None:
    """The finding, above all panels, broken into lines that fit."""
    figure.suptitle(
        textwrap.fill(" ".join(text.split()).replace(" %", "\u00a0%"), 76),
        fontsize=10.5,
        fontweight="bold",
        x=0.01,
        ha="left",
    )


def panel(axes: Axes, title: str, x: str, y: str) -> None:
    """What a panel shows, and its axes."""
    axes.set_title(title, fontsize=9.5)
    axes.set(xlabel=x, ylabel=y)
