"""Scores from their definitions: loops over pairs and classes."""

from __future__ import annotations


def auroc(scores: list[float], positive: list[bool], stratum: list[int], weight: list[float]) -> float:
    """Weighted share of rightly ordered (positive, negative) pairs within one stratum; ties count half."""
    right = pairs = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if positive[i] and not positive[j] and stratum[i] == stratum[j]:
                w = weight[i] * weight[j]
                pairs += w
                right += w * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
    return right / pairs
