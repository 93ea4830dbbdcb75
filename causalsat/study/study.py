"""A study: units with places, the roles of their columns, and the imagery that shows where they are.

A study says in words, and in a notebook, what it holds; its roles go to a model's fit, each where it belongs.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import align_rows, take
from causalsat.core.names import one_line, shown, with_unit
from causalsat.core.notebook import fragment, html_facts
from causalsat.core.treatment import FOR_ARMS, arm_names, code_treatment, declared_arms
from causalsat.design import Design, make_design
from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError, TreatmentError
from causalsat.study.building import (
    check_imagery,
    check_table,
    chosen_rows,
    imagery_names,
    numeric_column,
    one_probability,
    places_frame,
    require_column,
    resolve_covariates,
    resolve_roles,
    units_frame,
)
from causalsat.study.dates import parse_dates
from causalsat.study.location import add_location_roles, with_positions
from causalsat.study.outcomes import add_outcome_roles, outcome_settings, with_baseline
from causalsat.study.predicted import corrected_study, is_corrected
from causalsat.study.reading import VARIABLE_LABELS, StudyFileNotFoundError, read_units
from causalsat.study.report import Finding, StudyReport
from causalsat.study.response import features_of_response, respondents

__all__ = [
    "Finding",
    "Study",
    "StudyFileNotFoundError",
    "StudyReport",
    "facts_of",
    "fit_study",
    "given_roles",
    "html_of",
    "sites_of",
]


def facts_of(study: Any) -> list[str]:
    """Counts in words."""
    clusters = "" if study.n_clusters is None else f" in {study.n_clusters:,} clusters"
    facts = [f"{len(study):,} units{clusters}"]
    try:
        t = study.treatment
        if study.has_arms:
            counts = ", ".join(f"{name} {int((t == code).sum()):,}" for code, name in study.arms.items())
            facts.append(f"{len(study.arms)} arms ({counts})")
        elif np.isin(t[~np.isnan(t)], (0.0, 1.0)).all():
            facts.append(f"{int((t == 1).sum()):,} treated and {int((t == 0).sum()):,} control")
        else:
            facts.append(f"treatment from {np.nanmin(t):g} to {np.nanmax(t):g}")
    except (DataError, ColumnError):
        facts.append("treatment not coded")
    facts.append(f"{len(study.covariates)} covariate{'s' if len(study.covariates) != 1 else ''}")
    if study.places is not None:
        facts.append(f"{len(study.places):,} further places")
    facts.append("no imagery" if study.imagery is None else f"imagery {imagery_names(study.imagery)}")
    return facts


def html_of(study: Any) -> str:
    """Table of facts, roles and sources."""
    facts = {"units": ", ".join(study.facts()), **{k: str(v) for k, v in study.roles.items()}}
    if study.outcome_label != study.roles["outcome"] or study.outcome_unit:
        facts["outcome"] += f": {with_unit(study.outcome_label, study.outcome_unit)}"
    facts["covariates"] = ", ".join(study.covariates) or "none"
    facts |= {k: str(getattr(study, k)) for k in ("description", "citation", "licence") if getattr(study, k)}
    return fragment(html_facts(facts, f"Study {study.name}"))


def sites_of(study: Any) -> Any:
    """GeoDataFrame of the clusters, or of the distinct places: counts, mean outcome, mean place."""
    import geopandas as gpd

    units = study.units
    points = units.geometry.representative_point() if (units.geom_type != "Point").any() else units.geometry
    table = pd.DataFrame(
        {
            "x": points.x,
            "y": points.y,
            "treated": study.treatment if not study.has_arms else study.treatment > 0,
            "outcome": study.y,
        },
        index=units.index,
    )
    label = study.groups if study.groups is not None else [f"{x:.7g}, {y:.7g}" for x, y in table[["x", "y"]].values]
    lost = pd.isna(np.asarray(label, dtype=object))
    if lost.any():
        raise DataError(
            f"{int(lost.sum())} units without a cluster, the first at {units.index[lost][0]!r}",
            expected=f"a value of {study.roles['cluster']!r} for each unit",
            todo="name their clusters, or leave them out: study.subset(...)",
        )
    summary = table.groupby(np.asarray(label), sort=True).agg(
        n_units=("x", "size"),
        n_treated=("treated", "sum"),
        mean_outcome=("outcome", "mean"),
        x=("x", "mean"),
        y=("y", "mean"),
    )
    geometry = gpd.points_from_xy(summary["x"], summary["y"])
    summary.index.name = study.roles.get("cluster", "place")
    return gpd.GeoDataFrame(summary.drop(columns=["x", "y"]), geometry=geometry, crs=study.crs)


def fit_study(study: Any, model: Any, X: Any = None) -> Any:
    """Fit an estimator, or the Pipeline that ends in one, to the study's X (or another) and roles."""
    from sklearn import config_context

    features = study.X if X is None else align_rows(study.units.index, X, "X", "the study")
    if is_corrected(study):
        return fit_study(corrected_study(study), model, features)
    if study.missing_outcome == "weight" and np.isnan(study.y).any():
        answered = respondents(study, features_of_response(model, features))
        return fit_study(answered, model, take(features, np.flatnonzero(~np.isnan(study.y))))
    steps = getattr(model, "steps", None)
    final = steps[-1][1] if steps else model
    arguments = _arguments(study, final)
    _refuse_labelled_arms(study, final)
    if not steps:
        return model.fit(features, study.y, **arguments)
    prefix = steps[-1][0]
    routed = {f"{prefix}__{k}": v for k, v in arguments.items()}
    for name, step in steps[:-1]:
        if getattr(step, "requests_roles", False):  # an encoder that is trained on outcomes
            routed |= {f"{name}__{k}": v for k, v in arguments.items() if k in ("treatment", "groups")}
    with config_context(enable_metadata_routing=False):  # the step's name routes, so no step need ask for it
        return model.fit(features, study.y, **routed)


