"""The linear probes as scikit-learn estimators, for pipelines, grid searches and whatever else takes a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from steerlab.errors import SteerlabError
from steerlab.probes.comparison import predicted
from steerlab.probes.linear import Kind, LinearFit, check_kind, class_means, directions, fit
from steerlab.probes.result import FittedProbe, steering_vector
from steerlab.provenance import Provenance
from steerlab.types import Stream
from steerlab.vectors import SteeringVector

PROBABLE: tuple[Kind, ...] = ("logistic", "logistic_cv", "lda")  # kinds whose scores are log odds


def _probable(probe: LinearProbe) -> bool:
    return probe.kind in PROBABLE


class LinearProbe(ClassifierMixin, BaseEstimator):
    """`linear.fit` as a classifier that passes scikit-learn's own checks.

    `kind`, `c` and `seed` are those of `linear.fit`. After `fit`: `classes_` "k", `coef_` "r d" and `intercept_` "r" in the space
    of the rows that were given (r = 1 for two classes), `c_` the inverse penalty, NaN where there is none, `means_` "k d" and
    `counts_` "k" of the classes.

    Kinds that choose their penalty do so among inner folds of `groups`: without groups every row is one of its own. Where
    scikit-learn's metadata routing is on, `set_fit_request(groups=True)` has cross-validation hand them on.
    """

    # Any: what is wrong is found in `fit`, as scikit-learn wants it.
    def __init__(self, kind: Kind | Any = "logistic", c: float | Any = 1.0, seed: int | Any = 0) -> None:
        self.kind = kind
        self.c = c
        self.seed = seed

    def fit(self, X: Any, y: Any, groups: Any = None) -> LinearProbe:
        """Fit on rows "n d", their labels "n" of any kind, and the groups "n" that no inner fold may part.

        Raises `SteerlabError`, which is a ValueError, for fewer than two classes and as `linear.fit` does.
        """
        kind: Any = self.kind
        check_kind(kind)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise SteerlabError("labels of 1 class were given: a probe needs at least two classes.")
        given = np.arange(len(X)) if groups is None else column_or_1d(groups)
        check_consistent_length(X, given)
        _, members = np.unique(given, return_inverse=True)
        found = fit(kind, X, labels, members, c=float(self.c), seed=int(self.seed))
        self.coef_, self.intercept_, self.c_ = found.weights, found.offset, found.c
        self.means_, self.counts_ = class_means(X, labels), np.bincount(labels)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores of rows: "n" for two classes (above 0 means `classes_[1]`), else "n k"."""
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row."""
        scores = self._scores(X)
        return self.classes_[predicted(scores)]

    @available_if(_probable)
    def predict_proba(self, X: Any) -> Float[np.ndarray, "n k"]:
        """Probability of each class; only kinds whose scores are log odds have it: logistic, logistic_cv and lda."""
        scores = self._scores(X)
        if scores.shape[1] > 1:
            return softmax(scores, axis=1)
        return np.concatenate([expit(-scores), expit(scores)], axis=1)

    @property
    def direction_(self) -> Float[np.ndarray, "r d"]:
        """The unit vector of each row of `coef_`."""
        check_is_fitted(self)
        return directions(self.coef_, self.means_)[0]

    def vector(
        self,
        layer: int,
        name: str,
        *,
        label: Any = None,
        residual_norm: float | None = None,
        stream: Stream = "resid_post",
        provenance: Provenance | None = None,
    ) -> SteeringVector:
        """The direction towards a class (two classes: `classes_[1]` unless given) as a steering vector of one layer.

        The rows must have been activations as they are: behind a scaler the direction is one of the scaled space. See
        `result.steering_vector`.
        """
        check_is_fitted(self)
        unit, gap = directions(self.coef_, self.means_)
        found = FittedProbe(
            self.kind,
            tuple(self.classes_.tolist()),
            tuple(self.counts_.tolist()),
            torch.from_numpy(unit).float(),
            torch.from_numpy(gap).float(),
        )
        norm = None if residual_norm is None else torch.tensor([residual_norm])
        return steering_vector(
            [found], [layer], name=name, label=label, residual_norm=norm, stream=stream, provenance=provenance
        )

    def _scores(self, X: Any) -> Float[np.ndarray, "n r"]:
        check_is_fitted(self)
        rows: Any = validate_data(self, X, dtype=np.float64, reset=False)
        return LinearFit(self.coef_, self.intercept_, self.c_).scores(rows)
