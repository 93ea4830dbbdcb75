"""The number of types: a randomisation test that images tell effects apart, and held-out density of 1, 2, ... types.

Types can be found where no image tells effects apart: the noise is not normal, or places differ for reasons that no
image shows. So more than one type needs a signature that only effects can leave: that probabilities which follow the
image fit better than constant ones, by more than under treatments drawn anew as the trial drew its own. The test
decides between one type and more; held-out density decides how many more, and the weights of the average over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from causalsat.core.warn import warn
from causalsat.estimators.clusters import density
from causalsat.estimators.clusters.density import Cells, Prior
from causalsat.estimators.clusters.posterior import climb, find_mode, laplace_draws
from causalsat.exceptions import DataWarning

__all__ = ["Selection", "choose", "held_out_density", "image_gain", "randomisation_p_value", "select", "weights"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_PREDICTIVE = 400  # draws over which a predictive density is averaged
LEVEL = 0.05  # of the randomisation test
MIN_LEAD = (
    3.0  # log predictive density by which a larger number must lead: less is no strong evidence (Kass, Raftery)
)
N_BOOTSTRAP = 1000  # Bayesian bootstraps of the sites, for the weights
MIN_WEIGHT = 0.1  # a number of types with less is left out of the average


@dataclass(frozen=True)
class Selection:
    """Held-out log predictive density of each number of clusters, and the test that images tell effects apart.

    Attributes
    ----------
    n_clusters : tuple of int
        Candidates.
    gain : ndarray of shape (candidates,)
        Log predictive density of all held-out sites, less that of one cluster.
    se : ndarray of shape (candidates,)
        Standard error of the gain, over sites.
    chosen : int
        The number chosen.
    p_value : float
        Of the randomisation test; NaN where it was not needed, since no number had a higher density than one.
    weights : dict of int to float
        Weights of the numbers of clusters in the average over them; the chosen one is among them.
    """

    n_clusters: tuple[int, ...]
    gain: FloatArray
    se: FloatArray
    chosen: int
    p_value: float = float("nan")
    weights: dict[int, float] = field(default_factory=dict)


def randomisation_p_value(observed: float, draw: Callable[[], float], n_draws: int, *, level: float = LEVEL) -> float:
    """Share of statistics under the null hypothesis that reach the observed one, the observed one counted.

    Parameters
    ----------
    observed : float
        Statistic of the data.
    draw : callable
        Gives a statistic under the null hypothesis.
    n_draws : int
        Most draws.
    level : float
        The p-value is exact up to it; beyond it drawing stops, and the p-value is that of the draws until then (Besag
        and Clifford 1991).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> randomisation_p_value(9.0, rng.standard_normal, 99), randomisation_p_value(-9.0, rng.standard_normal, 99)
    (0.01, 1.0)
    """
    reached = 0
    for i in range(1, n_draws + 1):
        reached += draw() >= observed - 1e-9
        if 1 + reached > level * (1 + n_draws):
            return (1 + reached) / (1 + i)
    return (1 + reached) / (1 + n_draws)


def image_gain(cells: Cells, features: FloatArray, prior: Prior, rng: np.random.Generator, n_restarts: int) -> float:
    """Height of the posterior mode with two types that follow the image, over that with two that do not.

    What two types gain from the shape of the outcome, or from places that differ for reasons that no image shows,
    they gain in both. The search for the first starts at the second too, so that it is at least 0.
    """
    unmoved = replace(prior, by_image=False)
    constant, low = find_mode(cells, features, unmoved, 2, rng, n_restarts)
    followed = find_mode(cells, features, prior, 2, rng, n_restarts)[1]
    return max(followed, climb(constant, cells, features, prior, 2)[1]) - low


def select(
    cells: Cells,
    features: FloatArray,
    prior: Prior,
    fold: IntArray,
    redraw: Callable[[np.random.Generator], Cells],
    *,
    max_clusters: int,
    margin: float,
    n_permutations: int,
    n_restarts: int,
    seed: int,
) -> Selection:
    """Held-out log predictive density of 1, 2, ... clusters, until two in a row are no better; and the choice.

    One is chosen unless another number has a higher density and the randomisation test rejects that images do not
    tell effects apart; then it is the smallest number of at least two within the margin of the best.

    Parameters
    ----------
    cells : Cells
        Outcomes.
    features : ndarray of shape (m, d)
        Features of the images.
    prior : Prior
        Scales.
    fold : ndarray of int of shape (m,)
        Fold of each image.
    redraw : callable
        Gives, from a generator, the cells under another assignment of the treatment with the same effect for all.
    max_clusters : int
        Largest number tried.
    margin : float
        Standard errors within which a smaller number is taken for the best.
    n_permutations : int
        Most assignments of the randomisation test; 0 for none: one is then a candidate like the others.
    n_restarts, seed : int
        Starts of the search for each mode, and the seed of the search.
    """
    if len(np.unique(fold)) < 2:
        warn("too few sites to hold any out: one cluster, no heterogeneity, is assumed", DataWarning)
        return Selection((1,), np.zeros(1), np.zeros(1), 1, weights={1: 1.0})
    site_fold = fold[cells.image[cells.start[:-1]]]
    densities: list[FloatArray] = []
    for k in range(1, max_clusters + 1):
        densities.append(held_out_density(cells, features, prior, k, site_fold, n_restarts=n_restarts, seed=seed))
        totals = [float(values.sum()) for values in densities]
        if k - 1 - int(np.argmax(totals)) >= 2:
            break
    p_value = float("nan")
    if n_permutations > 0 and int(np.argmax(totals)) > 0:
        rng = np.random.default_rng([seed, 11])
        observed = image_gain(cells, features, prior, rng, n_restarts)
        p_value = randomisation_p_value(
            observed, lambda: image_gain(redraw(rng), features, prior, rng, n_restarts), n_permutations
        )
    least = 1 if n_permutations == 0 else 2 if p_value <= LEVEL else None
    selection = choose(range(1, len(densities) + 1), densities, margin=margin, least=least)
    own = {1: 1.0} if selection.chosen == 1 else weights(densities, selection.chosen, seed)
    return replace(selection, p_value=p_value, weights=own)


def weights(densities: Sequence[FloatArray], chosen: int, seed: int) -> dict[int, float]:
    """Weights of 2, 3, ... clusters, from the held-out log densities of 1, 2, ... at each site, shape (g,) each.

    The share of each in the softmax of the total densities, averaged over Bayesian bootstraps of the sites (Yao,
    Vehtari, Simpson and Gelman 2018, "Using stacking to average Bayesian predictive distributions"). Numbers with
    little weight are left out; the chosen one stays.

    Examples
    --------
    >>> base = np.random.default_rng(0).standard_normal(100)
    >>> weights([base, base + 0.5, base + 0.4], 2, 0)
    {2: 1.0}
    """
    table = np.array(densities[1:])
    g = table.shape[1]
    dirichlet = np.random.default_rng([seed, 13]).dirichlet(np.ones(g), size=N_BOOTSTRAP)
    totals = g * dirichlet @ table.T
    odds = np.exp(totals - totals.max(axis=1, keepdims=True))
    share = (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)
    share[chosen - 2] = max(share[chosen - 2], MIN_WEIGHT)
    share[share < MIN_WEIGHT] = 0.0
    return {k + 2: float(value) for k, value in enumerate(share / share.sum()) if value > 0}


def held_out_density(
    cells: Cells,
    features: FloatArray,
    prior: Prior,
    n_clusters: int,
    fold: IntArray,
    *,
    n_restarts: int,
    seed: int,
    fold_features: Sequence[FloatArray] | None = None,
) -> FloatArray:
    """Log predictive density of each site's outcomes given the other folds, shape (g,).

    Parameters are averaged over: draws of the normal approximation at the mode, weighted by importance.

    Parameters
    ----------
    fold : ndarray of int of shape (g,)
        Fold of each site.
    fold_features : sequence of ndarray of shape (m, d), optional
        Features to use for each fold; the same for all unless given.
    """
    out = np.empty(len(fold))
    layout = prior.layout(n_clusters, features, cells)
    for k in np.unique(fold):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        phi = features if fold_features is None else fold_features[k]
        rng = np.random.default_rng([seed, int(k)])
        known, unseen = cells.take_sites(train), cells.take_sites(test)
        mode, _ = find_mode(known, phi, prior, n_clusters, rng, n_restarts)
        args = density.arguments(known, phi, prior, n_clusters)
        draws, log_weight = laplace_draws(mode, args, N_PREDICTIVE, rng)
        table = np.array([density.site_log_likelihood(x, layout, unseen, phi, prior.effect) for x in draws])
        out[test] = np.logaddexp.reduce(table + log_weight[:, None], axis=0)
    return out


def choose(
    candidates: Sequence[int], densities: Sequence[FloatArray], *, margin: float = 1.0, least: int | None = 1
) -> Selection:
    """Smallest number of clusters, of at least ``least``, within ``margin`` standard errors of the best; else one.

    The standard error is that of the paired difference over sites between the best and the candidate; a lead of less
    than 3 is taken for none. Without ``least`` the first candidate is chosen.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> base = rng.standard_normal(100)
    >>> choose([1, 2, 3], [base, base + 0.5, base + 0.5 + 0.1 * rng.standard_normal(100)]).chosen
    2
    """
    table = np.array(densities)
    g = table.shape[1]
    root = np.sqrt(g) if g > 1 else 0.0
    allowed = np.array([least is not None and k >= least for k in candidates])
    allowed[0] |= not allowed.any()
    best = int(np.where(allowed, table.sum(axis=1), -np.inf).argmax())
    lead = table[best] - table
    slack = np.maximum(margin * root * lead.std(axis=1, ddof=min(1, g - 1)), MIN_LEAD)
    close = allowed & (lead.sum(axis=1) <= slack)
    close[best] = True
    gain = table - table[int(np.argmin(candidates))]
    return Selection(
        tuple(int(k) for k in candidates),
        gain.sum(axis=1),
        root * gain.std(axis=1, ddof=min(1, g - 1)),
        int(min(k for k, ok in zip(candidates, close, strict=True) if ok)),
    )
