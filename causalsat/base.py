"""The estimator contract: what every effect estimator of the package shares.

A subclass stores its parameters in ``__init__`` and writes ``_fit(data)`` and
``_effect_draws(X, treatment, baseline)``; inputs are checked here, once, and everything else (``predict``,
``effect``, ``score``, ``support``, ``save``) follows.

With an integer ``random_state`` a fit gives the same numbers in every run on one machine with the same number of
threads. Another number of threads (``OMP_NUM_THREADS``, ``torch.set_num_threads``) sums in another order: small
linear models and random filters then agreed to 1e-6 and a small trained network to 1e-3 (tests/reliability), since
training follows the last bits. Across machines, and on a GPU, nothing is promised to the last bit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from causalsat.core import features as neighbours
from causalsat.core import inputs, memory
from causalsat.core.fitting import unfitted_unless_finished
from causalsat.core.inputs import FitData, FloatArray, align, align_all, align_outcome, without_zero_weights
from causalsat.core.names import printed
from causalsat.core.needed import with_adjusting_columns
from causalsat.core.notebook import fragment, frame_table, html_facts, paragraph
from causalsat.core.tables import latex_table, markdown_table, markdown_text, text_cells
from causalsat.core.treatment import warn_of_arm_codes
from causalsat.core.warn import warn
from causalsat.design import Design, adjust_for_design, balancing_weights, make_design
from causalsat.design.design import roles_of, warn_contradicted
from causalsat.exceptions import CausalsatError, DataError, IgnoredWarning, ParameterError
from causalsat.inference import nuisances as scoring
from causalsat.inference.place_effects import (
    PlaceDeviation,
    add_place_draws,
    check_scope,
    learn_place_deviation,
)
from causalsat.persistence import save
from causalsat.posterior import EffectPosterior

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EffectEstimator", "OutcomeEstimator", "Summary", "TableEstimator", "effect", "final_estimator", "support"]

INSTEAD_OF_EFFECT = "predict(X) for means, effect_table(X) for intervals, average_effect(X) for averages"
WITH_PLACES = (
    "BayesianLinearEffect, GaussianProcessEffect, BayesianForestEffect, DoublyRobustEffect, StackedEffect, "
    "EconMLEffect, PyMCEffect, ImageEffectClusters and the meta-learners"
)
IN_PARTS = "the same call on a part of the units at a time"


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
        return printed("\n".join(lines))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        facts = {name: _show(value) for name, value in self.diagnostics.items()}
        table = frame_table(self.table, self.title, max_rows=40)
        return fragment(table, html_facts(facts, "Diagnostics") if facts else "", *map(paragraph, self.notes))

    def to_markdown(self, *, digits: int = 3) -> str:
        """The same as Markdown: title, table, diagnostics and notes as a list.

        Parameters
        ----------
        digits : int
            Decimal places of numbers that are not whole.
        """
        items = [f"{name}: {_show(value)}" for name, value in self.diagnostics.items()] + list(self.notes)
        parts = [f"**{markdown_text(self.title)}**", markdown_table(*text_cells(self.table, digits))]
        return "\n\n".join([*parts, *(["\n".join(f"- {markdown_text(w)}" for w in items)] if items else [])])

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
    # attributes that are in no file, pickle or copy: what can be made again, and the training data
    _transient: ClassVar[tuple[str, ...]] = ("_model_data",)
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
        self.support_reference_ = neighbours.learn_support(self._support_features(data.X))

    def _support_features(self, design: FloatArray) -> FloatArray:
        """What of the design decides the support."""
        return design[:, self._support_columns()]

    def support(self, X: Any) -> FloatArray:
        """How much the training data say about each unit, shape (n,), in (0, 1]; below 0.05 is extrapolation.

        The share of training units at least as far from their nearest neighbours as this unit is, in the
        whitened features on which what is estimated may depend.
        """
        design, _ = self._check_predict(X, effect_only=True)
        return neighbours.support(self.support_reference_, self._support_features(design))

    def summary(self) -> Summary:
        """Printed table of the fit with its diagnostics."""
        check_is_fitted(self)
        return self._summary()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to one file, without pickle; :func:`causalsat.load` reads it."""
        check_is_fitted(self)
        save(self, path)

    def _fit_data(self) -> Any:
        """What the fit kept for ``to_pymc``, in ``_model_data``.

        Raises
        ------
        DataError
            If the estimator was loaded or copied: files and copies hold no training data.
        """
        check_is_fitted(self)
        if not hasattr(self, "_model_data"):
            raise DataError(
                f"a {type(self).__name__} that was loaded or copied, which holds no training data",
                expected="the estimator on which fit ran",
                todo="fit it again",
            )
        return self._model_data

    def __getstate__(self) -> dict[str, Any]:
        """Leave what can be made again, and the training data, out of pickles and copies."""
        state: dict[str, Any] = dict(super().__getstate__())
        return {name: value for name, value in state.items() if name not in self._transient}

    # ------------------------------------------------------------------ after loading
    def _try_out(self) -> None:
        """Use the fit on two and on three average units; raises where a part is missing or of another shape."""
        design = self._trial_design()
        if design.shape[1] != len(self.design_names_) or not isinstance(self.role_names_, tuple | list):
            raise ValueError(f"{design.shape[1]} columns for {len(self.design_names_)} names")
        for units in (design, np.repeat(design[:1], 3, axis=0)):  # a part with one number a unit may fit one of them
            for draws in self._trial_draws(units):
                if draws.ndim != 2 or draws.shape[1] != len(units) or not np.isfinite(draws).all():
                    raise ValueError(f"draws of shape {draws.shape} for {len(units)} units, or not finite")
        neighbours.support(self.support_reference_, self._support_features(design))
        self._summary()

    def _trial_design(self) -> FloatArray:
        """Checked features of two average units."""
        means = np.asarray(self.imputation_.means, dtype=float)
        if int(self.n_features_in_) != len(means):
            raise ValueError(f"{self.n_features_in_} features and {len(means)} means")
        return self.imputation_.apply(np.tile(means, (2, 1)), self.design_names_[: len(means)])

    def _trial_draws(self, design: FloatArray) -> Iterable[FloatArray]:
        """Everything that is drawn for checked features; written by the contracts."""
        return ()

    # ------------------------------------------------------------------ checks on input
    def _check_fit(self, X: Any, y: Any, treatment: Any, groups: Any, sample_weight: Any, propensity: Any) -> FitData:
        values = self._resolve_roles(X, treatment, groups, sample_weight, propensity)
        X = self._encode_columns(X, reset=True)
        raw = self._validate_table(inputs.features_only(X, set(self.role_names_)), reset=True)
        feature_names = tuple(
            str(name) for name in getattr(self, "feature_names_in_", [f"x{j}" for j in range(raw.shape[1])])
        )
        self.imputation_ = inputs.learn_imputation(raw, feature_names)
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
        resolved = {role: inputs.column_or_array(X, value, role) for role, value in given.items()}
        self.treatment_name_ = resolved["treatment"][1]
        self.role_names_ = tuple(sorted({name for _, name in resolved.values() if name is not None}))
        return {role: value for role, (value, _) in resolved.items()}

    def _checked_roles(self, y: Any, values: Mapping[str, Any], n: int) -> dict[str, Any]:
        """The fields of :class:`FitData` that are not features, checked."""
        treatment = inputs.check_treatment(values["treatment"], n, binary=self._binary_treatment)
        if self._takes_doses():
            warn_of_arm_codes(treatment)
        return {
            "y": self._check_outcome(y, values["treatment"], n),
            "treatment": treatment,
            "groups": inputs.check_groups(values["groups"], n),
            "sample_weight": inputs.check_weights(values["sample_weight"], n),
            "propensity": inputs.check_propensity(values["propensity"], n),
            "weighted": values["sample_weight"] is not None,
        }

    def _takes_doses(self) -> bool:
        """Whether a treatment of more than two values is taken for a dose."""
        return not self._binary_treatment

    def _check_outcome(self, y: Any, treatment: Any, n: int) -> FloatArray:
        return inputs.check_outcome(y, n)

    def _check_predict(self, X: Any, *, effect_only: bool = False) -> tuple[FloatArray, NDArray[Any]]:
        """Checked features; with ``effect_only``, columns on which the effect does not depend may be missing."""
        check_is_fitted(self)
        if hasattr(X, "__array__") and not hasattr(X, "shape"):
            X = np.asarray(X)
        index = inputs.unit_index(X) if np.ndim(X) >= 1 else None
        drop = set(self.role_names_)
        if inputs.is_dataframe(X) and hasattr(self, "feature_names_in_"):
            missing = [name for name in self.feature_names_in_ if name not in X.columns]
            if not missing:
                X = X[list(self.feature_names_in_)]
        X = self._encode_columns(X, reset=False)
        raw = self._validate_table(inputs.features_only(X, drop), reset=False)
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
            expected = "finite numbers (NaN where missing), one row a unit, the columns of the fit"
            raise DataError(str(error), expected=expected) from error
        if np.isinf(table).any():
            column = int(np.flatnonzero(np.isinf(table).any(axis=0))[0])
            name = getattr(self, "feature_names_in_", range(table.shape[1]))[column]
            raise DataError(
                f"X contains infinity (inf) in column {name}",
                expected="finite numbers or missing values (NaN)",
                todo="check a division or a logarithm",
            )
        inputs.check_feature_magnitudes(table, getattr(self, "feature_names_in_", range(table.shape[1])))
        return np.ascontiguousarray(table)  # the layout decides the last bits of sums, which samplers magnify

    def _check_level(self, value: Any, n: int, name: str) -> FloatArray:
        level = inputs.check_contrast_value(value, n, name)
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


