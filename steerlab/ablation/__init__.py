"""Steering ablations: what changes when a direction is added, removed or moved, with its control beside it."""

from steerlab.ablation.sweeps import Arm, best_arm, grid, score_arms, sweep

__all__ = ["Arm", "best_arm", "grid", "score_arms", "sweep"]
