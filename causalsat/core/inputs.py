"""What a user hands over, as checked arrays: parameters, columns, labels in the units' order, outcomes, treatments.

Everything is checked once, where it arrives; the functions behind take arrays as they are.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalsat.core.names import shown
from causalsat.core.treatment import more_than_two_values, two_values
from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError, TreatmentError

__all__ = [
    "align",
    "align_all",
    "align_outcome",
    "align_rows",
    "aligned",
    "check_flags",
    "check_whole_numbers",
    "labels_of",
    "one_name_each",
    "select_columns",
    "take",
    "without_zero_weights",
]


def check_whole_numbers(estimator: Any, least: Mapping[str, int], *, otherwise: str = "") -> None:
    """Raise ParameterError where a named parameter is not a whole number of at least the given size.

    ``otherwise`` is what it may be instead, for the message.
    """
    for name, low in least.items():
        value = getattr(estimator, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ParameterError(
                f"{name}={value!r}", expected=f"an integer of at least {low}{otherwise and f', or {otherwise}'}"
            )


def check_flags(estimator: Any, names: Iterable[str]) -> None:
    """Raise ParameterError where a named parameter is neither True nor False."""
    for name in names:
        value = getattr(estimator, name)
        if not isinstance(value, (bool, np.bool_)):
            raise ParameterError(f"{name}={value!r}", expected="True or False")


def select_columns(
    names: Sequence[str],
    selection: Any,
    *,
    role: str = "modifiers",
    n_features: int | None = None,
    ordered: bool = False,
) -> NDArray[np.int64]:
    """Positions of the columns that a selection means; an empty selection means none.

    Parameters
    ----------
    names : sequence of str of length p
        The columns' names.
    selection : None, str, int or sequence of str or int
        ``None`` for all features; a name or a glob pattern (``"img*"``); a position (negative ones count from
        the end of the features); or a sequence of those, which may be empty.
    role : str
        Name of the option, for errors.
    n_features : int, optional
        How many of the columns, the first ones, are features; the others (indicators of missing values) are meant
        only by their full names. All by default.
    ordered : bool
        Positions in the order of the selection instead of that of the columns.

    Returns
    -------
    ndarray of int
        Distinct positions.

    Raises
    ------
    ColumnError
        If a name or a pattern matches no column, or a position lies outside.
    ParameterError
        If the selection is of another kind.

    Examples
    --------
    >>> select_columns(["img0", "img1", "age"], "img*")
    array([0, 1])
    >>> select_columns(["img0", "img1", "age"], ["age", 0])
    array([0, 2])
    >>> select_columns(["img0", "img1", "age"], ["age", 0], ordered=True)
    array([2, 0])
    >>> select_columns(["age", "img0", "img0 missing"], "img*", n_features=2)
    array([1])
    """
    features = list(names if n_features is None else names[:n_features])
    if selection is None:
        return np.arange(len(features), dtype=np.int64)
    wanted = [selection] if isinstance(selection, str | int | np.integer) else selection
    try:
        wanted = list(wanted)
    except TypeError:
        raise ParameterError(f"{role}={selection!r}", expected="None, a pattern, or a list of names") from None
    chosen: dict[int, None] = {}  # keeps the selection's order
    for item in wanted:
        named_in_full = isinstance(item, str) and item in names[len(features) :]
        chosen.update(dict.fromkeys(_positions(names if named_in_full else features, item, role)))
    return np.array(list(chosen) if ordered else sorted(chosen), dtype=np.int64)


def _positions(names: Sequence[str], item: Any, role: str) -> list[int]:
    if isinstance(item, str):
        exact = [j for j, name in enumerate(names) if name == item]
        matches = exact or [j for j, name in enumerate(names) if fnmatchcase(name, item)]
        if not matches:
            shown = ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
            raise ColumnError(f"{role}={item!r} matches no column", expected=f"a name or pattern among {shown}")
        return matches
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        if not -len(names) <= item < len(names):
            raise ColumnError(f"{role} names position {item} of {len(names)} columns", expected="a position inside")
        return [int(item) % len(names)]
    raise ParameterError(f"{role} holds {item!r}", expected="names, patterns such as 'img*', or positions")


P = ParamSpec("P")
T = TypeVar("T")


def labels_of(value: Any) -> Any:
    """The labels of the rows: a pandas Index, or None where there are none.

    Data frames and Series have an index; a DataArray has labels where its first dimension has a coordinate. Arrays,
    lists and a pandas Index have values only.

    Examples
    --------
    >>> import pandas as pd
    >>> labels_of(pd.Series([0.5, 0.7], index=["b", "a"]))
    Index(['b', 'a'], dtype='...')
    >>> labels_of([0.5, 0.7])
    """
    if hasattr(value, "iloc") and hasattr(value, "index"):
        return value.index
    if hasattr(value, "dims") and hasattr(value, "coords") and value.ndim:
        first = value.dims[0]
        return value.indexes.get(first)
    return None


def align(X: Any, value: Any, role: str) -> Any:
    """The values of a role in the order of the units of X.

    Where both have labels, the labels decide: equal labels are left as they are, the same labels in another order
    are sorted into that of X, and others are refused. An integer label is a label and never a position. Where one of
    the two has none, or the role is not one value for each unit, there is nothing to compare: its order is taken to
    be that of X.

    Parameters
    ----------
    X : DataFrame, DataArray or array of n rows
        The units.
    value : Series, DataFrame, DataArray, array, number, str or None
        What belongs to the units; of n rows where it has labels.
    role : str
        Its name, for errors.

    Returns
    -------
    object
        The value, its rows in the order of X.

    Raises
    ------
    DataError
        If the labels are not the same ones, or one of them occurs twice and the order differs.

    Examples
    --------
    >>> import pandas as pd
    >>> X = pd.DataFrame({"age": [20, 30]}, index=["a", "b"])
    >>> align(X, pd.Series([1, 0], index=["b", "a"]), "treatment").tolist()
    [0, 1]
    >>> align(X, [1, 0], "treatment")
    [1, 0]
    """
    return align_rows(labels_of(X), value, role)


def align_rows(units: Any, value: Any, role: str, whose: str = "X") -> Any:
    """:func:`align` to labels of units (a pandas Index, or None), which an error says are those of ``whose``."""
    labels = labels_of(value)
    if units is None or labels is None or len(labels) != len(units) or _identical(units, labels):
        return value  # another number of values is for the check of their number
    if not (units.is_unique and labels.is_unique):
        doubled, where = (labels, role) if units.is_unique else (units, whose)
        raise DataError(
            f"{role} and {whose} have labels in different orders, and {shown(doubled[doubled.duplicated()][0])} "
            f"occurs more than once in those of {where}",
            expected="one label for each unit, or the same labels in the same order",
            todo=f"sort both by the same key, or pass {role}.to_numpy() if its order is that of {whose}",
        )
    rows = labels.get_indexer(units)
    if (rows < 0).any():
        raise DataError(
            f"{role} has other labels than {whose}: {int((rows < 0).sum())} of {len(units)} units are not among "
            f"them, such as {shown(units[rows < 0][0])} ({role} has {shown(labels[0])}, ...)",
            expected=f"the labels of {whose}, in any order",
            todo=f"take both from one table, or pass {role}.to_numpy() if its order is that of {whose}",
        )
    return value.iloc[rows] if hasattr(value, "iloc") else value.isel({value.dims[0]: rows})


def align_all(X: Any, values: Mapping[str, Any], whose: str = "X") -> dict[str, Any]:
    """Each role in the order of the units of X (see :func:`align`); roles must agree where X has no labels.

    ``whose`` is the name of X for errors.

    Raises
    ------
    DataError
        As :func:`align`; also if X has no labels and those of two roles differ, since then no order is known to be
        that of X.

    Examples
    --------
    >>> import pandas as pd
    >>> y, t = pd.Series([5.0, 6.0], index=["a", "b"]), pd.Series([1, 0], index=["b", "a"])
    >>> align_all([[20], [30]], {"y": y, "treatment": t})
    Traceback (most recent call last):
    ...
    causalsat.exceptions.DataError: y and treatment have different labels, and X has none: ...
    """
    units = labels_of(X)
    if units is None:
        _refuse_disagreement({role: labels_of(value) for role, value in values.items()}, whose)
    return {role: align_rows(units, value, role, whose) for role, value in values.items()}


def align_outcome(X: Any, y: Any, **roles: Any) -> Any:
    """The outcome in the order of the units of X; refuses roles that cannot be put into one order with it."""
    return align_all(X, {"y": y, **roles})["y"]


def aligned(reference: str, *roles: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function that puts its roles into the order of its reference (see :func:`align_all`) before it starts.

    Parameters
    ----------
    reference : str
        The argument whose rows are the units.
    *roles : str
        Arguments that belong to the units.

    Examples
    --------
    >>> import pandas as pd
    >>> @aligned("priority", "scores")
    ... def first(priority, scores):
    ...     return priority.iloc[0], scores.iloc[0]
    >>> effect, score = first(pd.Series([1, 2], index=["a", "b"]), pd.Series([20, 10], index=["b", "a"]))
    >>> int(effect), int(score)
    (1, 10)
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # whose own error names the function
            given = {role: bound.arguments[role] for role in roles if role in bound.arguments}
            bound.arguments.update(align_all(bound.arguments.get(reference), given, reference))
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def _refuse_disagreement(labels: Mapping[str, Any], whose: str) -> None:
    labelled = [(role, own) for role, own in labels.items() if own is not None]
    for role, own in labelled[1:]:
        first, reference = labelled[0]
        if len(own) == len(reference) and not _identical(reference, own):
            raise DataError(
                f"{first} and {role} have different labels, and {whose} has none: {shown(reference[0])}, ... in "
                f"{first} and {shown(own[0])}, ... in {role}",
                expected=f"the same labels in the same order, or {whose} with these labels too",
                todo=f"give {whose} its labels, or pass {first} and {role} as arrays (.to_numpy()) in its order",
            )


def _identical(one: Any, other: Any) -> bool:
    return one is other or bool(one.equals(other)) or bool(one.astype(object).equals(other.astype(object)))


FloatArray = NDArray[np.float64]


MAX_MAGNITUDE = 1e100  # squares and their sums stay finite
MIN_PROBABILITY = 1e-10  # below, one unit has all the weight


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


def one_name_each(frame: Any, what: str = "X") -> None:
    """Refuse a table in which two columns share a name: nobody could say which of them is meant.

    Raises
    ------
    DataError
        Names the column and how often it occurs.

    Examples
    --------
    >>> import pandas as pd
    >>> one_name_each(pd.DataFrame([[1, 2, 3]], columns=["age", "income", "age"]))
    Traceback (most recent call last):
    causalsat.exceptions.DataError: X has 2 columns named 'age'. Expected: each name once. ...
    """
    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        whose = "X has" if what == "X" else f"the {what} have"
        raise DataError(
            f"{whose} {int((frame.columns == doubled[0]).sum())} columns named {str(doubled[0])!r}",
            expected="each name once",
            todo=f"rename or drop one: {what} = {what}.loc[:, ~{what}.columns.duplicated()]",
        )


def column_or_array(X: Any, value: Any, role: str) -> tuple[Any, str | None]:
    """Resolve an argument that is an array or the name of a column of X; returns (values, name or None).

    Values with labels are put into the order of X (see :func:`causalsat.core.inputs.align`).
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
    if is_dataframe(X[value]):
        one_name_each(X)
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
    one_name_each(X)
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
    check_magnitude(out, f"the outcome y{_named(y)}")
    return out


