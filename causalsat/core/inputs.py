"""Checks on input: every array that a user hands to an estimator passes through here once.

Functions on arrays; the estimators' base class calls them and stores what they return.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.alignment import align
from causalsat.core.names import shown
from causalsat.core.treatment import more_than_two_values, two_values
from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError, TreatmentError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FitData:
    """What an estimator's ``_fit`` receives: checked, complete, numeric.

    Attributes
    ----------
    X : ndarray of shape (n, p)
        Features; missing values replaced by training means, followed by one 0/1 column for each feature
        that had missing values.
    y : ndarray of shape (n,)
        Outcome.
    treatment : ndarray of shape (n,)
        Treatment as floats; 0.0 and 1.0 where it is binary.
    groups : ndarray of int of shape (n,) or None
        Cluster codes 0 .. n_groups - 1.
    sample_weight : ndarray of shape (n,)
        Weights with mean 1 (all ones unless given).
    propensity : ndarray of shape (n,) or None
        Known probability of treatment, if given.
    feature_names : tuple of str
        One name for each column of X.
    weighted : bool
        Whether the user gave weights.
    strata : ndarray of int of shape (n,) or None
        Codes of the strata within which treatment was assigned.
    balanced : bool
        Whether ``sample_weight`` has the inverse probabilities in it, under which treatment is independent of the
        strata and half of the weight is treated.
    """

    X: FloatArray
    y: FloatArray
    treatment: FloatArray
    groups: NDArray[np.int64] | None
    sample_weight: FloatArray
    propensity: FloatArray | None
    feature_names: tuple[str, ...]
    weighted: bool = False
    strata: NDArray[np.int64] | None = None
    balanced: bool = False

    @property
    def n_groups(self) -> int:
        """Number of clusters; the number of units where none were given."""
        return len(self.y) if self.groups is None else int(self.groups.max()) + 1


@dataclass(frozen=True)
class Imputation:
    """Training means and the columns that get a missing-value indicator.

    Attributes
    ----------
    means : ndarray of shape (p,)
        Mean of the observed training values of each feature.
    indicators : ndarray of int
        Positions of the features that had missing values in training.
    """

    means: FloatArray
    indicators: NDArray[np.int64]

    def apply(self, X: FloatArray, names: tuple[str, ...], quiet: NDArray[np.bool_] | None = None) -> FloatArray:
        """Fill missing values and append the indicators; ``quiet`` columns may be missing without a warning."""
        missing = np.isnan(X)
        noted = missing.any(axis=0) & ~np.isin(np.arange(X.shape[1]), self.indicators)
        unseen = np.flatnonzero(noted if quiet is None else noted & ~quiet)
        if len(unseen):
            shown = ", ".join(names[j] for j in unseen[:5])
            warnings.warn(
                f"missing values in {shown}, which had none in training: replaced by the training mean",
                DataWarning,
                stacklevel=4,
            )
        filled = np.where(missing, self.means, X)
        return np.column_stack([filled, missing[:, self.indicators].astype(float)])


def is_dataframe(X: Any) -> bool:
    """Whether X is a pandas (or geopandas) data frame, without importing pandas."""
    return hasattr(X, "columns") and hasattr(X, "iloc") and hasattr(X, "loc")


def is_dataarray(X: Any) -> bool:
    """Whether X is an xarray DataArray, without importing xarray."""
    return hasattr(X, "dims") and hasattr(X, "coords") and hasattr(X, "isel")


def column_or_array(X: Any, value: Any, role: str) -> tuple[Any, str | None]:
    """Resolve an argument that is an array or the name of a column of X; returns (values, name or None).

    Values with labels are put into the order of X (see :func:`causalsat.core.alignment.align`).
    """
    if not isinstance(value, str):
        return align(X, value, role), None
    if not is_dataframe(X):
        raise ColumnError(
            f"{role}={value!r} names a column, but X is a {type(X).__name__} without columns",
            expected="a data frame with that column, or an array",
            todo=f"pass {role} as an array",
        )
    if value not in X.columns:
        raise ColumnError(
            f"{role}={value!r} is not a column of X",
            expected=f"one of {_shorten(X.columns)}",
            todo="check the spelling, or pass an array",
        )
    return X[value], value


def _shorten(names: Any, most: int = 8) -> str:
    listed = [str(n) for n in names]
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "")


def unit_index(X: Any) -> NDArray[Any]:
    """Labels of the units of X: the data frame's index, the DataArray's unit coordinate, or 0, 1, ..."""
    if is_dataframe(X):
        return np.asarray(X.index)
    if is_dataarray(X):
        first = X.dims[0]
        return np.asarray(X[first]) if first in X.coords else np.arange(X.shape[0])
    return np.arange(np.shape(X)[0])


def features_only(X: Any, drop: set[str]) -> Any:
    """Leave out role columns and the geometry; refuse chips and columns that are not numbers."""
    if is_dataarray(X):
        if X.ndim != 2:
            raise DataError(
                f"an xarray.DataArray with dimensions {tuple(X.dims)}",
                expected="a table of units, (unit, feature)",
                todo="encode chips first: make_pipeline(RandomConvFeatures(), estimator)",
            )
        return np.asarray(X)
    if not is_dataframe(X):
        return X
    geometry = getattr(getattr(X, "geometry", None), "name", None) if hasattr(X, "crs") else None
    keep = [c for c in X.columns if c not in drop and c != geometry]
    if not keep:
        raise DataError(
            "a data frame with no feature column",
            expected="at least one numeric column besides roles and geometry",
            todo="encode imagery at the geometry first: make_pipeline(ImageEncoder(imagery, size_m=...), estimator)",
        )
    table = X[keep]
    for name, dtype in zip(keep, table.dtypes, strict=True):
        kind = getattr(dtype, "kind", "O")
        if kind == "O":
            try:
                table[name].astype(float)
            except (TypeError, ValueError):
                sample = table[name].dropna()
                shown = repr(sample.iloc[0]) if len(sample) else "only missing values"
                raise ColumnError(
                    f"column {name!r} holds {shown}, not numbers",
                    expected="numeric or boolean columns",
                    todo="encode it (sklearn.preprocessing.OneHotEncoder) or leave it out",
                ) from None
        elif kind in "mM":
            raise ColumnError(
                f"column {name!r} holds dates ({dtype})",
                expected="numeric or boolean columns",
                todo="turn it into a number, such as years since a date",
            )
    return table


def outcome_column(y: Any, n: int) -> FloatArray:
    """The outcome as n floats, which may be missing; a single column is taken for its values."""
    out = _numbers(y, "the outcome y")
    if out.ndim == 2 and out.shape[1] == 1:
        from sklearn.exceptions import DataConversionWarning

        warnings.warn(
            "A column-vector y was passed when a 1d array was expected; its one column is used.",
            DataConversionWarning,
            stacklevel=5,
        )
        out = out[:, 0]
    _one_per_unit(out, n, "y")
    return out


def check_outcome(y: Any, n: int) -> FloatArray:
    """One finite number for each unit; names what is missing."""
    if y is None:
        raise DataError(
            "y is None; this estimator requires y to be passed, but the target y is None", expected="an outcome"
        )
    out = outcome_column(y, n)
    bad = int((~np.isfinite(out)).sum())
    if bad:
        raise DataError(
            f"the outcome y has {bad} of {n} values missing or infinite (NaN, inf)",
            expected="a finite outcome for each unit",
            todo="drop those units or model who is missing (SelectiveLabelsRisk)",
        )
    return out


def check_treatment(treatment: Any, n: int, *, binary: bool) -> FloatArray:
    """Treatment as floats; both arms present where it is binary."""
    if treatment is None:
        raise TreatmentError(
            "no treatment",
            expected="treatment= an array, or the name of a column of X",
            todo="call fit(X, y, treatment=t); in cross-validation pass params={'treatment': t} with "
            "sklearn.set_config(enable_metadata_routing=True)",
        )
    t = _numbers(treatment, "the treatment", todo="code control as 0, treated as 1 and units of neither as missing")
    _one_per_unit(t, n, "treatment")
    if not np.isfinite(t).all():
        raise TreatmentError(
            f"treatment has {int((~np.isfinite(t)).sum())} missing or infinite values",
            expected="a treatment for each unit",
            todo="drop those units, or code them as control if that is what they are",
        )
    values = np.unique(t)
    if n == 1:
        raise TreatmentError("1 sample", expected="treated and control units", todo="pass more units")
    if len(values) < 2:
        raise TreatmentError(
            f"treatment has one value only ({values[0]:g}) in {n} units",
            expected="treated and control units",
            todo="check the sample; in cross-validation use folds that keep both arms",
        )
    if binary and not np.isin(values, (0.0, 1.0)).all():
        raise two_values(*values) if len(values) == 2 else more_than_two_values(list(values))
    return t


def as_labels(labels: Any) -> NDArray[Any]:
    """Labels as an array in which missing ones stay missing: numpy makes the text "nan" of one in a list of texts."""
    values = np.asarray(labels)
    if values.dtype.kind in "US" and not hasattr(labels, "dtype"):
        return np.asarray(labels, dtype=object)
    return values


def check_groups(groups: Any, n: int) -> NDArray[np.int64] | None:
    """Cluster labels as codes 0 .. n_groups - 1; missing labels are refused."""
    if groups is None:
        return None
    import pandas as pd

    values = as_labels(groups)
    _one_per_unit(values, n, "groups")
    codes, _ = pd.factorize(values, sort=False)
    if (codes < 0).any():
        raise DataError(
            f"groups has {int((codes < 0).sum())} missing labels",
            expected="a cluster for each unit",
            todo="give units outside any cluster a label of their own",
        )
    return codes.astype(np.int64)


def check_weights(weights: Any, n: int) -> FloatArray:
    """Non-negative weights rescaled to mean 1; ones where none are given."""
    if weights is None:
        return np.ones(n)
    w = _numbers(weights, "sample_weight")
    if w.ndim == 0:
        w = np.full(n, float(w))
    _one_per_unit(w, n, "sample_weight")
    if not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        what = "missing or infinite values" if not np.isfinite(w).all() else "negative values"
        raise DataError(
            f"sample_weight with {what if w.sum() != 0 else 'every weight zero'}",
            expected="finite, non-negative weights with a positive sum",
        )
    return w / w.mean()


def check_arm_weights(treatment: FloatArray, weight: FloatArray) -> None:
    """Refuse weights that leave an arm of a binary treatment next to one unit.

    Examples
    --------
    >>> check_arm_weights(np.array([0.0, 0, 1, 1]), np.array([1.0, 1, 1, 1]))
    >>> check_arm_weights(np.array([0.0, 0, 0, 1, 1]), np.array([1e9, 1, 1, 1, 1]))
    Traceback (most recent call last):
    causalsat.exceptions.DataError: sample_weight gives one of 3 control units 100.0 % of their weight...
    """
    if not np.isin(treatment, (0.0, 1.0)).all() or np.ptp(weight) == 0:
        return
    for arm, name in ((0.0, "control"), (1.0, "treated")):
        w = weight[treatment == arm]
        if len(w) > 2 and w.max() > 0.98 * w.sum():
            raise DataError(
                f"sample_weight gives one of {len(w)} {name} units {100 * w.max() / w.sum():.1f} % of their weight",
                expected="weights under which an arm has more than one unit",
                todo="check the column: a code for missing (such as 99999), or a sum, among the weights",
            )


def check_propensity(propensity: Any, n: int) -> FloatArray | None:
    """Probabilities strictly between 0 and 1; a scalar stands for all units."""
    if propensity is None:
        return None
    e = _numbers(propensity, "propensity")
    if e.ndim == 0:
        e = np.full(n, float(e))
    _one_per_unit(e, n, "propensity")
    if not np.isfinite(e).all() or (e <= 0).any() or (e >= 1).any():
        raise DataError(
            f"propensity from {np.nanmin(e):g} to {np.nanmax(e):g}",
            expected="probabilities strictly between 0 and 1",
            todo="drop units that could not have been treated, or not have been control",
        )
    return e


def check_contrast_value(value: Any, n: int, name: str) -> FloatArray:
    """A treatment level: one number, or one for each unit."""
    level = _numbers(value, name)
    if level.ndim == 0:
        level = np.full(n, float(level))
    if level.shape != (n,) or not np.isfinite(level).all():
        raise ParameterError(f"{name} of shape {level.shape}", expected=f"one finite number, or {n} of them")
    return level


def learn_imputation(X: FloatArray, names: tuple[str, ...]) -> Imputation:
    """Means and indicator columns from training data; a column without any value is refused."""
    missing = np.isnan(X)
    empty = np.flatnonzero(missing.all(axis=0))
    if len(empty):
        raise DataError(
            f"column {names[empty[0]]} has no value at all",
            expected="at least one observed value in each column",
            todo="leave the column out",
        )
    count = np.maximum((~missing).sum(axis=0), 1)
    means = np.where(missing, 0.0, X).sum(axis=0) / count
    return Imputation(means=means, indicators=np.flatnonzero(missing.any(axis=0)).astype(np.int64))


def _numbers(values: Any, role: str, todo: str = "code it as numbers") -> FloatArray:
    array = np.asarray(values)
    if np.iscomplexobj(array):
        raise DataError(f"{role} is complex. Complex data not supported", expected="real numbers")
    try:
        return array.astype(float)
    except (TypeError, ValueError):
        flat = array.ravel()
        first = next((shown(v) for v in flat if not _is_number(v)), repr(flat[:1]))
        raise DataError(
            f"{role} holds {first}. Unknown label type: not a number",
            expected="numbers",
            todo=todo,
        ) from None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _one_per_unit(values: NDArray[Any], n: int, role: str) -> None:
    if values.ndim != 1 or len(values) != n:
        raise DataError(
            f"{role} of shape {values.shape} for {n} units (inconsistent numbers of samples)",
            expected=f"a one-dimensional array of {n} values",
        )
