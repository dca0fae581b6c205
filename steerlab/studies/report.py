"""From judged cells to what is read: tables, figures, and a page that says plainly which claims held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import figures
from steerlab.disk import replace, told
from steerlab.evaluation.stats import bootstrap
from steerlab.studies import draw
from steerlab.studies.claims import by_strength, chosen_gains, claim_table, cost_table, scores, shrinkage
from steerlab.studies.config import StudyConfig
from steerlab.studies.worth import mixed

METRICS = ("macro_f1", "distinct_2", "self_bleu", "vendi_ngram", "compression_ratio", "language_share", "faithfulness")
UNDECIDED = "Cannot be told."
LABELS = {
    "macro_f1": "macro-F1", "distinct_2": "distinct-2", "self_bleu": "self-BLEU (lower is better)", "vendi_ngram": "Vendi score",
    "compression_ratio": "compression ratio (lower is better)", "language_share": "target-language share",
    "faithfulness": "label faithfulness",
}  # fmt: skip


def tables(
    cells: pd.DataFrame, references: pd.DataFrame, cosines: pd.DataFrame, worth: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Every table of the report: cells, scores over both kinds of seeds, references, claim, gain by strength, chosen strengths, cost,
    cosines, and worth beside human texts.
    """
    metrics = [m for m in METRICS if cells[m].notna().to_numpy().any()]
    return {
        "cells": cells.drop(columns=["macro_f1_seeds"]),
        "scores": scores(cells),
        "references": references,
        "claim": claim_table(cells, metrics),
        "by-strength": pd.concat([by_strength(cells, m) for m in metrics], ignore_index=True),
        "chosen": chosen_gains(cells, "macro_f1"),
        "cost": cost_table(cells),
        "cosines": cosines,
        "worth": worth,
    }


