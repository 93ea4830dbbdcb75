"""Aggregation of several models' quantiles into one set that never crosses.

Fakoor, Kim, Mueller, Smola and Tibshirani (2023), "Flexible model aggregation for quantile regression", Journal of
Machine Learning Research 24: global aggregation with weights on the simplex, for each model ("coarse") or for each
model and quantile ("medium"), a crossing penalty with margins, and post-processing to monotone quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import aligned
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.evaluation.weighted_quantiles import fit_quantiles
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.folds import assign_folds

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "QuantileAggregation",
    "aggregate_quantiles",
    "monotone_quantiles",
    "out_of_fold_quantiles",
    "pinball_loss",
    "quantile_effects",
]

FloatArray = NDArray[np.float64]

WEIGHTINGS = ("medium", "coarse")
MONOTONE = ("sort", "isotonic", None)


@dataclass(frozen=True, eq=False)
class QuantileAggregation(Tabular):
    """Weights of models, by quantile, and what they achieve.

    Attributes
    ----------
    weights : ndarray of shape (model, level)
        Non-negative; they sum to one at each level.
    levels : ndarray of shape (level,)
        Quantile levels, increasing.
    names : tuple of str
        The models.
    monotone : {"sort", "isotonic", None}
        What is done to quantiles that cross.
    loss : float
        Mean pinball loss of the aggregate on the units that chose the weights, all levels together.
    model_loss : ndarray of shape (model,)
        The same of each model, made monotone in the same way.
    crossing : float
        Share of units whose aggregated quantiles cross before they are made monotone.
    """

    weights: FloatArray
    levels: FloatArray
    names: tuple[str, ...]
    monotone: str | None
    loss: float
    model_loss: FloatArray
    crossing: float

    def predict(self, predictions: ArrayLike) -> FloatArray:
        """Aggregated quantiles of new units, shape (n, level), from predictions of shape (model, n, level)."""
        q = _predictions(predictions, len(self.levels))
        if len(q) != len(self.weights):
            raise DataError(
                f"predictions of {len(q)} models", expected=f"{len(self.weights)}: {', '.join(self.names)}"
            )
        mixed = np.einsum("ml,mnl->nl", self.weights, q)
        return mixed if self.monotone is None else monotone_quantiles(mixed, method=self.monotone)

    def interval(self, predictions: ArrayLike, level: float) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bound, shape (n,), of a central interval whose two quantiles are among the levels."""
        tail = (1 - checks.level(level)) / 2
        found = [int(np.abs(self.levels - q).argmin()) for q in (tail, 1 - tail)]
        if not np.allclose(self.levels[found], [tail, 1 - tail], atol=1e-9):
            raise ParameterError(f"level={level!r}", expected=f"quantiles {tail:g} and {1 - tail:g} among the levels")
        q = self.predict(predictions)
        return q[:, found[0]], q[:, found[1]]

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row a model: weight at each level, and the model's own pinball loss."""
        import pandas as pd

        columns: dict[Any, Any] = {f"q{level:g}": self.weights[:, j] for j, level in enumerate(self.levels)}
        return pd.DataFrame({**columns, "pinball_loss": self.model_loss}, index=pd.Index(self.names, name="model"))


