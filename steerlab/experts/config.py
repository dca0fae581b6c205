"""How an expert is trained: one frozen record, the study's values and values for a model of a few million parameters."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

from steerlab.errors import SteerlabError

ALL_LINEAR = "all-linear"  # every linear layer but the output head
QUANTISED = ("", "nf4")
SCHEDULES = ("constant", "linear")
KEPT = ("best", "last")


@dataclass(frozen=True)
class ExpertConfig:
    """LoRA training of an expert; the defaults suit polyglot-mini.

    `targets`: names of linear layers, or "all-linear". `warmup`: share of the steps over which the learning rate rises, before it
    stays ("constant") or falls to zero ("linear"). A step is `batch_size` x `accumulate` texts. `max_length`: tokens of prompt and text.
    `group_by_length`: texts of like length share a step. `completion_only`: no loss on the prompt. `checkpointing`:
    activations are computed again in the backward pass, for less memory. `quantise`: "nf4" trains on a base in 4 bits (QLoRA;
    needs a CUDA GPU and bitsandbytes). Every `evaluate_every` steps the validation loss is measured and the state saved; after
    `patience` evaluations without a better one training stops (0: never). `keep`: the adapter of the best evaluation, or the last.
    `validation_share`: of the texts, where no validation texts are given. Raises `SteerlabError` for values that cannot be.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] = (ALL_LINEAR,)
    learning_rate: float = 2e-3
    schedule: str = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    batch_size: int = 16
    accumulate: int = 1
    steps: int = 240
    max_length: int = 160
    group_by_length: bool = True
    completion_only: bool = True
    checkpointing: bool = False
    quantise: str = ""
    evaluate_every: int = 40
    patience: int = 3
    keep: str = "best"
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("rank", "alpha", "batch_size", "accumulate", "steps", "max_length", "evaluate_every")
        checks = [(getattr(self, name) >= 1, name, "at least 1") for name in counts]
        checks += [
            (self.learning_rate > 0 and math.isfinite(self.learning_rate), "learning_rate", "above 0"),
            (0 <= self.dropout < 1, "dropout", "from 0 up and below 1"),
            (bool(self.targets) and all(self.targets), "targets", "names of linear layers, or all-linear"),
            (self.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}"),
            (0 <= self.warmup < 1, "warmup", "a share from 0 up and below 1"),
            (self.weight_decay >= 0, "weight_decay", "0 or more"),
            (self.clip > 0, "clip", "above 0"),
            (self.quantise in QUANTISED, "quantise", "'nf4', or '' for none"),
            (self.patience >= 0, "patience", "0 (never stop early) or more"),
            (self.keep in KEPT, "keep", f"one of {', '.join(KEPT)}"),
            (0 < self.validation_share < 1, "validation_share", "above 0 and below 1"),
        ]
        for good, name, wanted in checks:
            if not good:
                raise SteerlabError(f"{name} is {getattr(self, name)!r}: give {wanted}.")

    def to_json(self) -> dict[str, Any]:
        """Plain values; `ExpertConfig(**record)` with tuples for lists makes it again."""
        return {**asdict(self), "targets": list(self.targets)}

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step, counted from 0: rising over the warm-up, then constant or falling to zero."""
        rise = round(self.warmup * self.steps)
        if step < rise:
            return (step + 1) / rise
        return 1.0 if self.schedule == "constant" else (self.steps - step) / (self.steps - rise)


# QLoRA of O'Neill et al. (arXiv 2308.07645) as in their training script. All-linear names their four Falcon layers on Falcon, and
# their counterparts elsewhere. They train 2,000 steps and use the adapter of step 1,000, at a constant rate: so 1,000 here. The
# script's warm-up ratio of 0.03 has no effect there, because transformers' "constant" schedule reads none. Their loss is on
# the whole text, prompt included, and no validation loss decides anything. Paging of the optimizer state changes no number.
PAPER = ExpertConfig(
    rank=64,
    alpha=16,
    dropout=0.1,
    learning_rate=2e-4,
    schedule="constant",
    warmup=0.0,
    weight_decay=0.001,
    clip=0.3,
    batch_size=4,
    accumulate=4,
    steps=1000,
    max_length=512,
    completion_only=False,
    checkpointing=True,
    quantise="nf4",
    evaluate_every=100,
    patience=0,
    keep="last",
)
PRESETS: dict[str, ExpertConfig] = {"mini": ExpertConfig(), "paper": PAPER}


def preset(name: str, **changes: Any) -> ExpertConfig:
    """A preset with some values changed; None leaves a value. Raises `SteerlabError` for an unknown name."""
    if name not in PRESETS:
        close = get_close_matches(name.casefold(), PRESETS, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise SteerlabError(f"preset {name!r} is not known: give one of {', '.join(PRESETS)}{hint}")
    return replace(PRESETS[name], **{field: value for field, value in changes.items() if value is not None})