def write_tables(found: dict[str, pd.DataFrame], folder: Path) -> list[Path]:
    """NAME.csv for every table, with six significant digits."""
    paths = []
    for name, table in found.items():
        path = folder / f"{name}.csv"
        with told(path):
            replace(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
        paths.append(path)
    return paths


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """What `write_tables` wrote."""
    return {p.stem: pd.read_csv(p, keep_default_na=True, na_filter=True) for p in sorted(folder.glob("*.csv"))}


def write_figures(found: dict[str, pd.DataFrame], folder: Path, record: dict[str, Any]) -> list[Path]:
    """Every figure of `drawn`, each with its table; returns the PNG paths."""
    unit = str(record.get("strength_unit", "residual fraction"))
    return [figures.save(f, table, folder, name, record)[0] for name, (f, table) in drawn(found, unit).items()]


def drawn(found: dict[str, pd.DataFrame], unit: str) -> dict[str, tuple[Any, pd.DataFrame]]:
    """Claim, strength (one figure per prompt mode), trade-off, cosine and worth: name -> (figure, its table)."""
    cells = found["cells"].assign(group=found["cells"]["group"].fillna(""))
    modes = [str(m) for m in cells["mode"].unique()]
    made = {"claim": draw.claim(found["claim"])}
    for mode in modes:
        both = [("macro_f1", "macro-F1"), ("distinct_2", "distinct-2")]
        made[f"strength-{mode}"] = draw.strengths(found["by-strength"], both, mode, unit)
    made["trade"] = draw.trade(cells, modes[0])
    if len(found["cosines"]):
        made["cosine"] = draw.cosine(cells, found["cosines"], modes[0])
    if len(found["worth"]):
        made["worth"] = draw.worth(mixed(found["worth"]), found["worth"])
    return made


def page(found: dict[str, pd.DataFrame], config: StudyConfig, images: Sequence[str], command: str) -> str:
    """The results page: what was asked, whether each of the paper's claims held, the tables, and what the numbers mean."""
    claim, cells = found["claim"], found["cells"]
    parts = [
        "# Low-resource study: does steering give better synthetic data?\n",
        f"Written by `{command}`. {_size(cells, config)}\n",
        "Every share below is over cases (language x task x strength) and stands with a 95 % bootstrap interval over "
        "(language, task); the *random* rows are the control: a random direction of the same norm.\n",
        "## The paper's claims on this model\n",
        *[f"- {line}" for line in verdicts(found)],
        "",
        *[f"![{Path(image).stem}]({image})" for image in images],
        "",
        "## Share of cases in which steering beats its unsteered counterpart\n",
    ]
    for mode in claim["mode"].unique():
        for rule, what in (
            ("every", "every strength"),
            ("chosen", "strength chosen on the first seed, measured on the others"),
        ):
            own: Any = claim[(claim["mode"] == mode) & (claim["strengths"] == rule)]
            if len(own):
                parts += [f"### {mode}, {what}\n", _shares(own), ""]
    parts += ["## What a text costs\n", _cost(found["cost"]), ""]
    if len(found["worth"]):
        parts += ["## Beside human texts, and how far labels can be trusted\n", _worth(found["worth"]), ""]
    parts += ["## Floor and ceiling of macro-F1\n", _references(found["references"], cells), ""]
    return "\n".join(parts)


def _size(cells: pd.DataFrame, config: StudyConfig) -> str:
    models = ", ".join(str(m) for m in cells["model"].unique())
    return (
        f"{models}: {len(cells)} cells, {int(cells['n'].to_numpy().sum())} texts, {cells['language'].nunique()} languages, "
        f"{cells[['language', 'task']].drop_duplicates().shape[0]} (language, task) pairs, {_seeds(cells, config)}, "
        f"{config.classifier_seeds} classifier seeds."
    )


def _seeds(cells: pd.DataFrame, config: StudyConfig) -> str:
    """Which generation seeds each prompt mode rests on, and how many (language, task) pairs of the others are written."""
    places: Any = cells[["mode", "seed", "language", "task"]].drop_duplicates()
    pairs = len(places[["language", "task"]].drop_duplicates())
    whole, late = [], []
    for mode in places["mode"].unique():
        there = {int(seed): int(n) for seed, n in places[places["mode"] == mode]["seed"].value_counts().items()}
        whole.append(f"{sorted(seed for seed, n in there.items() if n == pairs)} ({mode})")
        late += [
            f"seed {seed}, {mode}: {there.get(seed, 0)} of {pairs} pairs"
            for seed in config.seeds if there.get(seed, 0) < pairs
        ]  # fmt: skip
    return "generation seeds " + " and ".join(whole) + (f" (not written whole yet: {'; '.join(late)})" if late else "")


def verdicts(found: dict[str, pd.DataFrame]) -> list[str]:
    """One sentence per claim of the paper: held, did not hold, or cannot be told, with the numbers."""
    claim, lines, paper = found["claim"], [], f"paper: {draw.PAPER_SHARE}"
    every: Any = claim[claim["strengths"] == "every"]
    for mode, kind, group, metric, text in (
        ("zero-shot", "quality", "early", "macro_f1", f"Quality vectors at early blocks raise macro-F1 in most cases ({paper})"),
        ("zero-shot", "language", "early", "macro_f1", "Language vectors at early blocks raise macro-F1 in most cases"),
        ("zero-shot", "quality", "early", "distinct_2", "Early steering with quality vectors raises diversity (distinct-2)"),
    ):  # fmt: skip
        own = every[
            (every["mode"] == mode) & (every["kind"] == kind) & (every["group"] == group) & (every["metric"] == metric)
        ]
        for row in own.to_dict("records"):
            lines.append(
                f"**{_held(row)}** {text}: {_percent(row, 'share')} of cases; {_versus(row)}; mean gain {_points(row)}."
            )
    cells = found["cells"].assign(group=found["cells"]["group"].fillna(""))
    less = shrinkage(cells, "macro_f1", "quality", "early")
    if less.known:
        held = "Held." if less.low > 0 else "Did not hold." if less.high < 0 else UNDECIDED
        lines.append(
            f"**{held}** With few-shot prompts the gain of quality vectors at early blocks shrinks: zero-shot gain minus few-shot gain "
            f"{100 * less.value:+.1f} points [{100 * less.low:+.1f}, {100 * less.high:+.1f}]."
        )
    cosines = found["cosines"]
    if len(cosines):
        negative = 100 * (cosines["cosine"] < 0).mean()
        lines.append(
            f"Language and quality vectors are opposed (cosine below 0) at {negative:.0f} % of (language, block) places."
        )
    return lines


def _held(row: dict[str, Any]) -> str:
    """Held: more than half of the cases, more than a random direction, and a sign test over places that agrees."""
    if row["share_low"] > 0.5 and row["vs_random_low"] > 0 and row["p"] < 0.05:
        return "Held."
    if row["share_high"] < 0.5 or row["vs_random_high"] < 0:
        return "Did not hold."
    return UNDECIDED


def _percent(row: dict[str, Any], name: str) -> str:
    return f"{100 * row[name]:.0f} % [{100 * row[f'{name}_low']:.0f}, {100 * row[f'{name}_high']:.0f}]"


def _points(row: dict[str, Any]) -> str:
    return f"{100 * row['gain']:+.1f} points [{100 * row['gain_low']:+.1f}, {100 * row['gain_high']:+.1f}]"


def _versus(row: dict[str, Any]) -> str:
    if pd.isna(row["vs_random"]):
        return "no random control"
    low, high = 100 * row["vs_random_low"], 100 * row["vs_random_high"]
    return f"against a random direction {100 * row['vs_random']:+.0f} points [{low:+.0f}, {high:+.0f}]"


def _shares(own: Any) -> str:
    metrics = [m for m in METRICS if m in set(own["metric"])]
    lines = [
        "| vector | block | " + " | ".join(LABELS[m] for m in metrics) + " | p (macro-F1) |",
        "|---" * (len(metrics) + 3) + "|",
    ]
    for (kind, group), part in own.groupby(["kind", "group"], sort=False):
        by = {row["metric"]: row for row in part.to_dict("records")}
        cells = [_percent(by[m], "share") if m in by else "–" for m in metrics]
        lines.append(f"| {kind} | {group} | " + " | ".join(cells) + f" | {by['macro_f1']['p']:.3f} |")
    return "\n".join(lines)


def _cost(table: pd.DataFrame) -> str:
    lines = [
        "| prompts | vector | tokens written per text | tokens read per text | all tokens, relative to unsteered few-shot |",
        "|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        ratio = (
            "–"
            if pd.isna(row["to_few_shot"])
            else f"{row['to_few_shot']:.2f} [{row['to_few_shot_low']:.2f}, {row['to_few_shot_high']:.2f}]"
        )
        lines.append(
            f"| {row['mode']} | {row['kind']} | {row['tokens_per_text']:.0f} | {row['prompt_tokens_per_text']:.0f} | {ratio} |"
        )
    return "\n".join(lines)


def _references(table: pd.DataFrame, cells: pd.DataFrame) -> str:
    plain: Any = cells[cells["kind"] == "none"]
    modes = list(plain["mode"].unique())
    lines = [
        "| language | task | human test texts | floor | "
        + " | ".join(f"unsteered, {m}" for m in modes)
        + " | ceiling (human train) |"
    ]
    lines.append("|---" * (5 + len(modes)) + "|")
    for row in table.to_dict("records"):
        own = plain[(plain["language"] == row["language"]) & (plain["task"] == row["task"])]
        means = [f"{own[own['mode'] == m]['macro_f1'].mean():.2f}" for m in modes]
        top = (
            f"{row['ceiling']:.2f} [{row['ceiling_low']:.2f}, {row['ceiling_high']:.2f}] ({row['ceiling_texts']} texts)"
            if row["ceiling"] == row["ceiling"]
            else "–"
        )
        lines.append(
            f"| {row['language']} | {row['task']} | {row['test_texts']} ({row['source']}) | {row['floor']:.2f} | "
            + " | ".join(means)
            + f" | {top} |"
        )
    return "\n".join(lines)


def _worth(table: Any) -> str:
    """Means over (language, task) of what `studies.worth` measures, unsteered and steered."""
    names = {
        "worth": "human texts that alone reach the same macro-F1",
        "ece": "expected calibration error of the classifier",
        "ece_scaled": "the same after temperature scaling",
        "label_confidence": "human-trained judge's probability of the intended label",
        "label_confidence_human": "the same on human test texts",
    }
    lines = ["| | unsteered | steered (best arm of the first seed) |", "|---|---|---|"]
    for measure, name in names.items():
        own = table[table["measure"] == measure]
        cells = [f"{bootstrap(own[own['what'] == what]['value'].to_numpy(float))}" for what in ("unsteered", "steered")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
