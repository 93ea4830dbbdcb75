"""Ordered outcomes whose last class is rare: slopes shrunk towards proportional odds (PRESTO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from causalsat.core import inputs
from causalsat.core.features import learn_scaler
from causalsat.core.inputs import check_whole_numbers
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.chains import seed_of

__all__ = ["RareOutcome"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


FLOOR = 1e-6  # below it the log of a probability goes on as its tangent: crossing curves cost much, not infinity
MAX_STEPS = 300


@dataclass(frozen=True)
class Ordinal:
    """Intercepts (K - 1,) and slopes (K - 1, p) of the cumulative logits."""

    intercepts: FloatArray
    slopes: FloatArray

    def cumulative(self, X: FloatArray) -> FloatArray:
        """P(y <= k), shape (n, K - 1), made increasing in k where the curves cross."""
        from scipy.special import expit

        return np.maximum.accumulate(expit(self.intercepts + X @ self.slopes.T), axis=1)

    def probabilities(self, X: FloatArray) -> FloatArray:
        """P(y = k), shape (n, K)."""
        edges = np.column_stack([np.zeros(len(X)), self.cumulative(X), np.ones(len(X))])
        return np.diff(edges, axis=1)


def loss_and_gradient(
    intercepts: FloatArray, slopes: FloatArray, X: FloatArray, code: IntArray, weight: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Mean negative log likelihood, and its gradients in intercepts (K - 1,) and slopes (K - 1, p)."""
    from scipy.special import expit

    n, top = len(X), len(intercepts)
    logit = intercepts + X @ slopes.T
    edges = np.column_stack([np.zeros(n), expit(logit), np.ones(n)])
    rows = np.arange(n)
    p = edges[rows, code + 1] - edges[rows, code]
    inside = np.maximum(p, FLOOR)
    value = np.where(p >= FLOOR, np.log(inside), np.log(FLOOR) + (p - FLOOR) / FLOOR)
    by_p = weight / (inside * weight.sum())
    density = edges[:, 1:-1] * (1.0 - edges[:, 1:-1])
    upper = code[:, None] == np.arange(top)
    lower = code[:, None] == np.arange(top) + 1
    by_logit = -by_p[:, None] * density * (upper.astype(float) - lower)
    return -float(weight @ value / weight.sum()), by_logit.sum(axis=0), by_logit.T @ X


