"""At equal effect on the next token, what do operators and vectors buy?

For four languages of polyglot-mini, the strength of every operator (add, match, scale, rotate) along the language vector, the
quality vector and a random direction is solved for so that 95 % of tokens of the bundled sample sentences move by at most 1 nat of KL
(`calibrate_strength`); then each writes behind the seven topic prompts that name no language, with common random numbers.
Beside them directional ablation, which has no dose. Measured: target-language share, and against unsteered in pairs
surprise of the unsteered model, repetition and distinct-2. Intervals are over languages and prompts.

    python -m analyses.12_equal_effect            # about 5 minutes on one busy core
    python -m analyses.12_equal_effect --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses._bundled import known_vectors, sample_texts, text_hashes, vector_hashes
from analyses._dose import kl_texts, percent, topic_prompts
from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.ablation import Arm, sweep
from steerlab.ablation.calibrate import calibrate_strength
from steerlab.ablation.forced import forced_kl
from steerlab.ablation.outcomes import score_texts
from steerlab.bundled.vectors import bundled_vectors
from steerlab.estimators import random_like
from steerlab.evaluation.diversity import distinct_n
from steerlab.evaluation.stats import bootstrap, jackknife, paired_bootstrap
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.vectors import SteeringVector

NAME, STRENGTHS = "equal_effect", "equal_effect_strengths"
KINDS = {"language": "language vector", "quality": "quality vector", "random": "random direction"}
OPERATORS = ("add", "match", "rotate", "scale", "ablate")
MEASURES = {"in_target": "texts in the target language (%)", "log_perplexity": "surprise, more than unsteered\n(nats a token)",
            "distinct_2": "distinct-2, more than unsteered", "kl": "mean KL along given texts (nats)"}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """`target_kl` in nats, at the `quantile` of tokens."""

    languages: tuple[str, ...] = ("de", "he", "jv", "mt")
    layer: int = 2
    target_kl: float = 1.0
    quantile: float = 0.95
    samples: int = 4
    max_new_tokens: int = 40
    seed: int = 1


def compute(config: Config) -> Result:
    """Two tables: what each operator and vector buys over all languages, and the strengths that were solved for."""
    model, prompts = load(), topic_prompts()
    known, bundled = known_vectors(), bundled_vectors()
    vectors: dict[tuple[str, str], SteeringVector] = {}
    for i, code in enumerate(config.languages):
        vectors["language", code] = known[code]
        vectors["quality", code] = bundled[f"quality-{code}"]
        vectors["random", code] = random_like(known[code], config.seed + i)
    strengths, arms = _calibrate(config, model, vectors)
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    texts = sweep(model, [Arm("unsteered"), *arms.values()], prompts, config.samples, settings, progress=True)
    scored = score_texts(model, texts, prompts)
    found = _compare(config, scored, arms, strengths)
    hashes = vector_hashes({f"{k} {c}": v for (k, c), v in vectors.items()})
    hashes |= text_hashes("sample", {c: own[:1] for c, own in sample_texts().items()})
    return Result({NAME: found, STRENGTHS: strengths}, {"texts": len(texts)}, model.revision, hashes)


def _calibrate(
    config: Config, model: TracedModel, vectors: Mapping[tuple[str, str], SteeringVector]
) -> tuple[pd.DataFrame, dict[tuple[str, str, str], Arm]]:
    """The strength of every operator along every vector, and the arms of those that have one."""
    rows: list[dict[str, Any]] = []
    arms = {}
    for (kind, code), vector in vectors.items():
        for operator in OPERATORS:
            facts = {"kind": kind, "language": code, "operator": operator}
            if operator == "ablate":
                change = (Intervention(vector, config.layer, "ablate"),)
                kl = forced_kl(model, [change], kl_texts())
                top, mean = kl.quantile(0, config.quantile), kl.mean(0)
                rows.append({**facts, "strength": 1.0, "monotone": True, "kl": mean.value, **asdict(top)})
            else:
                own = calibrate_strength(
                    model, vector, config.layer, kl_texts(), config.target_kl, config.quantile, operator=operator
                )
                row = {"strength": own.strength, "monotone": own.monotone, "kl": own.mean.value, **asdict(own.effect)}
                rows.append({**facts, **row})
                change = own.interventions
            if change:
                arms[kind, code, operator] = Arm(f"{kind} {code} {operator}", change, config.layer, change[0].strength)
    return pd.DataFrame(rows), arms


def _compare(
    config: Config, scored: pd.DataFrame, arms: Mapping[tuple[str, str, str], Arm], strengths: Any
) -> pd.DataFrame:
    """One row per kind, operator and measure, over all languages that have the arm."""
    order = ["prompt", "sample"]
    by: dict[str, Any] = {str(arm): own.sort_values(order) for arm, own in scored.groupby("arm", sort=False)}
    plain = by["unsteered"]
    rows: list[dict[str, Any]] = []

    def add(kind: str, operator: str, measure: str, found: Any) -> None:
        rows.append({"kind": kind, "operator": operator, "measure": measure, **asdict(found)})

    lids = {code: data.language(code).lid for code in config.languages}
    hits = np.concatenate([(plain["language"] == lid).to_numpy(float) for lid in lids.values()])
    many = np.tile(plain["prompt"].to_numpy(int), len(lids)) + 100 * np.repeat(np.arange(len(lids)), len(plain))
    add("unsteered", "none", "in_target", bootstrap(hits, groups=many))
    for kind in KINDS:
        for operator in OPERATORS:
            own = {code: by[arms[kind, code, operator].name] for code in lids if (kind, code, operator) in arms}
            if not own:
                continue
            groups = np.concatenate([part["prompt"].to_numpy(int) + 100 * i for i, part in enumerate(own.values())])
            hits = np.concatenate([(part["language"] == lids[code]).to_numpy(float) for code, part in own.items()])
            add(kind, operator, "in_target", bootstrap(hits, groups=groups))
            for measure in ("log_perplexity", "repetition"):
                steered = np.concatenate([part[measure].to_numpy(float) for part in own.values()])
                base = np.tile(plain[measure].to_numpy(float), len(own))
                add(kind, operator, measure, paired_bootstrap(steered, base, groups))
            add(kind, operator, "distinct_2", _diversity(list(own.values()), plain))
            kl = strengths[(strengths["kind"] == kind) & (strengths["operator"] == operator)]["kl"]
            add(kind, operator, "kl", bootstrap(kl.to_numpy(float)))
    return pd.DataFrame(rows)


def _diversity(parts: list[Any], plain: Any) -> Any:
    """The mean over languages of distinct-2 less that of the unsteered texts, on the same rows of all sets."""
    sets, base = [part["text"].to_numpy() for part in parts], plain["text"].to_numpy()

    def gap(rows: np.ndarray) -> float:
        return float(np.mean([distinct_n(list(own[rows]), 2) for own in sets]) - distinct_n(list(base[rows]), 2))

    return jackknife(len(base), gap, subsets=40)


def draw(result: Result) -> Mapping[str, Figure]:
    """Four measures by operator and kind of vector."""
    table: Any = result.tables[NAME]
    strengths: Any = result.tables[STRENGTHS]
    figure, panels = figures.new(columns=2, rows=2, height=6.4)
    names = [operator + ("\n(no dose)" if operator == "ablate" else "") for operator in OPERATORS]
    for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
        own = table[(table["measure"] == measure) & (table["kind"] != "unsteered")]
        own = percent(own) if measure == "in_target" else own
        figures.dots(
            axes, own, place="operator", series="kind", order=OPERATORS, series_order=tuple(KINDS), names=KINDS
        )
        axes.set_xticks(range(len(OPERATORS)), names)
        axes.set(ylabel=label)
        if measure != "kl":
            plain = float(table[table["kind"] == "unsteered"]["value"].iloc[0]) * 100 if measure == "in_target" else 0.0
            axes.axhline(plain, color="black", ls="--", lw=1.2, label="unsteered")
    panels[0].set_ylim(-3, 103)

    def value(measure: str, kind: str, operator: str = "add") -> float:
        cell = table[(table["measure"] == measure) & (table["kind"] == kind) & (table["operator"] == operator)]
        return float(cell["value"].iloc[0]) if len(cell) else math.nan

    share, surprise, spread = (
        [value(measure, kind) for kind in KINDS] for measure in ("in_target", "log_perplexity", "distinct_2")
    )
    panels[0].set_title(
        f"Added: {share[0] * 100:.0f} % in the language by its\nvector, {share[1] * 100:.0f} % quality, {share[2] * 100:.0f} % random"
    )
    panels[1].set_title(
        f"Surprise: {surprise[0]:+.2f} (language),\n{surprise[1]:+.2f} (quality), {surprise[2]:+.2f} (random)"
    )
    panels[2].set_title(
        f"Distinct-2: {spread[0]:+.2f} (language),\n{spread[1]:+.2f} (quality), {spread[2]:+.2f} (random)"
    )
    dosed = strengths[strengths["operator"] != "ablate"]
    solved, folded = int(dosed["strength"].notna().sum()), int((~dosed["monotone"].astype(bool)).sum())
    panels[3].set_title(f"{solved} of {len(dosed)} strengths were found,\n{folded} curves fall somewhere")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return {NAME: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
