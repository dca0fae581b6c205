"""Does a language disappear when its direction is taken out?

Three answers on polyglot-mini. (1) From activations: mean residual stream of held-out NTREX lines in ten languages; k
directions are projected out (found on training folds: span of the class means, or iterative null-space projection; found
elsewhere: the bundled language vectors; random ones) and a linear probe is fitted again on what is left. (2) In the
running model: the vector of one language is taken out at one layer, from it on, at all layers, or from all that writes
to the stream; a probe of "this language or another" fitted before and one fitted after, for every language; for Slovene,
which text of a pair is human and which back-translated (or corrupted). (3) In behaviour: share of texts in the language
the prompt names, and KL of the next token along human lines. Control everywhere: a random direction (of equal rank). No
text is one that the model or the vectors have seen.

    python -m analyses.13_directional_ablation            # about 8 minutes on one busy core
    python -m analyses.13_directional_ablation --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import _ablate
from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.ablation import Arm, sweep
from steerlab.ablation.directional import SCOPES, Scope, information, removal
from steerlab.ablation.edited import edited_means
from steerlab.ablation.erasure import as_basis, class_means, fixed, iterative, random_subspace, removal_curve
from steerlab.ablation.forced import forced_kl
from steerlab.bundled.corpus import LANGUAGES
from steerlab.bundled.tune import task_prompts
from steerlab.bundled.vectors import bundled_vectors
from steerlab.estimators import random_like
from steerlab.evaluation.language import language_share
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.tasks import postprocess
from steerlab.types import Site
from steerlab.vectors import SteeringVector

PAIR_SCOPES: tuple[Scope, ...] = ("layer", "all")  # of quality, which takes many pairs to be read at all
CURVE, PROBES, BEHAVIOUR = "directional_ablation_curve", "directional_ablation", "directional_ablation_behaviour"
ORDERS = {
    "means": "class means (training texts)",
    "vectors": "bundled language vectors",
    "iterative": "iterative probes (INLP)",
    "random": "random directions",
}
SERIES = {
    "vector fixed": "its vector out (probe: fitted before)",
    "random fixed": "random direction out (probe: fitted before)",
    "vector refitted": "its vector out, probe fitted anew",
    "random refitted": "random direction out, probe fitted anew",
}
WHERE = {"layer": "one layer", "onward": "from it on", "all": "all layers", "writers": "all writers"}


@dataclass(frozen=True)
class Config:
    """The layer of the removal, lines per language, and how many texts are written per prompt."""

    layer: int = 2
    curve_lines: int = 40
    ranks: tuple[int, ...] = (0, 1, 2, 3, 5, 7, 9, 11, 16, 24, 40, 64, 96)
    lines: int = 20
    pairs: int = 250
    rate: float = 0.3
    kl_lines: int = 6
    samples: int = 2
    most_tokens: int = 56
    max_new_tokens: int = 32
    resamples: int = 300
    seed: int = 0


def compute(config: Config) -> Result:
    """The three tables."""
    model, vectors = load(), bundled_vectors()
    lines = _ablate.heldout_lines(model, max(config.curve_lines, config.lines), config.most_tokens, config.seed)
    human, translated = _ablate.slovene_pairs(model, config.pairs, config.most_tokens, config.seed)
    corrupted = data.degraded_pairs(human, rate=config.rate, seed=config.seed)
    known = {code: vectors[f"language-{code}"] for code in LANGUAGES}
    contrasts = {code: (vector, *lines.contrast(code, config.lines)) for code, vector in known.items()}
    contrasts["translated"] = (vectors[_ablate.QUALITY], human, translated)
    contrasts["corrupted"] = (vectors["quality-sl"], list(corrupted.human), list(corrupted.degraded))
    tables = {
        CURVE: curve(config, model, lines, known),
        PROBES: read_again(config, model, contrasts),
        BEHAVIOUR: behaviour(config, model, lines, known),
    }
    return Result(tables, {}, model.revision, {**lines.hashes(), **_ablate.pair_hashes(human, translated)})


def curve(
    config: Config, model: TracedModel, lines: _ablate.Lines, known: Mapping[str, SteeringVector]
) -> pd.DataFrame:
    """Ten languages read from what k directions leave, at one layer."""
    n = config.curve_lines
    texts = [text for own in lines.ntrex.values() for text in own[:n]]
    x = edited_means(model, texts, [Site(config.layer)])[:, 0]
    most = max(config.ranks)
    orders = {
        "means": class_means,
        "vectors": fixed(as_basis([v.at(config.layer) for v in known.values()])),
        "iterative": iterative(most),
        "random": fixed(random_subspace(model.d_model, most, config.seed)),
    }
    y, groups = torch.arange(len(lines.ntrex)).repeat_interleave(n), torch.arange(n).repeat(len(lines.ntrex))
    return removal_curve(
        x, y, groups, orders, config.ranks, "lda", folds=4, seed=config.seed, resamples=config.resamples
    )


def removals(
    config: Config, model: TracedModel, vector: SteeringVector, scopes: Sequence[Scope] = SCOPES
) -> dict[str, tuple[Intervention, ...]]:
    """The vector and a random direction, taken out in these scopes."""
    control = random_like(vector, config.seed)
    return {
        f"{name} {scope}": removal(own, config.layer, scope, model.n_layers)
        for name, own in (("vector", vector), ("random", control))
        for scope in scopes
    }


def read_again(
    config: Config, model: TracedModel, contrasts: Mapping[str, tuple[SteeringVector, list[str], list[str]]]
) -> pd.DataFrame:
    """Probes before and after, for every contrast (vector, its positive texts, their partners), behind the layer of the
    removal and behind the last one.
    """
    read = sorted({config.layer, model.n_layers - 1})
    parts = []
    for name, (vector, positive, negative) in contrasts.items():
        n = len(positive)
        y, groups = torch.tensor([1] * n + [0] * n), torch.arange(n).repeat(2)
        pairs = name not in LANGUAGES
        out = removals(config, model, vector, PAIR_SCOPES if pairs else SCOPES)
        found = information(
            model, [*positive, *negative], y, groups, out, read,
            within=pairs, seed=config.seed, shuffles=1, resamples=config.resamples,
        )  # fmt: skip
        found.insert(0, "contrast", name)
        parts.append(found)
    table = pd.concat(parts, ignore_index=True)
    split = table["removal"].str.split(" ", expand=True)
    return table.assign(direction=split[0], scope=split[1]).drop(columns="removal")


def behaviour(
    config: Config, model: TracedModel, lines: _ablate.Lines, known: Mapping[str, SteeringVector]
) -> pd.DataFrame:
    """Share of texts in the language that the prompt names, and KL of the next token along human lines, own and others'."""
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    rows: list[dict[str, Any]] = []
    for code, vector in known.items():
        out = removals(config, model, vector)
        arms = [Arm("none none"), *(Arm(name, own) for name, own in out.items())]
        texts = sweep(model, arms, task_prompts(code), config.samples, settings)
        lid = data.language(code).lid
        for arm, own in texts.groupby("arm", sort=False):
            share = language_share([postprocess(str(text)) for text in own["text"]], lid)
            facts = dict(zip(("direction", "scope"), str(arm).split(" "), strict=True))
            rows.append({"language": code, "measure": "share", **facts, **_bounds(share)})
        own_lines, others = lines.contrast(code, config.kl_lines)
        found = forced_kl(model, list(out.values()), [*own_lines, *others])
        by_text = found.by_text()
        for row, name in zip(by_text, out, strict=True):
            facts = dict(zip(("direction", "scope"), name.split(" "), strict=True))
            for side, part in (("kl own", row[: len(own_lines)]), ("kl others", row[len(own_lines) :])):
                rows.append({"language": code, "measure": side, **facts, "value": part.mean(), "n": len(part)})
    return pd.DataFrame(rows)


