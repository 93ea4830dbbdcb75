"""How strong an omitted confounder would have to be (Cinelli and Hazlett 2020, "Making sense of sensitivity").

With R2_D the share of the treatment's residual variance that the confounder explains, R2_Y the share of the outcome's
residual variance, and S = sd(outcome residual) / sd(treatment residual), the estimate is off by at most

``S sqrt(R2_Y R2_D / (1 - R2_D))``   (their equation 12).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.tables import Tabular
from causalsat.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Sensitivity", "partial_r2", "partially_linear", "robustness_value", "sensitivity"]

FloatArray = NDArray[np.float64]
ROUNDING = 1e-10  # share of a variable's size up to which what is left of it is rounding


def partial_r2(t_statistic: ArrayLike, df: float) -> Any:
    """Share of the outcome's residual variance that the treatment explains, ``t^2 / (t^2 + df)``.

    Examples
    --------
    >>> round(float(partial_r2(4.18, 783)), 3)  # the Darfur study of Cinelli and Hazlett (2020), section 2
    0.022
    """
    square = np.asarray(t_statistic, dtype=float) ** 2
    return square / (square + df)


def robustness_value(t_statistic: float, df: float, *, q: float = 1.0, alpha: float | None = None) -> float:
    """Smallest strength with both treatment and outcome that would take away the share q of the estimate.

    ``(sqrt(f^4 + 4 f^2) - f^2) / 2`` with ``f = q |t| / sqrt(df)`` (their equation 19). With ``alpha`` it is what
    would make the estimate, so reduced, no longer differ from zero at that level (f less the critical value's).

    Parameters
    ----------
    t_statistic, df : float
        The treatment's t value and degrees of freedom.
    q : float
        Share of the estimate.
    alpha : float, optional
        Level of the test.

    Examples
    --------
    >>> round(robustness_value(4.18, 783), 3)
    0.139
    >>> round(robustness_value(4.18, 783, alpha=0.05), 3)
    0.076
    """
    from scipy.stats import t

    if not df > 1 or not q > 0:
        raise ParameterError(f"df={df!r}, q={q!r}", expected="df above 1 and q above 0")
    f = q * abs(t_statistic) / np.sqrt(df)
    if alpha is not None:
        f -= float(t.ppf(1 - alpha / 2, df - 1)) / np.sqrt(df - 1)
    return _solve(f)


def _solve(f: float) -> float:
    """The r with r / sqrt(1 - r) = f, 0 for a negative f."""
    if f <= 0 or not np.isfinite(f):
        return 0.0 if not f > 0 else 1.0
    return float(2 / (1 + np.sqrt(1 + 4 / f**2)))


@dataclass(frozen=True)
class Sensitivity(Tabular):
    """An estimate, and what an omitted confounder could make of it.

    Attributes
    ----------
    estimate, se, df : float
        Estimate, its (cluster-robust) standard error and degrees of freedom.
    scale : float
        S: standard deviation of the outcome's residual over that of the treatment's.
    benchmarks : mapping of str to tuple of float
        For observed covariates (or groups of them) their partial R2 with the treatment and with the outcome.
    """

    estimate: float
    se: float
    df: float
    scale: float
    benchmarks: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def partial_r2(self) -> float:
        """Share of the outcome's residual variance that the treatment explains.

        Were all of the rest explained by a confounder, this is what it would have to explain of the treatment to
        bring the estimate to zero.
        """
        if not self.scale > 0:
            return 1.0 if self.estimate else 0.0
        f = self.estimate / self.scale
        return float(f**2 / (1 + f**2))

    def robustness_value(self, q: float = 1.0, alpha: float | None = None) -> float:
        """Strength with both treatment and outcome that would take away the share q of the estimate.

        With ``alpha``, that would make the interval of level 1 - alpha reach what is left; its width is that of the
        (cluster-robust) standard error.
        """
        from scipy.stats import t

        if not q > 0:
            raise ParameterError(f"q={q!r}", expected="a share above 0")
        if not self.scale > 0:  # a perfect fit, or an outcome that does not vary
            return 1.0 if self.estimate else 0.0
        f = q * abs(self.estimate) / self.scale
        if alpha is not None:
            f -= float(t.ppf(1 - alpha / 2, self.df - 1)) * self.se / self.scale * np.sqrt(self.df / (self.df - 1))
        return _solve(f)

    def bias(self, r2_treatment: ArrayLike, r2_outcome: ArrayLike) -> Any:
        """Largest bias by a confounder of the given partial R2 with treatment and outcome; broadcasts."""
        d, y = np.asarray(r2_treatment, dtype=float), np.asarray(r2_outcome, dtype=float)
        if ((d < 0) | (d >= 1) | (y < 0) | (y > 1)).any():
            raise ParameterError("partial R2 outside [0, 1)", expected="shares of variance")
        return self.scale * np.sqrt(y * d / (1 - d))

    def adjusted(self, r2_treatment: ArrayLike, r2_outcome: ArrayLike) -> Any:
        """Estimate moved towards (and past) zero by the largest bias; broadcasts."""
        return self.estimate - np.sign(self.estimate) * self.bias(r2_treatment, r2_outcome)

    def adjusted_se(self, r2_treatment: ArrayLike, r2_outcome: ArrayLike) -> Any:
        """Standard error had the confounder been observed (their equation 14)."""
        d, y = np.asarray(r2_treatment, dtype=float), np.asarray(r2_outcome, dtype=float)
        return self.se * np.sqrt((1 - y) / (1 - d) * self.df / (self.df - 1))

    def bound(self, name: str, times: float = 1.0) -> tuple[float, float]:
        """Largest partial R2 (treatment, outcome) of a confounder ``times`` as strong as a benchmark.

        As strong in its relation to the treatment and to the outcome, given everything else (their equations 20 and
        21, appendix).

        Raises
        ------
        ParameterError
            If there is no such benchmark, or nothing can be so many times as strong.
        """
        if name not in self.benchmarks:
            raise ParameterError(f"benchmark {name!r}", expected=f"one of {', '.join(self.benchmarks) or 'none'}")
        d, y = self.benchmarks[name]
        share = times * d**2 / ((1 - times * d) * (1 - d)) if times * d < 1 else np.inf
        treatment = times * d / (1 - d)
        if treatment >= 1 or share >= 1:
            raise ParameterError(
                f"a confounder {times:g} times as strong as {name} would explain more than all of the treatment",
                expected="fewer times",
            )
        outcome = (np.sqrt(times) + np.sqrt(share)) ** 2 / (1 - share) * y / (1 - y)
        return float(treatment), float(min(outcome, 1.0))

    def to_dataframe(self, times: tuple[float, ...] = (1.0, 2.0, 3.0), level: float = 0.95) -> pd.DataFrame:
        """One row a benchmark and strength: the bounds, the adjusted estimate, its error and interval.

        Strengths that nothing can have (they would explain more than all of the treatment) have missing values.
        """
        import pandas as pd
        from scipy.stats import t

        rows = []
        for name in self.benchmarks:
            for k in times:
                try:
                    d, y = self.bound(name, k)
                except ParameterError:
                    rows.append((name, k, *[np.nan] * 6))
                    continue
                estimate, se = float(self.adjusted(d, y)), float(self.adjusted_se(d, y))
                half = float(t.ppf(0.5 + level / 2, self.df - 1)) * se
                rows.append((name, k, d, y, estimate, se, estimate - half, estimate + half))
        columns = ["benchmark", "times", "r2_treatment", "r2_outcome", "estimate", "se", "lower", "upper"]
        return pd.DataFrame(rows, columns=columns)


def sensitivity(
    y: ArrayLike,
    treatment: ArrayLike,
    X: Any,
    *,
    groups: ArrayLike | None = None,
    benchmarks: Mapping[str, Any] | None = None,
    weights: ArrayLike | None = None,
) -> Sensitivity:
    """Sensitivity of the treatment's coefficient in a linear regression on covariates.

    Parameters
    ----------
    y, treatment : array of shape (n,)
        Outcome and treatment.
    X : array or DataFrame of shape (n, p)
        Covariates, complete.
    groups : array of shape (n,), optional
        Clusters, for the standard error; the classical one without.
    benchmarks : mapping of str to positions, optional
        Covariates, or groups of them, to compare a confounder with: positions of columns. By default every column.
    weights : array of shape (n,), optional
        Weights.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, hidden = rng.standard_normal((2, 2000))
    >>> d = 0.3 * x + 0.5 * hidden + rng.standard_normal(2000)
    >>> y = x + d + 0.5 * hidden + rng.standard_normal(2000)
    >>> found = sensitivity(y, d, x[:, None])
    >>> round(found.estimate, 1), bool(found.adjusted(0.2, 0.17) < 1.02)
    (1.2, True)
    """
    outcome, d, table = _numbers(y, "the outcome y"), _numbers(treatment, "the treatment"), _numbers(X, "X")
    if table.ndim != 2 or not (len(table) == len(outcome) == len(d)):
        raise DataError(f"y of {len(outcome)}, treatment of {len(d)}, X of shape {table.shape}", expected="equal n")
    if not (np.isfinite(table).all() and np.isfinite(outcome).all() and np.isfinite(d).all()):
        raise DataError("missing or infinite values", expected="complete data", todo="impute them, or drop the units")
    w = inputs.check_weights(weights, len(d))
    names = [str(c) for c in X.columns] if hasattr(X, "columns") else [f"x{j}" for j in range(table.shape[1])]
    inputs.check_magnitude(outcome, "the outcome y")
    inputs.check_magnitude(d, "the treatment")
    inputs.check_feature_magnitudes(table, names)
    groups = inputs.check_groups(groups, len(d))
    if benchmarks is None:
        benchmarks = {name: [j] for j, name in enumerate(names)}
    _check_positions(benchmarks, table.shape[1])
    found = _linear(outcome, d, table, w, groups, benchmarks)
    if not np.isfinite(found.scale):
        raise DataError(
            "a treatment that the covariates decide",
            expected="units alike in X with different treatments",
            todo="leave out covariates made from the treatment",
        )
    return found


def _numbers(values: Any, role: str) -> FloatArray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"{role} that is not numbers", expected="numbers", todo="code it as numbers") from None


def _check_positions(benchmarks: Mapping[str, Any], p: int) -> None:
    for name, columns in benchmarks.items():
        positions = np.atleast_1d(np.asarray(columns))
        if positions.dtype.kind not in "iu" or ((positions < 0) | (positions >= p)).any():
            raise ParameterError(
                f"benchmark {name!r} of columns {columns!r}", expected=f"positions of columns, 0 to {p - 1}"
            )


def _linear(
    y: FloatArray, d: FloatArray, table: FloatArray, w: FloatArray, groups: Any, benchmarks: Mapping[str, Any]
) -> Sensitivity:
    root = np.sqrt(w / w.mean())[:, None]
    design = root * np.column_stack([np.ones(len(d)), table])
    residual_y, residual_d = _residual(root[:, 0] * y, design), _residual(root[:, 0] * d, design)
    df = max(len(d) - int(np.linalg.matrix_rank(design)) - 1, 2)
    found = {}
    for name, columns in benchmarks.items():
        rest = np.delete(design, 1 + np.atleast_1d(columns), axis=1)
        both = np.column_stack([design, root[:, 0] * d])
        without = np.column_stack([rest, root[:, 0] * d])
        found[name] = (
            _gain(residual_d, _residual(root[:, 0] * d, rest)),
            _gain(_residual(root[:, 0] * y, both), _residual(root[:, 0] * y, without)),
        )
    return _from_residuals(residual_y, residual_d, float(df), groups, found)


def _residual(target: FloatArray, design: FloatArray) -> FloatArray:
    left = np.asarray(target - design @ np.linalg.lstsq(design, target, rcond=None)[0])
    return _without_rounding(left, target)


def _without_rounding(left: FloatArray, target: FloatArray) -> FloatArray:
    """A residual, zero where nothing but rounding is left of the target."""
    return left if np.linalg.norm(left) > ROUNDING * np.linalg.norm(target) else np.zeros_like(left)


def _gain(full: FloatArray, reduced: FloatArray) -> float:
    """Partial R2: share of the reduced model's residual variance that the full model explains."""
    left = float(reduced @ reduced)
    return float(np.clip(1 - float(full @ full) / left, 0.0, 1 - 1e-9)) if left > 0 else 0.0


def _from_residuals(
    residual_y: FloatArray, residual_d: FloatArray, df: float, groups: Any, benchmarks: Mapping[str, Any]
) -> Sensitivity:
    import statsmodels.api as sm

    if not residual_d.any():
        return Sensitivity(0.0, np.inf, df, np.inf, dict(benchmarks))
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1]
    kind: dict[str, Any] = {} if codes is None else {"cov_type": "cluster", "cov_kwds": {"groups": codes}}
    fit = sm.OLS(residual_y, residual_d[:, None]).fit(use_t=True, **kind)
    estimate, left = float(fit.params[0]), _without_rounding(np.asarray(fit.resid), residual_y)
    scale = float(np.sqrt((left @ left) / (residual_d @ residual_d)))
    clusters = len(residual_d) if codes is None else int(codes.max()) + 1
    se = scale / np.sqrt(df) if codes is None else float(fit.bse[0])
    return Sensitivity(estimate, se, df if codes is None else float(max(clusters - 1, 2)), scale, dict(benchmarks))


def partially_linear(
    residual_y: FloatArray,
    residual_d: FloatArray,
    table: FloatArray,
    *,
    weight: FloatArray,
    groups: Any = None,
    y: FloatArray,
    treatment: FloatArray,
    benchmarks: Mapping[str, Any],
) -> Sensitivity:
    """Sensitivity of the partially linear model: cross-fitted residuals regressed on each other (Robinson 1988).

    The formulas are those of a linear regression with the residuals that any model leaves (Chernozhukov et al. 2022,
    "Long story short: omitted variable bias in causal machine learning", section 2). Partial R2 of benchmarks are
    those of the linear regression on ``table``.
    """
    root = np.sqrt(weight / weight.mean())
    linear = _linear(y, treatment, table, weight, None, benchmarks)
    return _from_residuals(root * residual_y, root * residual_d, float(len(y) - 1), groups, linear.benchmarks)
