"""Effects of each unit from models that did not see its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.base import effect
from causalsat.core import inputs
from causalsat.core.inputs import aligned, take
from causalsat.core.progress import bar as progress_bar
from causalsat.core.svg import histogram_svg
from causalsat.core.tables import Tabular
from causalsat.design import Design, make_design
from causalsat.design.design import roles_of
from causalsat.evaluation import checks
from causalsat.exceptions import DataError
from causalsat.inference.folds import fold_labels, split_folds

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CrossfitEffects", "crossfit_effects"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CrossfitEffects(Tabular):
    """Out-of-fold posterior effects, one value a unit.

    Attributes
    ----------
    tau, sd : ndarray of shape (n,)
        Posterior mean and standard deviation of the effect, by the model that did not see the unit's fold.
    lower, upper : ndarray of shape (n,)
        Bounds of the credible interval.
    level : float
        Level of that interval.
    fold : ndarray of int of shape (n,)
        The fold in which the unit was held out.
    index : ndarray of shape (n,)
        Labels of the units.
    models : tuple
        The fitted model of each fold, where asked for.
    """

    tau: FloatArray
    sd: FloatArray
    lower: FloatArray
    upper: FloatArray
    level: float
    fold: IntArray
    index: NDArray[Any]
    models: tuple[Any, ...] = ()

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.tau)

    def within_fold_rank(self, weights: ArrayLike | None = None) -> FloatArray:
        """Rank of each effect in its fold, shape (n,), in (0, 1): a priority that is comparable over folds."""
        return checks.within_fold_rank(self.tau, self.fold, checks.weights(weights, len(self)))

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row a unit: tau, sd, lower, upper, fold."""
        import pandas as pd

        columns = {"tau": self.tau, "sd": self.sd, "lower": self.lower, "upper": self.upper, "fold": self.fold}
        return pd.DataFrame(columns, index=pd.Index(self.index, name="unit"))

    def _picture(self) -> str:
        return histogram_svg(self.tau, title="Out-of-fold effects of the units", axis="effect", mark=0.0)


@dataclass(frozen=True)
class _Roles:
    """What goes to fit beside X and y: arrays, or names of X's columns for an estimator that takes X itself."""

    arrays: dict[str, NDArray[Any]]
    names: dict[str, str]

    def options(self, rows: IntArray, prefix: str) -> dict[str, Any]:
        if prefix:  # a Pipeline's last step does not see X's own columns
            return {f"{prefix}{role}": values[rows] for role, values in self.arrays.items()}
        return {role: self.names.get(role, values[rows]) for role, values in self.arrays.items()}


@aligned("X", "y", "treatment", "groups", "strata", "sample_weight", "propensity")
def crossfit_effects(
    model: Any,
    X: Any,
    y: ArrayLike,
    *,
    treatment: ArrayLike | str | None = None,
    groups: ArrayLike | str | None = None,
    strata: ArrayLike | str | None = None,
    cv: Any = 5,
    random_state: Any = 0,
    sample_weight: ArrayLike | str | None = None,
    propensity: ArrayLike | str | float | None = None,
    design: Design | None = None,
    level: float = 0.9,
    n_jobs: int = 1,
    progress: bool = True,
    return_models: bool = False,
) -> CrossfitEffects:
    """Fit clones of a model on all folds but one and predict the effects of that one.

    Parameters
    ----------
    model : EffectEstimator or Pipeline that ends in one
        Cloned for each fold. Every step of a Pipeline, encoders included, is fitted on the training folds only.
    X : array, DataFrame, GeoDataFrame or DataArray of shape (n, ...)
        Units.
    y : array of shape (n,)
        Outcome.
    treatment, groups, strata, sample_weight, propensity : array of shape (n,) or name of X's column
        As in the estimators' ``fit``; groups also keep the folds from splitting a cluster. The probabilities that
        strata imply are those of all units, also where a fold leaves a stratum one arm.
    cv : int or scikit-learn splitter
        Number of folds, stratified by the clusters' arm and balanced in units; or an object with
        ``split(X, y, groups)`` whose test folds cover each unit once, such as :class:`SpatialBlockCV`. Models are
        fitted on the training rows that it gives, which may leave a buffer out.
    random_state : int or numpy.random.Generator
        Seed of the folds, where cv is a number. The folds do not depend on the order of the rows if groups are
        given.
    design : Design, optional
        All of these roles in one object, such as ``study.design``.
    level : float
        Level of the intervals.
    n_jobs : int
        Folds fitted at once (joblib processes).
    progress : bool
        Show a bar.
    return_models : bool
        Keep the fitted models.

    Returns
    -------
    CrossfitEffects
        Effects, intervals, folds.

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If an input cannot be used, or the splitter's test folds do not partition the units.

    Examples
    --------
    >>> from causalsat import DoublyRobustEffect
    >>> rng = np.random.default_rng(0)
    >>> X, village = rng.standard_normal((600, 2)), np.repeat(np.arange(60), 10)
    >>> t = (rng.permutation(60) % 2)[village]
    >>> y = t * (1 + X[:, 0]) + 0.5 * rng.standard_normal(600)
    >>> effects = crossfit_effects(DoublyRobustEffect(), X, y, treatment=t, groups=village, progress=False)
    >>> bool(np.corrcoef(effects.tau, X[:, 0])[0, 1] > 0.95)
    True
    """
    level = checks.level(level)
    index = inputs.unit_index(X)
    n = len(index)
    outcome = inputs.check_outcome(y, n)
    given = {"treatment": treatment, "groups": groups, "strata": strata}
    given |= {"sample_weight": sample_weight, "propensity": propensity}
    roles = _resolve(X, n, roles_of(design, given))
    splits = _splits(cv, X, outcome, roles, random_state)
    runs = _run(splits, model, X, outcome, roles, level, n_jobs, progress, return_models)
    out = np.empty((4, n))
    models = []
    for (_, test), (summary, fitted) in zip(splits, runs, strict=True):
        out[:, test] = summary
        models.append(fitted)
    tau, sd, lower, upper = out
    kept = tuple(models) if return_models else ()
    return CrossfitEffects(tau, sd, lower, upper, level, fold_labels(splits), index, kept)