@aligned("y", "weights")
def pinball_loss(y: ArrayLike, quantiles: ArrayLike, levels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean pinball loss over units and levels; twice its mean over symmetric levels is the weighted interval score.

    Parameters
    ----------
    y : array of shape (n,)
        Outcomes.
    quantiles : array of shape (n, level)
        Predicted quantiles.
    levels : array of shape (level,)
        Their levels.
    weights : array of shape (n,), optional
        Positive weights.

    Raises
    ------
    DataError
        If the quantiles are not one for each unit and level.

    Examples
    --------
    >>> pinball_loss([1.0], [[0.0, 3.0]], [0.25, 0.75])  # (0.25 * 1 + 0.25 * 2) / 2
    0.375
    """
    tau, outcome, q = np.atleast_1d(np.asarray(levels, dtype=float)), checks.numbers(y, "y"), np.asarray(quantiles)
    if q.shape != (len(outcome), len(tau)):
        raise DataError(
            f"quantiles of shape {q.shape} for {len(outcome)} units and {len(tau)} levels", expected="(unit, level)"
        )
    q = q.astype(float)
    if not np.isfinite(q).all() or not ((tau > 0) & (tau < 1)).all():
        what = (
            f"levels {tau.tolist()}" if np.isfinite(q).all() else f"{int((~np.isfinite(q)).sum())} missing quantiles"
        )
        raise DataError(what, expected="finite quantiles at levels strictly between 0 and 1")
    error = outcome[:, None] - q
    loss = np.maximum(tau * error, (tau - 1) * error).mean(axis=1)
    return float(np.average(loss, weights=None if weights is None else inputs.check_weights(weights, len(loss))))


def monotone_quantiles(quantiles: ArrayLike, *, method: str = "sort") -> FloatArray:
    """Quantiles that do not cross, shape (n, level): sorted, or their isotonic (least-squares) projection.

    Neither ever has a larger pinball loss over equally weighted levels (Chernozhukov, Fernandez-Val and Galichon
    2010 for sorting; Fakoor et al. 2023, section 4.4 for both).

    Parameters
    ----------
    quantiles : array of shape (n, level)
        Quantiles at increasing levels.
    method : {"sort", "isotonic"}
        How.

    Examples
    --------
    >>> monotone_quantiles([[1.0, 3.0, 2.0]]), monotone_quantiles([[1.0, 3.0, 2.0]], method="isotonic")
    (array([[1., 2., 3.]]), array([[1. , 2.5, 2.5]]))
    """
    q = np.asarray(quantiles, dtype=float)
    if q.ndim != 2:
        raise DataError(f"quantiles of shape {q.shape}", expected="(unit, level)")
    if method == "sort":
        return np.sort(q, axis=1)
    if method != "isotonic":
        raise ParameterError(f"method={method!r}", expected="'sort' or 'isotonic'")
    out, crossed = q.copy(), (np.diff(q, axis=1) < 0).any(axis=1)
    rows, k = q[crossed], q.shape[1]
    total = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    best = np.full((len(rows), k), -np.inf)
    for a in range(k):  # max over starts a of min over ends b of the mean from a to b
        means = (total[:, a + 1 :] - total[:, [a]]) / np.arange(1, k - a + 1)
        least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        best[:, a:] = np.maximum(best[:, a:], least)
    out[crossed] = best
    return out


def quantile_effects(treated: ArrayLike, control: ArrayLike) -> FloatArray:
    """Conditional quantile treatment effects, shape (n, level): differences of two arms' quantiles.

    They compare two distributions of outcomes and are *not* quantiles of individual effects, about whose
    distribution two arms say little (:func:`causalsat.evaluation.conformal_individual_effects` is about those).

    Parameters
    ----------
    treated, control : array of shape (n, level)
        Quantiles of the outcome under treatment and under control at the same levels.
    """
    high, low = np.asarray(treated, dtype=float), np.asarray(control, dtype=float)
    if high.shape != low.shape or high.ndim != 2:
        raise DataError(f"quantiles of shapes {high.shape} and {low.shape}", expected="the same (unit, level)")
    return high - low


@aligned("X", "y", "groups", "sample_weight")
def out_of_fold_quantiles(
    models: Any,
    X: Any,
    y: ArrayLike,
    levels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    cv: int = 5,
    sample_weight: ArrayLike | None = None,
    random_state: Any = 0,
) -> FloatArray:
    """Quantiles of each unit by models that did not see its cluster, shape (model, n, level).

    Parameters
    ----------
    models : sequence of scikit-learn estimators with a parameter ``quantile``
        Cloned for each fold and level.
    X : array or DataFrame of shape (n, p)
        Features: units of one arm, for quantiles of a potential outcome.
    y : array of shape (n,)
        Outcome.
    levels : array of shape (level,)
        Increasing, between 0 and 1.
    groups : array of shape (n,), optional
        Clusters, which no two folds share.
    cv : int
        Folds.
    sample_weight : array of shape (n,), optional
        Survey weights.
    random_state : int or numpy.random.Generator
        Seed of the folds.

    Examples
    --------
    >>> from sklearn.linear_model import QuantileRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((100, 1))
    >>> y = X[:, 0] + rng.standard_normal(100)
    >>> out_of_fold_quantiles([QuantileRegressor(alpha=0)], X, y, [0.1, 0.5, 0.9]).shape
    (1, 100, 3)
    """
    table, outcome = np.asarray(inputs.features_only(X, set()), dtype=float), checks.numbers(y, "y")
    n, tau = len(outcome), _levels(levels)
    if len(table) != n:
        raise DataError(f"X of {len(table)} units for {n} outcomes", expected="the same units")
    fold = assign_folds(
        checks.count(cv, "cv", 2), np.random.default_rng(random_state), n=n, groups=checks.codes(groups, n)
    )
    w = checks.weights(sample_weight, n)
    out = np.empty((len(models), n, len(tau)))
    for k in np.unique(fold):
        train, held = fold != k, fold == k
        for m, model in enumerate(models):
            weight = None if w is None else w[train]
            fitted = fit_quantiles(model, table[train], (outcome[train],) * len(tau), tuple(tau), weight)
            out[m, held] = np.column_stack([learner.predict(table[held]) for learner in fitted])
    return out


def aggregate_quantiles(
    predictions: ArrayLike,
    y: ArrayLike,
    levels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    names: Any = None,
    weighting: str = "medium",
    crossing_penalty: float = 1.0,
    margin: float = 0.05,
    monotone: str | None = "sort",
) -> QuantileAggregation:
    r"""Weights of models, by quantile, that minimise the pinball loss of out-of-fold predictions.

    Minimises over softmax weights the mean pinball loss plus
    ``crossing_penalty * mean over units and neighbouring levels of max(0, q_j - q_{j+1} + margin_j)``,
    where ``margin_j = margin * (mean gap of the models' quantiles j and j + 1)``; then aggregates are sorted.

    Parameters
    ----------
    predictions : array of shape (model, n, level)
        Quantiles from models that did not see the units, see :func:`out_of_fold_quantiles`.
    y : array of shape (n,)
        Outcomes.
    levels : array of shape (level,)
        Increasing levels between 0 and 1.
    weights : array of shape (n,), optional
        Positive survey weights.
    names : sequence of str, optional
        Names of the models.
    weighting : {"medium", "coarse"}
        One weight for each model and level, or for each model.
    crossing_penalty : float
        Weight of the penalty; 0 for none.
    margin : float
        Margin as a share of the models' mean gap between neighbouring levels.
    monotone : {"sort", "isotonic", None}
        How predictions are made monotone.

    Returns
    -------
    QuantileAggregation
        Weights and losses; ``predict`` aggregates new predictions.

    Raises
    ------
    DataError, ParameterError
        If an input cannot be used.

    Notes
    -----
    For coverage of a unit in a new cluster, follow with :func:`causalsat.evaluation.conformal_calibrate` on clusters
    that chose neither models nor weights.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, levels = rng.standard_normal(2000), np.array([0.1, 0.5, 0.9])
    >>> right, wide = np.tile([-1.28, 0.0, 1.28], (2000, 1)), np.tile([-4.0, 3.0, 4.0], (2000, 1))
    >>> found = aggregate_quantiles(np.stack([right, wide]), y, levels)
    >>> bool((found.weights[0] > 0.9).all()), found.predict(np.stack([right, wide])).shape
    (True, (2000, 3))
    """
    tau = _levels(levels)
    q, outcome = _predictions(predictions, len(tau)), checks.numbers(y, "y")
    if q.shape[1] != len(outcome):
        raise DataError(f"predictions of {q.shape[1]} units for {len(outcome)} outcomes", expected="the same units")
    if weighting not in WEIGHTINGS:
        raise ParameterError(f"weighting={weighting!r}", expected="'medium' or 'coarse'")
    if monotone not in MONOTONE:
        raise ParameterError(f"monotone={monotone!r}", expected="'sort', 'isotonic' or None")
    for name, value in (("crossing_penalty", crossing_penalty), ("margin", margin)):
        if not np.isfinite(value) or value < 0:
            raise ParameterError(f"{name}={value!r}", expected="a number of at least 0")
    labels = tuple(f"model {m}" for m in range(len(q))) if names is None else tuple(str(v) for v in names)
    if len(labels) != len(q):
        raise ParameterError(f"{len(labels)} names for {len(q)} models", expected="one name a model")
    given = checks.weights(weights, len(outcome))
    w = np.full(len(outcome), 1 / len(outcome)) if given is None else given / given.sum()
    gap = margin * np.maximum(np.einsum("n,mnl->l", w, np.diff(q, axis=2)) / len(q), 0.0)
    a = _optimise(q, outcome, tau, w, gap, float(crossing_penalty), coarse=weighting == "coarse")

    def finish(x: FloatArray) -> FloatArray:
        return x if monotone is None else monotone_quantiles(x, method=monotone)

    mixed = np.einsum("ml,mnl->nl", a, q)
    crossing = float(w @ (np.diff(mixed, axis=1) < 0).any(axis=1))
    loss = pinball_loss(outcome, finish(mixed), tau, w)
    model_loss = np.array([pinball_loss(outcome, finish(one), tau, w) for one in q])
    return QuantileAggregation(a, tau, labels, monotone, loss, model_loss, crossing)


def _optimise(
    q: FloatArray, y: FloatArray, tau: FloatArray, w: FloatArray, gap: FloatArray, penalty: float, *, coarse: bool
) -> FloatArray:
    """Softmax weights (model, level) by L-BFGS on a pinball loss that is smoothed ever less."""
    from scipy.optimize import minimize

    n_models, _, k = q.shape
    shape = (n_models, 1 if coarse else k)
    scale = float(np.sqrt(np.average((y - np.average(y, weights=w)) ** 2, weights=w)))
    scale = max(scale, float(np.abs(q - y[:, None]).mean()), 1e-300)

    def loss(logits: FloatArray, h: float) -> tuple[float, FloatArray]:
        a = _softmax(logits.reshape(shape))
        mixed = np.einsum("ml,mnl->nl", np.broadcast_to(a, (n_models, k)), q)
        value, slope = _smooth_pinball((y[:, None] - mixed) / scale, tau, h)
        total, gradient = float(w @ value.sum(axis=1)) / k, -w[:, None] * slope / k
        if penalty and k > 1:
            over = np.maximum((-np.diff(mixed, axis=1) + gap) / scale, 0.0)
            total += penalty * float(w @ over.sum(axis=1)) / (k - 1)
            push = penalty * w[:, None] * (over > 0) / (k - 1)
            gradient[:, :-1] += push
            gradient[:, 1:] -= push
        by_weight = np.einsum("nl,mnl->ml", gradient, q) / scale
        if coarse:
            by_weight = by_weight.sum(axis=1, keepdims=True)
        total += 1e-6 * float((logits**2).mean())
        back = a * (by_weight - (a * by_weight).sum(axis=0)) + 2e-6 * logits.reshape(shape) / logits.size
        return total, back.ravel()

    logits = np.zeros(shape[0] * shape[1])
    for h in (0.3, 0.1, 0.03, 0.01):
        logits = minimize(loss, logits, args=(h,), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return np.array(np.broadcast_to(_softmax(logits.reshape(shape)), (n_models, k)))


def _softmax(x: FloatArray) -> FloatArray:
    e = np.exp(x - x.max(axis=0))
    return np.asarray(e / e.sum(axis=0))


def _smooth_pinball(u: FloatArray, tau: FloatArray, h: float) -> tuple[FloatArray, FloatArray]:
    """Pinball loss of u with |u| rounded off within h, and its derivative."""
    inside = np.abs(u) < h
    size = np.where(inside, u**2 / (2 * h) + h / 2, np.abs(u))
    sign = np.where(inside, u / h, np.sign(u))
    return 0.5 * size + (tau - 0.5) * u, 0.5 * sign + (tau - 0.5)


def _levels(levels: ArrayLike) -> FloatArray:
    tau = np.atleast_1d(np.asarray(levels, dtype=float))
    if tau.ndim != 1 or len(tau) == 0 or not ((tau > 0) & (tau < 1)).all() or (np.diff(tau) <= 0).any():
        raise ParameterError(f"levels={levels!r}", expected="increasing numbers strictly between 0 and 1")
    return tau


def _predictions(predictions: ArrayLike, n_levels: int) -> FloatArray:
    q = np.asarray(predictions, dtype=float)
    if q.ndim != 3 or q.shape[2] != n_levels or not np.isfinite(q).all():
        raise DataError(
            f"predictions of shape {q.shape}", expected=f"finite quantiles, shape (model, unit, {n_levels})"
        )
    return q