def fit_one(
    X: FloatArray, code: IntArray, weight: FloatArray, penalty: float, start: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Intercepts (K - 1,) and theta (K - 1, p) at one penalty, from a start."""
    from scipy.optimize import minimize

    top, p = start[1].shape

    def objective(v: FloatArray) -> tuple[float, FloatArray]:
        theta = (v[top : top + top * p] - v[top + top * p :]).reshape(top, p)
        value, by_intercept, by_slope = loss_and_gradient(v[:top], np.cumsum(theta, axis=0), X, code, weight)
        by_theta = np.cumsum(by_slope[::-1], axis=0)[::-1].ravel()
        penalised = value + penalty * float(v[top:].sum())
        return penalised, np.concatenate([by_intercept, by_theta + penalty, penalty - by_theta])

    theta = start[1].ravel()
    first = np.concatenate([start[0], np.maximum(theta, 0.0), np.maximum(-theta, 0.0)])
    bounds = [(None, None)] * top + [(0.0, None)] * (2 * top * p)
    options = {"maxiter": MAX_STEPS, "ftol": 1e-8, "gtol": 1e-6}
    optimum = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return optimum[:top], (optimum[top : top + top * p] - optimum[top + top * p :]).reshape(top, p)


def null_start(code: IntArray, weight: FloatArray, n_classes: int, p: int) -> tuple[FloatArray, FloatArray]:
    """Intercepts of the classes' shares, and no slopes."""
    share = np.bincount(code, weight, minlength=n_classes) + 0.5
    below = np.cumsum(share / share.sum())[:-1]
    return np.log(below) - np.log1p(-below), np.zeros((n_classes - 1, p))


def largest_penalty(X: FloatArray, code: IntArray, weight: FloatArray, n_classes: int) -> float:
    """Least penalty at which every slope is 0."""
    intercepts, slopes = null_start(code, weight, n_classes, X.shape[1])
    _, _, by_slope = loss_and_gradient(intercepts, slopes, X, code, weight)
    return float(np.abs(np.cumsum(by_slope[::-1], axis=0)).max())


def fit_path(
    X: FloatArray, code: IntArray, weight: FloatArray, n_classes: int, penalties: FloatArray
) -> list[Ordinal]:
    """Fits at decreasing penalties, each from the last."""
    start, out = null_start(code, weight, n_classes, X.shape[1]), []
    for penalty in penalties:
        start = fit_one(X, code, weight, float(penalty), start)
        out.append(Ordinal(start[0], np.cumsum(start[1], axis=0)))
    return out


class RareOutcome(ClassifierMixin, BaseEstimator):
    r"""Probabilities of ordered classes, the rare end of which borrows from the common classes.

    Total crop loss is rare, partial loss is not, and what raises one mostly raises the other. Proportional odds
    (McCullagh 1980) make all classes share their slopes, which is precise and somewhat wrong; a logistic regression
    of the rare class shares nothing and has few events. PRESTO (Faletto and Bien 2023) lets each class boundary have
    slopes of its own and penalises how they differ from the neighbour's:

    .. math:: logit P(y \le k | x) = \alpha_k + \beta_k'x, \qquad
              \lambda \left(\sum_j |\beta_{1j}| + \sum_{k \ge 2} \sum_j |\beta_{kj} - \beta_{k-1,j}|\right)

    with :math:`\lambda` chosen by cross-validated log loss.

    Parameters
    ----------
    order : sequence or None
        The classes from one end to the other; None sorts them. The chain of penalties starts at the first boundary.
    penalty : float or None
        :math:`\lambda` for standardised features; None chooses it.
    n_penalties, n_splits : int
        Penalties tried, on a log scale down to a three-hundredth of the largest that matters, and folds.
    random_state : int, RandomState or None
        Seed of the folds.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Sorted labels, the columns of :meth:`predict_proba`.
    order_ : ndarray of shape (K,)
        Labels from one end to the other.
    intercepts_, slopes_ : ndarray of shape (K - 1,) and (K - 1, p)
        Of the cumulative logits, per standard deviation of each feature.
    penalty_ : float
        The penalty used.

    References
    ----------
    Faletto, G. and Bien, J. (2023). Predicting rare events by shrinking towards proportional odds. ICML.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((800, 2))
    >>> latent = X[:, 0] + rng.logistic(size=800)
    >>> y = np.digitize(latent, [0, 2, 4])  # 0 common ... 3 rare
    >>> model = RareOutcome(random_state=0).fit(X, y)
    >>> rare = model.predict_proba(X)[:, 3]
    >>> rare.shape, bool(np.corrcoef(rare, X[:, 0])[0, 1] > 0.7)
    ((800,), True)
    """

    _contract_parameters: ClassVar[dict[str, Any]] = {"n_penalties": 6, "n_splits": 3, "random_state": 0}

    def __init__(
        self,
        *,
        order: Any = None,
        penalty: float | None = None,
        n_penalties: int = 12,
        n_splits: int = 5,
        random_state: Any = None,
    ) -> None:
        self.order = order
        self.penalty = penalty
        self.n_penalties = n_penalties
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> RareOutcome:
        """Choose the penalty and fit; X of shape (n, p), y of shape (n,) with two or more ordered labels.

        Raises
        ------
        DataError, ParameterError
            If y has one class only, or labels that ``order`` lacks.
        """
        check_whole_numbers(self, {"n_penalties": 1, "n_splits": 2})
        if self.penalty is not None and not (np.isfinite(self.penalty) and self.penalty >= 0):
            raise ParameterError(f"penalty={self.penalty!r}", expected="a number of at least 0, or None")
        table = self._table(X, reset=True)
        code = self._codes(y, len(table))
        weight = inputs.check_weights(sample_weight, len(table))
        scaler = learn_scaler(table, weight)
        self.mean_, self.sd_ = scaler.mean, scaler.scale
        design, k = (table - self.mean_) / self.sd_, len(self.order_)
        largest = max(largest_penalty(design, code, weight, k), 1e-8)
        if self.penalty is None:
            penalties = np.geomspace(largest, largest / 300, int(self.n_penalties))
            self.penalties_, self.log_losses_ = penalties, self._held_out_losses(design, code, weight, penalties)
            self.penalty_ = float(penalties[int(np.argmin(self.log_losses_))])
        else:
            self.penalty_ = float(self.penalty)
        path = np.geomspace(largest, self.penalty_, 5) if 0 < self.penalty_ < largest else np.array([self.penalty_])
        fitted = fit_path(design, code, weight, k, path)[-1]
        self.intercepts_, self.slopes_ = fitted.intercepts, fitted.slopes
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of the classes in the order of ``classes_``, shape (n, K)."""
        check_is_fitted(self, "slopes_")
        design = (self._table(X, reset=False) - self.mean_) / self.sd_
        p = Ordinal(self.intercepts_, self.slopes_).probabilities(design)
        return np.asarray(p[:, self._places()])

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class, shape (n,); of a rare one look at :meth:`predict_proba`."""
        p = self.predict_proba(X)
        return np.asarray(self.classes_[np.argmax(p, axis=1)])

    def __sklearn_tags__(self) -> Any:
        """Classes without an order, such as those of scikit-learn's checks, are predicted poorly."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    # ------------------------------------------------------------------ inside
    def _places(self) -> NDArray[np.int64]:
        """Where each of ``classes_`` stands in ``order_``."""
        order = list(self.order_)
        return np.array([order.index(label) for label in self.classes_], dtype=np.int64)

    def _codes(self, y: Any, n: int) -> NDArray[np.int64]:
        from sklearn.utils.multiclass import check_classification_targets

        if y is None:
            raise DataError(
                "y is None; this estimator requires y to be passed, but the target y is None", expected="classes"
            )
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            from sklearn.utils import column_or_1d

            labels = column_or_1d(labels, warn=True)
        if labels.shape != (n,):
            raise DataError(f"y of shape {labels.shape} for {n} rows", expected="one label a row")
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise DataError("one class only in y", expected="two or more ordered classes")
        self.order_ = self.classes_ if self.order is None else np.asarray(self.order)
        if len(set(self.order_)) != len(self.order_) or set(self.order_) != set(self.classes_):
            raise DataError(
                f"order={list(self.order_)} and labels {list(self.classes_)}",
                expected="each label of y once", todo="list the classes from one end to the other",
            )  # fmt: skip
        return self._places()[np.searchsorted(self.classes_, labels)]

    def _table(self, X: Any, *, reset: bool) -> FloatArray:
        return np.asarray(validate_data(self, X, reset=reset, dtype=np.float64))

    def _held_out_losses(
        self, design: FloatArray, code: NDArray[np.int64], weight: FloatArray, penalties: FloatArray
    ) -> FloatArray:
        """Log loss of each penalty on held-out folds that have each class in nearly equal numbers."""
        rng = np.random.default_rng(seed_of(self.random_state))
        shuffled = rng.permutation(len(code))
        fold = np.empty(len(code), dtype=np.int64)
        fold[shuffled[np.argsort(code[shuffled], kind="stable")]] = np.arange(len(code)) % int(self.n_splits)
        loss = np.zeros(len(penalties))
        for k in range(int(self.n_splits)):
            held = fold == k
            if not held.any() or len(np.unique(code[~held])) < 2:
                continue
            path = fit_path(design[~held], code[~held], weight[~held], len(self.order_), penalties)
            for i, fit in enumerate(path):
                p = fit.probabilities(design[held])[np.arange(int(held.sum())), code[held]]
                loss[i] -= weight[held] @ np.log(np.maximum(p, FLOOR))
        return loss / weight.sum()