def _resolve(X: Any, n: int, given: dict[str, Any]) -> _Roles:
    arrays: dict[str, NDArray[Any]] = {}
    names: dict[str, str] = {}
    for role, value in given.items():
        values, name = inputs.column_or_array(X, value, role)
        if name is not None:
            names[role] = name
        if values is None:
            continue
        array = np.asarray(values)
        if role == "propensity" and array.ndim == 0:
            array = np.full(n, float(array))
        if array.shape != (n,):
            raise DataError(f"{role} of shape {array.shape} for {n} units", expected="one value a unit")
        arrays[role] = array
    arrays["treatment"] = inputs.check_treatment(arrays.get("treatment"), n, binary=False)
    codes = inputs.check_groups(arrays.get("groups"), n)
    if "strata" in arrays:
        t, known = arrays["treatment"], arrays.get("propensity")
        probability = make_design(t, groups=codes, strata=arrays["strata"], propensity=known).probability
        if probability is not None:
            arrays["propensity"] = probability
            names.pop("propensity", None)
    return _Roles(arrays, names)


def _splits(cv: Any, X: Any, y: FloatArray, roles: _Roles, random_state: Any) -> list[tuple[IntArray, IntArray]]:
    groups, t = roles.arrays.get("groups"), roles.arrays["treatment"]
    return split_folds(
        cv,
        X,
        y,
        (t > t.min()).astype(float) if isinstance(cv, int | np.integer) else t,
        groups=groups,
        codes=None if groups is None else checks.codes(groups, len(y)),
        rng=np.random.default_rng(random_state),
    )


def _run(
    splits: list[tuple[IntArray, IntArray]],
    model: Any,
    X: Any,
    y: FloatArray,
    roles: _Roles,
    level: float,
    n_jobs: int,
    progress: bool,
    keep: bool,
) -> list[tuple[FloatArray, Any]]:
    bar: dict[str, Any] = {"total": len(splits), "desc": "folds", "unit": "fold", "show": progress}
    calls = ((model, X, y, roles, train, test, level, keep) for train, test in splits)
    if n_jobs == 1:
        return [_fit_fold(*call) for call in progress_bar(calls, **bar)]
    from joblib import Parallel, delayed

    runs = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(_fit_fold)(*call) for call in calls)
    return list(progress_bar(runs, **bar))


def _fit_fold(
    model: Any, X: Any, y: FloatArray, roles: _Roles, train: IntArray, test: IntArray, level: float, keep: bool
) -> tuple[FloatArray, Any]:
    import sklearn
    from sklearn.base import clone

    steps = getattr(model, "steps", None)
    prefix = "" if steps is None else f"{steps[-1][0]}__"
    fitted = clone(model)
    options = roles.options(train, prefix)
    for name, step in (steps or [])[:-1]:
        if getattr(step, "requests_roles", False):  # an encoder that is trained on outcomes
            options |= {f"{name}__{k}": v[train] for k, v in roles.arrays.items() if k in ("treatment", "groups")}
    with sklearn.config_context(enable_metadata_routing=False):  # roles are named in full: nothing is to be routed
        fitted.fit(take(X, train), y[train], **options)
        post = effect(fitted, take(X, test))
    summary = np.stack([post.mean(), post.sd(), *post.interval(level).T])
    return summary, fitted if keep else None