def _refuse_labelled_arms(study: Any, estimator: Any) -> None:
    """Refuse arms that value labels name where an estimator would take their codes for amounts."""
    arms = study.arms
    if len(arms) < 3 or getattr(estimator, "treatment_kind", None) == "levels" or takes_arms(estimator):
        return
    column = study.roles["treatment"]
    listed = ", ".join(f"{shown(code)} = {name}" for code, name in arms.items())
    raise TreatmentError(
        f"the treatment {column!r} has {len(arms)} arms ({listed}), whose codes "
        f"{type(estimator).__name__} takes for amounts",
        expected="two arms, or an estimator of arms",
        todo=f"keep one arm and control, study.subset(study.units[{column!r}].isin([control, arm])), and name it by "
        f"replace(treated=arm); or take all arms with {FOR_ARMS}. If the codes are amounts: "
        "study.replace(value_labels=None, control=None)",
    )


def takes_arms(estimator: Any) -> bool:
    """Whether an estimator takes labels of several arms."""
    return bool(getattr(estimator, "takes_arms", False))


def given_roles(study: Any) -> dict[str, Any]:
    """The roles that the study has, by the names under which ``fit`` takes them."""
    roles = {
        "treatment": study.treatment,
        "groups": study.groups,
        "strata": study.strata if study.randomised else None,
        "sample_weight": study.weights,
        "propensity": study.propensity,
    }
    if roles["strata"] is not None:  # of all units: a part of them may leave a stratum one arm
        roles["propensity"] = study.design.probability
    return {k: v for k, v in roles.items() if v is not None}


def _arguments(study: Any, estimator: Any) -> dict[str, Any]:
    known = inspect.signature(estimator.fit).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    if "treatment" not in known and not takes_any:
        raise ParameterError(
            f"{type(estimator).__name__}.fit takes no treatment",
            expected="an effect estimator, or a Pipeline that ends in one",
            todo="end the pipeline with one of causalsat's estimators, such as DoublyRobustEffect()",
        )
    given = given_roles(study)
    if study.take_up is not None and "take_up" in known:
        given["take_up"] = study.take_up
    if takes_arms(estimator) and study.has_arms:
        given |= {"treatment": study.arm_of_units, "control": study.arms[0]}
    unused = [k for k in given if k not in known and not takes_any]
    if unused:
        warnings.warn(
            f"{type(estimator).__name__}.fit takes no {', '.join(unused)}: the study's are not used",
            DataWarning,
            stacklevel=4,
        )
    return {k: v for k, v in given.items() if k not in unused}


