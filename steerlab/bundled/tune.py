"""Which layer and strength to use for each bundled vector: a sweep on seed 0.

It writes `vectors/recommended.json` and `vectors/sweep.csv`.
`python -m steerlab.bundled.tune` (minutes). Reported results use other seeds, see analyses/02_language_control.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import data
from steerlab.ablation import Arm, grid, score_arms, sweep
from steerlab.bundled.corpus import LANGUAGES
from steerlab.bundled.vectors import bundled_vectors
from steerlab.evaluation.diversity import distinct_n
from steerlab.evaluation.language import language_share
from steerlab.evaluation.stats import Estimate
from steerlab.generation import Settings
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.tasks import TASKS, postprocess, prompt

TOKENS = 56  # most sentences of the bundled model end within as many
STRENGTHS = (0.3, 0.6, 1.0, 1.5)
QUALITY_STRENGTHS = (0.15, 0.4)
SLACK = 0.05  # arms within five points of the best share are as good; the most diverse of them is taken


def task_prompts(language: str | None) -> list[str]:
    """The nine zero-shot prompts (seven topics, two sentiments), naming `language` or none."""
    return [prompt(task, label, language) for task in TASKS.values() for label in task.labels]


def language_sweep(
    model: TracedModel,
    codes: Sequence[str] = LANGUAGES,
    strengths: Sequence[float] = STRENGTHS,
    samples: int = 3,
) -> pd.DataFrame:
    """Share of texts in the target language, distinct-2 and share of texts that end, for every language vector x layer x strength, behind
    prompts that name no language.
    """
    vectors = {code: bundled_vectors()[f"language-{code}"] for code in codes}
    arms = grid(vectors, range(model.n_layers), strengths)
    texts = sweep(model, arms, task_prompts(None), samples, Settings(max_new_tokens=TOKENS), progress=True)
    texts["text"] = texts["text"].map(postprocess)
    share = score_arms(texts, lambda arm, own: language_share(own, data.language(arm).lid))
    ended: Any = texts.groupby(["arm", "layer", "strength"], sort=False)["ended"].mean()
    return share.assign(distinct_2=_spread(texts)["value"], ended=ended.to_numpy(float))


def _spread(texts: pd.DataFrame) -> pd.DataFrame:
    """distinct-2 of every arm, to rank by: a set this small has no useful interval."""
    return score_arms(texts, lambda arm, own: Estimate.point(distinct_n(own, 2), len(own), "a ranking, not a result"))


def best_language(scores: Any) -> Any:
    """The most diverse row among those within `SLACK` of the best share whose texts come to an end; ties go to the weaker, then the
    earlier layer.

    Too strong a push keeps a model from ever ending: where at least half the texts of some arm near the best end, so must the chosen's.
    """
    near = scores[scores["value"] >= scores["value"].max() - SLACK]
    near = near[near["ended"] >= min(0.5, near["ended"].max())]
    return near.sort_values(["distinct_2", "strength", "layer"], ascending=[False, True, True], kind="stable").iloc[0]


def quality_sweep(model: TracedModel, code: str, samples: int = 3) -> pd.DataFrame:
    """distinct-2 and target-language share for the quality vector of one language, layer x strength, behind
    prompts that name the language.
    """
    arms = [
        Arm("quality", (), -1, 0.0),
        *grid({"quality": bundled_vectors()[f"quality-{code}"]}, range(model.n_layers), QUALITY_STRENGTHS),
    ]
    texts = sweep(model, arms, task_prompts(code), samples, Settings(max_new_tokens=40), progress=True)
    texts["text"] = texts["text"].map(postprocess)

    share = score_arms(texts, lambda arm, own: language_share(own, data.language(code).lid))
    return _spread(texts).rename(columns={"value": "distinct_2"}).assign(language_share=share["value"])


def best_quality(scores: Any, n_layers: int) -> tuple[int, float]:
    """(layer, strength) of the most diverse arm that loses at most five points of target-language share against unsteered; the
    weakest at a quarter of the depth where every arm loses more.
    """
    plain = scores[scores["strength"] == 0].iloc[0]
    kept = scores[(scores["strength"] > 0) & (scores["language_share"] >= plain["language_share"] - 0.05)]
    if not len(kept):
        return n_layers // 4, QUALITY_STRENGTHS[0]
    top = kept.sort_values(["distinct_2", "strength"], ascending=[False, True], kind="stable").iloc[0]
    return int(top["layer"]), float(top["strength"])


def main() -> None:
    """Sweep every vector and write what was found."""
    model = load()
    folder = Path(__file__).parent / "vectors"
    scores: Any = language_sweep(model)
    scores.to_csv(folder / "sweep.csv", index=False, float_format="%.4f")
    found: dict[str, dict[str, float]] = {}
    for code in LANGUAGES:
        best = best_language(scores[scores["arm"] == code])
        found[f"language-{code}"] = {"layer": int(best["layer"]), "strength": float(best["strength"])}
        layer, strength = best_quality(quality_sweep(model, code), model.n_layers)
        found[f"quality-{code}"] = {"layer": layer, "strength": strength}
    (folder / "recommended.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
