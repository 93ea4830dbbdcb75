"""Likelihood region of the average effect over strengths of confounding: no prior of the strength in it.

At a strength s the latent model's average effect is about N(ate(s), sd(s)^2), and the likelihood of the strength,
with all else integrated out, is its evidence. So

    l(psi) = max over s of [evidence(s) - (psi - ate(s))^2 / (2 sd(s)^2)]

is the profile log-likelihood of the average effect psi, no confounding being one of the strengths. A strength has
three unknowns (the link to the treatment, and to the outcome in each arm), and without confounding two of them mean
nothing, so that the best of all strengths lies further above the true one than one degree of freedom allows. The
region therefore holds the psi whose l is within half the chi-squared quantile of three degrees of freedom of the
highest: the projection of the joint region of all three (Scheffe 1953). Where strengths are hardly told apart, all
are in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalsat.core.inputs import FloatArray

__all__ = ["LikelihoodRegion", "likelihood_region"]

UNKNOWNS = 3


@dataclass(frozen=True)
class LikelihoodRegion:
    """Average effect at the likeliest strength, and the ends of the region, in the units of the outcome.

    ``none`` is whether no confounding is among the strengths that the data bear.
    """

    estimate: float
    lower: float
    upper: float
    none: bool


def likelihood_region(
    ate: FloatArray, sd: FloatArray, evidence: FloatArray, level: float, unknowns: int = UNKNOWNS
) -> LikelihoodRegion:
    """Region from strengths, of which the first is no confounding.

    Parameters
    ----------
    ate, sd, evidence : ndarray of shape (k,)
        Average effect at each strength, its standard deviation, and log evidence.
    level : float
        Of the region.
    unknowns : int
        Degrees of freedom.

    Examples
    --------
    With one degree of freedom, one strength is a normal interval; two that the data do not tell apart are both in.

    >>> one = likelihood_region(np.zeros(1), np.ones(1), np.zeros(1), 0.9, 1)
    >>> round(one.lower, 2), round(one.upper, 2)
    (-1.64, 1.64)
    >>> two = likelihood_region(np.array([0.0, 5.0]), np.ones(2), np.zeros(2), 0.9, 1)
    >>> round(two.lower, 2), round(two.upper, 2)
    (-1.64, 6.64)
    """
    from scipy.stats import chi2

    best = int(np.argmax(evidence))
    slack = 0.5 * float(chi2.ppf(level, unknowns)) - (evidence[best] - evidence)  # left to a strength's own normal
    inside = slack >= 0
    half = sd[inside] * np.sqrt(2.0 * slack[inside])
    low, high = float((ate[inside] - half).min()), float((ate[inside] + half).max())
    return LikelihoodRegion(float(ate[best]), low, high, bool(inside[0]))
