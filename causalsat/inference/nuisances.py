"""Cross-fitted nuisance functions and the doubly robust score.

Among them the R-score, which every estimator's ``score`` returns (Nie and Wager 2021, equation 4, as a share).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import FitData, align, align_all, align_outcome, align_rows, labels_of
from causalsat.design.adjustment import balancing_weights, stratum_levels
from causalsat.design.design import Design, make_design, warn_contradicted
from causalsat.exceptions import DataError, DataWarning, IgnoredWarning, OverlapWarning, ParameterError
from causalsat.inference.folds import assign_folds
from causalsat.inference.ridge import ridge_fit, ridge_penalties, ridge_predictions

__all__ = [
    "Nuisances",
    "crossfit_nuisances",
    "crossfit_predictions",
    "crossfit_propensity",
    "default_outcome_model",
    "default_propensity_model",
    "dr_scores",
    "nuisances_of",
    "out_of_fold_levels",
    "predict_mean",
    "warn_clipped",
    "warn_predictable",
    "weight_option",
]


FloatArray = NDArray[np.float64]

PREDICTABLE_R2 = 0.05


@dataclass(frozen=True, eq=False)
class Nuisances:
    """Out-of-fold predictions of the nuisance functions, one value a unit.

    Attributes
    ----------
    mu0, mu1 : ndarray of shape (n,)
        Predicted outcome under control and under treatment, E[Y | X, T = 0] and E[Y | X, T = 1].
    propensity : ndarray of shape (n,)
        Probability of treatment, after clipping.
    m : ndarray of shape (n,)
        Predicted outcome E[Y | X] = e mu1 + (1 - e) mu0.
    fold : ndarray of int of shape (n,)
        The fold in which the unit was held out.
    clipped : ndarray of bool of shape (n,)
        Units whose propensity was clipped.
    index : pandas.Index or None
        Labels of the units, where X, the outcome or the treatment had any: :func:`dr_scores` goes by them.
    """

    mu0: FloatArray
    mu1: FloatArray
    propensity: FloatArray
    m: FloatArray
    fold: NDArray[np.int64]
    clipped: NDArray[np.bool_]
    index: Any = None


def crossfit_nuisances(
    X: Any,
    y: ArrayLike,
    treatment: ArrayLike | str,
    *,
    groups: ArrayLike | str | None = None,
    strata: ArrayLike | str | None = None,
    outcome_model: Any = None,
    propensity_model: Any = None,
    propensity: ArrayLike | float | None = None,
    n_splits: int = 5,
    random_state: Any = 0,
    sample_weight: ArrayLike | str | None = None,
    min_propensity: float = 0.01,
) -> Nuisances:
    """Predict outcomes and treatment of each unit from the clusters of the other folds.

    Parameters
    ----------
    X : array or DataFrame of shape (n, p)
        Features. Missing values are imputed (with indicators) by the default learners and handed as they are
        to a learner of yours.
    y, treatment : array of shape (n,)
        Outcome and 0/1 treatment (or the name of X's column).
    groups : array of shape (n,) or str, optional
        Clusters, which no two folds share.
    strata : array of shape (n,) or str, optional
        Strata within which treatment was randomised. The propensity is then the treated share of the stratum's
        clusters unless it is given or ``propensity_model`` is, and the outcome models see the stratum's level,
        estimated on the other folds.
    outcome_model : scikit-learn estimator, optional
        Cloned and fitted to each arm of each training fold. A classifier's probability of the larger class is
        taken, for 0/1 outcomes. By default ridge regression on standardised features, its penalty chosen by
        leaving out single units: where features are alike within clusters, as image features are, and clusters are
        only some tens, it follows the clusters' noise, and fewer components or a learner with a larger penalty
        give more precise averages.
    propensity_model : {None, "constant", "logistic"} or scikit-learn classifier
        None or ``"constant"``: a randomised trial in which each unit has the same chance, estimated by the
        treated share of the sample (there is a warning if X predicts the treatment out of fold).
        ``"logistic"``: ridge-penalised logistic regression on standardised features.
    propensity : float or array of shape (n,), optional
        Known probability of treatment; ``propensity_model`` is then not used.
    n_splits : int
        Number of folds.
    random_state : int or numpy.random.Generator
        Seed of the folds.
    sample_weight : array of shape (n,), optional
        Survey weights, handed to learners that take them.
    min_propensity : float
        Propensities are clipped to [min_propensity, 1 - min_propensity].

    Returns
    -------
    Nuisances
        Out-of-fold predictions.

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If an input cannot be used, or an arm has fewer clusters than there are folds.

    Warns
    -----
    OverlapWarning
        If propensities were clipped; says how many in each arm.
    DataWarning
        If the treatment is predictable although it was declared constant, or a learner takes no weights.

    References
    ----------
    Chernozhukov et al. (2018), "Double/debiased machine learning for treatment and structural parameters",
    definition 3.2 (cross-fitting).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((400, 2)), rng.permutation(400) % 2
    >>> y = X[:, 0] + t * (1 + X[:, 1]) + 0.1 * rng.standard_normal(400)
    >>> nuisances = crossfit_nuisances(X, y, t)
    >>> bool(np.corrcoef(nuisances.mu1 - nuisances.mu0, X[:, 1])[0, 1] > 0.99)
    True
    >>> round(float(dr_scores(y, t, nuisances).mean()), 1)
    1.0
    """
    if not 0 < min_propensity < 0.5:
        raise ParameterError(f"min_propensity={min_propensity!r}", expected="a number between 0 and 0.5")
    names = {v for v in (treatment, groups, strata, sample_weight) if isinstance(v, str)}
    table = np.ascontiguousarray(inputs.features_only(X, names), dtype=float)
    if table.ndim != 2:
        raise DataError(f"X of shape {table.shape}", expected="a table (unit, feature)")
    n = len(table)
    t = inputs.check_treatment(inputs.column_or_array(X, treatment, "treatment")[0], n, binary=True)
    outcome = inputs.check_outcome(align_outcome(X, y, treatment=treatment, groups=groups), n)
    codes = inputs.check_groups(inputs.column_or_array(X, groups, "groups")[0], n)
    weight = inputs.check_weights(inputs.column_or_array(X, sample_weight, "sample_weight")[0], n)
    blocks = inputs.column_or_array(X, strata, "strata")[0]
    weights = None if sample_weight is None else weight
    stated = align(X, propensity, "propensity")
    design = make_design(t, groups=codes, strata=blocks, sample_weight=weights, propensity=stated)
    warn_contradicted(design)
    known = design.probability if propensity is not None or propensity_model is None else None
    rng = np.random.default_rng(random_state)
    keys = (outcome, t, *np.nan_to_num(table).T)
    fold = assign_folds(n_splits, rng, groups=codes, treatment=t, keys=keys)
    model = default_outcome_model() if outcome_model is None else outcome_model
    level = out_of_fold_levels(design, outcome, fold)
    mu0, mu1 = (
        crossfit_predictions(model, table, outcome, fold, weights, fitted_on=t == arm, level=level) for arm in (0, 1)
    )
    raw = known if known is not None else crossfit_propensity(propensity_model, table, t, codes, fold, weights)
    e = np.clip(raw, min_propensity, 1 - min_propensity)
    clipped = e != raw
    warn_clipped(clipped, t, min_propensity)
    labels = (labels_of(values) for values in (X, y, treatment))
    index = next((own for own in labels if own is not None), None)
    m = e * mu1 + (1 - e) * mu0
    return Nuisances(mu0=mu0, mu1=mu1, propensity=e, m=m, fold=fold, clipped=clipped, index=index)


def nuisances_of(data: FitData, values: FloatArray | None = None, **learners: Any) -> Nuisances:
    """Out-of-fold nuisances of checked data, with all of its roles.

    Parameters
    ----------
    data : FitData
        Features, treatment, clusters, strata, known propensity and weights.
    values : ndarray of shape (n,), optional
        In the place of the outcome, such as take-up.
    **learners
        Models, folds, clipping and seed of :func:`crossfit_nuisances`.
    """
    return crossfit_nuisances(
        data.X,
        data.y if values is None else values,
        data.treatment,
        groups=data.groups,
        strata=data.strata,
        propensity=data.propensity,
        sample_weight=data.sample_weight if data.weighted else None,
        **learners,
    )


def dr_scores(y: ArrayLike, treatment: ArrayLike, nuisances: Nuisances) -> FloatArray:
    r"""Doubly robust score of each unit, shape (n,); its conditional mean is the conditional effect.

    ``mu1 - mu0 + T (Y - mu1) / e - (1 - T)(Y - mu0) / (1 - e)``: unbiased where either the outcome models or
    the propensity are right (Robins, Rotnitzky and Zhao 1994).

    Parameters
    ----------
    y, treatment : array of shape (n,)
        Outcome and 0/1 treatment. With labels (Series) they are put into the order of the units of the nuisances;
        arrays must be in it: nobody can notice an outcome and a treatment that were shuffled together.
    nuisances : Nuisances
        From :func:`crossfit_nuisances`.

    Raises
    ------
    DataError
        If y or treatment have other labels than the nuisances, or another number of units.

    Examples
    --------
    >>> half, zero = np.full(2, 0.5), np.zeros(2)
    >>> known = Nuisances(zero, zero, half, zero, np.arange(2), np.zeros(2, dtype=bool))
    >>> dr_scores([3.0, 1.0], [1, 0], known)
    array([ 6., -2.])
    """
    nu = nuisances
    if nu.index is None:
        given = {"y": y, **align_all(y, {"treatment": treatment}, "y")}
    else:
        given = {role: align_rows(nu.index, own, role, "X") for role, own in (("y", y), ("treatment", treatment))}
    outcome, t = (np.asarray(own, dtype=float) for own in given.values())
    for role, own in (("y", outcome), ("treatment", t)):
        if own.shape != nu.mu0.shape:
            raise DataError(
                f"{role} of shape {own.shape} for nuisances of {len(nu.mu0)} units", expected="one value a unit"
            )
    treated = t * (outcome - nu.mu1) / nu.propensity
    control = (1 - t) * (outcome - nu.mu0) / (1 - nu.propensity)
    return np.asarray(nu.mu1 - nu.mu0 + treated - control)


def default_outcome_model() -> Any:
    """Ridge regression on imputed, standardised features; the penalty is chosen by leave-one-out."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    impute = SimpleImputer(add_indicator=True, keep_empty_features=True)
    return make_pipeline(impute, StandardScaler(), RidgeCV(np.logspace(-2, 5, 15)))


def default_propensity_model() -> Any:
    """Ridge-penalised logistic regression (C = 1) on imputed, standardised features."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    impute = SimpleImputer(add_indicator=True, keep_empty_features=True)
    return make_pipeline(impute, StandardScaler(), LogisticRegression(max_iter=1000))


def crossfit_predictions(
    model: Any,
    X: FloatArray,
    target: FloatArray,
    fold: NDArray[np.int64],
    weight: FloatArray | None,
    fitted_on: NDArray[np.bool_] | None = None,
    level: FloatArray | None = None,
) -> FloatArray:
    """Out-of-fold predictions of a target by clones of a model, fitted on the chosen units of other folds.

    ``level`` (fold, n) is a part of the target that is known without features, for the folds in increasing order.
    """
    from sklearn import config_context
    from sklearn.base import clone

    out = np.empty(len(target))
    penalties = ridge_penalties(model, imputed=True) if np.isfinite(X.sum()) else None  # of nothing missing
    for i, k in enumerate(np.unique(fold)):
        held = fold == k
        train = ~held if fitted_on is None else ~held & fitted_on
        base = np.zeros(len(target)) if level is None else level[i]
        left = target - base
        if np.ptp(left[train]) == 0:
            out[held] = left[train][0] + base[held]
            continue
        own = None if weight is None else weight[train]
        ridge = None if penalties is None else ridge_fit(X[train], left[train], own, penalties)
        if ridge is not None:
            out[held] = ridge.predict(X[held]) + base[held]
            continue
        learner = clone(model)
        with config_context(enable_metadata_routing=False):  # the step's name routes the weights
            learner.fit(X[train], left[train], **weight_option(learner, weight, train))
        out[held] = predict_mean(learner, X[held]) + base[held]
    if not np.isfinite(out).all():
        raise DataError(f"{type(model).__name__} predicts missing or infinite values", expected="finite predictions")
    return out


def out_of_fold_levels(design: Design, y: FloatArray, fold: NDArray[np.int64]) -> FloatArray | None:
    """Level of each unit's stratum from the units of the other folds, (fold, n); None without strata to tell apart.

    Classifiers' outcomes are left as they are.
    """
    if design.strata is None or np.isin(y, (0.0, 1.0)).all():
        return None
    n_strata = int(design.strata.max()) + 1
    out = np.zeros((len(np.unique(fold)), len(y)))
    for i, k in enumerate(np.unique(fold)):
        train = fold != k
        weight = np.ones(len(y)) if design.weights is None else design.weights
        weight = weight * balancing_weights(design)
        level = stratum_levels(y[train], design.take(train), weight[train])
        table = np.zeros(n_strata)
        table[design.strata[train]] = level
        out[i] = table[design.strata]
    return out if np.ptp(out) > 0 else None


def predict_mean(learner: Any, X: FloatArray) -> FloatArray:
    """Predictions of a fitted learner, shape (n,): a classifier's probability of its second class.

    Raises
    ------
    ParameterError
        If it is a classifier of more than two classes, or one without probabilities.
    """
    from sklearn.base import is_classifier

    linear = ridge_predictions(learner, X)
    if linear is not None:
        return linear
    if not is_classifier(learner):
        return np.asarray(learner.predict(X), dtype=float).reshape(len(X))
    if len(learner.classes_) > 2 or not hasattr(learner, "predict_proba"):
        raise ParameterError(
            f"a classifier {type(learner).__name__} with {len(learner.classes_)} classes",
            expected="a binary target and predict_proba; for other outcomes a regressor",
        )
    return np.asarray(learner.predict_proba(X)[:, 1], dtype=float)


def weight_option(learner: Any, weight: FloatArray | None, train: NDArray[np.bool_]) -> dict[str, FloatArray]:
    """Argument by which ``fit`` of a learner, or of a Pipeline's last step, takes the weights of the training units.

    Empty without weights; and, with a warning, for a learner that takes none.
    """
    from sklearn.utils.validation import has_fit_parameter

    if weight is None:
        return {}
    steps = getattr(learner, "steps", None)
    last, prefix = (learner, "") if steps is None else (steps[-1][1], f"{steps[-1][0]}__")
    if not has_fit_parameter(last, "sample_weight"):
        warnings.warn(f"{type(last).__name__} takes no sample_weight: fitted without", IgnoredWarning, stacklevel=4)
        return {}
    return {f"{prefix}sample_weight": weight[train]}


def crossfit_propensity(
    model: Any,
    X: FloatArray,
    t: FloatArray,
    groups: NDArray[np.int64] | None,
    fold: NDArray[np.int64],
    weight: FloatArray | None,
) -> FloatArray:
    """Out-of-fold probabilities of treatment by a model, or the treated share where the trial has one probability."""
    if model is None or model == "constant":
        warn_predictable(X, t, groups, weight)
        return np.full(len(t), np.average(t, weights=weight))
    if isinstance(model, str) and model != "logistic":
        raise ParameterError(
            f"propensity_model={model!r}", expected="None, 'constant', 'logistic' or a scikit-learn classifier"
        )
    learner = default_propensity_model() if isinstance(model, str) else model
    return crossfit_predictions(learner, X, t, fold, weight)


def warn_predictable(
    X: FloatArray, t: FloatArray, groups: NDArray[np.int64] | None, weight: FloatArray | None
) -> None:
    """Warn if features predict the treatment in clusters that the prediction has not seen."""
    w = np.ones(len(t)) if weight is None else weight
    predicted = crossfit_ridge(np.nan_to_num(X), t, w, groups)
    r2 = 1 - np.average((t - predicted) ** 2, weights=w) / np.average((t - np.average(t, weights=w)) ** 2, weights=w)
    n_clusters = len(t) if groups is None else int(groups.max()) + 1
    if r2 > PREDICTABLE_R2 + 2 / n_clusters:
        warnings.warn(
            f"the features predict the treatment (out-of-fold R2 {r2:.2f}), but its probability was taken to be the "
            "same for all units: if the trial was not randomised so, pass propensity= or propensity_model='logistic'",
            DataWarning,
            stacklevel=5,
        )


def warn_clipped(clipped: NDArray[np.bool_], t: FloatArray, bound: float) -> None:
    """Warn of clipped propensities, and in which arms they are."""
    if clipped.any():
        treated = int((clipped & (t > 0)).sum())
        control = int(clipped.sum()) - treated
        warnings.warn(
            f"{treated + control} of {len(t)} propensities lie outside [{bound:g}, {1 - bound:g}] and were clipped "
            f"({treated} treated, {control} control): their effects rest on few comparable units",
            OverlapWarning,
            stacklevel=3,
        )


def crossfit_ridge(
    X: FloatArray, target: FloatArray, weight: FloatArray, groups: NDArray[np.int64] | None, n_splits: int = 5
) -> FloatArray:
    """Out-of-fold ridge predictions of a target, shape (n,); the weighted mean where there are too few units."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, KFold

    n_units = len(target) if groups is None else len(np.unique(groups))
    if n_units < 2 * n_splits:
        return np.full(len(target), np.average(target, weights=weight))
    scale = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    out, penalties = np.empty(len(target)), np.logspace(-2, 5, 15)
    folds = (KFold(n_splits) if groups is None else GroupKFold(n_splits)).split(X, target, groups)
    for train, test in folds:
        model: Any = ridge_fit(Z[train], target[train], weight[train], penalties, standardise=False)
        if model is None:  # more features than units
            model = RidgeCV(penalties).fit(Z[train], target[train], sample_weight=weight[train])
        out[test] = model.predict(Z[test])
    return out


def r_score(
    tau: FloatArray, y_residual: FloatArray, t_residual: FloatArray, weight: FloatArray | None = None
) -> float:
    r"""Share of the R-loss of a constant effect that the effects remove.

    ``1 - sum w (y~ - t~ tau)^2 / sum w (y~ - t~ c)^2`` with c the best constant effect of these units:
    0 for the best constant, positive where the heterogeneity is real, unbounded below.

    Parameters
    ----------
    tau : ndarray of shape (n,)
        Predicted effects.
    y_residual, t_residual : ndarray of shape (n,)
        Outcome and treatment less their conditional means.
    weight : ndarray of shape (n,), optional
        Weights.

    Examples
    --------
    >>> import numpy as np
    >>> t, tau = np.array([-0.5, 0.5, -0.5, 0.5]), np.array([0.0, 0.0, 2.0, 2.0])
    >>> float(r_score(tau, t * tau, t)), float(r_score(np.ones(4), t * tau, t))
    (1.0, 0.0)
    """
    w = np.ones_like(tau) if weight is None else weight
    denominator = float((w * t_residual**2).sum())
    if denominator <= 0:
        return float("nan")
    constant = float((w * t_residual * y_residual).sum()) / denominator
    loss = float((w * (y_residual - t_residual * tau) ** 2).sum())
    reference = float((w * (y_residual - t_residual * constant) ** 2).sum())
    return float("nan") if reference <= 0 else 1.0 - loss / reference
