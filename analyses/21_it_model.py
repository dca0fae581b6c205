"""Does polyglot-mini-it obey? Follow rates with and without the instruction in the prompt, beside the model it was made from.

Base queries about subjects that were never trained on (the test split, four wordings each), answered greedily: without an
instruction, with it in phrasings that were trained on, and in one that was not; the words to include are also drawn from words never
asked for. Checks are strict. What it cost: held-out bits per byte and the share of topic texts in the language the prompt names, of
both models. Also writes the model's card.

    python -m analyses.21_it_model              # some minutes on one core
    python -m analyses.21_it_model --redraw     # from figures/*.csv, without a model
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.bundled.corpus import LANGUAGES
from steerlab.bundled.lessons import HELD_WORDS
from steerlab.bundled.obey import stages_of
from steerlab.data.ifeval import InstructedPrompt
from steerlab.evaluation.language import language_share
from steerlab.evaluation.stats import wilson
from steerlab.following import SIMPLE, own_queries, simple_prompts, split_queries
from steerlab.following.phrasings import PHRASINGS, phrase
from steerlab.following.registry import check
from steerlab.generation import Request, Settings, generate
from steerlab.loading import SHIPPED, bundled_path, load
from steerlab.model import TracedModel
from steerlab.tasks import TASKS, postprocess, prompt

TABLE, COST, CURVE = "it_model", "it_model_cost", "it_model_curve"
CARD = "steerlab/bundled/polyglot_mini_it/README.md"
BASE, OBEYS = SHIPPED
SERIES = {
    "without": "polyglot-mini-it, no instruction",
    "with": "with it",
    "new phrasing": "with it, in a phrasing never trained on",
    "new word": "with it, a word never asked for in training",
    "base": "polyglot-mini, with it",
}


@dataclass(frozen=True)
class Config:
    """Seed of the arguments; topic texts per label and language; new tokens."""

    seed: int = 1
    per_label: int = 2
    max_new_tokens: int = 48


def asked(seed: int, kind: str) -> list[InstructedPrompt]:
    """The test queries with every simple instruction, in phrasings of the kind wanted."""
    queries = split_queries(own_queries())["test"]
    names = ["simple:include_word"] if kind == "new word" else SIMPLE
    pool = {"word_pool": HELD_WORDS} if kind == "new word" else {}
    rows = simple_prompts(queries, names, seed, "test", **pool)
    found = []
    for i, row in enumerate(rows):
        (name,), (kwargs,) = row.instructions, row.kwargs
        last = len(PHRASINGS[name]) - 1  # the one that was held out
        said = phrase(name, kwargs, last if kind == "new phrasing" else i % last)
        found.append(replace(row, prompt=row.base if kind == "without" else f"{row.base} {said}"))
    return found


def follow(model: TracedModel, kinds: dict[str, str], config: Config) -> pd.DataFrame:
    """Strict follow rates per instruction; `kinds`: the series' name and which prompts it has."""
    rows = {series: asked(config.seed, kind) for series, kind in kinds.items()}
    texts = list(dict.fromkeys(row.prompt for own in rows.values() for row in own))  # one batch run, each prompt once
    settings = Settings(max_new_tokens=config.max_new_tokens, greedy=True)
    written = generate(model, [Request(t, (t,)) for t in texts], settings, batch_rows=128, progress=True)
    answer = dict(zip(texts, (s.text for s in written), strict=True))
    table = []
    for series, own in rows.items():
        for name in SIMPLE:
            mine = [row for row in own if row.instructions == (name,)]
            if mine:
                kept = [check(name, row.kwargs[0], answer[row.prompt]).passed for row in mine]
                rate = wilson(sum(kept), len(kept))
                table.append((name.split(":")[1], series, rate.value, rate.low, rate.high, len(kept)))
    return pd.DataFrame(table, columns=["instruction", "series", "value", "low", "high", "n"])


def cost(model: TracedModel, config: Config) -> pd.DataFrame:
    """Bits per byte and language share of one model, per language."""
    bits = record(model.name)["bits_per_byte"]
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    rows = []
    labels = [label for label in TASKS["topic"].labels for _ in range(config.per_label)]
    requests = {
        code: [Request(prompt("topic", label, code), ("it", code, i)) for i, label in enumerate(labels)]
        for code in LANGUAGES
    }
    flat = [one for own in requests.values() for one in own]
    texts = [postprocess(s.text) for s in generate(model, flat, settings, batch_rows=128, progress=True)]
    for k, code in enumerate(LANGUAGES):
        own = texts[k * len(labels) : (k + 1) * len(labels)]
        share = language_share(own, data.language(code).lid)
        rows.append((model.name, code, bits[code], share.value, share.low, share.high, share.n))
    return pd.DataFrame(rows, columns=["model", "language", "bits_per_byte", "share", "low", "high", "n"])


def record(name: str) -> dict[str, Any]:
    """The record of a bundled model's training."""
    return json.loads((bundled_path(name) / "training.json").read_text(encoding="utf-8"))


def curve() -> pd.DataFrame:
    """Held-out bits per byte by millions of tokens, all stages after one another, one row per evaluation and language."""
    points, read = [(0.0, record(BASE)["bits_per_byte"])], 0
    for stage in stages_of(record(OBEYS)):
        points += [(read + p["tokens"], p["bits_per_byte"]) for p in stage["curve"]]
        read += stage["tokens"]
    rows = [(tokens / 1e6, code, value) for tokens, bits in points for code, value in bits.items()]
    return pd.DataFrame(rows, columns=["tokens", "language", "value"])


