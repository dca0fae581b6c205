"""Experts: LoRA adapters trained to write like a set of texts, and what is known of each."""

from __future__ import annotations

from steerlab.experts.config import PRESETS, ExpertConfig, preset
from steerlab.experts.expert import Expert, read_expert, train_expert
from steerlab.experts.memory import Memorisation
from steerlab.experts.pairs import Pair, file_pairs, task_pairs

__all__ = [
    "PRESETS",
    "Expert",
    "ExpertConfig",
    "Memorisation",
    "Pair",
    "file_pairs",
    "preset",
    "read_expert",
    "task_pairs",
    "train_expert",
]
