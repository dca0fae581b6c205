"""What can the bundled model do? Held-out bits per byte over training, and, per language, how often it writes
the language and the label it is asked for.

Bits per byte are on SIB-200 dev (99 parallel sentences per language, never trained on). Language and label:
topic texts behind the prompt that names the language; the label is judged by a character n-gram classifier
trained on SIB-200 train, shown beside that classifier's own accuracy on human text.

    python -m analyses.bundled_model --data DIR          # about 2 minutes on 2 cores
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from steerlab import data, figures
from steerlab.bundled.corpus import LANGUAGES
from steerlab.evaluation.faithfulness import faithfulness
from steerlab.evaluation.human import human_texts
from steerlab.evaluation.language import language_share
from steerlab.generation import Request, Settings, generate
from steerlab.loading import bundled_path, load
from steerlab.model import TracedModel
from steerlab.tasks import TASKS, postprocess, prompt

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


def compute(config: Config, model: TracedModel, root: Path | None) -> pd.DataFrame:
    """Rows (language, measure): bits per byte, share in the language, label faithfulness, the judge's accuracy."""
    record = json.loads((bundled_path() / "training.json").read_text(encoding="utf-8"))
    rows: list[dict[str, object]] = []
    for code, value in record.get("bits_per_byte", record["curve"][-1]["bits_per_byte"]).items():
        rows.append({"language": code, "measure": "bits_per_byte", "value": value, "low": None, "high": None, "n": 99})
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    for code in LANGUAGES:
        labels = [label for label in TASKS["topic"].labels for _ in range(config.per_label)]
        requests = [Request(prompt("topic", label, code), ("card", code, i)) for i, label in enumerate(labels)]
        texts = [postprocess(s.text) for s in generate(model, requests, settings, batch_rows=64)]
        human = human_texts("topic", code, root)
        judged = faithfulness(texts, labels, human.train_texts, human.train_labels, human.test_texts, human.test_labels)
        share = language_share(texts, data.language(code).lid)
        for measure, estimate in (("language", share), ("label", judged.share), ("judge", judged.judge_accuracy)):
            facts = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
            rows.append({"language": code, "measure": measure, **facts})
    return pd.DataFrame(rows)


def curve() -> pd.DataFrame:
    """Held-out bits per byte by tokens seen, one row per evaluation and language."""
    record = json.loads((bundled_path() / "training.json").read_text(encoding="utf-8"))
    return pd.DataFrame(
        [
            {"tokens": point["tokens"] / 1e6, "language": code, "value": value}
            for point in record["curve"]
            for code, value in point["bits_per_byte"].items()
        ]
    )


def draw(table: Any, over_time: Any) -> Figure:
    """Left: the training curve. Right: language and label per language."""
    figure, (left, right) = figures.new(columns=2, height=3.8)
    for code in LANGUAGES:
        own = over_time[over_time["language"] == code]
        left.plot(own["tokens"], own["value"], color=figures.COLOURS[0], alpha=0.5, lw=1)
        left.annotate(code, (own["tokens"].iloc[-1], own["value"].iloc[-1]), fontsize=7)
    left.set(xlabel="training tokens (millions)", ylabel="bits per byte, SIB-200 dev")
    left.set_title("Averaging undoes memorising")
    order = ("language", "label", "judge")
    figures.dots(
        right, table, place="language", series="measure", order=LANGUAGES, series_order=order, names=NAMES, percent=True
    )
    for code in LANGUAGES:
        kept = table[(table["language"] == code) & (table["measure"] == "bits_per_byte")]["value"].iloc[0]
        left.plot(over_time["tokens"].max() * 1.06, kept, "_", color=figures.COLOURS[5], ms=8)
    left.text(
        0.98, 0.97, "marks at the right: released weights,\nthe average of the ends of both runs", transform=left.transAxes,
        fontsize=7, color=figures.COLOURS[5], ha="right", va="top",
    )  # fmt: skip
    right.axhline(100 / 7, color="grey", ls=":", lw=1)
    right.set(xlabel="language", ylabel="topic texts (%)", ylim=(0, 103))
    mean = table[table["measure"] == "language"]["value"].mean() * 100
    right.set_title(f"{mean:.0f} % in the language asked for")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def card(table: Any) -> str:
    """The model card: analyses/card.md with this model's settings and numbers."""
    record = json.loads((bundled_path() / "training.json").read_text(encoding="utf-8"))
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
    return (Path(__file__).parent / "card.md").read_text(encoding="utf-8").format(**facts)


def main() -> None:
    """Compute, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    config, model = Config(), load()
    table = compute(config, model, parser.parse_args().data)
    record = {**asdict(config), "model_revision": model.revision}
    paths = figures.save(draw(table, curve()), table, Path("figures"), "bundled_model", record)
    (bundled_path() / "README.md").write_text(card(table), encoding="utf-8")
    print(table.pivot(index="language", columns="measure", values="value").round(2).to_string())
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    main()
