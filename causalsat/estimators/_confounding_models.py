"""The default propensity model: logistic regression whose ridge penalty is chosen by held-out log loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

__all__ = ["HeldOutLogit"]

FloatArray = NDArray[np.float64]

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C, smaller is stronger


class HeldOutLogit(ClassifierMixin, BaseEstimator):
    """Ridge-penalised logistic regression on standardised features, its penalty chosen on held-out rows.

    Missing features count as their training mean.

    Parameters
    ----------
    n_splits : int, default 3
        Folds among which the penalty is chosen; every n_splits-th row of each class is held out.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The two labels.
    coef_, intercept_ : ndarray of shape (p,), float
        Log-odds of the second label are ``intercept_ + X @ coef_``.
    mean_ : ndarray of shape (p,)
        Training means.
    C_ : float
        The chosen penalty; larger is weaker.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((2000, 2))
    >>> t = rng.random(2000) < 1 / (1 + np.exp(-X[:, 0]))
    >>> bool(np.abs(HeldOutLogit().fit(X, t).coef_ - [1, 0]).max() < 0.15)
    True
    """

    def __init__(self, n_splits: int = 3) -> None:
        self.n_splits = n_splits

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> HeldOutLogit:
        """Choose the penalty and fit; X of shape (n, p), y of two labels."""
        self.classes_, label = np.unique(np.asarray(y), return_inverse=True)
        raw = np.asarray(X, dtype=float)
        weight = np.ones(len(raw)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        seen = np.isfinite(raw)
        self.mean_ = np.where(seen, raw, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        filled = np.where(seen, raw, self.mean_) - self.mean_
        spread = filled.std(axis=0)
        scale = np.where(spread > 1e-12 * np.maximum(np.abs(self.mean_), 1e-12), spread, np.inf)
        design = filled / scale
        self.C_ = self._choose(design, label, weight)
        coef, self.intercept_ = _fit(design, label, weight, self.C_)
        self.coef_ = coef / scale
        self.intercept_ -= float(self.mean_ @ self.coef_)
        return self

    def _choose(self, design: FloatArray, label: NDArray[np.int64], weight: FloatArray) -> float:
        smallest = int(np.bincount(label, minlength=2).min())
        splits = min(int(self.n_splits), smallest)
        if splits < 2:
            return _PENALTIES[0]
        fold = np.empty(len(label), dtype=np.int64)
        for value in (0, 1):
            rows = np.flatnonzero(label == value)
            fold[rows] = np.arange(len(rows)) % splits
        losses = []
        for penalty in _PENALTIES:
            loss = 0.0
            for k in range(splits):
                train, held = fold != k, fold == k
                coef, intercept = _fit(design[train], label[train], weight[train], penalty)
                signed = (2 * label[held] - 1) * (intercept + design[held] @ coef)
                loss += float(weight[held] @ np.logaddexp(0.0, -signed))
            losses.append(loss)
        return _PENALTIES[int(np.argmin(losses))]

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of both labels, shape (n, 2)."""
        raw = np.asarray(X, dtype=float)
        index = self.intercept_ + np.where(np.isfinite(raw), raw, self.mean_) @ self.coef_
        chance = 0.5 * (1 + np.tanh(0.5 * index))
        return np.column_stack([1 - chance, chance])

    def predict(self, X: Any) -> NDArray[Any]:
        """The likelier label, shape (n,)."""
        return np.asarray(self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)])


def _fit(
    design: FloatArray, label: NDArray[np.int64], weight: FloatArray, penalty: float
) -> tuple[FloatArray, float]:
    from sklearn.linear_model import LogisticRegression

    solver = "newton-cholesky" if design.shape[1] < len(design) else "lbfgs"
    model = LogisticRegression(C=penalty, solver=solver, max_iter=500, tol=1e-5)
    model.fit(design, label, sample_weight=weight)
    return np.asarray(model.coef_[0]), float(model.intercept_[0])
