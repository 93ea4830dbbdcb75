"""From a checked table to the linear effect model's design: which columns do what, and their standardised values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from causalsat.core import inputs
from causalsat.core.features import learn_scaler, warn_of_unresolved
from causalsat.core.inputs import FitData, Imputation, select_columns
from causalsat.estimators.levels import check_coding, is_binary, n_village_effects
from causalsat.estimators.linear import data as linear_data
from causalsat.estimators.linear.data import LinearDesign, Scaling
from causalsat.estimators.linear.families import check_outcome
from causalsat.exceptions import ColumnError, DataError, ParameterError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class ModelOptions:
    """What the parameters of :class:`~causalsat.BayesianLinearEffect` say of the model; see there."""

    modifiers: Any = None
    prior: str = "horseshoe"
    ordered: Any = None
    family: str = "gaussian"
    strata: str | int | None = None
    group_effects: bool = True
    group_slopes: bool | str = "auto"


@dataclass(frozen=True)
class Basis:
    """How a checked table becomes standardised features.

    Attributes
    ----------
    columns : ndarray of int of shape (c,)
        Columns of the table with main effects.
    modifiers : ndarray of int of shape (J,)
        Columns of the table that interact with the treatment.
    stratum_column : ndarray of int of shape (0 or 1,)
        The column with the codes of strata.
    has_propensity : bool
        Whether a known propensity is a further feature, the last.
    binary : bool
        Whether the treatment is 0 and 1, not a dose.
    scaling : Scaling
        Of the p features: columns with main effects and the propensity.
    prior_scale : ndarray of shape (p,)
        Prior standard deviations of the features' coefficients relative to each other.
    imputation : Imputation
        How missing values of the table were filled.
    """

    columns: IntArray
    modifiers: IntArray
    stratum_column: IntArray
    has_propensity: bool
    binary: bool
    scaling: Scaling
    prior_scale: FloatArray
    imputation: Imputation

    @property
    def places(self) -> IntArray:
        """Positions of the modifiers among the features, shape (J,)."""
        return np.searchsorted(self.columns, self.modifiers)

    def features(self, X: FloatArray) -> FloatArray:
        """Standardised features of new units, shape (n, p); a propensity is that of the average training unit."""
        table = X[:, self.columns]
        if self.has_propensity:
            table = np.column_stack([table, np.full(len(table), self.scaling.x_mean[-1])])
        return self.scaling.features(table)

    def missing(self, X: FloatArray) -> BoolArray:
        """Which features were missing, by their indicators, shape (n, p)."""
        missing = np.zeros((len(X), X.shape[1]), dtype=bool)
        missing[:, self.imputation.indicators] = X[:, len(self.imputation.means) :] > 0.5
        out = np.zeros((len(X), len(self.prior_scale)), dtype=bool)
        out[:, : len(self.columns)] = missing[:, self.columns]
        return out

    @property
    def may_be_missing(self) -> BoolArray:
        """Which features are no indicators of missing values, shape (p,)."""
        out = np.ones(len(self.prior_scale), dtype=bool)
        out[: len(self.columns)] = self.columns < len(self.imputation.means)
        return out

    def strata(self, X: FloatArray) -> IntArray | None:
        """Codes of the units' strata; None where the model has none."""
        return X[:, self.stratum_column[0]].astype(np.int64) if len(self.stratum_column) else None


def make_design(
    data: FitData, imputation: Imputation, options: ModelOptions
) -> tuple[Basis, FloatArray, LinearDesign]:
    """The basis that training data give, their standardised features (n, p), and their design.

    Parameters
    ----------
    data : FitData
        Checked training data.
    imputation : Imputation
        How its missing values were filled.
    options : ModelOptions
        The model.

    Raises
    ------
    DataError
        If the outcome is not of the family.
    TreatmentError
        If the treatment has two levels other than 0 and 1.
    ColumnError, ParameterError
        If an option names columns that are not there, or the column of strata among the modifiers.
    """
    check_outcome(data.y, options.family)
    check_coding(data.treatment)
    binary = is_binary(data.treatment)
    n_features, gaussian = len(imputation.means), options.family == "gaussian"
    columns, stratum_column, modifiers = roles(data.feature_names, n_features, options.modifiers, options.strata)
    X, has_propensity = features_with_propensity(data, columns)
    warn_of_unresolved(learn_scaler(X, data.sample_weight), [*(data.feature_names[j] for j in columns), "propensity"])
    scaling = linear_data.learn_scaling(X, data.y, data.treatment, data.sample_weight, rescale_y=gaussian)
    offset = 0.0
    if options.family in ("negative_binomial", "gamma"):
        offset = float(np.log(np.average(data.y, weights=data.sample_weight)))
        scaling = replace(scaling, y_mean=offset)
    prior_scale = np.ones(X.shape[1])
    if options.ordered is not None:
        ordered = select_columns(
            data.feature_names, options.ordered, role="ordered", n_features=n_features, ordered=True
        )
        prior_scale[np.searchsorted(columns, ordered)] = 1.0 / np.arange(1, len(ordered) + 1)
    basis = Basis(columns, modifiers, stratum_column, has_propensity, binary, scaling, prior_scale, imputation)
    n_random = n_village_effects(data, group_effects=options.group_effects, group_slopes=options.group_slopes)
    t = scaling.treatment(data.treatment)
    Z = scaling.features(X)
    main = Z * prior_scale
    return (
        basis,
        Z,
        LinearDesign(
            main=main,
            interaction=t[:, None] * main[:, basis.places],
            t=t,
            y=scaling.outcome(data.y) if gaussian else data.y,
            weight=data.sample_weight,
            arm=data.treatment.astype(np.int64) if binary else np.zeros(len(t), dtype=np.int64),
            group=data.groups if n_random else None,
            n_random=n_random,
            stratum=basis.strata(data.X),
            offset=offset,
        ),
    )


