"""Default learners of images' outcomes and treatments: ridge penalties chosen on held-out clusters.

Units of one place share an image. Leaving out one of them at a time would let the others betray it, and the penalty
come out far too small, so the penalty is chosen on clusters that the fit has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

__all__ = ["HeldOutLogit", "HeldOutRidge"]

FloatArray = NDArray[np.float64]

_RIDGE_PENALTIES = np.logspace(-4, 4, 17)  # times the number of rows: features have variance 1
_LOGIT_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C, smaller is stronger


class _Standardised(BaseEstimator):
    """Linear model on standardised features; a missing feature counts as its training mean."""

    coef_: FloatArray
    intercept_: float

    def _standardise(self, X: Any, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Design with columns of mean 0 and variance 1 (0 where a column does not vary), and the columns' scale."""
        raw = np.asarray(X, dtype=float)
        seen = np.isfinite(raw)
        mass = np.where(seen, weight[:, None], 0.0)
        self.mean_ = (mass * np.where(seen, raw, 0.0)).sum(axis=0) / np.maximum(mass.sum(axis=0), 1e-300)
        centred = np.where(seen, raw, self.mean_) - self.mean_
        spread = np.sqrt(np.average(centred**2, axis=0, weights=weight))
        # a spread in the sixth digit is rounding of single precision, such as the contrast of flat images
        scale = np.where(spread > 1e-6 * np.maximum(np.abs(self.mean_), 1e-9), spread, np.inf)
        return centred / scale, scale

    def _keep(self, coef: FloatArray, intercept: float, scale: FloatArray) -> None:
        self.coef_ = coef / scale
        self.intercept_ = float(intercept - self.mean_ @ self.coef_)

    def _index(self, X: Any) -> FloatArray:
        raw = np.asarray(X, dtype=float)
        return np.asarray(self.intercept_ + np.where(np.isfinite(raw), raw, self.mean_) @ self.coef_)


def _folds(n_splits: int, n: int, groups: ArrayLike | None) -> Iterator[NDArray[np.bool_]]:
    """Held-out rows of each fold: every n_splits-th cluster in the order of their first rows."""
    codes = np.arange(n)
    if groups is not None:
        _, first, inverse = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
        codes = np.argsort(np.argsort(first))[inverse.ravel()]
    for k in range(n_splits):
        yield codes % n_splits == k


class HeldOutRidge(RegressorMixin, _Standardised):
    """Ridge regression on standardised features, its penalty chosen by the squared error of held-out clusters.

    Parameters
    ----------
    n_splits : int, default 5
        Folds among which the penalty is chosen.

    Attributes
    ----------
    coef_, intercept_ : ndarray of shape (p,), float
        In the features' own units.
    mean_ : ndarray of shape (p,)
        Training means.
    penalty_ : float
        Chosen penalty, times the number of rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 3))
    >>> HeldOutRidge().fit(X, 1 + X[:, 0]).predict(X[:1] * 0 + 1).round(2)
    array([2.])
    """

    def __init__(self, n_splits: int = 5) -> None:
        self.n_splits = n_splits

    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> HeldOutRidge:
        """Choose the penalty and fit; X of shape (n, p), y and groups of shape (n,)."""
        target = np.asarray(y, dtype=float)
        weight = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        weight = weight / weight.mean()
        design, scale = self._standardise(X, weight)
        loss = np.zeros(len(_RIDGE_PENALTIES))
        for held in _folds(int(self.n_splits), len(target), groups):
            if weight[~held].sum() <= 0 or not held.any():
                continue
            coefs, intercepts = _ridge_path(design[~held], target[~held], weight[~held])
            loss += weight[held] @ (target[held, None] - intercepts - design[held] @ coefs) ** 2
        best = int(np.flatnonzero(loss <= loss.min() * (1 + 1e-12))[-1])
        self.penalty_ = float(_RIDGE_PENALTIES[best])
        coefs, intercepts = _ridge_path(design, target, weight)
        self._keep(coefs[:, best], intercepts[best], scale)
        return self

    def predict(self, X: Any) -> FloatArray:
        """Predictions, shape (n,)."""
        return self._index(X)


def _ridge_path(design: FloatArray, target: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients (p, penalties) and intercepts (penalties,) of weighted ridge regressions."""
    centre, level = np.average(design, axis=0, weights=weight), np.average(target, weights=weight)
    centred = (design - centre) * np.sqrt(weight)[:, None]
    reduced = (target - level) * np.sqrt(weight)
    eigen, vectors = np.linalg.eigh(centred.T @ centred)
    moment = vectors.T @ (centred.T @ reduced)
    shrunk = moment[:, None] / (np.maximum(eigen, 0.0)[:, None] + _RIDGE_PENALTIES * weight.sum())
    coefs = vectors @ shrunk
    return coefs, level - centre @ coefs


class HeldOutLogit(ClassifierMixin, _Standardised):
    """Ridge-penalised logistic regression on standardised features; penalty by the log loss of held-out clusters.

    Parameters
    ----------
    n_splits : int, default 3
        Folds among which the penalty is chosen.

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

    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> HeldOutLogit:
        """Choose the penalty and fit; X of shape (n, p), y of two labels, groups of shape (n,)."""
        self.classes_, label = np.unique(np.asarray(y), return_inverse=True)
        weight = np.ones(len(label)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        weight = weight / weight.mean()
        design, scale = self._standardise(X, weight)
        losses = np.zeros(len(_LOGIT_PENALTIES))
        for held in _folds(int(self.n_splits), len(label), groups):
            if held.any() and len(np.unique(label[~held])) == 2:
                losses += [_held_out_loss(design, label, weight, held, penalty) for penalty in _LOGIT_PENALTIES]
        self.C_ = _LOGIT_PENALTIES[int(np.argmin(losses))]
        coef, intercept = _logit(design, label, weight, self.C_)
        self._keep(coef, intercept, scale)
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of both labels, shape (n, 2)."""
        chance = 0.5 * (1 + np.tanh(0.5 * self._index(X)))
        return np.column_stack([1 - chance, chance])

    def predict(self, X: Any) -> NDArray[Any]:
        """The likelier label, shape (n,)."""
        return np.asarray(self.classes_[(self._index(X) > 0).astype(int)])


def _held_out_loss(
    design: FloatArray, label: NDArray[np.int64], weight: FloatArray, held: NDArray[np.bool_], penalty: float
) -> float:
    coef, intercept = _logit(design[~held], label[~held], weight[~held], penalty)
    signed = (2 * label[held] - 1) * (intercept + design[held] @ coef)
    return float(weight[held] @ np.logaddexp(0.0, -signed))


def _logit(
    design: FloatArray, label: NDArray[np.int64], weight: FloatArray, penalty: float
) -> tuple[FloatArray, float]:
    from sklearn.linear_model import LogisticRegression

    solver = "newton-cholesky" if design.shape[1] < len(design) else "lbfgs"
    model = LogisticRegression(C=penalty, solver=solver, max_iter=500, tol=1e-5)
    model.fit(design, label, sample_weight=weight)
    return np.asarray(model.coef_[0]), float(model.intercept_[0])
