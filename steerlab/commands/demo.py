"""`steerlab demo`: the main job in minutes, on the bundled model, with a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import figures
from steerlab.commands.synthesize import Steering, finish, interventions
from steerlab.evaluation.averages import averaged
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.recipes import Condition, SynthesisConfig, evaluate, write_data

LANGUAGES = ("am", "jv", "su")
METRICS = {
    "language_share": "texts in the target language (%)",
    "distinct_2": "distinct-2 (%)",
    "macro_f1": "macro-F1 on human texts (%)",
}
NAMES = {
    "unsteered": "language named, unsteered",
    "language": "language named, language vector",
    "quality": "language named, quality vector",
    "nameless": "no language named, unsteered",
    "nameless-language": "no language named, language vector",
    "nameless-random": "no language named, random direction",
}


def run(out: Path, per_label: int, seed: int, progress: bool) -> tuple[list[dict[str, Any]], Path]:
    """Write, measure, draw. Returns the summary rows and the figure's path."""
    model = load()
    config = SynthesisConfig(
        LANGUAGES,
        ("topic", "sentiment"),
        per_label=per_label,
        source="sample",
        settings=Settings(seed=seed, max_new_tokens=96),
    )
    by_kind = {
        kind: interventions(Steering(kind), LANGUAGES, model, seed) for kind in ("language", "quality", "random")
    }
    conditions = [
        Condition("unsteered", {}),
        Condition("language", by_kind["language"]),
        Condition("quality", by_kind["quality"]),
        Condition("nameless", {}, prompt="none"),
        Condition("nameless-language", by_kind["language"], prompt="none"),
        Condition("nameless-random", by_kind["random"], prompt="none"),
    ]
    written, _, folder = write_data(model, config, conditions, out, progress=progress)
    with folder:
        metrics = evaluate(written.samples, model=model, source="sample", progress=progress)
        figure, table = draw(metrics)
        record = {
            "config": config.to_json(),
            "model_revision": model.revision,
            "per": "mean over topic and sentiment, 95 % interval from those of the two (steerlab.evaluation.averages)",
        }
        paths = figures.save(figure, table, folder.path / "figures", "demo", record)
        finish(folder, written, metrics, config, None, bundled=True)
    return summary(metrics), paths[0]


def summary(metrics: Any) -> list[dict[str, Any]]:
    """One row per condition: the mean of each headline metric over languages and tasks."""
    rows = []
    for condition, name in NAMES.items():
        own = metrics[metrics["condition"] == condition]
        means = {m: float(own[own["metric"] == m]["value"].mean()) for m in METRICS}
        rows.append({"condition": name, **means})
    return rows


def draw(metrics: Any) -> tuple[Any, pd.DataFrame]:
    """Three panels, one per metric: every condition in every language, averaged over the two tasks.

    The tasks' texts and their human test texts are different ones, so that the estimates of the two are independent.
    """
    kept = metrics[metrics["metric"].isin(list(METRICS)) & metrics["condition"].isin(list(NAMES))]
    table = averaged(kept, "task")
    figure, panels = figures.new(columns=3, height=3.8)
    for axes, (metric, label) in zip(panels, METRICS.items(), strict=True):
        own: Any = table[table["metric"] == metric]
        figures.dots(
            axes,
            own,
            place="language",
            series="condition",
            order=LANGUAGES,
            series_order=list(NAMES),
            names=NAMES,
            percent=True,
        )
        axes.set_ylabel(label)
        axes.set_ylim(0, 105)
    gain = _mean(table, "nameless-language") - _mean(table, "nameless")
    control = _mean(table, "nameless-random") - _mean(table, "nameless")
    figure.suptitle(
        "Where the prompt names no language, the language vector moves\n"
        f"{gain:+.0f} points of the texts into the target language; a random direction {control:+.0f}",
        fontsize=10.5, fontweight="bold", x=0.01, ha="left",
    )  # fmt: skip
    handles, labels = panels[0].get_legend_handles_labels()
    said = "am Amharic, jv Javanese, su Sundanese; means of topic and sentiment, 95 % intervals where both have one"
    figure.legend(handles, labels, loc="outside lower center", ncols=2, title=said, title_fontsize=8.5)
    return figure, table


def _mean(table: Any, condition: str) -> float:
    own = table[(table["metric"] == "language_share") & (table["condition"] == condition)]
    return 100 * float(own["value"].mean())