# ---------------------------------------------------------------------- roles
def features_with_propensity(data: FitData, columns: IntArray) -> tuple[FloatArray, bool]:
    """Feature columns, followed by the propensity where it is known and varies; and whether it is there."""
    X, e = data.X[:, columns], data.propensity
    if e is None or np.ptp(e) < 1e-9:
        return X, False
    return np.column_stack([X, e]), True


def roles(
    names: Sequence[str], n_features: int, modifiers: Any, strata: str | int | None
) -> tuple[IntArray, IntArray, IntArray]:
    """Columns of the design with main effects, the stratum's (one or none), and those that modify the effect.

    Examples
    --------
    >>> roles(["age", "site", "age missing"], 2, None, "site")
    (array([0, 2]), array([1]), array([0]))
    """
    taken = np.zeros(0, dtype=np.int64)
    if strata is not None:
        position = names.index(strata) if isinstance(strata, str) else strata % n_features
        taken = np.array([position], dtype=np.int64)
    chosen = select_columns(names, modifiers, n_features=n_features)
    if modifiers is not None and np.isin(taken, chosen).any():
        raise ParameterError(
            f"modifiers={modifiers!r}, which takes in the column of strata",
            expected="other features: strata have treatment effects of their own",
        )
    return np.setdiff1d(np.arange(len(names)), taken), taken, np.setdiff1d(chosen, taken)


# ---------------------------------------------------------------------- strata
def stratum_key(label: Any) -> str:
    """One text for a label however it is stored: 3, 3.0 and numpy's 3 are the same; missing is "".

    Examples
    --------
    >>> stratum_key(3), stratum_key(3.0), stratum_key("north"), stratum_key(float("nan"))
    ('3.0', '3.0', 'north', '')
    """
    if label is None:
        return ""
    try:
        value = float(label)
    except (TypeError, ValueError):
        return str(label)
    return "" if np.isnan(value) else repr(value)


def _factorized(values: NDArray[Any]) -> tuple[IntArray, list[str]]:
    """Position of each unit's key among the keys that occur, missing last; and those keys."""
    import pandas as pd

    codes, labels = pd.factorize(values)
    return codes, [*(stratum_key(v) for v in labels), ""]


def stratum_labels(values: NDArray[Any]) -> list[str]:
    """Sorted keys of the strata of training data; missing labels are refused."""
    codes, keys = _factorized(values)
    if (codes < 0).any():
        raise DataError(
            f"strata with {int((codes < 0).sum())} missing labels",
            expected="a stratum for each unit",
            todo="give units outside any stratum a label of their own",
        )
    return sorted(set(keys[:-1]))


def stratum_codes(values: NDArray[Any], labels: Sequence[str]) -> FloatArray:
    """Position of each label among the known ones; a negative number that depends on the label alone for others.

    Examples
    --------
    >>> import numpy as np
    >>> stratum_codes(np.array(["north", "south", "north"]), ["north", "south"])
    array([0., 1., 0.])
    """
    codes, keys = _factorized(values)
    known = {key: float(code) for code, key in enumerate(labels)}
    numbers = [known.get(key, -1.0 - float(crc32(key.encode()) % 2**31)) for key in keys]
    return np.asarray(numbers)[codes]


def stratum_column(X: Any, strata: Any) -> NDArray[Any] | None:
    """Values of the column that ``strata`` names; None where X is no table (it is refused elsewhere)."""
    if inputs.is_dataframe(X):
        if not isinstance(strata, str):
            raise ParameterError(f"strata={strata!r}", expected="the name of a column, as X is a data frame")
        return np.asarray(inputs.column_or_array(X, strata, "strata")[0])
    if isinstance(strata, str):
        raise ColumnError(
            f"strata={strata!r} names a column, but X is a {type(X).__name__} without columns",
            expected="a data frame with that column, or a position",
            todo="pass a data frame, or strata= the column's position",
        )
    values = np.asarray(X)
    if values.ndim != 2:
        return None
    if not -values.shape[1] <= strata < values.shape[1]:
        raise ColumnError(f"strata={strata} in {values.shape[1]} columns", expected="a position inside")
    return values[:, strata]


def with_codes(X: Any, strata: Any, codes: FloatArray) -> Any:
    """X with the stratum column replaced by codes."""
    if inputs.is_dataframe(X):
        return X.assign(**{strata: codes})
    values = np.array(X)
    if values.dtype.kind not in "fO":
        values = values.astype(float)
    values[:, strata] = codes
    return X.copy(data=values) if inputs.is_dataarray(X) else values