def check_magnitude(values: FloatArray, what: str) -> None:
    """Refuse numbers whose squares leave what a computer can hold; missing ones are passed over.

    Raises
    ------
    DataError
        If a value is larger than 1e100, or all differences are smaller than 1e-100; names the value.

    Examples
    --------
    >>> check_magnitude(np.array([1.0, 1e300]), "column 'income'")
    Traceback (most recent call last):
    causalsat.exceptions.DataError: column 'income' has the value 1e+300 at row 1. Expected: numbers...
    """
    size = np.abs(values)
    if not size.size or not np.isfinite(size).any():
        return
    row = int(np.nanargmax(np.where(np.isfinite(size), size, np.nan)))
    if size[row] > MAX_MAGNITUDE:
        raise DataError(
            f"{what} has the value {values[row]:g} at row {row}",
            expected=f"numbers up to {MAX_MAGNITUDE:g} in size",
            todo="check the column for a code for missing, or write it in another unit",
        )
    span = float(np.nanmax(values) - np.nanmin(values))
    if 0 < span < 1 / MAX_MAGNITUDE:
        raise DataError(
            f"{what} varies by {span:g} only, from {np.nanmin(values):g} to {np.nanmax(values):g}",
            expected=f"differences of at least {1 / MAX_MAGNITUDE:g}",
            todo="write it in another unit, or leave it out",
        )


