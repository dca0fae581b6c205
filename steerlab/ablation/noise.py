"""What common random numbers are worth: the variance of steered minus unsteered with shared against independent sampling noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab import data
from steerlab.ablation.outcomes import score_texts
from steerlab.ablation.sweeps import Arm, sweep
from steerlab.errors import SteerlabError
from steerlab.evaluation.stats import Estimate
from steerlab.generation import Settings
from steerlab.model import TracedModel

MEASURES = {
    "in_target": "in the target language (0 or 1)",
    "log_probability": "log-probability of the text under the unsteered model (nats)",
    "log_perplexity": "surprise per token under the unsteered model (nats)",
    "tokens": "length in tokens",
}


@dataclass(frozen=True, eq=False)
class NoiseShare:
    """`table`: one row per arm and measure, with the variance of the difference of one pair of texts under `common` and under
    `independent` noise, their ratio (value, low, high: how many times fewer texts do), n pairs, the `difference` as the pairs with common
    noise estimate it, and `identical`, the share of those pairs whose two texts are the same. `texts`: all texts with their outcomes.
    """

    table: pd.DataFrame
    texts: pd.DataFrame

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format=lambda x: f"{x:.3g}", border=0)


def variance_ratio(
    common: Float[np.ndarray, "p s"], independent: Float[np.ndarray, "p s"], seed: int = 0, resamples: int = 2000
) -> Estimate:
    """Variance of the differences `independent` over that of the differences `common`, each within prompts (row by row, the
    mean over them), with a percentile bootstrap over prompts.

    Missing where all common differences are equal. Raises `SteerlabError` for fewer than two samples per prompt.
    """
    if common.shape[1] < 2 or independent.shape[1] < 2:
        raise SteerlabError(
            f"{common.shape[1]} samples per prompt were given: a variance within prompts needs at least 2."
        )
    of = np.stack([independent.var(axis=1, ddof=1), common.var(axis=1, ddof=1)])
    known = ~np.isnan(of).any(axis=0)
    of, n = of[:, known], int(known.sum()) * common.shape[1]
    top, bottom = of.sum(axis=1)
    if not bottom > 0:
        return Estimate.missing("with common noise every difference is the same", n)
    rng = np.random.default_rng(seed)
    draws = rng.integers(of.shape[1], size=(resamples, of.shape[1]))
    tops, bottoms = of[:, draws].sum(axis=2)
    if of.shape[1] < 2 or (bottoms > 0).mean() < 0.9:
        return Estimate.point(float(top / bottom), n, "one prompt" if of.shape[1] < 2 else "too few differences vary")
    ratios = tops[bottoms > 0] / bottoms[bottoms > 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Estimate(float(top / bottom), float(low), float(high), n)


def noise_share(
    model: TracedModel,
    arms: Sequence[Arm],
    prompts: Sequence[str],
    samples: int = 6,
    settings: Settings | None = None,
    *,
    targets: Mapping[str, str] | None = None,
    batch_rows: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> NoiseShare:
    """Write every arm and the unsteered model with the same sampling keys, and the unsteered model once more with other keys.

    Per arm and measure (`MEASURES`) the differences of texts under one key are compared with the differences of texts under
    two. `targets`: arm name -> language code, for `in_target`. Raises `SteerlabError` for fewer than two samples per prompt.
    """
    if samples < 2:
        raise SteerlabError(f"samples is {samples}: a variance within prompts needs at least 2.")
    chosen = settings or Settings()
    plain = sweep(model, [Arm("unsteered")], prompts, 2 * samples, chosen, batch_rows=batch_rows, progress=progress)
    steered = sweep(model, arms, prompts, samples, chosen, batch_rows=batch_rows, progress=progress)
    texts = score_texts(model, pd.concat([plain, steered], ignore_index=True), prompts)
    shape = (len(prompts), samples)
    base: Any = texts[texts["arm"] == "unsteered"]
    first, other = (base[(base["sample"] < samples) == own].sort_values(["prompt", "sample"]) for own in (True, False))
    rows: list[dict[str, Any]] = []
    for arm in arms:
        same_arm = (texts["arm"] == arm.name) & (texts["strength"] == arm.strength)
        own: Any = texts[same_arm & (texts["layer"].isna() if arm.layer is None else texts["layer"] == arm.layer)]
        own = own.sort_values(["prompt", "sample"])
        same = float((own["text"].to_numpy() == first["text"].to_numpy()).mean())
        code = (targets or {}).get(arm.name)
        for measure in MEASURES:
            if measure == "in_target":
                if code is None:
                    continue
                lid = data.language(code).lid
                y, y0, y1 = ((t["language"] == lid).to_numpy(float).reshape(shape) for t in (own, first, other))
            else:
                y, y0, y1 = (t[measure].to_numpy(float).reshape(shape) for t in (own, first, other))
            found = variance_ratio(y - y0, y - y1, seed)
            facts = {"arm": arm.name, "layer": arm.layer, "strength": arm.strength, "measure": measure}
            variances = {
                n: float(np.nanmean(np.var(y - z, axis=1, ddof=1))) for n, z in (("common", y0), ("independent", y1))
            }
            rows.append(
                {**facts, **variances, **asdict(found), "difference": float(np.nanmean(y - y0)), "identical": same}
            )
    return NoiseShare(pd.DataFrame(rows), texts)
