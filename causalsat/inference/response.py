r"""Missing outcomes: cross-fitted probabilities of response, and the doubly robust score with the response indicator.

With R whether the outcome is known and ``p_t(X) = P(R = 1 | X, T = t)``, outcomes missing at random given X and T,

``mu1 - mu0 + T R (Y - mu1) / (e p_1) - (1 - T) R (Y - mu0) / ((1 - e) p_0)``

has the conditional effect as its mean, where either mu or e and p are right (Robins, Rotnitzky and Zhao 1994; Bia,
Huber and Lafférs 2024 with cross-fitting).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.warn import warn
from causalsat.design.design import Design, treated_share
from causalsat.exceptions import DataError, OverlapWarning
from causalsat.inference.folds import assign_folds
from causalsat.inference.nuisances import (
    Nuisances,
    crossfit_predictions,
    crossfit_propensity,
    default_outcome_model,
    default_propensity_model,
    out_of_fold_levels,
)

__all__ = ["Response", "response_nuisances", "response_probabilities", "response_scores", "treated_probability"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MIN_RESPONSE = 0.02
MIN_PROPENSITY = 0.01


@dataclass(frozen=True, eq=False)
class Response:
    """Who responded, and the out-of-fold probability that each unit would.

    Attributes
    ----------
    observed : ndarray of bool of shape (n,)
        Units with an outcome.
    p0, p1 : ndarrays of shape (n,)
        Probability of response under control and under treatment, after clipping from below.
    fold : ndarray of int of shape (n,)
        The fold in which the unit was held out.
    clipped : ndarray of bool of shape (n,)
        Units whose probability, under the arm that they are in, was clipped.
    """

    observed: BoolArray
    p0: FloatArray
    p1: FloatArray
    fold: NDArray[np.int64]
    clipped: BoolArray

    def weights(self, treatment: ArrayLike) -> FloatArray:
        """Inverse probability of response of the arm that each unit is in, shape (n,); 0 where it did not respond."""
        own = np.where(np.asarray(treatment) > 0, self.p1, self.p0)
        return np.where(self.observed, 1 / own, 0.0)


def response_probabilities(
    X: ArrayLike,
    observed: ArrayLike,
    design: Design,
    *,
    model: Any = None,
    n_splits: int = 5,
    random_state: Any = 0,
    min_response: float = MIN_RESPONSE,
) -> Response:
    """Cross-fitted probabilities of response in each arm, over folds of whole clusters.

    Parameters
    ----------
    X : array of shape (n, p)
        Features; p may be 0, and then the probabilities are the arms' response rates on the other folds.
    observed : array of bool of shape (n,)
        Units with an outcome.
    design : Design
        Of two arms; its clusters make the folds, its weights enter the fits.
    model : scikit-learn classifier, optional
        Default: ridge-penalised logistic regression on imputed, standardised features, one for each arm.
    n_splits : int
        Number of folds; fewer where an arm has fewer clusters.
    random_state : int or numpy.random.Generator
        Seed of the folds.
    min_response : float
        Probabilities are clipped from below.

    Raises
    ------
    DataError
        If an arm has no unit with an outcome.

    Warns
    -----
    OverlapWarning
        If probabilities of respondents were clipped.

    Examples
    --------
    >>> from causalsat.design import make_design
    >>> rng = np.random.default_rng(0)
    >>> x, t = rng.standard_normal(4000), np.arange(4000) % 2
    >>> seen = rng.random(4000) < 1 / (1 + np.exp(-1 - x * t))
    >>> found = response_probabilities(x[:, None], seen, make_design(t))
    >>> round(float(np.corrcoef(found.p1, 1 / (1 + np.exp(-1 - x)))[0, 1]), 2)
    1.0
    """
    table, seen, t = np.asarray(X, dtype=float), np.asarray(observed, dtype=bool), design.treatment
    for arm in (0, 1):
        if not seen[t == arm].any():
            raise DataError(f"no outcome of the units with treatment {arm}", expected="outcomes in both arms")
    if table.shape[1] == 0:
        table = np.zeros((len(seen), 1))
    n_splits = min(n_splits, *(len(np.unique(design.cluster_codes[t == arm])) for arm in (0, 1)))
    keys = (seen.astype(float), t, *np.nan_to_num(table).T)
    fold = assign_folds(n_splits, np.random.default_rng(random_state), groups=design.clusters, treatment=t, keys=keys)
    learner = default_propensity_model() if model is None else model
    target = seen.astype(float)
    raw = [crossfit_predictions(learner, table, target, fold, design.weights, fitted_on=t == arm) for arm in (0, 1)]
    p0, p1 = (np.clip(values, min_response, 1.0) for values in raw)
    own = np.where(t > 0, raw[1], raw[0])
    clipped = own < min_response
    if (clipped & seen).any():
        warn(
            f"{int((clipped & seen).sum())} respondents had a probability of response below {min_response:g}, which "
            "was raised to it: hardly any unit like them responds, and their outcomes stand for many",
            OverlapWarning,
        )
    return Response(seen, p0, p1, fold, clipped)


def response_nuisances(
    X: ArrayLike, y: ArrayLike, response: Response, design: Design, model: Any = None
) -> Nuisances:
    """Out-of-fold outcomes of all units, fitted on the respondents of other folds, and the probability of treatment.

    Parameters
    ----------
    X : array of shape (n, p)
        Features.
    y : array of shape (n,)
        Outcome, NaN where missing.
    response : Response
        Whose folds are used.
    design : Design
        With a probability of treatment, or of a randomised trial in which each unit has the same chance.
    model : scikit-learn regressor, optional
        As in :func:`causalsat.evaluation.crossfit_nuisances`.
    """
    table, t, fold = np.asarray(X, dtype=float), design.treatment, response.fold
    if table.shape[1] == 0:
        table = np.zeros((len(t), 1))
    outcome = np.where(response.observed, np.asarray(y, dtype=float), 0.0)
    own = response.weights(t)
    weight = own * (1.0 if design.weights is None else design.weights)
    learner = default_outcome_model() if model is None else model
    seen = response.observed
    level = _levels(design, outcome, fold, weight)
    mu0, mu1 = (
        crossfit_predictions(learner, table, outcome, fold, weight, fitted_on=seen & (t == arm), level=level)
        for arm in (0, 1)
    )
    if design.randomised:
        e = treated_probability(design)
    else:
        raw = crossfit_propensity("logistic", table, t, design.clusters, fold, design.weights)
        e = np.clip(raw, MIN_PROPENSITY, 1 - MIN_PROPENSITY)
    return Nuisances(mu0, mu1, e, e * mu1 + (1 - e) * mu0, fold, np.zeros(len(t), dtype=bool))


def treated_probability(design: Design) -> FloatArray:
    """Probability of treatment in a randomised trial, shape (n,): the design's, or the treated share of all clusters.

    Examples
    --------
    >>> from causalsat.design import make_design
    >>> treated_probability(make_design([0, 1, 1, 1]))
    array([0.75, 0.75, 0.75, 0.75])
    """
    if design.probability is not None:
        return design.probability
    one = np.zeros(len(design), dtype=np.int64)
    return np.full(len(design), treated_share(design.treatment, one, design.cluster_codes)[0])


def _levels(design: Design, y: FloatArray, fold: NDArray[np.int64], weight: FloatArray) -> FloatArray | None:
    """Strata's levels among respondents, out of fold; without strata, or for yes/no outcomes, None."""
    from dataclasses import replace

    if design.strata is None or np.isin(y[weight > 0], (0.0, 1.0)).all():
        return None
    return out_of_fold_levels(replace(design, weights=weight), y, fold)


