"""Ridge regression with the penalty chosen by leave-one-out, in closed form from weighted cross-products.

What ``make_pipeline(StandardScaler(), RidgeCV(alphas))`` of scikit-learn fits, equal to rounding, at the cost of one
eigendecomposition of the features' cross-products and a pass over the units: with G = Z'WZ of the centred features,
``G = V diag(l) V'`` and ``U = Z V``, the fit with the penalty a is ``U diag(1 / (l + a)) V'Z'Wy`` and the leverage of
unit i is ``w_i (1 / sum(w) + sum_k U_ik^2 / (l_k + a))``; its leave-one-out error is the residual over one less the
leverage (Rifkin and Lippert 2007, "Notes on Regularized Least Squares"). A bootstrap refits the learner hundreds of
times, so that the checks and copies of a general learner cost more than the regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RidgeFit", "ridge_fit", "ridge_penalties", "ridge_pipeline", "ridge_predictions"]

FloatArray = NDArray[np.float64]

BLOCK = 2048  # units whose fits by all penalties are held at once


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """A ridge regression on standardised features.

    Attributes
    ----------
    mean, variance, scale : ndarray of shape (p,)
        Of the features, each unit counted once; the scale is their standard deviation, 1 where they are constant or
        not standardised.
    coef : ndarray of shape (p,)
        Coefficients of the standardised features.
    intercept, penalty : float
        Constant; the penalty that was chosen.
    score : float
        Minus the mean of the weighted squares of the leave-one-out errors.
    """

    mean: FloatArray
    variance: FloatArray
    scale: FloatArray
    coef: FloatArray
    intercept: float
    penalty: float
    score: float

    def predict(self, X: FloatArray) -> FloatArray:
        """Predictions of units (n, p), shape (n,)."""
        return np.asarray((X - self.mean) @ (self.coef / self.scale) + self.intercept)


def ridge_penalties(model: Any, *, imputed: bool = False) -> FloatArray | None:
    """Penalties of a ``RidgeCV`` with its defaults, after a ``StandardScaler``; None of any other learner.

    With ``imputed``, a ``SimpleImputer`` may stand before the two.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression, RidgeCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> ridge_penalties(make_pipeline(StandardScaler(), RidgeCV([0.1, 1.0])))
    array([0.1, 1. ])
    >>> ridge_penalties(LinearRegression()) is None
    True
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    steps = [step for _, step in getattr(model, "steps", [])]
    if imputed and steps and type(steps[0]) is SimpleImputer:
        steps = steps[1:]
    if len(steps) != 2 or type(steps[0]) is not StandardScaler or type(steps[1]) is not RidgeCV:
        return None
    scaler, ridge = steps
    usual = scaler.with_mean and scaler.with_std and ridge.fit_intercept and ridge.cv is None
    usual &= ridge.scoring is None and ridge.gcv_mode in (None, "auto")
    usual &= not ridge.store_cv_results and not ridge.alpha_per_target
    penalties = np.atleast_1d(np.asarray(ridge.alphas, dtype=float))
    if not usual or getattr(model, "memory", None) is not None or not (penalties > 0).all():
        return None
    return penalties


