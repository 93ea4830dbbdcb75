"""Observational studies of which a confounder was never measured, with a known effect."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ParameterError

__all__ = ["HiddenConfounding", "hidden_confounding"]

FloatArray = NDArray[np.float64]

KINDS = ("binary", "dose")
OUTCOMES = ("continuous", "binary")


@dataclass(frozen=True, eq=False)
class HiddenConfounding:
    """Units with covariates, a treatment, an outcome, and a confounder that a model never sees.

    Attributes
    ----------
    X : ndarray of shape (n, p)
        Observed covariates.
    treatment, outcome : ndarray of shape (n,)
        Treatment (0.0 or 1.0, or a dose) and outcome.
    confounder : ndarray of shape (n, d)
        The unobserved confounder L.
    tau : ndarray of shape (n,)
        Effect of treatment 1 against 0 for each unit, given X and L.
    tau_x : ndarray of shape (n,)
        Its mean given X alone.
    link : ndarray of shape (d,)
        Coefficients of L in the treatment (logit of its probability, or the dose itself).
    """

    X: FloatArray = field(repr=False)
    treatment: FloatArray = field(repr=False)
    outcome: FloatArray = field(repr=False)
    confounder: FloatArray = field(repr=False)
    tau: FloatArray = field(repr=False)
    tau_x: FloatArray = field(repr=False)
    link: FloatArray = field(repr=False)


def hidden_confounding(
    n: int = 2000,
    *,
    n_latents: int = 1,
    strength: float = 1.0,
    observed: float = 1.0,
    n_features: int = 10,
    treatment: str = "binary",
    outcome: str = "continuous",
    correlation: float = 0.0,
    randomised: bool = False,
    seed: int = 0,
) -> HiddenConfounding:
    r"""Draw a study with unobserved confounding.

    X ~ N(0, I), L ~ N(0, I_d), T ~ Bernoulli(sigmoid(a'X + b'L)) and

    .. math:: Y = g(X) + T (1 + X_0 / 2 + L_0 / 2) + c'L + e, \quad e \sim N(0, 1)

    with g(X) = X_0 + X_1^2 / 2 + sin(2 X_2) + X_3 X_4 / 2, a random direction a of length ``observed``, b of length
    ``strength`` with equal entries and c of length ``strength`` with entries that halve from one to the next.

    Parameters
    ----------
    n : int
        Units.
    n_latents : int
        Dimension d of L.
    strength : float
        Length of b and of c; 0 for no unobserved confounder at all (then L does not modify the effect either).
    observed : float
        Length of a: how strongly X moves the treatment. What shapes can say of L grows with it.
    n_features : int
        Covariates, at least 5.
    treatment : {"binary", "dose"}
        A dose is a'X + b'L + N(0, 1).
    outcome : {"continuous", "binary"}
        A binary outcome is Bernoulli with that linear predictor as its logit; effects are differences of
        probabilities.
    correlation : float
        Correlation of L_0 with X_0: not 0 breaks what VLUCI assumes.
    randomised : bool
        Treatment by the toss of a coin (b = a = 0): L moves the outcome, and is no confounder.
    seed : int
        Seed.

    Raises
    ------
    ParameterError
        If an argument lies outside its domain.

    Examples
    --------
    >>> world = hidden_confounding(5000, strength=2.0, seed=0)
    >>> t, y = world.treatment, world.outcome
    >>> float(world.tau.mean()) < 1.2 and float(y[t == 1].mean() - y[t == 0].mean()) > 2
    True
    """
    if treatment not in KINDS or outcome not in OUTCOMES:
        raise ParameterError(f"treatment={treatment!r}, outcome={outcome!r}", expected=f"one of {KINDS}, {OUTCOMES}")
    if n < 1 or n_latents < 1 or n_features < 5 or strength < 0 or not -1 < correlation < 1:
        raise ParameterError(
            f"n={n}, n_latents={n_latents}, n_features={n_features}, strength={strength}, correlation={correlation}",
            expected="positive numbers, at least 5 features, a correlation between -1 and 1",
        )
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n_features))
    L = rng.standard_normal((n, n_latents))
    L[:, 0] = correlation * X[:, 0] + np.sqrt(1 - correlation**2) * L[:, 0]
    a = rng.standard_normal(n_features)
    a *= observed / np.linalg.norm(a)
    c: FloatArray = np.power(0.5, np.arange(n_latents)).astype(np.float64)
    c *= strength / np.linalg.norm(c)
    b = np.full(n_latents, strength / np.sqrt(n_latents))
    if randomised:
        a, b = 0 * a, 0 * b
    t = _assign(X @ a + L @ b, treatment, rng)
    g = X[:, 0] + 0.5 * X[:, 1] ** 2 + np.sin(2 * X[:, 2]) + 0.5 * X[:, 3] * X[:, 4]
    modified = 0.5 if strength > 0 else 0.0
    slope = 1.0 + 0.5 * X[:, 0] + modified * L[:, 0]
    if outcome == "continuous":
        y = g + t * slope + L @ c + rng.standard_normal(n)
        tau_x = 1.0 + (0.5 + modified * correlation) * X[:, 0]
        return HiddenConfounding(X, t, y, L, slope, tau_x, b)
    low, high = _sigmoid(g + L @ c), _sigmoid(g + slope + L @ c)
    y = (rng.random(n) < _sigmoid(g + t * slope + L @ c)).astype(float)
    tau_x = _mean_contrast(g, 1.0 + 0.5 * X[:, 0], c, modified, correlation * X[:, 0], correlation)
    return HiddenConfounding(X, t, y, L, high - low, tau_x, b)


def _assign(predictor: FloatArray, kind: str, rng: np.random.Generator) -> FloatArray:
    if kind == "dose":
        return predictor + rng.standard_normal(len(predictor))
    return (rng.random(len(predictor)) < _sigmoid(predictor)).astype(float)


def _sigmoid(v: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(v))


def _mean_contrast(
    g: FloatArray, slope: FloatArray, c: FloatArray, modified: float, mean: FloatArray, correlation: float
) -> FloatArray:
    """Mean over L given X of the difference of probabilities, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    spread = np.sqrt(1 - correlation**2)
    rest = float(c[1:] @ c[1:])
    means = []
    for loading, shift in ((c[0], 0.0), (c[0] + modified, 1.0)):
        sd = np.sqrt((loading * spread) ** 2 + rest)
        eta = (g + shift * slope + loading * mean)[:, None] + sd * nodes
        means.append(_sigmoid(eta) @ weights)
    return np.asarray(means[1] - means[0])
