"""The R-score that every estimator's ``score`` returns (Nie and Wager 2021, equation 4, as a share)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def crossfit_ridge(
    X: FloatArray, target: FloatArray, weight: FloatArray, groups: NDArray[np.int64] | None, n_splits: int = 5
) -> FloatArray:
    """Out-of-fold ridge predictions of a target, shape (n,); the weighted mean where there are too few units."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, KFold

    n_units = len(target) if groups is None else len(np.unique(groups))
    if n_units < 2 * n_splits:
        return np.full(len(target), np.average(target, weights=weight))
    scale = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    out = np.empty(len(target))
    folds = (KFold(n_splits) if groups is None else GroupKFold(n_splits)).split(X, target, groups)
    for train, test in folds:
        model = RidgeCV(np.logspace(-2, 5, 15)).fit(Z[train], target[train], sample_weight=weight[train])
        out[test] = model.predict(Z[test])
    return out


def r_score(
    tau: FloatArray, y_residual: FloatArray, t_residual: FloatArray, weight: FloatArray | None = None
) -> float:
    r"""Share of the R-loss of a constant effect that the effects remove.

    ``1 - sum w (y~ - t~ tau)^2 / sum w (y~ - t~ c)^2`` with c the best constant effect of these units:
    0 for the best constant, positive where the heterogeneity is real, unbounded below.

    Parameters
    ----------
    tau : ndarray of shape (n,)
        Predicted effects.
    y_residual, t_residual : ndarray of shape (n,)
        Outcome and treatment less their conditional means.
    weight : ndarray of shape (n,), optional
        Weights.

    Examples
    --------
    >>> import numpy as np
    >>> t, tau = np.array([-0.5, 0.5, -0.5, 0.5]), np.array([0.0, 0.0, 2.0, 2.0])
    >>> float(r_score(tau, t * tau, t)), float(r_score(np.ones(4), t * tau, t))
    (1.0, 0.0)
    """
    w = np.ones_like(tau) if weight is None else weight
    denominator = float((w * t_residual**2).sum())
    if denominator <= 0:
        return float("nan")
    constant = float((w * t_residual * y_residual).sum()) / denominator
    loss = float((w * (y_residual - t_residual * tau) ** 2).sum())
    reference = float((w * (y_residual - t_residual * constant) ** 2).sum())
    return float("nan") if reference <= 0 else 1.0 - loss / reference