def ridge_fit(
    X: FloatArray,
    target: FloatArray,
    weight: FloatArray | None,
    penalties: FloatArray,
    *,
    standardise: bool = True,
) -> RidgeFit | None:
    """Fit to finite units, more than features; None otherwise.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Features.
    target : ndarray of shape (n,)
        Target.
    weight : ndarray of shape (n,) or None
        Positive weights of the regression. Features are standardised without them.
    penalties : ndarray of shape (k,)
        Of which the first with the least leave-one-out error is taken.
    standardise : bool
        Scale the features to standard deviation one.

    Examples
    --------
    >>> from sklearn.linear_model import RidgeCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> rng, penalties = np.random.default_rng(0), np.logspace(-2, 4, 13)
    >>> X, weight = rng.standard_normal((60, 5)), rng.exponential(size=60)
    >>> y = X[:, 0] + rng.standard_normal(60)
    >>> theirs = make_pipeline(StandardScaler(), RidgeCV(penalties)).fit(X, y, ridgecv__sample_weight=weight)
    >>> ours = ridge_fit(X, y, weight, penalties)
    >>> bool(ours.penalty == theirs[-1].alpha_), np.allclose(ours.predict(X), theirs.predict(X), rtol=1e-10)
    (True, True)
    """
    n, p = X.shape
    w = np.ones(n) if weight is None else weight
    if n <= p or p == 0 or not (np.isfinite(X.sum()) and np.isfinite(target.sum()) and (w > 0).all()):
        return None
    mean = X.mean(axis=0)
    Z = X - mean
    off = Z.mean(axis=0)
    variance = np.einsum("ij,ij->j", Z, Z) / n - off**2
    eps = np.finfo(np.float64).eps
    constant = variance <= n * eps * variance + (n * mean * eps) ** 2
    scale = np.where(constant, 1.0, np.sqrt(np.maximum(variance, 0.0))) if standardise else np.ones(p)
    Z /= scale
    total = float(w.sum())
    centre, level = (w @ Z) / total, float(w @ target) / total
    Z -= centre
    y = target - level
    weighted = Z * w[:, None]
    eigen, V = np.linalg.eigh(weighted.T @ Z)
    eigen = np.maximum(eigen, 0.0)
    shrink = 1.0 / (eigen[:, None] + penalties)
    turned = (V.T @ (weighted.T @ y))[:, None] * shrink
    errors = _left_out_errors(Z @ V, y, w, turned, shrink, total)
    best = int(np.argmin(errors))
    coef = V @ turned[:, best]
    return RidgeFit(
        mean=mean,
        variance=variance,
        scale=scale,
        coef=coef,
        intercept=level - float(centre @ coef),
        penalty=float(penalties[best]),
        score=-float(errors[best]) / n,
    )


def _left_out_errors(
    U: FloatArray, y: FloatArray, w: FloatArray, turned: FloatArray, shrink: FloatArray, total: float
) -> FloatArray:
    """Weighted sums of squared leave-one-out errors, shape (k,), of fits ``U @ turned`` with k penalties."""
    out = np.zeros(shrink.shape[1])
    for start in range(0, len(y), BLOCK):
        rows = slice(start, start + BLOCK)
        own, weight = U[rows], w[rows, None]
        errors = own @ turned
        np.subtract(y[rows, None], errors, out=errors)
        kept = (own * own) @ shrink
        kept += 1.0 / total
        kept *= -weight
        kept += 1.0
        errors /= kept
        errors *= errors
        out += w[rows] @ errors
    return out


def ridge_pipeline(model: Any, X: FloatArray, target: FloatArray, weight: FloatArray | None) -> Any:
    """A fitted clone of such a pipeline; None where the learner or the data are others.

    Parameters
    ----------
    model : scikit-learn estimator
        See :func:`ridge_penalties`.
    X, target, weight
        As in :func:`ridge_fit`.
    """
    penalties = ridge_penalties(model)
    found = None if penalties is None else ridge_fit(X, target, weight, penalties)
    if found is None:
        return None
    learner = _unfitted(model)
    learner.steps = [(name, _unfitted(step)) for name, step in model.steps]
    scaler, ridge = (step for _, step in learner.steps)
    scaler.mean_, scaler.var_, scaler.scale_ = found.mean, found.variance, found.scale
    scaler.n_samples_seen_ = np.int64(len(target))
    scaler.n_features_in_ = ridge.n_features_in_ = X.shape[1]
    ridge.coef_, ridge.intercept_ = found.coef, found.intercept
    ridge.alpha_, ridge.best_score_ = found.penalty, found.score
    return learner


def _unfitted(estimator: Any) -> Any:
    """Another object of the same parameters: a clone without the cost of one."""
    other = object.__new__(type(estimator))
    other.__dict__.update({name: v for name, v in vars(estimator).items() if not name.endswith("_")})
    return other


def ridge_predictions(learner: Any, X: FloatArray) -> FloatArray | None:
    """Predictions of a fitted pipeline of :func:`ridge_pipeline` for checked units; None of any other learner."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    steps: Any = getattr(learner, "steps", ())
    if len(steps) != 2 or type(steps[0][1]) is not StandardScaler or type(steps[1][1]) is not RidgeCV:
        return None
    scaler, ridge = steps[0][1], steps[1][1]
    if scaler.mean_ is None or scaler.scale_ is None or np.ndim(ridge.coef_) != 1:
        return None
    return np.asarray((X - scaler.mean_) @ (ridge.coef_ / scaler.scale_) + ridge.intercept_)
