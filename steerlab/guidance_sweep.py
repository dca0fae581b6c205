"""What gamma and eta do: every cell of a grid written in one mixed run, measured, and drawn as maps.

Rows of a map are gamma and columns eta, gamma = eta = 0 is at the lower left. All cells share sampling keys, and so their
noise, and draw their negatives by the same keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from steerlab import figures
from steerlab.cells import Cell, Guidance
from steerlab.errors import SteerlabError
from steerlab.evaluation.fluency import perplexity
from steerlab.evaluation.ngrams import ngram_report
from steerlab.evaluation.repetition import repetition_rate
from steerlab.evaluation.stats import Estimate, bootstrap
from steerlab.evaluation.words import words
from steerlab.generation import Settings
from steerlab.guidance import Form, Guide
from steerlab.model import TracedModel
from steerlab.store import RunFolder
from steerlab.synthesis import Written, synthesize
from steerlab.tasks import task

AUTHORS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
COLUMNS = ("form", "gamma", "eta", "metric", "value", "low", "high", "n", "reason")
# How a map of each measure is put: its name with unit, what its numbers are multiplied by, and how they are written.
NAMES: Mapping[str, tuple[str, float, str]] = {
    "ngrams_3": ("different 3-grams (%)", 100, "{:.0f}"),
    "ngrams_3_ratio": ("3-grams over real text's (%)", 100, "{:.0f}"),
    "diversity_2_4": ("diversity 2-4 (%)", 100, "{:.0f}"),
    "repetition": ("4-grams repeated in a text (%)", 100, "{:.0f}"),
    "log_perplexity_expert": ("surprise of the expert (nats/token)", 1, "{:.1f}"),
    "log_perplexity_base": ("surprise of the base (nats/token)", 1, "{:.1f}"),
    "words_per_text": ("words a text", 1, "{:.0f}"),
    "filled": ("slots filled (%)", 100, "{:.0f}"),
}
SHOWN = ("diversity_2_4", "repetition", "log_perplexity_base")


@dataclass(frozen=True)
class Grid:
    """The weights to try. The authors' grid is 0 to 1 in steps of 0.2 for both; theirs is the published form alone."""

    gammas: tuple[float, ...] = AUTHORS
    etas: tuple[float, ...] = AUTHORS
    forms: tuple[Form, ...] = ("published", "balanced")

    def __post_init__(self) -> None:
        for name in ("gammas", "etas", "forms"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise SteerlabError(f"the {name} are {list(values)}: give at least one, each once.")

    def cells(self, like: Cell) -> dict[tuple[str, float, float], Cell]:
        """A cell for every (form, gamma, eta), in all else like the one given, which is guided."""
        guidance = like.guidance or Guidance()
        found = {}
        for form in self.forms:
            for gamma in self.gammas:
                for eta in self.etas:
                    same = guidance.guide
                    # A given cutoff holds for both forms; the default is that of each form.
                    alpha = None if same.alpha == Guide(form=same.form).alpha else same.alpha
                    guide = replace(same, gamma=gamma, eta=eta, form=form, alpha=alpha)
                    name = f"{form} gamma={gamma:g} eta={eta:g}"
                    found[form, gamma, eta] = replace(like, condition=name, guidance=replace(guidance, guide=guide))
        return found


def sweep_guidance(
    model: TracedModel,
    like: Cell,
    run: RunFolder,
    grid: Grid | None = None,
    *,
    per_label: int = 25,
    settings: Settings,
    base: TracedModel | None = None,
    batch_rows: int = 64,
    progress: bool = True,
) -> pd.DataFrame:
    """Write `per_label` texts of every label in every cell of the grid, as one run that can be resumed, and measure each.

    The table is tidy, with the columns `COLUMNS` and one row per cell and measure of `measures`, `filled` among them: the share
    of slots in which a new text stands. Raises `SteerlabError` as `synthesize` does.
    """
    cells = (grid or Grid()).cells(like)
    written = synthesize(
        model, list(cells.values()), run, per_label=per_label, settings=settings, batch_rows=batch_rows,
        progress=progress, base=base,
    )  # fmt: skip
    return table(model, base, cells, written, per_label)


def table(
    model: TracedModel,
    base: TracedModel | None,
    cells: Mapping[tuple[str, float, float], Cell],
    written: Written,
    per_label: int,
) -> pd.DataFrame:
    """The tidy table of cells that are written."""
    rows = []
    for place, cell in cells.items():
        for name, one in measures(model, base, cell, *written.texts(cell), per_label).items():
            rows.append((*place, name, one.value, one.low, one.high, one.n, one.reason))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def measures(
    model: TracedModel,
    base: TracedModel | None,
    cell: Cell,
    texts: Sequence[str],
    labels: Sequence[str],
    per_label: int,
) -> dict[str, Estimate]:
    """What is measured of the texts of one guided cell, each with a 95 % interval over its texts.

    `ngrams_3` and `diversity_2_4` of the set, and `ngrams_3_ratio` to the cell's real examples, cut to one length; `repetition`:
    repeated 4-grams within a text; `log_perplexity_...`: surprise in nats a token of the text behind its prompt, to the expert and
    to what it was contrasted with (the base model, the adapter switched off, or the expert behind the base prompt).
    """
    slots = per_label * len(cell.chosen_labels())
    real = _real(cell)
    # Without real texts a set is its own measure of length, which cuts nothing off.
    found = ngram_report(list(texts), real or list(texts)) if texts else {}
    missing = Estimate.missing("no text was accepted")
    report = {name: found.get(name, missing) for name in ("ngrams_3", "ngrams_3_ratio", "diversity_2_4")}
    if not real:
        report["ngrams_3_ratio"] = Estimate.missing("no real examples were given")
    report["repetition"] = bootstrap(np.array([repetition_rate(text) for text in texts], dtype=float))
    report |= _surprise(model, base, cell, texts, labels)
    report["words_per_text"] = bootstrap(np.array([len(words(text)) for text in texts], dtype=float))
    report["filled"] = Estimate.point(len(texts) / slots, slots, "counted, not estimated")
    return report


def _surprise(
    model: TracedModel, base: TracedModel | None, cell: Cell, texts: Sequence[str], labels: Sequence[str]
) -> dict[str, Estimate]:
    chat = task(cell.task).chat
    prompts = [cell.prompt(label) for label in labels]

    def of(reader: TracedModel, behind: Sequence[str]) -> Estimate:
        return bootstrap(np.log(perplexity(reader, texts, behind, chat)))

    found = {"log_perplexity_expert": of(model, prompts)}
    other = None if cell.guidance is None else cell.guidance.base_prompt
    if base is None and model.adapter is None and other is None:
        return found | {"log_perplexity_base": Estimate.missing("there is no base")}
    behind = prompts if other is None else [other] * len(texts)
    adapter = model.adapter if base is None else None
    with adapter.off() if adapter is not None else nullcontext():
        return found | {"log_perplexity_base": of(base or model, behind)}


def _real(cell: Cell) -> list[str]:
    if cell.guidance is None:
        return []
    labels = cell.chosen_labels() if cell.guidance.by_label else cell.chosen_labels()[:1]
    return [text for label in labels for text in cell.guidance.texts("real", label)]


def gamma_eta(results: pd.DataFrame, metric: str, form: str) -> pd.DataFrame:
    """The values of one measure and form as a matrix to be drawn: columns are eta from small to large, rows gamma from large
    to small, so that gamma = eta = 0 is at the lower left. Raises `SteerlabError` where the table has none.
    """
    own: Any = results[(results["metric"] == metric) & (results["form"] == form)]
    if own.empty:
        have = ", ".join(dict.fromkeys(results["metric"]))
        raise SteerlabError(f"the table has no {metric!r} of the {form} form: it has {have}.")
    matrix = own.pivot(index="gamma", columns="eta", values="value")
    return matrix.sort_index(ascending=False).sort_index(axis=1)


def draw(results: pd.DataFrame, metrics: Sequence[str] = SHOWN, title: str = "") -> Any:
    """A map per measure (rows) and form (columns), the forms of one measure on one scale."""
    forms = list(dict.fromkeys(results["form"]))
    figure, panels = figures.new(columns=len(forms), rows=len(metrics), height=0.5 + 2.5 * len(metrics))
    for row, metric in enumerate(metrics):
        name, scale, fmt = NAMES.get(metric, (metric, 1.0, "{:.2f}"))
        maps = [scale * gamma_eta(results, metric, form) for form in forms]
        numbers = np.concatenate([one.to_numpy(float).ravel() for one in maps])
        known = numbers[np.isfinite(numbers)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        for column, (form, matrix) in enumerate(zip(forms, maps, strict=True)):
            panel = panels[row * len(forms) + column]
            shown = matrix.rename(index=_short, columns=_short)
            figures.heat(panel, shown, low=low, high=high if high > low else low + 1, label="", fmt=fmt)
            panel.set_title(f"{form}: {name}", fontsize=8)
            panel.set(xlabel="eta (weight of the negatives)", ylabel="gamma (weight of the base)")
            panel.xaxis.label.set_fontsize(8.5)
            panel.yaxis.label.set_fontsize(8.5)
            panel.tick_params(labelsize=8.5)
    if title:
        figure.suptitle(title, fontsize=8.5, fontweight="bold", x=0.01, ha="left")
    return figure


def finding(results: pd.DataFrame) -> str:
    """One sentence with numbers: what the largest eta does to surprise in each form, at the smallest gamma."""
    told = []
    for form in dict.fromkeys(results["form"]):
        matrix = gamma_eta(results, "log_perplexity_expert", str(form))
        first, last = (float(matrix.iloc[-1, i]) for i in (0, -1))
        known = not (math.isnan(first) or math.isnan(last))
        told.append(f"{form} {first:.1f} to {last:.1f}" if known else f"{form}: not known")
    etas = sorted(set(results["eta"]))
    return f"Surprise of the expert from eta {etas[0]:g} to {etas[-1]:g}: {', '.join(told)} nats a token"


def _short(value: float) -> str:
    return f"{value:g}"
