"""The card of a data set: how its texts were made, what was measured, whose texts they were judged against, and how to cite it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pandas as pd

from steerlab.data import LANGUAGES, SOURCES, SourceCard
from steerlab.evaluation import table
from steerlab.evaluation.human import source_of
from steerlab.loading import SHIPPED
from steerlab.steering_text import described
from steerlab.tasks import TASKS

METRICS = (
    "language_share",
    "distinct_2",
    "vendi_score",
    "self_bleu",
    "repetition_rate",
    "log_perplexity",
    "faithfulness",
)
SCORES = ("macro_f1_floor", "macro_f1", "macro_f1_ceiling", "macro_f1_finetuned")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
KINDS = {"sentiment": "sentiment-classification", "topic": "topic-classification"}
STUDY = """@misc{cegin2026,
  author = {Cegin and others},
  note = {Language and quality steering for synthetic data},
  eprint = {2606.18389},
  archivePrefix = {arXiv},
  year = {2026}
}"""


@dataclass(frozen=True, eq=False)
class Origin:
    """What is known of a data set's making: the run's `config` (empty for a file from elsewhere), its metric rows, and the SHA-256 of
    the samples file.
    """

    config: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    sha256: str


def card(
    origin: Origin,
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Mapping[str, int]],
    dropped: Mapping[str, int],
    choice: Mapping[str, Any],
    licence: str,
    name: str,
) -> str:
    """The README.md of the data set: YAML front matter for the hub, then the text for people.

    `rows`: the samples in it; `counts`: texts by configuration and split; `choice`: the filters and the split, as they were given.
    """
    licence = licence or ("cc-by-sa-4.0" if origin.config.get("model") in SHIPPED else "unknown")
    parts = [
        _front(rows, counts, licence, name),
        f"# {name}\n",
        _summary(rows, counts, dropped, choice),
        "## How it was made\n",
        _making(origin, rows),
        "## Measured quality\n",
        _quality(origin, rows, any(dropped.values())),
        "## Human sources\n",
        _humans(origin, rows),
        "## Intended use and limits\n",
        _use(origin, rows, licence),
        "## Citation\n",
        _citation(origin, rows),
    ]
    return "\n".join(parts)


def _front(rows: Sequence[Mapping[str, Any]], counts: Mapping[str, Mapping[str, int]], licence: str, name: str) -> str:
    def line(key: str, value: object) -> str:
        return f"{key}: {json.dumps(value, ensure_ascii=False)}"  # JSON is YAML

    codes, tasks = _distinct(rows, "language"), _distinct(rows, "task")
    size = next((label for limit, label in SIZES if len(rows) < limit), "1M<n<10M")
    lines = [
        line("license", licence),
        line("language", codes),
        line("pretty_name", name),
        line("task_categories", ["text-classification"]),
        line("task_ids", [KINDS[task] for task in tasks if task in KINDS]),
        line("size_categories", [size]),
        line("multilinguality", ["multilingual" if len(codes) > 1 else "monolingual"]),
        line("annotations_creators", ["machine-generated"]),
        line("language_creators", ["machine-generated"]),
        line("tags", ["synthetic", "activation-steering", "steerlab"]),
        "configs:",
    ]
    for place, (config, splits) in enumerate(counts.items()):
        lines.append(f"- config_name: {json.dumps(config)}")
        lines += ["  default: true"] if place == 0 else []
        lines.append("  data_files:")
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {json.dumps(f'{config}/{split}-*.parquet')}"]
    return "\n".join(["---", *lines, "---", ""])


def _summary(
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Mapping[str, int]],
    dropped: Mapping[str, int],
    choice: Mapping[str, Any],
) -> str:
    names = ", ".join(_language(code) for code in _distinct(rows, "language"))
    splits = list(dict.fromkeys(split for own in counts.values() for split in own))
    lines = [
        f"{len(rows)} texts **written by a language model**, none by people, for {' and '.join(_distinct(rows, 'task'))} classification in"
        f" {names}. The label is the one the text was asked for; nobody has checked it.\n",
        f"| configuration | {' | '.join(splits)} |",
        "|---|" + "---:|" * len(splits),
        *(f"| {config} | {' | '.join(str(own.get(s, 0)) for s in splits)} |" for config, own in counts.items()),
        "",
        "Columns: `id`, `text`, `label`, `language` (the one asked for), `condition` (the way it was written), `steering` (in words).",
        f"Texts of different conditions stand in one configuration: choose by `condition` ({', '.join(_distinct(rows, 'condition'))}).",
    ]
    if any(dropped.values()):
        lines.append("Left out of the run: " + "; ".join(f"{n} ({why})" for why, n in dropped.items() if n) + ".")
    if choice.get("validation"):
        lines.append(
            f"Validation: {choice['validation']:.0%} of the slots of each label, drawn with seed {choice['seed']}; what was written for one"
            " slot under several conditions is on one side."
        )
    return "\n".join(lines) + "\n"


def _making(origin: Origin, rows: Sequence[Mapping[str, Any]]) -> str:
    config = origin.config
    if not config:
        return f"Not recorded: the texts come from a file (SHA-256 of its bytes: {origin.sha256}).\n"
    settings = config.get("settings", {})
    shown = ", ".join(f"{name} {_word(value)}" for name, value in settings.items() if name != "seed")
    lines = [
        f"- model: `{config.get('model', 'not recorded')}`, revision `{config.get('model_revision', 'not recorded')}`",
        f"- sampling: {shown or 'not recorded'}",
        f"- seed: {settings.get('seed', 'not recorded')}; {config.get('per_label', '?')} texts per label and condition; empty and repeated"
        f" texts drawn again, at most {config.get('max_tries', '?')} times (near-duplicate limit {config.get('near_duplicate', '?')})",
        f"- prompts (the model's own template around them): {_prompts(config, rows)}",
        f"- tool: steerlab {version('steerlab')}; SHA-256 of the samples: {origin.sha256}",
        "",
        "| condition | language | steering |",
        "|---|---|---|",
    ]
    ways = {(str(r["condition"]), str(r["language"])): described(r.get("interventions") or ()) for r in rows}
    lines += [f"| {condition} | {code} | {way} |" for (condition, code), way in ways.items()]
    return "\n".join(lines) + "\n"


def _prompts(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The wording of every task's prompt, and which language it names under which condition."""
    shots = bool(config.get("shots"))
    worded = []
    for name in _distinct(rows, "task"):
        if name in TASKS:
            template = TASKS[name].few_shot if shots else TASKS[name].zero_shot
            worded.append(f"{name}: `{' '.join(template.split())}`")
    named: dict[str, list[str]] = {}
    for cell in config.get("cells", ()):
        code = cell.get("prompt_language")
        what = "no language" if code is None else "the language" if code == cell["language"] else _language(code)
        if cell["condition"] not in named.setdefault(what, []):
            named[what].append(cell["condition"])
    ways = "; ".join(f"names {what}: {', '.join(conditions)}" for what, conditions in named.items())
    few = "; few-shot, the examples are human texts and not part of this data set" if shots else "; zero-shot"
    return "; ".join(worded) + few + (f"; {ways}" if ways else "")


