"""The linear probes themselves: difference of means, shrinkage LDA, ridge and logistic regression.

The penalty of a logistic regression is given, or chosen by inner cross-validation.
scikit-learn fits; weights are always mapped back to raw activation space.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold

from steerlab.errors import SteerlabError

Kind = Literal["logistic", "logistic_cv", "ridge", "diff_of_means", "lda"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHOSEN: tuple[Kind, ...] = ("logistic_cv", "ridge")  # kinds whose penalty is chosen by inner cross-validation
# Inverse penalties that are tried, the strongest penalty first: where two are equally good, the stronger is taken.
PENALTIES = tuple(10.0**k for k in range(-5, 1))
INNER_FOLDS = 3


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Scores of rows are `x @ weights.T + offset`, in raw space: one row of weights for two classes, else one per class, which
    then sum to zero over the classes. `c` is the inverse penalty it was fitted with, NaN where there is none.
    """

    weights: Float[np.ndarray, "r d"]
    offset: Float[np.ndarray, "r"]
    c: float

    def scores(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
        """Scores of rows of activations."""
        return x @ self.weights.T + self.offset


def check_kind(kind: str) -> None:
    """Raise `SteerlabError` for a kind that does not exist."""
    if kind not in KINDS:
        raise SteerlabError(f"probe kind {kind!r} is not known: choose one of {', '.join(KINDS)}.")


def fit(
    kind: Kind,
    x: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"] | None = None,
    *,
    c: float = 1.0,
    seed: int = 0,
) -> LinearFit:
    """Fit one probe on labels 0 to k-1, all of which occur.

    "diff_of_means": projection on the difference of the class means in raw space, the view of a steering vector (nearest mean
    for more classes). "lda": Ledoit-Wolf shrinkage. "logistic": L2 penalty 1/`c`. "logistic_cv" and "ridge" (regression of
    labels -1 and 1): penalty by `choose_c`, which needs `groups`. All but the first standardise the features they are given.
    """
    check_kind(kind)
    if kind == "diff_of_means":
        means = class_means(x, labels)
        return _mapped(means, -0.5 * (means**2).sum(1), np.zeros(x.shape[1]), np.ones(x.shape[1]), float("nan"))
    if kind in CHOSEN:
        if groups is None:
            raise SteerlabError(f"probe kind {kind!r} chooses its penalty by inner folds of groups: give groups.")
        c = choose_c(kind, x, labels, groups, seed)
    model: Any = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto") if kind == "lda" else _model(kind, c)
    centre, spread = _standard(x)
    model.fit((x - centre) / spread, labels)
    return _mapped(model.coef_, model.intercept_, centre, spread, float("nan") if kind == "lda" else c)


def fit_linear(
    kind: Kind,
    x: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    c: float,
    groups: Int[np.ndarray, "n"] | None = None,
) -> tuple[Float[np.ndarray, "r d"], Float[np.ndarray, "r"]]:
    """Weights and offsets of `fit`."""
    found = fit(kind, x, labels, groups, c=c)
    return found.weights, found.offset


def class_means(x: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "k d"]:
    """The mean row of each label 0 to k-1."""
    return np.stack([x[labels == label].mean(0) for label in range(int(labels.max()) + 1)])


def directions(
    weights: Float[np.ndarray, "r d"], means: Float[np.ndarray, "k d"]
) -> tuple[Float[np.ndarray, "r d"], Float[np.ndarray, "r"]]:
    """Unit rows of the weights and, along each, its class's mean minus the mean of the other classes' means."""
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    if len(means) == 2:
        return unit, unit @ (means[1] - means[0])
    others = (means.sum(0) - means) / (len(means) - 1)
    return unit, ((means - others) * unit).sum(1)


def choose_c(
    kind: Kind,
    x: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"],
    seed: int = 0,
    folds: int = INNER_FOLDS,
) -> float:
    """The inverse penalty among `PENALTIES` with the least loss on inner held-out groups; the stronger penalty on ties.

    The loss is the log loss for logistic regression and the squared error of labels -1 and 1 for ridge. Features are
    standardised inside the inner fold. Raises `SteerlabError` where no inner split has every class on its training side.
    """
    loss = np.zeros(len(PENALTIES))
    splits = list(_inner_splits(labels, groups, folds, seed))
    if not splits:
        raise SteerlabError(
            f"{len(np.unique(groups))} groups were given to choose a penalty on, and a class is in too few of them: "
            "give more groups per class, or kind 'logistic' with a penalty of your own."
        )
    for train, test in splits:
        centre, spread = _standard(x[train])
        a, b = (x[train] - centre) / spread, (x[test] - centre) / spread
        model = _model(kind, PENALTIES[0])
        for i, c in enumerate(PENALTIES):
            # Logistic regression starts where the stronger penalty ended.
            model.set_params(**({"alpha": 1 / c} if kind == "ridge" else {"C": c})).fit(a, labels[train])
            loss[i] += _loss(kind, model, b, labels[test])
    return PENALTIES[int(loss.argmin())]


def _inner_splits(
    labels: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    k = len(np.unique(labels))
    if len(np.unique(groups)) < folds or np.bincount(labels).max() < folds:
        return
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(np.zeros(len(labels)), labels, groups):
        if len(np.unique(labels[train])) == k and len(test):
            yield train, test


def _model(kind: Kind, c: float) -> Any:
    if kind == "ridge":
        return RidgeClassifier(alpha=1 / c)
    return LogisticRegression(C=c, max_iter=5000, warm_start=True)


def _loss(kind: Kind, model: Any, x: np.ndarray, labels: np.ndarray) -> float:
    if kind == "ridge":
        scores = model.decision_function(x)
        target = np.eye(scores.shape[1])[labels] if scores.ndim == 2 else labels
        return float(((2 * target - 1 - scores) ** 2).sum())
    own = model.predict_proba(x)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, 1e-300)).sum())


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = x.std(0)
    spread[spread == 0] = 1.0
    return x.mean(0), spread


def _mapped(weights: np.ndarray, offset: np.ndarray, centre: np.ndarray, spread: np.ndarray, c: float) -> LinearFit:
    """Back to raw space. What all classes share says nothing about which it is, and goes; two classes become one row."""
    weights, offset = np.atleast_2d(weights).astype(float) / spread, np.atleast_1d(offset).astype(float)
    offset = offset - weights @ centre
    if len(weights) == 2:
        weights, offset = weights[1:] - weights[:1], offset[1:] - offset[:1]
    elif len(weights) > 2:
        weights, offset = weights - weights.mean(0), offset - offset.mean()
    return LinearFit(weights, offset, c)