def _bounds(estimate: Any) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def draw(result: Result) -> dict[str, Figure]:
    """The curve; probes by scope, of languages and of quality; share of texts in the language; KL."""
    tables: dict[str, Any] = dict(result.tables)
    table, probed, done = tables[CURVE], tables[PROBES], tables[BEHAVIOUR]
    figure, panels = figures.new(columns=2, rows=3, height=9.4)
    draw_curve(panels[0], table)
    last = probed[(probed["layer"] == probed["layer"].max()) & (probed["probe"] != "before")]
    last = last.assign(series=last["direction"] + " " + last["probe"])
    spoken = last[last["contrast"].isin(LANGUAGES)]
    language: Any = _ablate.over(spoken, "contrast", ["scope", "series"])
    draw_probes(panels[1], language, "A language against others", "AUROC, mean of 12 languages")
    draw_behaviour(panels[2], done, "share", "texts in the named language (%)", 100)
    draw_behaviour(panels[3], done, "kl own", "KL along own lines (nats per token)", 1)
    for axes, name in ((panels[4], "corrupted"), (panels[5], "translated")):
        own = last[last["contrast"] == name]
        draw_probes(axes, own, f"Human or {name}, within pairs", f"AUROC, {int(own['n'].max()) // 2} pairs")
    handles: dict[str, Any] = {}
    for axes in panels[1:3]:
        found, words = axes.get_legend_handles_labels()
        handles |= dict(zip(words, found, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    by = language.set_index(["scope", "series"])["value"]
    shares = done[done["measure"] == "share"].groupby(["direction", "scope"])["value"].mean() * 100
    ends = table[(table["order"] == "means") & (table["probe"] == "refitted")].sort_values("rank").iloc[-1]
    _ablate.headline(
        figure,
        f"Its vector out of all layers, {shares['vector', 'all']:.0f} % of texts are in the language the prompt names "
        f"({shares['none', 'none']:.0f} % unsteered, random {shares['random', 'all']:.0f} %). An old probe reads the language at AUROC "
        f"{by['all', 'vector fixed']:.2f}, a new one at {by['all', 'vector refitted']:.2f}: only without all "
        f"{int(ends['rank'])} directions of the class means is nothing left ({100 * ends['accuracy']:.0f} % of ten languages)",
    )
    return {PROBES: figure}


def draw_curve(axes: Axes, table: Any) -> None:
    """Accuracy of the refitted probe against directions removed."""
    own = table[table["probe"] == "refitted"]
    own = own.assign(value=own["accuracy"], low=own["accuracy_low"], high=own["accuracy_high"])
    own["place"] = np.log2(1 + own["rank"].to_numpy(float))
    figures.lines(axes, own, x="place", series="order", series_order=list(ORDERS), names=ORDERS)
    axes.axhline(0.1, color="grey", ls=":", lw=1.2)
    axes.text(0.05, 0.115, "chance", color="grey", fontsize=8)
    shown = [rank for rank in (0, 1, 3, 9, 24, 96) if rank in set(own["rank"])]
    axes.set_xticks(np.log2(1 + np.array(shown, dtype=float)), [str(rank) for rank in shown])
    axes.set_ylim(0, 1.7)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.legend(loc="upper left", fontsize=8)
    _ablate.panel(axes, "Ten languages, probe fitted anew", "directions removed", "accuracy, held-out lines")


def draw_probes(axes: Axes, points: Any, title: str, label: str) -> None:
    """AUROC behind the last layer, by scope."""
    _by_scope(axes, points, "series", SERIES)
    axes.axhline(0.5, color="grey", ls=":", lw=1.2, label="chance")
    axes.set_ylim(min(0.3, float(points["low"].min()) - 0.03), 1.02)
    _ablate.panel(axes, title, "direction removed at", label)


def draw_behaviour(axes: Axes, done: Any, measure: str, label: str, scale: float) -> None:
    """A measure by scope, the vector beside the random direction."""
    own = done[done["measure"] == measure]
    points: Any = _ablate.over(own[own["direction"] != "none"], "language", ["scope", "direction"])
    points[["value", "low", "high"]] *= scale
    points["series"] = points["direction"] + " fixed"  # the colours of the panels above
    _by_scope(axes, points, "series", dict(list(SERIES.items())[:2]))
    plain = own[own["direction"] == "none"]["value"]
    if len(plain):
        axes.axhline(float(plain.mean()) * scale, color="black", ls="--", lw=1, label="nothing out")
    axes.set_ylim(0, 105 if len(plain) else None)
    title = "Writing in the named language" if len(plain) else "Reading human lines"
    _ablate.panel(axes, title, "direction removed at", label)


def _by_scope(axes: Axes, points: Any, series: str, names: Mapping[str, str]) -> None:
    order = [scope for scope in WHERE if scope in set(points["scope"])]
    figures.dots(axes, points, place="scope", series=series, order=order, series_order=list(names), names=names)
    axes.set_xticks(range(len(order)), [WHERE[scope] for scope in order], fontsize=8.5)


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
