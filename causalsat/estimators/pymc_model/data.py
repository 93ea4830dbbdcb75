"""What a build function is handed, and what of it the model reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData, FloatArray

__all__ = ["ModelData"]


class ModelData:
    """The checked data of a fit, for the function that builds a model; it notes which roles the model reads.

    Attributes
    ----------
    X : ndarray of shape (n, p)
        Features in their own units; missing values are replaced by means, and flagged by further columns.
    y, treatment : ndarray of shape (n,)
        Outcome and treatment.
    features : list of str
        Names of the columns of X.
    is_clustered, is_weighted, is_stratified : bool
        Whether units share clusters, whether they differ in weight, whether there are strata.

    Examples
    --------
    >>> one = np.ones(4)
    >>> fitted = FitData(np.zeros((4, 1)), one, one, np.array([0, 0, 1, 1]), one, None, ("age",))
    >>> data = ModelData(fitted)
    >>> data.is_clustered, data.n_groups, data.read
    (True, 2, set())
    >>> data.groups, data.read
    (array([0, 0, 1, 1]), {'groups'})
    """

    def __init__(self, data: FitData) -> None:
        self._data = data
        self.read: set[str] = set()
        self.X: FloatArray = data.X
        self.y: FloatArray = data.y
        self.treatment: FloatArray = data.treatment
        self.features = list(data.feature_names)
        self.is_clustered = data.groups is not None and data.n_groups < len(data.y)
        self.is_weighted = bool(np.ptp(data.sample_weight) > 0)
        self.is_stratified = data.strata is not None

    @property
    def groups(self) -> NDArray[np.int64]:
        """Codes of the clusters (n,); each unit has its own where none are given."""
        self.read.add("groups")
        return np.arange(len(self.y)) if self._data.groups is None else self._data.groups

    @property
    def n_groups(self) -> int:
        """Number of clusters."""
        return self._data.n_groups

    @property
    def strata(self) -> NDArray[np.int64]:
        """Codes of the strata within which treatment was assigned (n,); zeros where there are none."""
        self.read.add("strata")
        strata = self._data.strata
        return np.zeros(len(self.y), dtype=np.int64) if strata is None else strata

    @property
    def n_strata(self) -> int:
        """Number of strata."""
        return 1 if self._data.strata is None else int(self._data.strata.max()) + 1

    @property
    def sample_weight(self) -> FloatArray:
        """Weights with mean 1 (n,)."""
        self.read.add("sample_weight")
        return self._data.sample_weight

    @property
    def propensity(self) -> FloatArray | None:
        """Known probability of treatment (n,), if given."""
        self.read.add("propensity")
        return self._data.propensity

    def standardised(self) -> dict[str, Any]:
        """Weighted means and standard deviations of X and y: ``x_mean, x_sd (p,), y_mean, y_sd``; 1 for constants."""
        from causalsat.core.features import learn_scaler

        weight = self._data.sample_weight
        x, y = learn_scaler(self.X, weight), learn_scaler(self.y, weight)
        return {"x_mean": x.mean, "x_sd": x.scale_or_one, "y_mean": y.mean, "y_sd": y.scale_or_one}
