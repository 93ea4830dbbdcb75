"""What a treatment is, the features of it from which TransTEE's query is made, and weights by its propensity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.core.treatment import two_values
from causalsat.core.warn import warn
from causalsat.exceptions import DataWarning, ParameterError, TreatmentError
from causalsat.inference import nuisances as scoring
from causalsat.inference.folds import assign_folds

__all__ = ["KINDS", "TreatmentCoding", "inverse_propensity", "learn_coding"]

KINDS = ("auto", "dose", "levels")
KNOTS = (0.2, 0.4, 0.6, 0.8)  # of a dose's quadratic spline, as shares of its range
TOLERANCE = 0.01  # of the range, beyond which a dose is warned of
MAX_CROSSED = 4  # levels up to which each has a linear part of its own in the covariates
CUT_SHARE = 0.01  # share of the units at either end whose weights are cut off
PROPENSITY_FOLDS = 5


@dataclass(frozen=True)
class TreatmentCoding:
    """How a treatment becomes numbers.

    Attributes
    ----------
    kind : str
        ``"binary"``, ``"levels"``, ``"dose"``, ``"dosage"`` (levels, each with a dosage) or ``"structured"`` (levels
        are rows of a table of treatments that a module embeds).
    levels : tuple of float
        The levels, in order; empty for a dose.
    low, high : float
        Range of the dose, or of the dosage, between which the spline's knots lie.
    least, most : float
        Smallest and largest dose or dosage of the fit: beyond them curves go on as straight lines.
    mean, sd : float
        Mean and standard deviation of the dose or dosage.
    """

    kind: str
    levels: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    sd: float = 1.0
    least: float = 0.0
    most: float = 1.0

    @property
    def n_basis(self) -> int:
        """Number of treatment features."""
        curves = len(KNOTS) + 2
        sizes = {"dose": curves, "dosage": len(self.levels) * (1 + curves), "structured": 1}
        return sizes.get(self.kind, len(self.levels))

    @property
    def crossed(self) -> int:
        """How many treatment features, the last ones, also enter multiplied with each covariate."""
        small = self.kind in ("binary", "levels") and len(self.levels) <= MAX_CROSSED
        return len(self.levels) - 1 if small else 0

    @property
    def baseline(self) -> float:
        """The level that a contrast starts from: 0, or the lowest one."""
        return 0.0 if not self.levels or 0.0 in self.levels else self.levels[0]

    def dose_of(self, level: FloatArray, dosage: FloatArray | None = None) -> FloatArray | None:
        """The dose, or the dosage of a level; None for treatments without."""
        return {"dose": level, "dosage": dosage}.get(self.kind)

    def warn_beyond(self, level: FloatArray, dosage: FloatArray | None, name: str) -> None:
        """Warn of doses beyond those of the fit by more than a hundredth of their range."""
        dose = self.dose_of(level, dosage)
        if dose is None:
            return
        over = np.abs(dose - np.clip(dose, self.least, self.most))
        outside = over > TOLERANCE * (self.most - self.least)
        if outside.any():
            word = "dosages" if self.kind == "dosage" else "doses"
            warn(
                f"{name}: {outside.sum()} of {len(dose)} units have {word} beyond those of the fit, {self.least:.4g} "
                f"to {self.most:.4g}, as far as {dose[over.argmax()]:.4g}. Curves go on there as straight lines, "
                "which no unit shows, and intervals grow with the square of the distance. What to do: contrast doses "
                "within the range.",
                DataWarning,
            )

    def codes(self, level: FloatArray, name: str = "treatment") -> NDArray[np.int64]:
        """Position of each level.

        Raises
        ------
        ParameterError
            If a level was not among those of the fit.
        """
        known = np.asarray(self.levels)
        position = np.searchsorted(known, level).clip(0, len(known) - 1)
        if not np.array_equal(known[position], level):
            unknown = level[known[position] != level][0]
            shown = ", ".join(f"{v:g}" for v in known[:8]) + (" ..." if len(known) > 8 else "")
            expected = "0 or 1: the fitted treatment was binary" if self.kind == "binary" else f"one of {shown}"
            raise ParameterError(f"{name} with the value {unknown:g}", expected=expected)
        return position.astype(np.int64)

    def basis(self, level: FloatArray, dosage: FloatArray | None = None) -> FloatArray:
        """Treatment features, shape (n, n_basis).

        A dose has a quadratic spline; levels have an indicator each; levels with a dosage the product of both, so
        that each has a curve of its own. A structured treatment is its position in the table.

        Examples
        --------
        >>> TreatmentCoding("levels", (0.0, 1.0, 2.0)).basis(np.array([2.0, 0.0]))
        array([[0., 0., 1.],
               [1., 0., 0.]])
        """
        if self.kind == "dose":
            return self._curves(level)
        if self.kind == "structured":
            return level[:, None]
        which = np.eye(len(self.levels))[self.codes(level)]
        if self.kind != "dosage":
            return which
        assert dosage is not None
        curves = np.column_stack([np.ones(len(level)), self._curves(dosage)])
        return (which[:, :, None] * curves[:, None]).reshape(len(level), -1)

    def _curves(self, dose: FloatArray) -> FloatArray:
        u = (dose - self.low) / (self.high - self.low)
        bends = [(2 * u - 1) ** 2, *((2 * np.maximum(u - knot, 0)) ** 2 for knot in KNOTS)]
        return np.column_stack([(dose - self.mean) / self.sd, *bends])

    def target(self, level: FloatArray, dosage: FloatArray | None = None) -> FloatArray:
        """What the adversary is to predict: the position of the level, or the standardised dose."""
        if self.kind == "dose":
            return (level - self.mean) / self.sd
        return level if self.kind == "structured" else self.codes(level).astype(float)


def learn_coding(kind: str, treatment: FloatArray, dosage: FloatArray | None, table: Any) -> TreatmentCoding:
    """Decide what kind of treatment this is.

    Parameters
    ----------
    kind : {"auto", "dose", "levels"}
        "auto": binary where the values are 0 and 1, else a dose; levels where there is a dosage.
    treatment : ndarray of shape (n,)
    dosage : ndarray of shape (n,) or None
    table : array of shape (K, ...) or None
        Structured treatments.

    Raises
    ------
    TreatmentError
        If there are two values other than 0 and 1 (almost always codes), or positions outside the table.
    """
    values = np.unique(treatment)
    if table is not None:
        k = len(table)
        if not (np.isin(values, np.arange(k))).all():
            raise TreatmentError(
                f"treatments from {values.min():g} to {values.max():g}",
                expected=f"positions 0 .. {k - 1} in the table of {k} treatments",
            )
        return TreatmentCoding("structured", tuple(float(v) for v in range(k)))
    levels = tuple(float(v) for v in values)
    if dosage is not None:
        return TreatmentCoding("dosage", levels, **_range(dosage))
    if kind != "dose" and levels == (0.0, 1.0):
        return TreatmentCoding("binary", levels)
    if kind == "levels":
        return TreatmentCoding("levels", levels)
    if len(values) == 2:
        raise two_values(*values, otherwise="; or pass treatment_kind='levels'")
    return TreatmentCoding("dose", **_range(treatment))


def _range(dose: FloatArray) -> dict[str, Any]:
    low, high = (float(v) for v in np.quantile(dose, [0.005, 0.995]))
    if high <= low:
        low, high = float(dose.min()), float(dose.max())
    sd = float(dose.std())
    wide = high if high > low else low + 1.0
    return {
        "low": low,
        "high": wide,
        "mean": float(dose.mean()),
        "sd": sd if sd > 0 else 1.0,
        "least": float(dose.min()),
        "most": float(dose.max()),
    }


def inverse_propensity(
    X: FloatArray,
    level: FloatArray,
    dosage: FloatArray | None,
    coding: TreatmentCoding,
    groups: Any,
    weight: FloatArray,
    known: FloatArray | None,
    *,
    balanced: bool = False,
) -> FloatArray:
    """Stabilised weights p(t) / p(t | x) with mean 1, shape (n,).

    Levels have probabilities from a logistic regression on the covariates, doses a normal density around a ridge
    regression, both cross-fitted; a known probability of a binary treatment is used as it is.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Standardised covariates.
    level, dosage : ndarrays of shape (n,)
        Treatment, and dosage where there is one.
    coding : TreatmentCoding
        What the treatment is.
    groups : ndarray of int of shape (n,) or None
        Villages, which stay whole in cross-fitting.
    weight : ndarray of shape (n,)
        Survey weights.
    known : ndarray of shape (n,) or None
        Known probability of treatment 1.
    balanced : bool
        Whether the inverse probabilities of the levels are in ``weight`` already.

    Examples
    --------
    >>> X, level, e = np.zeros((4, 1)), np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.8, 0.8])
    >>> binary = TreatmentCoding("binary", (0.0, 1.0))
    >>> inverse_propensity(X, level, None, binary, None, 1 / np.array([0.5, 0.5, 0.8, 0.2]), e, balanced=True)
    array([1., 1., 1., 1.])
    """
    ratio = np.ones(len(level))
    if coding.levels and not balanced:
        ratio = _level_ratio(X, level, coding, groups, weight, known)
    dose = level if coding.kind == "dose" else dosage
    if dose is not None:
        ratio = ratio * _dose_ratio(X, dose, groups, weight)
    low, high = np.quantile(ratio, [CUT_SHARE, 1 - CUT_SHARE])
    ratio = np.clip(ratio, low, high)
    return np.asarray(ratio / np.average(ratio, weights=weight))


def _level_ratio(X: Any, level: Any, coding: Any, groups: Any, weight: Any, known: Any) -> FloatArray:
    codes = coding.codes(level)
    share = np.bincount(codes, weight, minlength=len(coding.levels)) / weight.sum()
    if known is not None and coding.kind == "binary":
        return np.asarray(share[codes] / np.where(codes == 1, known, 1 - known))
    from sklearn.linear_model import LogisticRegression

    n_clusters = len(level) if groups is None else int(groups.max()) + 1
    if n_clusters < PROPENSITY_FOLDS:
        return np.ones(len(level))
    fold = assign_folds(PROPENSITY_FOLDS, np.random.default_rng(0), n=len(level), groups=groups)
    chance = np.tile(share, (len(level), 1))
    for k in range(PROPENSITY_FOLDS):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if len(np.unique(codes[train])) > 1:
            model = LogisticRegression(max_iter=300).fit(X[train], codes[train], sample_weight=weight[train])
            chance[np.ix_(test, model.classes_)] = model.predict_proba(X[test])
    return np.asarray(share[codes] / np.maximum(chance[np.arange(len(codes)), codes], 1e-3))


def _dose_ratio(X: FloatArray, dose: FloatArray, groups: Any, weight: FloatArray) -> FloatArray:
    mean = np.average(dose, weights=weight)
    rest = dose - scoring.crossfit_ridge(X, dose, weight, groups)
    wide, narrow = (np.sqrt(np.average(r**2, weights=weight)) for r in (dose - mean, rest))
    log_ratio = -0.5 * ((dose - mean) / wide) ** 2 - np.log(wide) + 0.5 * (rest / narrow) ** 2 + np.log(narrow)
    return np.asarray(np.exp(log_ratio - log_ratio.max()))
