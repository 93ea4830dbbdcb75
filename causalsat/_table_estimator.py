"""What every estimator of a table of units shares: the checks at the door, support, summary, saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from causalsat import _inputs, _support
from causalsat._inputs import FitData, FloatArray
from causalsat._tables import latex_table, markdown_table, markdown_text, text_cells
from causalsat.exceptions import CausalsatError, DataError, ParameterError

__all__ = ["Summary", "TableEstimator"]


@dataclass(frozen=True)
class Summary:
    r"""A printed table, as statsmodels prints them: title, coefficient table, diagnostics, notes.

    Attributes
    ----------
    title : str
        Heading of the table; caption in a paper.
    table : DataFrame
        Coefficients or effects, one row each.
    diagnostics : mapping
        What the fit says of itself: sizes, R-hat, effective samples, overlap.
    notes : tuple of str
        What the columns mean.

    Examples
    --------
    >>> import pandas as pd
    >>> found = Summary("Effects", pd.DataFrame({"mean": [0.72], "sd": [0.07]}, index=["ATE"]), {"units": 2082})
    >>> print(found.to_markdown(digits=2))
    **Effects**
    <BLANKLINE>
    |  | mean | sd |
    |:---|---:|---:|
    | ATE | 0.72 | 0.07 |
    <BLANKLINE>
    - units: 2082
    >>> r"ATE & 0.720 & 0.070 \\" in found.to_latex()
    True
    """

    title: str
    table: Any
    diagnostics: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Lay the table out between rules."""
        body = self.table.to_string(float_format=lambda v: f"{v:.4f}")
        width = max([len(line) for line in body.splitlines()] + [len(self.title), 60])
        rule = "=" * width
        lines = [self.title.center(width).rstrip(), rule, body, "-" * width]
        lines += [f"{name}: {_show(value)}" for name, value in self.diagnostics.items()]
        lines += [rule, *(f"Note: {note}" for note in self.notes)]
        return "\n".join(lines)

    __repr__ = __str__

    def to_markdown(self, *, digits: int = 3) -> str:
        """The same as Markdown: title, table, diagnostics and notes as a list.

        Parameters
        ----------
        digits : int
            Decimal places of numbers that are not whole.
        """
        words = [f"{name}: {_show(value)}" for name, value in self.diagnostics.items()] + list(self.notes)
        parts = [f"**{markdown_text(self.title)}**", markdown_table(*text_cells(self.table, digits))]
        return "\n\n".join([*parts, *(["\n".join(f"- {markdown_text(w)}" for w in words)] if words else [])])

    def to_latex(self, *, digits: int = 3, caption: str | None = None, label: str = "") -> str:
        r"""The same as a floating LaTeX table, diagnostics and notes below it; the document loads booktabs.

        Parameters
        ----------
        digits : int
            Decimal places of numbers that are not whole.
        caption : str, optional
            The title by default.
        label : str
            For ``\ref{label}``.
        """
        facts = "; ".join(f"{name}: {_show(value)}" for name, value in self.diagnostics.items())
        notes = [text for text in (*self.notes, facts) if text]
        title = self.title if caption is None else caption
        return latex_table(*text_cells(self.table, digits), title, label, notes)


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class TableEstimator(BaseEstimator):
    """Estimator of a table of units: roles as arrays or column names, missing values imputed and flagged."""

    _binary_treatment: ClassVar[bool] = True
    # small settings with which the contract tests, which find every public estimator, run quickly
    _contract_parameters: ClassVar[dict[str, Any]] = {}
    treatment_name_: str | None

    def _diagnostics(self) -> dict[str, Any]:
        """Return what the fit says of itself, for posteriors and the summary."""
        return {}

    def _summary(self) -> Summary:
        """Return the table of :meth:`summary`."""
        raise NotImplementedError

    def _support_columns(self) -> NDArray[np.int64] | slice:
        """Columns of the design that decide the support: those on which the effect may depend."""
        return slice(None)

    def _check_parameters(self) -> None:
        """Raise ParameterError for a parameter outside its domain; called at the start of fit."""

    def _encode_columns(self, X: Any, *, reset: bool) -> Any:
        """X before its columns are checked; a subclass may turn a column of labels into numbers."""
        return X

    def _learn_support(self, data: FitData) -> None:
        """Keep what :meth:`support` compares places with; called after the fit."""
        self.support_reference_ = _support.learn_support(self._support_features(data.X))

    def _support_features(self, design: FloatArray) -> FloatArray:
        """What of the design decides the support."""
        return design[:, self._support_columns()]

    def support(self, X: Any) -> FloatArray:
        """How much the training data say about each unit, shape (n,), in (0, 1]; below 0.05 is extrapolation.

        The share of training units at least as far from their nearest neighbours as this unit is, in the
        whitened features on which what is estimated may depend.
        """
        design, _ = self._check_predict(X, effect_only=True)
        return _support.support(self.support_reference_, self._support_features(design))

    def summary(self) -> Summary:
        """Printed table of the fit with its diagnostics."""
        check_is_fitted(self)
        return self._summary()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to one file, without pickle; :func:`causalsat.load` reads it."""
        from causalsat.persistence import save

        check_is_fitted(self)
        save(self, path)

    # ------------------------------------------------------------------ checks, once, at the door
    def _check_fit(self, X: Any, y: Any, treatment: Any, groups: Any, sample_weight: Any, propensity: Any) -> FitData:
        values = self._resolve_roles(X, treatment, groups, sample_weight, propensity)
        X = self._encode_columns(X, reset=True)
        raw = self._validate_table(_inputs.features_only(X, set(self.role_names_)), reset=True)
        feature_names = tuple(
            str(name) for name in getattr(self, "feature_names_in_", [f"x{j}" for j in range(raw.shape[1])])
        )
        self.imputation_ = _inputs.learn_imputation(raw, feature_names)
        self.design_names_ = feature_names + tuple(f"{feature_names[j]} missing" for j in self.imputation_.indicators)
        return FitData(
            X=self.imputation_.apply(raw, feature_names),
            feature_names=self.design_names_,
            **self._checked_roles(y, values, len(raw)),
        )

    def _resolve_roles(
        self, X: Any, treatment: Any, groups: Any, sample_weight: Any, propensity: Any
    ) -> dict[str, Any]:
        """Values of the roles; the names of X's columns that hold them are kept, as they are not features."""
        given = {"treatment": treatment, "groups": groups, "sample_weight": sample_weight, "propensity": propensity}
        found = {role: _inputs.column_or_array(X, value, role) for role, value in given.items()}
        self.treatment_name_ = found["treatment"][1]
        self.role_names_ = tuple(sorted({name for _, name in found.values() if name is not None}))
        return {role: value for role, (value, _) in found.items()}

    def _checked_roles(self, y: Any, values: Mapping[str, Any], n: int) -> dict[str, Any]:
        """The fields of :class:`FitData` that are not features, checked."""
        return {
            "y": self._check_outcome(y, values["treatment"], n),
            "treatment": _inputs.check_treatment(values["treatment"], n, binary=self._binary_treatment),
            "groups": _inputs.check_groups(values["groups"], n),
            "sample_weight": _inputs.check_weights(values["sample_weight"], n),
            "propensity": _inputs.check_propensity(values["propensity"], n),
            "weighted": values["sample_weight"] is not None,
        }

    def _check_outcome(self, y: Any, treatment: Any, n: int) -> FloatArray:
        return _inputs.check_outcome(y, n)

    def _check_predict(self, X: Any, *, effect_only: bool = False) -> tuple[FloatArray, NDArray[Any]]:
        """Checked features; with ``effect_only``, columns on which the effect does not depend may be missing."""
        check_is_fitted(self)
        if hasattr(X, "__array__") and not hasattr(X, "shape"):
            X = np.asarray(X)
        index = _inputs.unit_index(X) if np.ndim(X) >= 1 else None
        drop = set(self.role_names_)
        if _inputs.is_dataframe(X) and hasattr(self, "feature_names_in_"):
            missing = [name for name in self.feature_names_in_ if name not in X.columns]
            if not missing:
                X = X[list(self.feature_names_in_)]
        X = self._encode_columns(X, reset=False)
        raw = self._validate_table(_inputs.features_only(X, drop), reset=False)
        names = self.design_names_[: raw.shape[1]]
        quiet = None
        if effect_only:
            quiet = np.ones(len(self.design_names_), dtype=bool)
            quiet[self._support_columns()] = False
            quiet = quiet[: raw.shape[1]]
        return self.imputation_.apply(raw, names, quiet), np.arange(len(raw)) if index is None else index

    def _validate_table(self, X: Any, *, reset: bool) -> FloatArray:
        try:
            table = validate_data(
                self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan", accept_sparse=False
            )
        except CausalsatError:
            raise
        except ValueError as error:
            words = "finite numbers (NaN where missing), one row a unit, the columns of the fit"
            raise DataError(str(error), expected=words) from error
        if np.isinf(table).any():
            column = int(np.flatnonzero(np.isinf(table).any(axis=0))[0])
            name = getattr(self, "feature_names_in_", range(table.shape[1]))[column]
            raise DataError(
                f"X contains infinity (inf) in column {name}",
                expected="finite numbers or missing values (NaN)",
                todo="check a division or a logarithm",
            )
        return np.asarray(table)

    def _check_level(self, value: Any, n: int, name: str) -> FloatArray:
        level = _inputs.check_contrast_value(value, n, name)
        if self._binary_treatment and not np.isin(level, (0.0, 1.0)).all():
            raise ParameterError(
                f"{name}={value!r}", expected="0 or 1: this estimator was fitted to a binary treatment"
            )
        return level

    def __sklearn_tags__(self) -> Any:
        """Missing values are handled; this is neither a classifier nor a regressor."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags
