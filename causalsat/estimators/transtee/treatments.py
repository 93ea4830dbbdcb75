"""What a treatment is, and the features of it from which TransTEE's query is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.exceptions import ParameterError, TreatmentError

__all__ = ["KINDS", "TreatmentCoding", "learn_coding"]

KINDS = ("auto", "dose", "levels")
KNOTS = (0.2, 0.4, 0.6, 0.8)  # of a dose's quadratic spline, as shares of its range
MOST_CROSSED = 4  # levels up to which each has a linear part of its own in the covariates


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
        small = self.kind in ("binary", "levels") and len(self.levels) <= MOST_CROSSED
        return len(self.levels) - 1 if small else 0

    @property
    def baseline(self) -> float:
        """The level that a contrast starts from: 0, or the lowest one."""
        return 0.0 if not self.levels or 0.0 in self.levels else self.levels[0]

    def codes(self, level: FloatArray, name: str = "treatment") -> NDArray[np.int64]:
        """Position of each level.

        Raises
        ------
        ParameterError
            If a level was not among those of the fit.
        """
        known = np.asarray(self.levels)
        found = np.searchsorted(known, level).clip(0, len(known) - 1)
        if not np.array_equal(known[found], level):
            strange = level[known[found] != level][0]
            shown = ", ".join(f"{v:g}" for v in known[:8]) + (" ..." if len(known) > 8 else "")
            words = "0 or 1: the fitted treatment was binary" if self.kind == "binary" else f"one of {shown}"
            raise ParameterError(f"{name} with the value {strange:g}", expected=words)
        return found.astype(np.int64)

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
        raise TreatmentError(
            f"treatment has the values {values[0]:g} and {values[1]:g}",
            expected="0 (control) and 1 (treated), or a dose with more than two values",
            todo=f"recode it: (treatment == {values[1]:g}).astype(int), or pass treatment_kind='levels'",
        )
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
