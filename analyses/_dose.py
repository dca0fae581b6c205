"""What the steering ablations on the bundled model share: prompts that name no language, texts for KL, and how tables are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from analyses._bundled import sample_texts
from steerlab.evaluation.stats import bootstrap
from steerlab.tasks import TOPIC, prompt


def topic_prompts(language: str | None = None) -> list[str]:
    """The seven zero-shot topic prompts, naming a language or none."""
    return [prompt(TOPIC, label, language) for label in TOPIC.labels]


def kl_texts(per_language: int = 1) -> list[str]:
    """Bundled sample sentences of all twelve languages, which neither model nor vectors have seen."""
    return [text for own in sample_texts().values() for text in own[:per_language]]


def over(table: Any, by: str | Sequence[str], unit: str) -> pd.DataFrame:
    """The mean of `value` over the units (languages, say) at each value of `by`, with a bootstrap interval over units."""
    keys = [by] if isinstance(by, str) else list(by)
    rows = []
    for key, own in table.groupby(keys, sort=True):
        mean = own.groupby(unit)["value"].mean().to_numpy(float)
        rows.append({**dict(zip(keys, key, strict=True)), **asdict(bootstrap(np.asarray(mean)))})
    return pd.DataFrame(rows)


def over_layers(table: Any, by: str) -> pd.DataFrame:
    """The same for random directions, which are others at each layer and the same for all languages: an interval over layers."""
    return over(table.groupby([by, "layer"])["value"].mean().reset_index(), by, "layer")


def percent(table: pd.DataFrame) -> pd.DataFrame:
    """Value and bounds times a hundred."""
    return table.assign(**{name: table[name] * 100 for name in ("value", "low", "high")})
