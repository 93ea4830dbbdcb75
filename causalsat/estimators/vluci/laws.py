"""Laws of what is not observed: noise of a learned shape, alike in the arms or not, and a yes/no confounder.

An unobserved confounder is read from the shape of the outcomes; so is skewed or heavy-tailed noise, and how the
confounder itself is distributed decides which shape it leaves. A normal confounder that chose the treated skews their
outcomes one way and those of the controls the other; a yes/no one gives each arm two lumps of unequal size, which
skews them in the opposite directions. So the laws are learned and averaged over:

* noise of one law in both arms, which can explain skewness that is the same in them;
* noise of a law of its own in each arm, which can explain any shape without a confounder;
* a confounder that is normal, or that is yes or no with a share that is learned.

The shape of noise has three parameters: logit of the second component's weight, its mean in units of the first's sd,
and the log ratio of the sds; whatever they are, the mixture has mean 0 and variance 1. The law of a yes/no confounder
has the logit of the share of yes. The parameters' prior is independent normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import expit

from causalsat.core.inputs import FloatArray
from causalsat.estimators.vluci.likelihood import NORMAL, Law, Link

__all__ = [
    "SHAPE_STARTS",
    "SHARE_STARTS",
    "Laws",
    "components",
    "improve",
    "law_nodes",
    "log_prior",
    "normal_nodes",
    "volume",
    "yes_no",
]

SHAPE_MEAN = (-1.0, 0.0, 0.3)
SHAPE_SD = (1.0, 1.5, 0.5)
SHARE_MEAN, SHARE_SD = 0.0, 1.0
SHAPE_STARTS = (np.array([-1.0, 1.5, 0.4]), np.array([-1.0, -1.5, 0.4]), np.array([-1.0, 0.0, 0.6]))
SHARE_STARTS = (-1.4, 0.0, 1.4)
DIFFERENCE = 1e-4
MAX_SLOPE = 1e6
MAX_STEP = 1.0  # in prior sds


@dataclass(frozen=True, eq=False)
class Laws:
    """Parameters of the laws.

    Attributes
    ----------
    noise : ndarray of shape (a, 3)
        Shape of the noise: a is 0 for normal noise, 1 for a law that the arms share, 2 for one of each arm.
    share : ndarray of shape (b,)
        Logit of the share of yes; b is 0 for a normal confounder.
    """

    noise: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    share: FloatArray = field(default_factory=lambda: np.empty(0))

    @property
    def vector(self) -> FloatArray:
        """All parameters, shape (k,)."""
        return np.concatenate([self.noise.ravel(), self.share])

    @property
    def prior_mean(self) -> FloatArray:
        """Prior means of the parameters, shape (k,)."""
        return np.concatenate([np.tile(SHAPE_MEAN, len(self.noise)), np.full(len(self.share), SHARE_MEAN)])

    @property
    def prior_sd(self) -> FloatArray:
        """Prior standard deviations of the parameters, shape (k,)."""
        return np.concatenate([np.tile(SHAPE_SD, len(self.noise)), np.full(len(self.share), SHARE_SD)])

    def at(self, vector: FloatArray) -> Laws:
        """The same kinds of laws with other parameters (k,)."""
        k = self.noise.size
        return Laws(vector[:k].reshape(-1, 3), vector[k:])

    def apply(self, link: Link) -> Link:
        """A link with these laws."""
        control = components(self.noise[0]) if len(self.noise) else NORMAL
        treated = components(self.noise[1]) if len(self.noise) == 2 else ()
        confounder = yes_no(float(self.share[0])) if len(self.share) else NORMAL
        return replace(link, noise=control, noise_treated=treated, confounder=confounder)


def components(shape: FloatArray) -> Law:
    """Weight, mean and sd of the components for a shape (3,) of noise.

    Examples
    --------
    >>> w, mean, sd = np.array(components(np.array([-1.0, 1.5, 0.4]))).T
    >>> float((w @ mean).round(9)), float((w @ (mean**2 + sd**2)).round(9))
    (0.0, 1.0)
    """
    w = float(expit(shape[0]))
    mean, sd = np.array([0.0, shape[1]]), np.array([1.0, np.exp(shape[2])])
    weights = np.array([1 - w, w])
    mean = mean - weights @ mean
    scale = np.sqrt(weights @ (mean**2 + sd**2))
    rows = np.column_stack([weights, mean / scale, sd / scale])
    return tuple((float(a), float(b), float(c)) for a, b, c in rows)


def yes_no(logit_share: float) -> Law:
    """A confounder that is yes with this share, in units of its standard deviation.

    Examples
    --------
    >>> yes_no(0.0)
    ((0.5, -1.0, 0.0), (0.5, 1.0, 0.0))
    """
    share = float(expit(logit_share))
    odds = float(np.exp(0.5 * logit_share))
    return ((1 - share, -odds, 0.0), (share, 1 / odds, 0.0))


def normal_nodes(d: int) -> tuple[FloatArray, FloatArray]:
    """Points (k, d) and weights (k,) whose average is that over N(0, I): Gauss-Hermite, or axis points for d > 1.

    Exact for cubic functions of L (for d > 1, where they have no products).

    Examples
    --------
    >>> nodes, weights = normal_nodes(2)
    >>> float((weights @ nodes[:, 0] ** 2).round(9)), float(weights.sum().round(9))
    (1.0, 1.0)
    """
    reach = np.sqrt(3.0) if d < 3 else np.sqrt(d)
    nodes = np.concatenate([np.zeros((1, d)), reach * np.eye(d), -reach * np.eye(d)])
    outer = 1 / (2 * reach**2)
    return nodes, np.concatenate([[1 - 2 * d * outer], np.full(2 * d, outer)])


def law_nodes(law: Law) -> tuple[FloatArray, FloatArray]:
    """Points (k, 1) and weights (k,) whose average is that over a law of one dimension.

    Examples
    --------
    >>> nodes, weights = law_nodes(yes_no(1.0))
    >>> len(nodes), float((weights @ nodes)[0].round(9)), float((weights @ nodes**2)[0].round(9))
    (2, 0.0, 1.0)
    """
    normal, share = normal_nodes(1)
    parts = []
    for weight, mean, sd in law:
        parts.append((mean + sd * normal, weight * share) if sd else (np.full((1, 1), mean), np.array([weight])))
    return np.concatenate([nodes for nodes, _ in parts]), np.concatenate([weights for _, weights in parts])


def log_prior(laws: Laws) -> float:
    """Log prior density of the parameters, relative to its highest."""
    return float(-0.5 * (((laws.vector - laws.prior_mean) / laws.prior_sd) ** 2).sum())


def improve(values: Callable[[Laws], FloatArray], weight: FloatArray, laws: Laws) -> tuple[Laws, FloatArray]:
    """One step of scoring (Berndt, Hall, Hall and Hausman 1974) towards the likeliest laws, or none if it fails.

    With the slopes (n, k) of each unit's log-likelihood in the parameters, where the step began.
    """
    here, vector, sd = values(laws), laws.vector, laws.prior_sd
    steps = DIFFERENCE * np.eye(len(vector))
    slopes = np.column_stack([(values(laws.at(vector + step)) - here) / DIFFERENCE for step in steps])
    if not (np.abs(slopes) < MAX_SLOPE).all():  # an outcome without noise has no shape of it
        return laws, np.zeros_like(slopes)
    gradient = weight @ slopes - (vector - laws.prior_mean) / sd**2
    step = np.linalg.solve((weight * slopes.T) @ slopes + np.diag(sd**-2), gradient)
    step *= min(1.0, MAX_STEP / max(float(np.abs(step / sd).max()), 1e-12))
    now = float(weight @ here) + log_prior(laws)
    for size in (1.0, 0.4, 0.1):
        there = laws.at(vector + size * step)
        if weight @ values(there) + log_prior(there) >= now:
            return there, slopes
    return laws, slopes


def volume(slopes: FloatArray, weight: FloatArray, sd: FloatArray) -> float:
    """Log of the share of the prior's volume that the parameters' posterior fills, by Laplace's approximation."""
    if not slopes.shape[1]:
        return 0.0
    scaled = np.eye(len(sd)) + sd[:, None] * ((weight * slopes.T) @ slopes) * sd
    return -0.5 * float(np.linalg.slogdet(scaled)[1])