def compute(config: Config) -> Result:
    """Follow rates of both models, what obeying cost, and the training curve."""
    base, obeys = load(BASE), load(OBEYS)
    own = follow(obeys, {kind: kind for kind in SERIES if kind != "base"}, config)
    table = pd.concat([own, follow(base, {"base": "with"}, config)], ignore_index=True)
    paid = pd.concat([cost(base, config), cost(obeys, config)], ignore_index=True)
    hashes = {"prompts": data.texts_sha256([row.prompt for kind in SERIES for row in asked(config.seed, kind)])}
    return Result({TABLE: table, COST: paid, CURVE: curve()}, {"base": base.revision}, obeys.revision, hashes)


def draw(result: Result) -> dict[str, Figure]:
    """Left: follow rates. Right: bits per byte before and after, per language."""
    table: Any = result.tables[TABLE]
    paid: Any = result.tables[COST]
    figure, (left, right) = figures.new(columns=2, height=4.4)
    order = list(dict.fromkeys(table["instruction"]))
    figures.dots(
        left,
        table,
        place="instruction",
        series="series",
        order=order,
        series_order=list(SERIES),
        names=SERIES,
        percent=True,
    )
    left.set_xticks(range(len(order)), [name.replace("_", "\n") for name in order], rotation=60)
    left.set(ylabel="answers that follow (%)", ylim=(-3, 103))
    mean = table.groupby("series")["value"].mean() * 100
    left.set_title(f"Asked, it follows {mean['with']:.0f} %;\nnot asked, {mean['without']:.0f} %")
    wide = paid.pivot(index="language", columns="model", values="bits_per_byte")
    for k, name in enumerate(SHIPPED):
        right.plot(
            range(len(wide)), wide[name], figures.MARKERS[k], color=figures.COLOURS[(4, 0)[k]], label=name, ls=""
        )
    right.set_xticks(range(len(wide)), list(wide.index))
    share = paid.groupby("model")["share"].mean() * 100
    right.set(xlabel="language", ylabel="bits per byte, SIB-200 dev")
    right.set_title(
        f"{wide[BASE].mean():.2f} to {wide[OBEYS].mean():.2f} bits per byte;\n"
        f"language kept: {share[BASE]:.0f} to {share[OBEYS]:.0f} %"
    )
    right.legend()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return {TABLE: figure}


def told(stage: dict[str, Any]) -> str:
    """A stage of training in one line of the card."""
    own = stage["documents"]
    copies, stress = own.get("copies", 0.0), own.get("stress", 1)
    asked = ", ".join(
        f"{name.split(':')[1].replace('_', ' ')} {weight / sum(own['weights']):.0%}"
        for name, weight in zip(SIMPLE, own["weights"], strict=True)
    )
    line = f"{stage['tokens'] / 1e6:.2f}M tokens: {own['plain']:.0%} of documents as polyglot-mini saw them, "
    line += f"{own['bare']:.0%} requests without an instruction, {copies:.0%} copying, the rest obey ({asked}; "
    line += f"{own['pairs']:.0%} of these carry two instructions"
    line += f", {own['short']:.0%} of answers are cut to three to fourteen words)" if own["short"] else ")"
    return line + (f"; the word and the mark asked for weigh {stress} times in the loss." if stress > 1 else ".")


def card(result: Result) -> dict[str, str]:
    """The model card: analyses/card_it.md with this model's numbers."""
    table, paid, training = result.tables[TABLE], result.tables[COST], record(OBEYS)
    heads = ["without", "with", "new phrasing", "new word", "base"]
    rows = [f"| instruction | n | {' | '.join(SERIES[head] for head in heads)} |", "|---" * (len(heads) + 2) + "|"]
    for name in dict.fromkeys(table["instruction"]):
        own = table[table["instruction"] == name].set_index("series")
        cells = [
            f"{own.at[h, 'value']:.2f} [{own.at[h, 'low']:.2f}, {own.at[h, 'high']:.2f}]" if h in own.index else "–"
            for h in heads
        ]
        rows.append(f"| {name} | {own.at['with', 'n']} | {' | '.join(cells)} |")
    means: Any = paid.groupby("model")[["bits_per_byte", "share"]].mean()
    bits, share = means["bits_per_byte"], means["share"]
    points: Any = pd.DataFrame(result.tables[CURVE]).groupby("tokens")["value"].mean()
    stages = stages_of(training)
    facts = {
        "table": "\n".join(rows),
        "parameters": training["parameters"] / 1e6,
        "stages": "\n".join(f"  {k}. {told(stage)}" for k, stage in enumerate(stages, 1)),
        "steps": sum(stage["steps"] for stage in stages),
        "curve": ", ".join(f"{value:.2f} at {tokens:.1f}M" for tokens, value in points.items()),
        "bits": f"{bits[BASE]:.2f} before, {bits[OBEYS]:.2f} after",
        "share": f"{share[BASE]:.2f} before, {share[OBEYS]:.2f} after",
    }
    text = (Path(__file__).parent / "card_it.md").read_text(encoding="utf-8")
    return {CARD: text.format(**facts)}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw, pages=card)
