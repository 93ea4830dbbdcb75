r"""Families of outcomes other than normal: yes/no outcomes and counts, on the predictor eta of a member's head.

::

    bernoulli           P(y = 1) = sigmoid(eta)
    negative_binomial   E y = mu = exp(eta),  var y = mu + d^2 mu^2

Both likelihoods are logistic in psi = eta - log r, with r = 1 / d^2 for counts and log r = 0 for yes/no outcomes:

.. math:: \log p(y) = c(y) + \kappa \psi - b \log(2 \cosh(\psi / 2)),

with b = 1 and kappa = y - 1/2 for yes/no outcomes, b = y + r and kappa = (y - r) / 2 for counts. The last term has a
bound that is quadratic in psi and tight at psi = xi (Jaakkola and Jordan 2000), under which the coefficients are
integrated out in training as those of a normal outcome are; the posterior at the end is Laplace's approximation.

References
----------
Jaakkola, T. and Jordan, M. (2000). Bayesian parameter estimation via variational methods. Statistics and Computing
10(1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln

from causalsat.core.inputs import FloatArray
from causalsat.exceptions import DataError

__all__ = [
    "FAMILIES",
    "MIN_DISPERSION",
    "Family",
    "check_outcome",
    "information",
    "likeliest_village",
    "log_likelihood",
    "mean_outcome",
    "predictor_of_mean",
    "resolve",
]

FAMILIES = ("auto", "gaussian", "bernoulli", "negative_binomial")
MAX_COUNT = 1_000_000
MIN_DISPERSION = 0.03  # d of counts: r is at most some 1,000, where they are Poisson
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)  # for averages over villages
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()
MAX_PREDICTOR = 700.0


@dataclass(frozen=True)
class Family:
    """A family, and the dispersion d of counts.

    Attributes
    ----------
    name : {"gaussian", "bernoulli", "negative_binomial"}
    dispersion : float
    """

    name: str
    dispersion: float = 1.0

    @property
    def log_size(self) -> float:
        """Log of r: 0 for yes/no outcomes."""
        return -2.0 * float(np.log(self.dispersion)) if self.name == "negative_binomial" else 0.0

    def weights(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """B and kappa of each outcome, each (n,)."""
        if self.name == "bernoulli":
            return np.ones_like(y), y - 0.5
        r = np.exp(self.log_size)
        return y + r, 0.5 * (y - r)


def resolve(family: str, y: FloatArray) -> str:
    """The family of an outcome: "auto" is bernoulli where it is 0 and 1, else gaussian.

    Examples
    --------
    >>> resolve("auto", np.array([0.0, 1.0, 1.0])), resolve("auto", np.array([0.0, 1.0, 2.0]))
    ('bernoulli', 'gaussian')
    """
    if family != "auto":
        return family
    return "bernoulli" if np.array_equal(np.unique(y), (0.0, 1.0)) else "gaussian"


def check_outcome(y: FloatArray, family: str) -> None:
    """Refuse an outcome that the family cannot have.

    Raises
    ------
    DataError
        If yes/no outcomes are not 0 and 1, both of which occur, or counts are not whole numbers of at least 0.
    """
    shown = f"an outcome with values from {y.min():g} to {y.max():g} for family={family!r}"
    if family == "bernoulli" and not np.array_equal(np.unique(y), (0.0, 1.0)):
        raise DataError(shown, expected="0 and 1, and both of them", todo="code yes as 1 and no as 0")
    if family == "negative_binomial":
        if (y < 0).any() or (y != np.floor(y)).any() or y.max() > MAX_COUNT:
            raise DataError(
                shown,
                expected=f"counts 0, 1, 2, ... up to {MAX_COUNT:,}",
                todo="family='gaussian' for amounts and scores",
            )
        if y.max() == 0:
            raise DataError("counts that are all zero", expected="some events", todo="collect more units")


def predictor_of_mean(y: FloatArray, weight: FloatArray, family: str) -> float:
    """The predictor at which the mean outcome is that of the units."""
    mean = float(np.average(y, weights=weight))
    if family == "bernoulli":
        mean = min(max(mean, 1e-6), 1 - 1e-6)
        return float(np.log(mean / (1 - mean)))
    return float(np.log(max(mean, 1e-12)))


def mean_outcome(eta: FloatArray, village: float, family: str) -> FloatArray:
    """Mean outcome at predictors of any shape, over villages whose effects on it have that standard deviation.

    Examples
    --------
    >>> mean_outcome(np.array([0.0, 2.0]), 0.0, "bernoulli").round(3)
    array([0.5  , 0.881])
    >>> mean_outcome(np.array([0.0]), 1.0, "negative_binomial").round(3)  # of a lognormal
    array([1.649])
    """
    if family == "gaussian":
        return eta
    if family == "negative_binomial":
        return np.exp(np.clip(eta + 0.5 * village**2, -MAX_PREDICTOR, MAX_PREDICTOR))
    if village < 1e-3:
        return np.asarray(expit(eta))
    out = np.zeros_like(eta)
    for node, weight in zip(NODES, NODE_WEIGHTS, strict=True):
        out += weight * expit(eta + village * node)
    return out


def log_likelihood(y: FloatArray, eta: FloatArray, family: Family) -> FloatArray:
    """Log probability of each outcome at its predictor; arrays that broadcast.

    Examples
    --------
    >>> log_likelihood(np.ones(1), np.zeros(1), Family("bernoulli")).round(3)
    array([-0.693])
    """
    if family.name == "bernoulli":
        return np.asarray(y * eta - np.logaddexp(0.0, eta))
    r, psi = np.exp(family.log_size), eta - family.log_size
    constant = gammaln(y + r) - gammaln(r) - gammaln(y + 1)
    return np.asarray(constant + y * psi - (y + r) * np.logaddexp(0.0, psi))


def information(eta: FloatArray, y: FloatArray, family: Family) -> tuple[FloatArray, FloatArray]:
    """Expected information of each outcome in its predictor, and the score; each (n,)."""
    p = expit(eta - family.log_size)
    b, _ = family.weights(y)
    if family.name == "bernoulli":
        return np.maximum(p * (1 - p), 1e-10), y - p
    r = np.exp(family.log_size)
    return np.maximum(r * p, 1e-10), y - b * p


def likeliest_village(
    y: FloatArray, eta: FloatArray, weight: FloatArray, groups: NDArray[np.int64] | None, family: str
) -> tuple[Family, float]:
    """Dispersion of counts and standard deviation of villages that make outcomes likeliest given held-out predictors.

    Villages are integrated over by quadrature.

    Parameters
    ----------
    y, eta, weight : ndarray of shape (n,)
        Outcomes, predictors by members that did not see the unit, weights.
    groups : ndarray of int of shape (n,) or None
        Villages.
    family : {"bernoulli", "negative_binomial"}
    """
    from scipy.optimize import minimize

    counts = family == "negative_binomial"
    n_groups = 0 if groups is None else int(groups.max()) + 1

    def loss(theta: FloatArray) -> float:
        one = Family(family, float(np.exp(theta[0]))) if counts else Family(family)
        if groups is None:
            return -float(weight @ log_likelihood(y, eta, one))
        spread = float(np.exp(theta[-1]))
        by_node = np.empty((len(NODES), n_groups))
        for k, node in enumerate(NODES):
            by_node[k] = np.bincount(groups, weight * log_likelihood(y, eta + spread * node, one), n_groups)
        return -float(np.logaddexp.reduce(by_node + np.log(NODE_WEIGHTS)[:, None], axis=0).sum())

    start = [*([np.log(0.5)] if counts else []), *([np.log(0.5)] if groups is not None else [])]
    if not start:
        return Family(family), 0.0
    bounds = [*([(np.log(MIN_DISPERSION), np.log(30.0))] if counts else [])]
    bounds += [(np.log(1e-3), np.log(5.0))] if groups is not None else []
    best = minimize(loss, np.array(start), method="L-BFGS-B", bounds=bounds).x
    chosen = Family(family, float(np.exp(best[0]))) if counts else Family(family)
    return chosen, float(np.exp(best[-1])) if groups is not None else 0.0