class EffectEstimator(TableEstimator):
    """Base class of the effect estimators: scikit-learn conventions plus posterior effects.

    Subclasses write :meth:`_fit`, :meth:`_effect_draws` and, where they can, :meth:`_summary` and
    :meth:`_diagnostics`.
    """

    # metadata that scikit-learn's Pipeline and cross-validation route to fit and score
    __metadata_request__fit: ClassVar = {
        "treatment": True,
        "groups": True,
        "strata": True,
        "sample_weight": True,
        "propensity": True,
    }
    __metadata_request__score: ClassVar = {
        "treatment": True,
        "groups": True,
        "sample_weight": True,
        "propensity": True,
    }

    # whether _fit itself takes data.strata and data.propensity into account; otherwise the base adjusts outcome and
    # weights, so that treatment is independent of the strata
    _takes_design: ClassVar[bool] = False
    # whether fit learns by how much places' own effects deviate, for scope="place"
    _learns_places: ClassVar[bool] = False

    # ------------------------------------------------------------------ to be written by subclasses
    @abstractmethod
    def _fit(self, data: FitData) -> None:
        """Fit on checked data and store attributes that end in an underscore."""

    @abstractmethod
    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the effect for checked features; the levels have one value a unit."""

    def _trial_draws(self, design: FloatArray) -> Iterable[FloatArray]:
        yield self._effect_draws(design, np.ones(len(design)), np.zeros(len(design)))

    # ------------------------------------------------------------------ the contract
    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        treatment: ArrayLike | str | None = None,
        groups: ArrayLike | str | None = None,
        strata: ArrayLike | str | None = None,
        sample_weight: ArrayLike | str | None = None,
        propensity: ArrayLike | str | float | None = None,
        design: Design | None = None,
    ) -> Any:
        """Fit the effect model.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features of the units, with missing values where they are missing: they are replaced by the
            training mean and flagged by an indicator column. A geometry column is not a feature. Estimators of
            images take chips of shape (n, [time,] band, y, x), or a GeoDataFrame of places at which their
            ``imagery`` is read; units may share an image.
        y : array of shape (n,)
            Outcome.
        treatment : array of shape (n,) or str
            Treatment, or the name of X's column that holds it. Required.
        groups : array of shape (n,) or str, optional
            Clusters (villages, sites): uncertainty and cross-fitting respect them.
        strata : array of shape (n,) or str, optional
            Strata (blocks, pairs) within which a binary treatment was randomised, as labels of any kind. The
            probability of treatment is then the treated share of the stratum's clusters, unless ``propensity`` is
            given, and differences between strata are no effects.
        sample_weight : array of shape (n,) or str, optional
            Survey weights, rescaled to mean 1. A unit of weight zero counts neither as a unit nor as a cluster.
        propensity : array of shape (n,), float or str, optional
            Known probability of treatment (a randomised trial's design).
        design : Design, optional
            All of these roles in one object, such as ``study.design``; none of them is then given beside it.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        DataError, TreatmentError, ColumnError, ParameterError
            If an input cannot be used; the message says what to do.
        """
        self._check_parameters()
        roles = {"treatment": treatment, "groups": groups, "strata": strata, "propensity": propensity}
        roles = roles_of(design, {**roles, "sample_weight": sample_weight})
        with unfitted_unless_finished(self):
            roles = align_all(X, {"y": y, **roles})
            y, sample_weight = roles.pop("y"), roles.pop("sample_weight")
            X, y, sample_weight, roles, _ = without_zero_weights(X, y, sample_weight, roles)
            blocks, stratum_name = inputs.column_or_array(X, roles["strata"], "strata")
            if stratum_name is not None:
                X = X.drop(columns=stratum_name)
            data = self._check_fit(X, y, roles["treatment"], roles["groups"], sample_weight, roles["propensity"])
            if stratum_name is not None:
                self.role_names_ = tuple(sorted({*self.role_names_, stratum_name}))
            inputs.check_arm_weights(data.treatment, data.sample_weight)
            self.treated_share_ = float(np.average(data.treatment, weights=data.sample_weight))
            data = self._with_design(data, blocks)
            self._fit(data)
            self._learn_support(data)
            self._learn_places(data)
            self.n_units_, self.n_groups_ = len(data.y), data.n_groups
        return self

    def _learn_places(self, data: FitData) -> None:
        """Keep by how much places' own effects deviate from the mean effect of places like them."""
        if self._learns_places:
            self.place_deviation_ = learn_place_deviation(data, self._effect_draws)

    def _deviation(self) -> PlaceDeviation:
        """What places' own effects deviate by.

        Raises
        ------
        ParameterError
            If this estimator does not learn it.
        DataError
            If the trial does not tell it.
        """
        if not self._learns_places:
            raise ParameterError(
                f"scope='place' of a {type(self).__name__}, which does not learn places' own effects",
                expected="scope='mean'",
                todo=f"or fit one of {WITH_PLACES}",
            )
        found: PlaceDeviation | None = getattr(self, "place_deviation_", None)
        if found is None:
            raise DataError(
                "scope='place' of a model of an earlier version, which holds nothing of places' own effects",
                expected="scope='mean'",
                todo="fit the model again",
            )
        if not found.by:
            raise DataError(
                f"scope='place', but the trial does not tell places' own effects: {found.reason}",
                expected="scope='mean', or a trial with several units in a place",
            )
        return found

    def _with_design(self, data: FitData, strata: Any) -> FitData:
        """The data with strata and the design's probability; adjusted where the estimator does not do it itself."""
        if strata is None and data.propensity is None:
            return data
        weights = data.sample_weight if data.weighted else None
        design = make_design(
            data.treatment, groups=data.groups, strata=strata, sample_weight=weights, propensity=data.propensity
        )
        warn_contradicted(design)
        if not design.is_binary:
            if strata is not None:
                warn(
                    "strata are used for binary treatments only: the levels of a dose are compared across strata",
                    IgnoredWarning,
                )
            return data
        data = replace(data, strata=design.strata, propensity=design.probability)
        if self._takes_design:
            return data
        y, weight = adjust_for_design(data.y, design, shift=self._outcome_may_shift(data.y))
        balanced = bool(np.ptp(balancing_weights(design)) > 0)
        return replace(data, y=y, sample_weight=weight, weighted=data.weighted or balanced, balanced=balanced)

    def _outcome_may_shift(self, y: FloatArray) -> bool:
        """Whether strata's levels may be taken from the outcome: not if it is yes/no, or has a family of its own."""
        return getattr(self, "family", "gaussian") in ("gaussian", "auto") and not bool(np.isin(y, (0.0, 1.0)).all())

    def predict(self, X: Any) -> FloatArray:
        """Posterior mean of the effect of treatment 1 against 0, shape (n,).

        Of more than 10,000 units the draws are made for a chunk of them at a time.
        """
        if memory.number_of_rows(X) <= memory.WHOLE_ROWS:
            return np.asarray(self.effect(X).mean(), dtype=float)
        return np.concatenate([part.mean() for part in self._effects_by_chunk(X, 1.0, 0.0)]).astype(float, copy=False)

    def effect(
        self, X: Any, *, treatment: ArrayLike = 1.0, baseline: ArrayLike = 0.0, scope: str = "mean"
    ) -> EffectPosterior:
        """Posterior of the conditional effect of ``treatment`` against ``baseline``.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        treatment, baseline : float or array of shape (n,)
            The levels to contrast.
        scope : {"mean", "place"}
            What an interval is about: the mean effect of places that look alike to the features, or the effect at
            the place itself, which deviates from it by what no feature shows. Means are the same. The deviations of
            different places are independent, so that they average out over a district; rows with the same features
            are one place. Where whole groups are treated, a place's level and its effect are taken to be
            uncorrelated: see :func:`causalsat.evaluation.explained_heterogeneity`.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n).

        Raises
        ------
        ParameterError, DataError
            If the levels or the scope cannot be used, or the trial does not tell what is asked.
        """
        check_scope(scope)
        deviation = self._deviation() if scope == "place" else None
        design, index = self._check_predict(X, effect_only=True)
        named = (("treatment", treatment), ("baseline", baseline))
        levels = [self._check_level(align(X, value, name), len(index), name) for name, value in named]
        memory.announce(
            len(index), lambda: self._effect_draws(design[:2], levels[0][:2], levels[1][:2]), INSTEAD_OF_EFFECT
        )
        draws = self._effect_draws(design, *levels)
        if deviation is not None:
            draws = add_place_draws(draws, design, levels[0] - levels[1], deviation)
        about = self._diagnostics()
        return EffectPosterior(
            draws, index=index, treatment=treatment, baseline=baseline, scope=scope, diagnostics=about
        )

    def effect_table(
        self,
        X: Any,
        *,
        level: float = 0.9,
        treatment: ArrayLike = 1.0,
        baseline: ArrayLike = 0.0,
        scope: str = "mean",
    ) -> pd.DataFrame:
        """The table of ``effect(X).to_dataframe(level)``, with the draws of a chunk of units held at a time.

        Parameters
        ----------
        X, treatment, baseline, scope
            As in :meth:`effect`.
        level : float
            Level of the intervals.

        Returns
        -------
        DataFrame of shape (n, 5)
            mean, sd, lower, upper and prob_positive of each unit.
        """
        import pandas as pd

        parts = self._effects_by_chunk(X, treatment, baseline, scope)
        tables = [part.to_dataframe(level) for part in parts]
        return pd.concat(tables).set_axis(pd.Index(inputs.unit_index(X), name="unit"), axis=0)

    def average_effect(
        self,
        X: Any,
        *,
        weights: ArrayLike | None = None,
        treatment: ArrayLike = 1.0,
        baseline: ArrayLike = 0.0,
        scope: str = "mean",
    ) -> EffectPosterior:
        """Average over the units: ``effect(X).ate(weights)``, with the draws of a chunk of units held at a time.

        Parameters
        ----------
        X, treatment, baseline, scope
            As in :meth:`effect`.
        weights : array of shape (n,), optional
            Weight of each unit, such as its population.

        Returns
        -------
        EffectPosterior
            Of one unit labelled "ATE".

        Raises
        ------
        DataError
            If the weights are not finite and non-negative, or sum to zero.
        """
        n = memory.number_of_rows(X)
        w = np.ones(n) if weights is None else np.asarray(align(X, weights, "weights"), dtype=float)
        if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
            raise DataError("weights", expected=f"{n} finite, non-negative numbers with a positive sum")
        total, start = np.zeros(1), 0
        for part in self._effects_by_chunk(X, treatment, baseline, scope):
            total = total + part.draws @ (w[start : start + len(part)] / w.sum())
            start += len(part)
        return EffectPosterior(
            total[:, None],
            index=np.array(["ATE"]),
            treatment=treatment,
            baseline=baseline,
            scope=scope,
            diagnostics=self._diagnostics(),
        )

    def _effects_by_chunk(
        self, X: Any, treatment: Any, baseline: Any, scope: str = "mean"
    ) -> Iterator[EffectPosterior]:
        """Effects of a chunk of units at a time; a row of all of them is one joint draw."""
        levels = [np.asarray(align(X, v, name)) for v, name in ((treatment, "treatment"), (baseline, "baseline"))]

        def evaluate(part: Any, rows: slice) -> EffectPosterior:
            t, b = (level if level.ndim == 0 else level[rows] for level in levels)
            options = {} if scope == "mean" else {"scope": scope}
            return self.effect(part, treatment=t, baseline=b, **options)

        return memory.in_chunks(X, evaluate)

    def score(
        self,
        X: Any,
        y: ArrayLike,
        *,
        treatment: ArrayLike | str | None = None,
        groups: ArrayLike | str | None = None,
        sample_weight: ArrayLike | str | None = None,
        propensity: ArrayLike | str | float | None = None,
    ) -> float:
        """R-score: share of a constant effect's R-loss that the predicted effects remove; higher is better.

        The conditional means of outcome and treatment come from ridge regressions cross-fitted within the
        scored units, the same for every estimator; a known ``propensity`` is used where it is given. 0 is
        the best constant effect of these units, and noise in y keeps even the true effects far below 1.

        Raises
        ------
        TreatmentError
            If no treatment is given and ``fit`` was not given a column's name.
        """
        check_is_fitted(self)
        if treatment is None:
            treatment = self.treatment_name_
        design, _ = self._check_predict(X)
        n = len(design)
        values = {
            role: inputs.column_or_array(X, value, role)[0]
            for role, value in (
                ("treatment", treatment),
                ("groups", groups),
                ("sample_weight", sample_weight),
                ("propensity", propensity),
            )
        }
        t = inputs.check_treatment(values["treatment"], n, binary=self._binary_treatment)
        outcome = inputs.check_outcome(align_outcome(X, y, **values), n)
        clusters = inputs.check_groups(values["groups"], n)
        weight = inputs.check_weights(values["sample_weight"], n)
        known = inputs.check_propensity(values["propensity"], n)
        e = known if known is not None else scoring.crossfit_ridge(design, t, weight, clusters)
        m = scoring.crossfit_ridge(design, outcome, weight, clusters)
        return scoring.r_score(self.predict(X), outcome - m, t - e, weight)


class OutcomeEstimator(EffectEstimator):
    """An effect estimator whose model also has the outcome itself: subclasses add :meth:`_outcome_draws`."""

    @abstractmethod
    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the mean potential outcome at treatment levels, one a unit."""

    def _trial_draws(self, design: FloatArray) -> Iterable[FloatArray]:
        yield from super()._trial_draws(design)
        yield self._outcome_draws(design, np.zeros(len(design)))

    def predict_outcome(self, X: Any, *, treatment: ArrayLike = 1.0) -> EffectPosterior:
        """Posterior of the mean potential outcome under a treatment, at a village of which nothing is known.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        treatment : float or array of shape (n,)
            The treatment level; evaluate it at several for a dose-response curve.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``; probabilities where a binary outcome was modelled as
            such. The noise of a single unit and of a single village is no part of it.

        Raises
        ------
        ParameterError
            If the level is not one finite number, or one for each unit, or not a level the model can take.
        """
        design, index = self._check_predict(X)
        level = self._check_level(align(X, treatment, "treatment"), len(index), "treatment")
        memory.announce(len(index), lambda: self._outcome_draws(design[:2], level[:2]), IN_PARTS)
        return EffectPosterior(
            self._outcome_draws(design, level),
            index=index,
            kind="outcome",
            treatment=treatment,
            baseline=None,
            diagnostics=self._diagnostics(),
        )


def final_estimator(model: Any) -> tuple[Any, Any]:
    """Split a Pipeline into its fitted transformer part (or None) and its final estimator."""
    steps = getattr(model, "steps", None)
    if steps is None:
        return None, model
    return (model[:-1] if len(steps) > 1 else None), steps[-1][1]


def call_final_step(model: Any, X: Any, method: str, **options: Any) -> Any:
    transformers, estimator = final_estimator(model)
    if not hasattr(estimator, method):
        raise ParameterError(
            f"a model that ends in {type(estimator).__name__}, which has no {method}()",
            expected="an estimator of causalsat, or a scikit-learn Pipeline that ends in one",
        )
    if transformers is None:
        return getattr(estimator, method)(X, **options)
    if method in ("effect", "support"):
        X = with_adjusting_columns(model, X)
    latents = transformers.transform(X)
    result = getattr(estimator, method)(latents, **options)
    if isinstance(result, EffectPosterior) and not inputs.is_dataframe(latents):
        from dataclasses import replace

        result = replace(result, index=inputs.unit_index(X))
    return result


def effect(
    model: Any, X: Any, *, treatment: ArrayLike = 1.0, baseline: ArrayLike = 0.0, scope: str = "mean"
) -> EffectPosterior:
    """Posterior effects from an estimator or from a scikit-learn Pipeline that ends in one.

    scikit-learn's Pipeline passes ``predict`` on to its last step, but not ``effect``; this does.

    Parameters
    ----------
    model : EffectEstimator or Pipeline
        Fitted model.
    X : array, DataFrame, GeoDataFrame or DataArray
        Units, in the form that the model was fitted on. A table may lack the columns on which the effect does not
        depend, such as covariates that only adjust.
    treatment, baseline : float or array of shape (n,)
        The levels to contrast.
    scope : {"mean", "place"}
        The mean effect of places that look alike, or the effect at the place itself
        (see :meth:`causalsat.base.EffectEstimator.effect`).

    Returns
    -------
    EffectPosterior
        Draws of shape (draw, n). Where a geometry is a MultiPoint (``Study(..., location_error=)``), the draws are
        also over where the place may be.
    """
    options = {"treatment": treatment, "baseline": baseline, **({} if scope == "mean" else {"scope": scope})}
    posterior = call_final_step(model, X, "effect", **options)
    steps = getattr(model, "steps", None) or [("", None)]
    tables = None
    if len(steps) > 1 and hasattr(steps[0][1], "transform_positions"):
        tables = steps[0][1].transform_positions(with_adjusting_columns(model, X))
    if tables is None:
        return posterior  # type: ignore[no-any-return]
    rest = model[1:]
    parts = [call_final_step(rest, table, "effect", **options) for table in tables]
    return _over_positions(posterior, parts, X.geometry)


def _over_positions(whole: EffectPosterior, parts: list[EffectPosterior], geometry: Any) -> EffectPosterior:
    """Effects of displaced places: in each draw a place is at one of its positions, with all who live there."""
    _, place = np.unique(geometry.to_wkb().to_numpy().astype(object), return_inverse=True)
    chosen = np.random.default_rng(0).integers(len(parts), size=(whole.n_draws, int(place.max()) + 1))[:, place]
    draws = np.array(whole.draws, dtype=float)
    for k, part in enumerate(parts):
        np.copyto(draws, part.draws, where=chosen == k)
    return replace(whole, draws=draws)


def support(model: Any, X: Any) -> FloatArray:
    """Support of each unit (see :meth:`EffectEstimator.support`) from an estimator or a Pipeline."""
    return call_final_step(model, X, "support")  # type: ignore[no-any-return]
