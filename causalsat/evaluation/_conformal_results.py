"""What the conformal functions return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat._tables import Tabular
from causalsat.evaluation import _checks
from causalsat.exceptions import DataError
from causalsat.posterior import EffectPosterior

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ConformalCalibration", "ConformalIntervals", "ConformalOutcomes"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ConformalIntervals(Tabular):
    """Intervals with a marginal, finite-sample guarantee.

    Attributes
    ----------
    lower, upper : ndarray of shape (n,)
        Bounds, infinite where there are too few clusters for the level.
    level : float
        Coverage that is guaranteed for a random unit of a random new cluster.
    of : str
        What is covered: "outcome under control", "outcome under treatment" or "individual effect".
    method : str
        How.
    n_clusters : int
        Clusters that calibrated (the smallest number, where there were several calibrations).
    index : ndarray of shape (n,)
        Labels of the units.
    """

    lower: FloatArray
    upper: FloatArray
    level: float
    of: str
    method: str
    n_clusters: int
    index: NDArray[Any]

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.lower)

    @property
    def width(self) -> FloatArray:
        """Upper less lower bound, shape (n,)."""
        return self.upper - self.lower

    def covers(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Whether each interval holds its value, shape (n,)."""
        v = _checks.numbers(values, "values", len(self))
        return np.asarray((self.lower <= v) & (v <= self.upper))

    def to_dataframe(self, posterior: EffectPosterior | None = None) -> pd.DataFrame:
        """Table with one row a unit: lower, upper, width; and beside them the posterior's mean and interval.

        Parameters
        ----------
        posterior : EffectPosterior, optional
            Of the same units. Its credible interval (of the same level) is about a conditional *mean*, effect or
            outcome; the conformal one is about one unit's own value and is wider by the units' noise.
        """
        import pandas as pd

        columns: dict[str, Any] = {"lower": self.lower, "upper": self.upper, "width": self.width}
        if posterior is not None:
            if len(posterior) != len(self):
                raise DataError(f"a posterior of {len(posterior)} units", expected=f"the same {len(self)} units")
            low, high = posterior.interval(self.level).T
            columns |= {"posterior_mean": posterior.mean(), "posterior_lower": low, "posterior_upper": high}
        return pd.DataFrame(columns, index=pd.Index(self.index, name="unit"))


@dataclass(frozen=True, eq=False)
class ConformalOutcomes(Tabular):
    """Conformal intervals of both potential outcomes.

    Attributes
    ----------
    control, treated : ConformalIntervals
        Of the outcome without and with treatment; each has the stated level by itself.
    """

    control: ConformalIntervals
    treated: ConformalIntervals

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row a unit: control_lower, control_upper, treated_lower, treated_upper."""
        import pandas as pd

        arms = {"control": self.control, "treated": self.treated}
        columns = {f"{k}_{b}": getattr(v, b) for k, v in arms.items() for b in ("lower", "upper")}
        return pd.DataFrame(columns, index=pd.Index(self.control.index, name="unit"))


@dataclass(frozen=True)
class ConformalCalibration(Tabular):
    """How much intervals have to be widened at both ends to reach their level.

    Attributes
    ----------
    offset : float
        To be taken off lower and added to upper bounds; negative where the intervals were too wide.
    level : float
        The level.
    coverage : float
        Coverage of the intervals as they were, on the calibration units (each cluster counts the same).
    n_units, n_clusters : int
        Calibration units and clusters.
    """

    offset: float
    level: float
    coverage: float
    n_units: int
    n_clusters: int

    def apply(self, lower: ArrayLike, upper: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Widened bounds; where a negative offset would turn an interval over, its middle twice."""
        low, high = np.asarray(lower, dtype=float) - self.offset, np.asarray(upper, dtype=float) + self.offset
        middle = (low + high) / 2 if np.isfinite(self.offset) else low
        turned = low > high
        return np.where(turned, middle, low), np.where(turned, middle, high)

    def to_dataframe(self) -> pd.DataFrame:
        """One row: offset, level, coverage before, units, clusters."""
        import pandas as pd

        return pd.DataFrame([vars(self)])
