"""The number of types: held-out log predictive density of 1, 2, ... types, and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.warn import warn
from causalsat.estimators.clusters import density
from causalsat.estimators.clusters.density import Cells, Prior
from causalsat.estimators.clusters.posterior import find_mode, laplace_draws
from causalsat.exceptions import DataWarning

__all__ = ["Selection", "choose", "held_out_density", "select"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_PREDICTIVE = 100  # draws over which a predictive density is averaged


@dataclass(frozen=True)
class Selection:
    """Held-out log predictive density of each number of clusters.

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
    """

    n_clusters: tuple[int, ...]
    gain: FloatArray
    se: FloatArray
    chosen: int


def select(
    cells: Cells,
    features: FloatArray,
    prior: Prior,
    fold: IntArray,
    *,
    max_clusters: int,
    margin: float,
    n_restarts: int,
    seed: int,
) -> Selection:
    """Held-out log predictive density of 1, 2, ... clusters, until two in a row are no better; and the choice.

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
    max_clusters : int
        Largest number tried.
    margin : float
        Standard errors within which a smaller number is taken for the best.
    n_restarts, seed : int
        Starts of the search for each mode, and the seed of the search.
    """
    if len(np.unique(fold)) < 2:
        warn("too few sites to hold any out: one cluster, no heterogeneity, is assumed", DataWarning)
        return Selection((1,), np.zeros(1), np.zeros(1), 1)
    site_fold = fold[cells.image[cells.start[:-1]]]
    densities: list[FloatArray] = []
    for k in range(1, max_clusters + 1):
        densities.append(held_out_density(cells, features, prior, k, site_fold, n_restarts=n_restarts, seed=seed))
        totals = [float(values.sum()) for values in densities]
        if k - 1 - int(np.argmax(totals)) >= 2:
            break
    return choose(range(1, len(densities) + 1), densities, margin=margin)


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
        table = np.array([density.site_log_likelihood(x, layout, unseen, phi) for x in draws])
        out[test] = np.logaddexp.reduce(table + log_weight[:, None], axis=0)
    return out


def choose(candidates: Sequence[int], densities: Sequence[FloatArray], *, margin: float = 1.0) -> Selection:
    """Smallest number of clusters within ``margin`` standard errors of the best.

    The standard error is that of the paired difference over sites between the best and the candidate.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> base = rng.standard_normal(100)
    >>> choose([1, 2, 3], [base, base + 0.5, base + 0.5 + 0.1 * rng.standard_normal(100)]).chosen
    2
    """
    table = np.array(densities)
    g = table.shape[1]
    best = int(table.sum(axis=1).argmax())
    lead = table[best] - table
    se = np.sqrt(g) * lead.std(axis=1, ddof=1) if g > 1 else np.zeros(len(table))
    close = lead.sum(axis=1) <= margin * se + 1e-9
    close[best] = True
    gain = table - table[int(np.argmin(candidates))]
    return Selection(
        tuple(int(k) for k in candidates),
        gain.sum(axis=1),
        np.sqrt(g) * gain.std(axis=1, ddof=1) if g > 1 else np.zeros(len(table)),
        int(min(k for k, ok in zip(candidates, close, strict=True) if ok)),
    )
