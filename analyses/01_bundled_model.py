"""What can the bundled model do? Bits per byte over training, and how often it writes the language and label asked for.

Bits per byte are on SIB-200 dev (99 parallel sentences per language, never trained on). Language and label:
topic texts behind the prompt that names the language; the label is judged by a character n-gram classifier
trained on SIB-200 train, shown beside that classifier's own accuracy on human text. Also writes the model's card.

    python -m analyses.01_bundled_model --data DIR          # about 2 minutes on 2 cores
    python -m analyses.01_bundled_model --redraw            # from figures/*.csv, without a model
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses import _bundled
from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.bundled.corpus import LANGUAGES
from steerlab.evaluation.faithfulness import faithfulness
from steerlab.evaluation.human import human_texts
from steerlab.evaluation.language import language_share
from steerlab.generation import Request, Settings, generate
from steerlab.loading import bundled_path, load
from steerlab.tasks import TASKS, postprocess, prompt

TABLE, CURVE = "bundled_model", "bundled_model_curve"
CARD = "steerlab/bundled/polyglot_mini/README.md"
NAMES = {
    "language": "written in the language asked for",
    "label": "label recognised (classifier)",
    "judge": "the classifier on human text",
}


@dataclass(frozen=True)
class Config:
    """Topic texts per label and language."""

    per_label: int = 20
    seed: int = 3
    max_new_tokens: int = 64


def compute(config: Config) -> Result:
    """Rows (language, measure): bits per byte, share in the language, label faithfulness, the judge's accuracy; and the
    training curve.
    """
    model, record = load(), training()
    rows: list[dict[str, object]] = []
    for code, value in record.get("bits_per_byte", record["curve"][-1]["bits_per_byte"]).items():
        rows.append({"language": code, "measure": "bits_per_byte", "value": value, "low": None, "high": None, "n": 99})
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    judges = {code: human_texts("topic", code) for code in LANGUAGES}
    for code, human in judges.items():
        labels = [label for label in TASKS["topic"].labels for _ in range(config.per_label)]
        requests = [Request(prompt("topic", label, code), ("card", code, i)) for i, label in enumerate(labels)]
        texts = [postprocess(s.text) for s in generate(model, requests, settings, batch_rows=64)]
        judged = faithfulness(texts, labels, human.train_texts, human.train_labels, human.test_texts, human.test_labels)
        share = language_share(texts, data.language(code).lid)
        for measure, estimate in (("language", share), ("label", judged.share), ("judge", judged.judge_accuracy)):
            facts = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
            rows.append({"language": code, "measure": measure, **facts})
    hashes = _bundled.text_hashes("sib200", {c: [*h.train_texts, *h.test_texts] for c, h in judges.items()})
    return Result({TABLE: pd.DataFrame(rows), CURVE: curve()}, {}, model.revision, hashes)


def training() -> dict[str, Any]:
    """The record of the model's training."""
    return json.loads((bundled_path() / "training.json").read_text(encoding="utf-8"))


def curve() -> pd.DataFrame:
    """Held-out bits per byte by millions of tokens seen, one row per evaluation and language."""
    return pd.DataFrame(
        [
            {"tokens": point["tokens"] / 1e6, "language": code, "value": value}
            for point in training()["curve"]
            for code, value in point["bits_per_byte"].items()
        ]
    )


def draw(result: Result) -> dict[str, Figure]:
    """Left: the training curve. Right: language and label per language."""
    table: Any = result.tables[TABLE]
    over_time: Any = result.tables[CURVE]
    figure, (left, right) = figures.new(columns=2, height=3.8)
    ends = {}
    for code in LANGUAGES:
        own = over_time[over_time["language"] == code]
        left.plot(own["tokens"], own["value"], color=figures.COLOURS[0], alpha=0.5, lw=1)
        ends[code] = float(own["value"].iloc[-1])
    for code, height in _apart(ends, 0.07).items():
        left.annotate(code, (over_time["tokens"].max() * 1.01, height), fontsize=7, va="center")
    bits = table[table["measure"] == "bits_per_byte"].set_index("language")["value"]
    left.set(xlabel="training tokens (millions)", ylabel="bits per byte, SIB-200 dev")
    end = sum(ends.values()) / len(ends)
    left.set_title(f"Averaging undoes memorising:\n{end:.2f} to {bits.mean():.2f} bits per byte")
    order = ("language", "label", "judge")
    figures.dots(
        right, table, place="language", series="measure", order=LANGUAGES, series_order=order, names=NAMES, percent=True
    )
    for code in LANGUAGES:
        left.plot(over_time["tokens"].max() * 1.09, bits[code], "_", color=figures.COLOURS[5], ms=8)
    left.text(
        0.98, 0.97, "marks at the right: released weights,\nthe average of the ends of both runs", transform=left.transAxes,
        fontsize=7, color=figures.COLOURS[5], ha="right", va="top",
    )  # fmt: skip
    right.axhline(100 / 7, color="grey", ls=":", lw=1)
    right.set(xlabel="language", ylabel="topic texts (%)", ylim=(0, 103))
    mean = table.groupby("measure")["value"].mean() * 100
    right.set_title(
        f"{mean['language']:.0f} % in the language asked for,\n{mean['label']:.0f} % on its topic (chance 14 %)"
    )
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return {TABLE: figure}


def _apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """The heights of labels, moved up where they would cover each other."""
    found: dict[str, float] = {}
    for code in sorted(heights, key=lambda code: heights[code]):
        found[code] = max(heights[code], max(found.values(), default=float("-inf")) + gap)
    return found


def card(result: Result) -> dict[str, str]:
    """The model card: analyses/card.md with this model's settings and numbers."""
    table, record = result.tables[TABLE], training()
    config = record["config"]
    wide = table.pivot(index="language", columns="measure", values="value")
    rows = [
        "| language | bits per byte | in the language | label recognised | judge on human text |",
        "|---|---|---|---|---|",
    ]
    for code, row in wide.iterrows():
        shares = " | ".join(f"{row[name]:.2f}" for name in ("language", "label", "judge"))
        rows.append(f"| {code} | {row['bits_per_byte']:.2f} | {shares} |")
    means = [f"{wide[name].mean():.2f}" for name in ("bits_per_byte", "language", "label", "judge")]
    rows.append("| mean | " + " | ".join(means) + " |")
    first, second = (f"{n / 1e6:.1f}M" for n in record["average"]["tokens"])
    share = record["average"]["share_of_second"]
    note = (
        f"{first} tokens, then {second} more from those weights at the full rate again, decaying to zero, with labelled topic "
        f"sentences drawn twice as often ({record['steps']} steps on a CPU); the weights are {1 - share:.1f} of the first plus {share:.1f} "
        "of the second, which by itself fits its labels better and held-out text worse"
    )
    facts = {**config, "parameters": record["parameters"] / 1e6, "note": note + ".", "table": "\n".join(rows)}
    text = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    return {CARD: text.format(**facts)}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw, pages=card)