def check_feature_magnitudes(X: FloatArray, names: Any) -> None:
    """The same for every column of a table of features, which are named."""
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.nanmax(np.abs(X), axis=0, initial=0.0)
        span = np.nanmax(X, axis=0, initial=-np.inf) - np.nanmin(X, axis=0, initial=np.inf)
    for j in np.flatnonzero((size > MAX_MAGNITUDE) | ((span > 0) & (span < 1 / MAX_MAGNITUDE))):
        check_magnitude(X[:, j], f"column {names[j]!r}")


def _named(values: Any) -> str:
    """The name of a column that has one, for messages."""
    name = getattr(values, "name", None)
    return f" ({name!r})" if isinstance(name, str) else ""


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
    check_magnitude(t, f"the treatment{_named(treatment)}")
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
    w = w / w.max()  # the mean of weights of 1e308 would not be finite
    return w / w.mean()


def check_arm_weights(treatment: FloatArray, weight: FloatArray) -> None:
    """Refuse weights that leave an arm of a binary treatment, or all units of a dose, next to one unit.

    Examples
    --------
    >>> check_arm_weights(np.array([0.0, 0, 1, 1]), np.array([1.0, 1, 1, 1]))
    >>> check_arm_weights(np.array([0.0, 0, 0, 1, 1]), np.array([1e9, 1, 1, 1, 1]))
    Traceback (most recent call last):
    causalsat.exceptions.DataError: sample_weight gives one of 3 control units 100.0 % of their weight...
    """
    if np.ptp(weight) == 0:
        return
    binary = np.isin(treatment, (0.0, 1.0)).all()
    arms = (
        {"control ": treatment == 0, "treated ": treatment == 1} if binary else {"": np.ones(len(weight), dtype=bool)}
    )
    for name, arm in arms.items():
        w = weight[arm]
        if len(w) > 2 and w.max() > 0.98 * w.sum():
            raise DataError(
                f"sample_weight gives one of {len(w)} {name}units {100 * w.max() / w.sum():.1f} % of their weight",
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
    if not np.isfinite(e).all() or (np.minimum(e, 1 - e) < MIN_PROBABILITY).any():
        raise DataError(
            f"propensity{_named(propensity)} from {np.nanmin(e):.17g} to {np.nanmax(e):.17g}",
            expected=f"probabilities strictly between 0 and 1, by at least {MIN_PROBABILITY:g}",
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


def take(X: Any, rows: NDArray[Any]) -> Any:
    """Rows of a table, data frame or DataArray, by position or mask.

    Examples
    --------
    >>> take(np.arange(6).reshape(3, 2), np.array([True, False, True]))
    array([[0, 1],
           [4, 5]])
    """
    if is_dataframe(X) or hasattr(X, "iloc"):
        return X.iloc[rows]
    if is_dataarray(X):
        return X.isel({X.dims[0]: rows})
    return np.asarray(X)[rows]


def without_zero_weights(
    X: Any, y: Any, weight: Any, roles: dict[str, Any]
) -> tuple[Any, Any, Any, dict[str, Any], NDArray[np.bool_] | None]:
    """Units of positive weight: X, y, the weights, roles that are arrays, and which units they are.

    A unit of weight zero is in no population: it counts neither as a unit nor as a cluster. The mask is None where
    all weights are positive, or are no array of numbers (which is refused elsewhere).

    Examples
    --------
    >>> X, y, w, roles, kept = without_zero_weights(np.eye(3), [1, 2, 3], [1.0, 0.0, 2.0], {"treatment": [0, 1, 1]})
    >>> y, roles["treatment"], kept
    (array([1, 3]), array([0, 1]), array([ True, False,  True]))
    """
    values = np.asarray(column_or_array(X, weight, "sample_weight")[0] if weight is not None else 1.0)
    n = len(X) if hasattr(X, "__len__") else 0
    if values.dtype.kind not in "biuf" or values.shape != (n,):
        return X, y, weight, roles, None
    if not (values == 0).any() or not (values > 0).any() or np.ndim(y) == 0:
        return X, y, weight, roles, None
    kept = values != 0
    cut = {k: v if isinstance(v, str) or np.ndim(v) == 0 else take(v, kept) for k, v in roles.items()}
    weight = weight if isinstance(weight, str) else take(weight, kept)
    return take(X, kept), take(y, kept), weight, cut, kept