def _quality(origin: Origin, rows: Sequence[Mapping[str, Any]], filtered: bool) -> str:
    kept = {(r["language"], r["task"], r["condition"]) for r in rows}
    own = [m for m in origin.metrics if (m["language"], m["task"], m["condition"]) in kept]
    if not own:
        return "Not measured. `steerlab evaluate` measures it.\n"
    found: Any = pd.DataFrame(own)[list(table.COLUMNS)].astype({"value": float, "low": float, "high": float})
    chosen = [name for name in (*METRICS, *SCORES) if name in set(found["metric"])]
    note = "The numbers are those of the whole run, before texts were left out.\n\n" if filtered else ""
    return (
        "95 % intervals. `macro_f1`: a classifier trained on these texts, tested on human ones, between the constant answer (`floor`) and"
        " human training texts (`ceiling`). `faithfulness`: share of texts a judge trained on human text gives the intended label.\n\n"
        f"{note}{table.markdown(found, metrics=chosen)}"
    )


def _cards(origin: Origin, rows: Sequence[Mapping[str, Any]]) -> list[SourceCard]:
    if not (origin.metrics or origin.config.get("shots")):
        return []
    chosen = str(origin.config.get("source", ""))
    names = {chosen or source_of(str(row["task"]), str(row["language"])) for row in rows}
    return [SOURCES[name].card for name in sorted(names) if name in SOURCES]


def _humans(origin: Origin, rows: Sequence[Mapping[str, Any]]) -> str:
    cards = _cards(origin, rows)
    if not cards:
        return "No human texts were used.\n"
    few = " and the examples in its prompts" if origin.config.get("shots") else ""
    lines = [f"Judged against{few}; none of their texts is in this data set:\n"]
    lines += [f"- {c.name} ({c.url}), {c.licence}" for c in cards]
    return "\n".join(lines) + "\n"


def _use(origin: Origin, rows: Sequence[Mapping[str, Any]], licence: str) -> str:
    lines = [
        "For research on synthetic training data: as training texts of a classifier that is then tested on human texts. Not as a source of"
        " facts, not as a sample of how people write, and not as a test set: its labels are intentions.",
        "What it says may be false, rude or copied from the model's training text; languages may mix. Read the share in the target language"
        " beside that of human text: identification itself finds only about 60 % of human Javanese and Sundanese.",
    ]
    if origin.config.get("model") in SHIPPED:
        lines.append(
            f"{origin.config['model']} is a 6.5M-parameter instrument: many of its words are invented. Do not train a product on this."
        )
    if licence == "unknown":
        lines.append(
            "**No licence is stated.** The model's terms of use may bind its output: state one before sharing."
        )
    else:
        lines.append(f"Licence: {licence}. The model's terms of use may bind its output as well.")
    return "\n\n".join(lines) + "\n"


def _citation(origin: Origin, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["```bibtex", STUDY, "```", f"\nWritten with steerlab {version('steerlab')}."]
    lines += [f"- {c.name}: {c.citation}" for c in _cards(origin, rows)]
    return "\n".join(lines) + "\n"


def _distinct(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    return list(dict.fromkeys(str(row[column]) for row in rows))


def _language(code: str) -> str:
    return LANGUAGES[code].name if code in LANGUAGES else code


def _word(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | list | tuple) else str(value)
