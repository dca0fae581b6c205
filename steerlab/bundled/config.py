"""What decides the bundled model's weights, apart from its text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights, apart from the text."""

    layers: int = 6
    d_model: int = 256
    mlp: int = 704
    heads: int = 8
    kv_heads: int = 4
    vocab: int = 8192
    context: int = 512
    rows: int = 16
    length: int = 256
    muon_lr: float = 6e-3
    adam_lr: float = 4e-3
    weight_decay: float = 0.05
    warmup_steps: int = 60
    cooldown: float = 0.6  # last share of the run in which the rate falls to zero, linearly
    tokens: int = 60_000_000
    minutes: float = 1e9
    seed: int = 0
    device: str = "cpu"
    compile: bool = True
    start: str = ""  # folder of weights to start from instead of random ones; optimizer state is not kept
