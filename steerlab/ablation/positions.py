"""Where to steer: one vector at one strength at the prompt, its last token, the generated tokens or everywhere.

With common random numbers, and against unsteered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from steerlab.ablation.forced import forced_kl
from steerlab.ablation.sweeps import Arm, sweep
from steerlab.errors import SteerlabError
from steerlab.evaluation.language import identify
from steerlab.evaluation.repetition import repetition_rate
from steerlab.evaluation.stats import bootstrap, paired_bootstrap
from steerlab.generation import Settings
from steerlab.model import TracedModel
from steerlab.steering import Intervention
from steerlab.types import NAMED_POSITIONS, Positions

UNSTEERED = "unsteered"
# (texts) -> one number per text; NaN where a text has none
Score = Callable[[Sequence[str]], np.ndarray]


def position_arms(
    intervention: Intervention, positions: Mapping[str, Positions] = NAMED_POSITIONS, label: str = ""
) -> list[Arm]:
    """Unsteered, and the intervention at each of the positions, alike in everything else. Names are `label` and the
    position's name.
    """
    if UNSTEERED in positions:
        raise SteerlabError(f"positions are named {UNSTEERED!r}, which is always an arm: rename them.")
    head = f"{label} " if label else ""
    layer = intervention.at[0]
    steered = [
        Arm(f"{head}{name}", (replace(intervention, positions=where),), layer, intervention.strength)
        for name, where in positions.items()
    ]
    return [Arm(f"{head}{UNSTEERED}", (), layer, 0.0), *steered]


def in_language(code: str) -> Score:
    """1 for a text that lid.176 finds in the language, 0 for another."""
    return lambda texts: np.array([float(guess.language == code) for guess in identify(texts)])


def repetition(n: int = 4) -> Score:
    """Share of each text's word n-grams that stood in it before; NaN for a text of fewer than n words."""
    return lambda texts: np.array([repetition_rate(text, n) for text in texts], dtype=float)


def write_at_positions(
    model: TracedModel,
    intervention: Intervention,
    prompts: Sequence[str],
    samples: int,
    settings: Settings,
    positions: Mapping[str, Positions] = NAMED_POSITIONS,
    *,
    chat: bool = True,
    batch_rows: int = 64,
) -> pd.DataFrame:
    """The texts of `sweep` for every arm of `position_arms`, in mixed batches: sample k behind prompt p draws the same
    random numbers in every arm.
    """
    arms = position_arms(intervention, positions)
    return sweep(model, arms, prompts, samples, settings, chat=chat, batch_rows=batch_rows)


def compare(
    texts: pd.DataFrame,
    scores: Mapping[str, Score],
    *,
    baseline: str = UNSTEERED,
    group: str = "prompt",
    seed: int = 0,
) -> pd.DataFrame:
    """One row per arm and measure: the mean, and its difference from the baseline arm, paired sample by sample; both with
    bootstrap intervals over `group`s (columns of `sweep`: prompt, or sample).

    Columns: arm, measure, value, low, high, n, change, change_low, change_high, reason. Raises `SteerlabError` where the
    arms did not write the same samples.
    """
    arms: dict[str, Any] = {str(name): own for name, own in texts.groupby("arm", sort=False)}
    if baseline not in arms:
        raise SteerlabError(f"no arm is named {baseline!r}: these are there: {', '.join(arms)}.")
    keys = {name: own[["prompt", "sample"]].to_numpy().tolist() for name, own in arms.items()}
    other = next((name for name, own in keys.items() if own != keys[baseline]), None)
    if other is not None:
        raise SteerlabError(f"the arms {baseline!r} and {other!r} did not write the same samples: write them together.")
    rows = []
    for measure, score in scores.items():
        values = {name: score([str(text) for text in own["text"]]) for name, own in arms.items()}
        for name, own in values.items():
            groups = arms[name][group].to_numpy()
            mean = bootstrap(own, groups=groups, seed=seed)
            row = {
                "arm": name,
                "measure": measure,
                "value": mean.value,
                "low": mean.low,
                "high": mean.high,
                "n": mean.n,
            }
            if name != baseline:
                gap = paired_bootstrap(own, values[baseline], groups=groups, seed=seed)
                row |= {"change": gap.value, "change_low": gap.low, "change_high": gap.high}
            rows.append({**row, "reason": mean.reason})
    return pd.DataFrame(rows)


def kl_at_positions(
    model: TracedModel,
    intervention: Intervention,
    prompts: Sequence[str],
    answers: Sequence[str],
    positions: Mapping[str, Positions] = NAMED_POSITIONS,
    *,
    chat: bool = True,
    token_budget: int = 4096,
) -> pd.DataFrame:
    """KL(unsteered || steered) of the next token along given answers, in nats: one row per arm, answer and token.

    Column "token": 0 is the first token of the answer, predicted from the last one of the prompt; the last row of an
    answer is what follows it.
    """
    arms = position_arms(intervention, positions)[1:]
    changes = [arm.interventions for arm in arms]
    found = forced_kl(model, changes, answers, prompts, chat=chat, token_budget=token_budget)
    starts = np.concatenate([[0], np.cumsum(np.bincount(found.text))])
    token = np.arange(len(found.text)) - starts[found.text]
    parts = [
        pd.DataFrame({"arm": arm.name, "answer": found.text, "token": token, "kl": own})
        for arm, own in zip(arms, found.kl, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)