FloatArray = NDArray[np.float64]


class Study:
    """Units of a trial or survey, what their columns mean, where they are, and imagery of those places.

    Names are checked when the object is made; values by :meth:`check`, which reports everything at once.
    A study does not change: :meth:`subset` and :meth:`replace` return new ones.

    Parameters
    ----------
    units : DataFrame or GeoDataFrame of n rows
        One row for each unit (person, household, village). It is copied.
    outcome, treatment : str
        Columns. A treatment of labels is coded 0/1 where the labels (or Stata value labels, whatever their codes)
        say which is which (Control/Treatment, no/yes, ...); otherwise say so with ``treated``. Other numbers are
        doses, unless Stata labels name them as arms, which :meth:`fit` then hands to an estimator of arms only.
    covariates : list of str, optional
        Columns measured before treatment; ``"x*"`` is a pattern. None means none: a column becomes a
        covariate only if it is named, since a column measured after treatment would bias every effect.
    cluster : str, optional
        Column with the unit of assignment or sampling (village, group); standard errors and folds respect it.
    strata : str, optional
        Column with the randomisation strata.
    weights : str, optional
        Column with survey weights.
    take_up : str, optional
        Column that says who took the treatment up (0/1, or labels such as no/yes); the treatment is then the
        assignment, and :func:`causalsat.analyse` adds the effect on compliers.
    propensity : str or float, optional
        The design's probability of treatment: a column, or one number for all.
    missing_outcome : {None, "weight"}
        What to do where the outcome is missing: ``"weight"`` weights respondents by the inverse of their probability
        of response given arm, covariates and images. By default :meth:`check` asks for a choice.
    baseline_outcome : str, optional
        Column with the outcome before treatment. It is adjusted for as a covariate (ANCOVA).
    outcome_predicted : bool
        Whether the outcome was predicted by a model, such as wealth from imagery, and not measured.
    outcome_labelled : str, optional
        Column with the measured outcome of a random subset of units, missing elsewhere, which corrects the predicted
        one.
    location_error : float, str or "dhs", optional
        Up to how many metres coordinates were displaced: a number, a column, or ``"dhs"`` (2 km for urban and 5 km
        for rural places). Image features are averaged over the positions where a place may be.
    urban : str, optional
        With ``"dhs"``, the column that says which places are urban: True/False, 1/0 or U/R.
    lon, lat : str, optional
        Columns with the coordinates in ``crs``. Omit both if the table has a geometry.
    crs : str, optional
        Coordinate reference system of lon and lat (default EPSG:4326), or of a geometry without one.
    imagery : Imagery or dict of them, optional
        Satellite images of the units' places; only held here.
    places : DataFrame or GeoDataFrame, optional
        Further places without a trial, to which effects may be carried over; same lon, lat and crs, or a geometry
        of their own. Where the units have a geometry and no such columns, lon and lat are the places'.
    unit : str, optional
        Column with the unit's identity; becomes the index. Default: the table's own index.
    treated, control : object, optional
        The value (or Stata label) of the treatment column that means treated, or control; the one other value is the
        other arm. Of three values or more, ``control`` says that they are arms, and which of them is control.
    treatment_date : date or str, optional
        When treatment began: a date, or the column with each unit's date. A year or a month is its first day.
    image_dates : date or list of dates, optional
        When the images were taken, where the imagery does not know. A year or a month is its last day.
    chip_size_m : float, optional
        Side in metres of the square around a place that models look at, unless they are told otherwise.
    randomised : bool, default True
        Whether assignment was randomised; decides how :meth:`check` reads imbalance.
    name, description, citation, licence : str
        What a report says about the data.
    outcome_label, outcome_unit : str
        What tables, axes and maps call the outcome, and its unit, such as "monthly income" and "USD". By default the
        label of the variable in a Stata file, else the name of the column.
    value_labels : dict of column to {code: label}, optional
        Stata value labels; filled by :meth:`from_file`.

    Attributes
    ----------
    units : GeoDataFrame
        The units with a ``geometry`` column; index is the unit's identity.
    covariates : tuple of str
        Names of the covariates.
    roles : mapping of role to column
        The other roles that are columns.
    imagery, places, treatment_date, image_dates, chip_size_m, randomised, name, description, citation, licence
        As given (places as a GeoDataFrame, dates as numpy days).

    Raises
    ------
    ColumnError
        If a role names no column; the message lists close matches.
    DataError
        If the table has no rows, two columns of one name, or no usable geometry.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame(
    ...     {"income": [1.0, 2.0, 3.0, 5.0], "arm": ["Control", "Control", "Treatment", "Treatment"],
    ...      "village": [1, 2, 3, 4], "lon": [32.1, 32.2, 32.3, 32.4], "lat": [1.0, 1.1, 1.2, 1.3]}
    ... )
    >>> study = Study(table, outcome="income", treatment="arm", cluster="village", lon="lon", lat="lat")
    >>> study.treatment
    array([0., 0., 1., 1.])
    >>> study
    <Study 'study': 4 units in 4 clusters, 2 treated and 2 control, 0 covariates, no imagery>
    """

    units: Any
    covariates: tuple[str, ...]
    roles: Mapping[str, str]
    imagery: Any
    places: Any
    treatment_date: np.datetime64 | str | None
    image_dates: tuple[np.datetime64, ...]
    chip_size_m: float | None
    randomised: bool
    name: str
    description: str
    citation: str
    licence: str
    value_labels: Mapping[str, Mapping[Any, str]]
    _settings: dict[str, Any]

    def __init__(
        self,
        units: Any,
        *,
        outcome: str,
        treatment: str,
        covariates: Sequence[str] | str | None = None,
        cluster: str | None = None,
        strata: str | None = None,
        weights: str | None = None,
        take_up: str | None = None,
        propensity: str | float | None = None,
        missing_outcome: str | None = None,
        baseline_outcome: str | None = None,
        outcome_predicted: bool = False,
        outcome_labelled: str | None = None,
        location_error: float | str | None = None,
        urban: str | None = None,
        lon: str | None = None,
        lat: str | None = None,
        crs: Any = None,
        imagery: Any = None,
        places: Any = None,
        unit: str | None = None,
        treated: Any = None,
        control: Any = None,
        treatment_date: Any = None,
        image_dates: Any = None,
        chip_size_m: float | None = None,
        randomised: bool = True,
        name: str = "study",
        description: str = "",
        citation: str = "",
        licence: str = "",
        outcome_label: str = "",
        outcome_unit: str = "",
        value_labels: Mapping[str, Mapping[Any, str]] | None = None,
    ) -> None:
        frame = check_table(units)
        roles = resolve_roles(
            frame, outcome=outcome, treatment=treatment, cluster=cluster, strata=strata, weights=weights, unit=unit
        )
        of_outcome = outcome_settings(missing_outcome, outcome_predicted, outcome_labelled)
        of_outcome |= add_location_roles(frame, roles, location_error, urban)
        add_outcome_roles(frame, roles, baseline_outcome=baseline_outcome, outcome_labelled=outcome_labelled)
        if take_up is not None:
            roles["take_up"] = require_column(frame, take_up, "take_up")
        if isinstance(propensity, str):
            roles["propensity"] = require_column(frame, propensity, "propensity")
        elif propensity is not None:
            propensity = one_probability(propensity)
        if isinstance(treatment_date, str) and treatment_date in frame.columns:
            roles["treatment_date"] = treatment_date
        elif treatment_date is not None:
            treatment_date = parse_dates(treatment_date, "treatment_date")[0]
        taken = {**roles, **({"lon": lon, "lat": lat} if lon and lat else {})}
        geoframe = units_frame(frame, places, lon, lat, crs)
        if unit is not None:
            geoframe = geoframe.set_axis(pd.Index(frame[roles["unit"]], name=None), axis=0)
        if VARIABLE_LABELS in frame.attrs:
            geoframe.attrs[VARIABLE_LABELS] = frame.attrs[VARIABLE_LABELS]
        self.__dict__.update(
            units=geoframe,
            covariates=with_baseline(resolve_covariates(frame, covariates, taken), roles),
            roles=roles,
            imagery=check_imagery(imagery),
            places=None if places is None else places_frame(places, lon, lat, crs),
            treatment_date=treatment_date,
            image_dates=parse_dates(image_dates, "image_dates", last=True),
            chip_size_m=_positive(chip_size_m, "chip_size_m"),
            randomised=bool(randomised),
            name=name,
            description=description,
            citation=citation,
            licence=licence,
            value_labels=dict(value_labels or {}),
            _settings={
                "lon": lon,
                "lat": lat,
                "crs": crs,
                "treated": treated,
                "control": control,
                "propensity": propensity,
                "outcome_label": str(outcome_label),
                "outcome_unit": str(outcome_unit),
                **of_outcome,
            },
        )

    @classmethod
    def from_file(
        cls,
        path: str | PathLike[str],
        *,
        places: Any = None,
        read_options: Mapping[str, Any] | None = None,
        **roles: Any,
    ) -> Study:
        """Read the units from a file.

        Parameters
        ----------
        path : path
            CSV, Parquet, GeoParquet, Stata .dta, GeoPackage, GeoJSON, Shapefile, FlatGeobuf. Labelled Stata
            variables keep their numbers, except that a treatment is coded by its labels.
        places : path, DataFrame or GeoDataFrame, optional
            Further places without a trial; a path is read like the units.
        read_options : mapping, optional
            For the reader of the units, such as ``{"sep": ";", "decimal": ","}`` or ``{"layer": "villages"}``.
        **roles
            Everything that :class:`Study` takes.

        Raises
        ------
        DataError
            If the file does not exist or cannot be read.
        """
        units, labels = read_units(path, read_options)
        if isinstance(places, str | PathLike):
            places, _ = read_units(places)
        roles.setdefault("name", Path(path).name.split(".")[0])
        return cls(units, places=places, value_labels=labels, **roles)

    # ------------------------------------------------------------------ what a model takes
    @property
    def X(self) -> Any:
        """GeoDataFrame (n rows) of the covariates and the geometry; index is the unit.

        Where coordinates were displaced and there is imagery, a geometry holds the positions where a place may be.
        """
        return with_positions(self, self.units[[*self.covariates, "geometry"]])

    @property
    def location_error(self) -> float | str | None:
        """Up to how many metres coordinates were displaced, a column, ``"dhs"``, or None."""
        return self._settings["location_error"]  # type: ignore[no-any-return]

    @property
    def y(self) -> FloatArray:
        """Outcome, shape (n,), NaN where missing."""
        return numeric_column(self.units[self.roles["outcome"]], "outcome")

    @property
    def outcome_label(self) -> str:
        """What the outcome is called: as given, by its Stata label, or by its column."""
        column = self.roles["outcome"]
        return self._settings["outcome_label"] or self.units.attrs.get(VARIABLE_LABELS, {}).get(column, column)

    @property
    def outcome_unit(self) -> str:
        """Unit of the outcome, "" where it was not given."""
        return str(self._settings["outcome_unit"])

    @property
    def labelled(self) -> FloatArray | None:
        """Measured outcome beside a predicted one, shape (n,), NaN where there is none; or None."""
        return self._numbers("outcome_labelled")

    @property
    def missing_outcome(self) -> str | None:
        """What was chosen for missing outcomes: ``"weight"`` or None."""
        return self._settings["missing_outcome"]

    @property
    def outcome_predicted(self) -> bool:
        """Whether a model predicted the outcome."""
        return bool(self._settings["outcome_predicted"])

    @property
    def treatment(self) -> FloatArray:
        """Treatment, shape (n,): 0 control, 1 treated, or a dose; NaN where missing."""
        column = self.roles["treatment"]
        arms = self._settings
        return code_treatment(self.units[column], arms["treated"], self.value_labels.get(column), arms["control"])

    @property
    def arms(self) -> dict[Any, str]:
        """Code and name of each of several arms, by value labels or as words; empty for two arms and for doses.

        With ``control`` the codes are those of :attr:`treatment`, and control is 0.
        """
        column, control = self.roles["treatment"], self._settings["control"]
        labels = self.value_labels.get(column)
        declared = {} if control is None else declared_arms(self.units[column], labels, control)
        return declared or arm_names(self.units[column], labels)

    @property
    def has_arms(self) -> bool:
        """Whether the treatment has three arms or more of which ``control`` names the control."""
        return self._settings["control"] is not None and self._settings["treated"] is None and len(self.arms) > 2

    @property
    def arm_of_units(self) -> NDArray[Any]:
        """Name of each unit's arm, shape (n,), None where missing; of a study with :attr:`has_arms`."""
        t = self.treatment
        names = self.arms
        return np.array([None if np.isnan(code) else names[int(code)] for code in t], dtype=object)

    @property
    def take_up(self) -> FloatArray | None:
        """Who took the treatment up, shape (n,), 0 or 1, NaN where missing; or None."""
        if "take_up" not in self.roles:
            return None
        column = self.roles["take_up"]
        return code_treatment(self.units[column], None, self.value_labels.get(column))

    @property
    def groups(self) -> NDArray[Any] | None:
        """Cluster labels, shape (n,), or None."""
        return self._column("cluster")

    @property
    def strata(self) -> NDArray[Any] | None:
        """Stratum labels, shape (n,), or None."""
        return self._column("strata")

    @property
    def weights(self) -> FloatArray | None:
        """Survey weights, shape (n,), or None."""
        return self._numbers("weights")

    @property
    def propensity(self) -> FloatArray | None:
        """Known probability of treatment, shape (n,), or None."""
        constant = self._settings["propensity"]
        if constant is None or isinstance(constant, str):
            return self._numbers("propensity")
        return np.full(len(self), float(constant))

    @property
    def design(self) -> Design:
        """Assignment, clusters, strata, probabilities and weights in one frozen object.

        Raises
        ------
        DataError, TreatmentError
            If a role has missing or impossible values; :meth:`check` reports them all.
        """
        return make_design(
            self.treatment,
            groups=self.groups,
            strata=self.strata,
            sample_weight=self.weights,
            propensity=self.propensity,
            randomised=self.randomised,
        )

    def _column(self, role: str) -> NDArray[Any] | None:
        return self.units[self.roles[role]].to_numpy() if role in self.roles else None

    def _numbers(self, role: str) -> FloatArray | None:
        return numeric_column(self.units[self.roles[role]], role) if role in self.roles else None

    # ------------------------------------------------------------------ counts and places
    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.units)

    @property
    def n_clusters(self) -> int | None:
        """Number of distinct clusters, or None."""
        return None if self.groups is None else int(pd.Series(self.groups).nunique())

    @property
    def crs(self) -> Any:
        """Coordinate reference system of the units (pyproj.CRS), or None."""
        return self.units.crs

    def __len__(self) -> int:
        """Number of units."""
        return len(self.units)

    def sites(self) -> Any:
        """The distinct clusters (distinct places where there is no cluster).

        Returns
        -------
        GeoDataFrame
            Index is the cluster; ``n_units``, ``n_treated``, ``mean_outcome`` and a point: the cluster's
            place if its units share one, otherwise the mean of their places.
        """
        return sites_of(self)

    # ------------------------------------------------------------------ other studies from this one
    def replace(self, **changes: Any) -> Study:
        """A new study with some of the constructor's arguments changed."""
        arguments: dict[str, Any] = {k: v for k, v in self.roles.items() if k not in ("unit", "treatment_date")}
        arguments |= {"covariates": self.covariates, **self._settings, "treatment_date": self._treatment_date()}
        if "propensity" in self.roles:
            arguments["propensity"] = self.roles["propensity"]
        for key in ("units", "imagery", "places", "image_dates", "chip_size_m", "randomised", "name", "citation"):
            arguments[key] = getattr(self, key)
        arguments |= {"licence": self.licence, "description": self.description, "value_labels": self.value_labels}
        if "baseline_outcome" in self.roles:  # it is a covariate by its role
            arguments["covariates"] = tuple(c for c in self.covariates if c != self.roles["baseline_outcome"])
        if "outcome" in changes:  # what the earlier one was called
            arguments |= {"outcome_label": "", "outcome_unit": ""}
        arguments |= changes
        if "unit" in self.roles and self.roles["unit"] in getattr(arguments["units"], "columns", ()):
            arguments.setdefault("unit", self.roles["unit"])
        try:
            return Study(arguments.pop("units"), **arguments)
        except TypeError as error:
            raise ParameterError(str(error).replace("Study.__init__()", "Study"), todo="see help(Study)") from error

    def _treatment_date(self) -> Any:
        return self.roles.get("treatment_date", self.treatment_date)

    def subset(self, mask: ArrayLike) -> Study:
        """The study of the units that a boolean mask of shape (n,), or positions, select.

        A boolean Series is read by its labels, which are those of :attr:`units`, in any order.

        Raises
        ------
        DataError
            If the mask has another length, missing values, or other labels than the units.

        Examples
        --------
        >>> import pandas as pd
        >>> table = pd.DataFrame({"y": [1.0, 2.0, 3.0], "d": [0, 1, 0], "lon": 32.0, "lat": [1.0, 1.1, 1.2]})
        >>> study = Study(table, outcome="y", treatment="d", lon="lon", lat="lat")
        >>> len(study.subset(study.y > 1.5))
        2
        """
        return self.replace(units=self.units.iloc[chosen_rows(mask, self.units.index)])

    def split(self, share: float = 0.5, seed: int = 0) -> tuple[Study, Study]:
        """An analysis half, to choose a model on, and a held-out half, whose results are reported.

        Whole clusters go to one half, within strata and arms; strata in which an arm holds one cluster, such as
        pairs, go as a whole. The names of the halves, which reports show, say which half it is.

        Parameters
        ----------
        share : float
            Share of the clusters that are held out.
        seed : int
            Seed of the draw, which a pre-analysis plan states. The draw does not depend on the order of the rows
            where there are clusters.

        Returns
        -------
        analysis, held_out : tuple of Study

        Raises
        ------
        ParameterError
            If the share is not between 0 and 1.
        DataError
            If a half would be left without a unit of an arm.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> table = pd.DataFrame({"y": np.arange(40.0), "d": np.arange(40) % 2, "lon": 32.0, "lat": 1.0})
        >>> analysis, held_out = Study(table, outcome="y", treatment="d", lon="lon", lat="lat").split(0.5, seed=1)
        >>> held_out
        <Study 'study, held-out half': 20 units, 10 treated and 10 control, 0 covariates, no imagery>
        """
        from causalsat.study.split import split_study

        return split_study(self, share, seed)

    # ------------------------------------------------------------------ check and fit
    def check(self, *, size_m: float | None = None, imagery: bool = True) -> StudyReport:
        """Look for everything that could spoil an analysis, and say what to do about it.

        Parameters
        ----------
        size_m : float, optional
            Side of the chips in metres that the imagery must cover. Default: ``chip_size_m``, or a few pixels.
        imagery : bool, default True
            Whether to read the imagery at the units' places.

        Returns
        -------
        StudyReport
            Prints as a table; ``.ok``, ``.findings``, ``.to_dataframe()``, ``.raise_if_errors()``.
        """
        from causalsat.study.check import check_study

        return check_study(self, size_m=self.chip_size_m if size_m is None else size_m, imagery=imagery)

    def fit(self, model: Any, X: Any = None) -> Any:
        """Fit a model to the study: covariates and places as X, and every role where it belongs.

        Parameters
        ----------
        model : estimator or Pipeline
            An effect estimator, or a Pipeline that ends in one; it is fitted in place. With
            ``missing_outcome="weight"`` it is fitted to respondents with their weights; with a predicted and a
            measured outcome, to the corrected one.
        X : table or array of n rows, optional
            Features to use instead of :attr:`X`. A table with labels has those of :attr:`units`, in any order.

        Returns
        -------
        estimator
            The model, fitted.

        Raises
        ------
        ParameterError
            If the final estimator takes no treatment.
        DataError
            If X has other labels than the units.
        """
        return fit_study(self, model, X)

    # ------------------------------------------------------------------ how it looks
    def facts(self) -> list[str]:
        """Counts in words: units and clusters, arms, covariates, further places, imagery."""
        return facts_of(self)

    def __repr__(self) -> str:
        """One line: units, clusters, arms, covariates, imagery."""
        return one_line(f"<Study {self.name!r}: {', '.join(self.facts())}>")

    def _repr_html_(self) -> str:
        return html_of(self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse: a study does not change."""
        raise AttributeError(f"a Study does not change; use study.replace({name}=...)")


def _positive(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise ParameterError(f"{name}={value!r}", expected="a positive number of metres")
    return float(value)
