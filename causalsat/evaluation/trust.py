"""Where not to trust a prediction: direct epistemic uncertainty (DEUP), learned from held-out losses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from causalsat.core.features import neighbour_distance, whiten
from causalsat.evaluation import checks
from causalsat.exceptions import DataError, ParameterError

__all__ = ["DirectUncertainty"]

FloatArray = NDArray[np.float64]

TINY = 1e-12


class DirectUncertainty(BaseEstimator):
    r"""Excess loss to be expected at a place, from how far it lies from the training data and what the model says.

    A posterior sd knows what the model does not know within its own form. Where the form is wrong, far from the data,
    it is too small, and it ranks places wrongly. Held-out losses know more: predict each region with a model that has
    not seen it, and learn the loss from the distance of the place to the model's training data and from the posterior
    sd (Lahlou et al. 2023). What remains after the noise of the outcome itself is

    .. math:: u(x) = \max(0, \hat e(x) - a), \qquad
              \log \hat e = b_0 + b_1 \log \mathrm{distance} + b_2 \log \mathrm{centrality}
              + b_3 \log \mathrm{sd}, \quad b \ge 0

    a gamma regression of the loss, which goes on rising beyond the distances that the folds contain. Folds must be
    regions, not units drawn at random: else no place is far.

    Parameters
    ----------
    n_neighbours : int
        Nearest training units whose mean distance counts.
    aleatoric : float or None
        Expected loss that no model could avoid (the variance of the noise, for squared errors). None: the expected
        loss at the 5 % of places that lie nearest to training data, with their median sd.

    Attributes
    ----------
    coef_ : ndarray of shape (3,)
        b_1 of the mean distance to the nearest training units, b_2 of the distance from their middle, b_3 of the sd
        (0 without an sd).
    aleatoric_ : float
        The a in use.

    References
    ----------
    Lahlou, S., Jain, M., Nekoei, H., et al. (2023). DEUP: Direct epistemic uncertainty prediction. TMLR.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> region = np.repeat(np.arange(10), 30)
    >>> X = rng.standard_normal((10, 2))[region] * 2 + 0.3 * rng.standard_normal((300, 2))
    >>> loss = ((X**2).sum(axis=1) - 8) ** 2 / 50 + rng.chisquare(1, 300)
    >>> trust = DirectUncertainty().fit(X, loss, folds=region)
    >>> near, far = trust.predict(np.array([X[0], [12.0, 12.0]]))
    >>> bool(far > 3 * near), bool((trust.predict(X) >= 0).all())
    (True, True)
    """

    def __init__(self, *, n_neighbours: int = 5, aleatoric: float | None = None) -> None:
        self.n_neighbours = n_neighbours
        self.aleatoric = aleatoric

    def fit(
        self, X: ArrayLike, loss: ArrayLike, *, folds: ArrayLike, sd: ArrayLike | None = None
    ) -> DirectUncertainty:
        """Learn the loss of places that a model has not seen.

        Parameters
        ----------
        X : array of shape (n, p)
            Features (latents) of the units.
        loss : array of shape (n,)
            Loss of each unit's prediction by a model fitted without its fold, such as the squared error.
        folds : array of shape (n,)
            Which fold, a region, each unit was held out with.
        sd : array of shape (n,), optional
            That model's posterior sd.

        Raises
        ------
        DataError
            If a loss is negative, or there are fewer than two folds.
        """
        table, values = self._table(X), checks.numbers(loss, "loss")
        if len(values) != len(table):
            raise DataError(f"{len(values)} losses for {len(table)} rows", expected="one loss a row")
        if (values < 0).any():
            raise DataError(f"losses from {values.min():g}", expected="losses of at least 0, such as squared errors")
        region = np.asarray(folds)
        if region.shape != (len(table),) or len(np.unique(region)) < 2:
            raise DataError(f"folds of shape {region.shape}", expected="one label a row, two folds or more")
        if isinstance(self.n_neighbours, bool) or int(self.n_neighbours) < 1:
            raise ParameterError(f"n_neighbours={self.n_neighbours!r}", expected="an integer of at least 1")
        self.centre_, self.whitening_ = whiten(table)
        self.points_ = (table - self.centre_) @ self.whitening_
        away = np.empty(len(table))
        for k in np.unique(region):
            away[region == k] = neighbour_distance(
                self.points_[region == k], self.points_[region != k], int(self.n_neighbours)
            )
        self.floor_ = float(np.quantile(away, 0.05)) + TINY
        logs = self._logs(self.points_, away, None if sd is None else checks.numbers(sd, "sd", len(table)))
        self.has_sd_ = sd is not None
        self._regress(logs, values)
        if self.aleatoric is None:
            near = logs.copy()
            near[:, 0] = np.log(self.floor_)
            self.aleatoric_ = float(np.median(np.exp(self.intercept_ + near @ self.coef_)))
        else:
            self.aleatoric_ = float(self.aleatoric)
        return self

    def expected_loss(self, X: ArrayLike, sd: ArrayLike | None = None) -> FloatArray:
        """Expected loss at new places, noise included, shape (n,)."""
        check_is_fitted(self, "coef_")
        table = self._table(X)
        if table.shape[1] != len(self.centre_):
            raise DataError(f"{table.shape[1]} features", expected=f"{len(self.centre_)}, as in fit")
        if self.has_sd_ != (sd is not None):
            raise DataError(
                "an sd" if sd is not None else "no sd", expected="an sd where fit had one, and only there"
            )
        places = (table - self.centre_) @ self.whitening_
        away = neighbour_distance(places, self.points_, int(self.n_neighbours))
        logs = self._logs(places, away, None if sd is None else checks.numbers(sd, "sd", len(table)))
        return np.asarray(np.exp(self.intercept_ + logs @ self.coef_))

    def predict(self, X: ArrayLike, sd: ArrayLike | None = None) -> FloatArray:
        """Excess loss at new places, u = max(0, expected loss - aleatoric part), shape (n,)."""
        return np.maximum(0.0, self.expected_loss(X, sd) - self.aleatoric_)

    # ------------------------------------------------------------------ inside
    def _regress(self, logs: FloatArray, loss: FloatArray) -> None:
        """Gamma regression with a log link; a negative coefficient is put to 0 and the rest fitted again."""
        from sklearn.linear_model import GammaRegressor

        positive = np.maximum(loss, TINY + 1e-6 * float(loss.mean()))
        use = np.ptp(logs, axis=0) > 0
        self.coef_, self.intercept_ = np.zeros(logs.shape[1]), float(np.log(positive.mean()))
        while use.any():
            fit: Any = GammaRegressor(alpha=1e-3, max_iter=1000).fit(logs[:, use], positive)
            if (fit.coef_ >= 0).all():
                self.coef_[use], self.intercept_ = fit.coef_, float(fit.intercept_)
                return
            use[np.flatnonzero(use)[np.argmin(fit.coef_)]] = False

    def _logs(self, places: FloatArray, away: FloatArray, sd: FloatArray | None) -> FloatArray:
        """Logs of the neighbours' distance, of the distance from the middle, and of the sd, shape (n, 3)."""
        spread = np.ones(len(away)) if sd is None else sd
        if (spread < 0).any():
            raise DataError(f"an sd of {spread.min():g}", expected="standard deviations of at least 0")
        middle = np.sqrt(1.0 + (places**2).mean(axis=1))  # about a normal log density
        return np.log(np.column_stack([np.maximum(away, self.floor_), middle, np.maximum(spread, TINY)]))

    def _table(self, X: ArrayLike) -> FloatArray:
        table = np.asarray(X, dtype=float)
        if table.ndim != 2 or not np.isfinite(table).all():
            raise DataError(
                f"X of shape {table.shape}, or not finite", expected="a complete table of features (n, p)"
            )
        return table
