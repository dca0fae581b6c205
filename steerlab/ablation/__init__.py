"""Steering ablations: what changes when a direction is added, removed or moved, with its control beside it."""

from steerlab.ablation.calibrate import Calibration, calibrate_strength
from steerlab.ablation.dose import Design, DoseResponse, dose_response
from steerlab.ablation.noise import NoiseShare, noise_share
from steerlab.ablation.selection import Rule, Selection, choose, recommended, save_choice, with_choice
from steerlab.ablation.sweeps import Arm, best_arm, grid, score_arms, sweep

__all__ = [
    "Arm",
    "Calibration",
    "Design",
    "DoseResponse",
    "NoiseShare",
    "Rule",
    "Selection",
    "best_arm",
    "calibrate_strength",
    "choose",
    "dose_response",
    "grid",
    "noise_share",
    "recommended",
    "save_choice",
    "score_arms",
    "sweep",
    "with_choice",
]
