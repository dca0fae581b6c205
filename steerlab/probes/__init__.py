"""How well a label can be read from activations: cross-validated linear probes with intervals, controls and text baselines.

Folds never split a group (a text and its degraded twin, a sentence and its translations), everything that is fitted is fitted
inside the fold, and every result carries the scores of the same procedure on shuffled labels.
"""

from __future__ import annotations

from steerlab.probes.baselines import (
    EMBEDDINGS,
    LENGTH,
    NGRAMS,
    bag_of_embeddings,
    char_ngram_baseline,
    char_ngram_scorer,
    length_baseline,
    length_scorer,
)
from steerlab.probes.comparison import Scorer, Trial, evaluate, trial
from steerlab.probes.controls import Selectivity, control_labels, selectivity
from steerlab.probes.curves import LearningPoint, learning_curve, learning_table
from steerlab.probes.estimator import LinearProbe
from steerlab.probes.layers import cross_validated_probe, layerwise, probe, probe_scorer
from steerlab.probes.linear import KINDS, PENALTIES, Kind, LinearFit, choose_c, fit, fit_linear
from steerlab.probes.result import METRICS, Metric, ProbeResult, Score, Scores, steering_vector, table
from steerlab.probes.transfer_matrix import Labelled, TransferMatrix, transfer

__all__ = [
    "EMBEDDINGS",
    "KINDS",
    "LENGTH",
    "METRICS",
    "NGRAMS",
    "PENALTIES",
    "Kind",
    "Labelled",
    "LearningPoint",
    "LinearFit",
    "LinearProbe",
    "Metric",
    "ProbeResult",
    "Score",
    "Scorer",
    "Scores",
    "Selectivity",
    "TransferMatrix",
    "Trial",
    "bag_of_embeddings",
    "char_ngram_baseline",
    "char_ngram_scorer",
    "choose_c",
    "control_labels",
    "cross_validated_probe",
    "evaluate",
    "fit",
    "fit_linear",
    "layerwise",
    "learning_curve",
    "learning_table",
    "length_baseline",
    "length_scorer",
    "probe",
    "probe_scorer",
    "selectivity",
    "steering_vector",
    "table",
    "transfer",
    "trial",
]