def response_scores(y: ArrayLike, treatment: ArrayLike, nuisances: Nuisances, response: Response) -> FloatArray:
    """Doubly robust score of each unit with the response indicator, shape (n,); the module's text has the formula.

    Parameters
    ----------
    y : array of shape (n,)
        Outcome, NaN where missing.
    treatment : array of shape (n,)
        0/1 treatment.
    nuisances : Nuisances
        From :func:`response_nuisances`.
    response : Response
        From :func:`response_probabilities`.

    Examples
    --------
    >>> half, zero, none = np.full(3, 0.5), np.zeros(3), np.zeros(3, dtype=bool)
    >>> known = Nuisances(zero, zero, half, zero, np.arange(3), none)
    >>> seen = Response(np.array([True, True, False]), half, half, np.arange(3), none)
    >>> response_scores([3.0, 1.0, np.nan], [1, 0, 1], known, seen)
    array([12., -4.,  0.])
    """
    t, nu = np.asarray(treatment, dtype=float), nuisances
    outcome = np.where(response.observed, np.asarray(y, dtype=float), 0.0)
    seen = response.observed.astype(float)
    treated = t * seen * (outcome - nu.mu1) / (nu.propensity * response.p1)
    control = (1 - t) * seen * (outcome - nu.mu0) / ((1 - nu.propensity) * response.p0)
    return np.asarray(nu.mu1 - nu.mu0 + treated - control)
