"""Data of the cluster model: the standardised outcome, units as cells, blocks of images and their folds.

The units of one image and one site share a cluster and count through six sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler
from causalsat.estimators.clusters.density import Cells, Prior
from causalsat.estimators.image_base import ImageFitData
from causalsat.inference.folds import assign_folds
from causalsat.inference.reassignment import randomisation_units

__all__ = ["Outcome", "image_folds", "make_cells", "prepare_outcome", "site_codes", "treatment_redraws"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROUNDING = 1e-10  # spread relative to the outcome that is rounding of what the covariates explain
MAX_CLASSES = 10  # of the probability of treatment; more are made to five
EFFECT_SD = 1.0  # prior spread of effects between clusters, in standard deviations of the outcome


@dataclass(frozen=True)
class Outcome:
    """Outcome for the model: residualised on covariates, of mean 0 and standard deviation 1.

    Attributes
    ----------
    y : ndarray of shape (n,)
        Standardised.
    scale : float
        Standard deviation in the outcome's units; 0 for a constant outcome.
    prior : Prior
        Scales of the priors.
    reference : dict
        Average effect by difference in means and by regression: (estimate, standard error), in the outcome's units.
    influence : ndarray of shape (n,)
        What each unit adds to the regression's estimate, given the covariates' coefficients, in the outcome's units.
    """

    y: FloatArray
    scale: float
    prior: Prior
    reference: dict[str, tuple[float, float]]
    influence: FloatArray


# ---------------------------------------------------------------------- outcome
def prepare_outcome(data: ImageFitData, *, tied_noise: bool = False, shares: bool = False) -> Outcome:
    """Residualise the outcome on covariates and standardise it; the average effect as a regression finds it."""
    t, w = data.treatment, data.sample_weight
    covariates = data.X
    if data.propensity is not None and np.ptp(data.propensity) > 1e-9:
        covariates = np.column_stack([covariates, data.propensity])
    known = learn_scaler(covariates, w)
    covariates = known.transform(covariates)[:, known.varies]
    plain = _regress(data.y, t, covariates[:, :0], w, data.groups)
    full = _regress(data.y, t, covariates, w, data.groups) if covariates.shape[1] else plain
    y = data.y - covariates @ full[2]
    reference = {"difference in means": plain[:2], "regression with covariates": full[:2]}
    scaler = learn_scaler(y, w)
    varies = bool(scaler.varies) and float(scaler.scale) > ROUNDING * float(np.abs(data.y).max())
    scale = float(scaler.scale) if varies else 0.0
    unit = scale if scale > 0 else 1.0
    y = (y - scaler.mean) / unit if scale > 0 else np.zeros(len(y))
    arm_sd = tuple(float(np.clip(_sd(y[t == a], w[t == a]), 0.05, 20.0)) for a in (0, 1))
    prior = Prior(
        effect=full[0] / unit if scale > 0 else 0.0,
        effect_sd=float(np.hypot(EFFECT_SD, full[1] / unit if scale > 0 and np.isfinite(full[1]) else 0.0)),
        arm_sd=(arm_sd[0], arm_sd[1]),
        tied_noise=tied_noise,
        shares=shares,
    )
    return Outcome(y, scale, prior, reference, unit * slope_influence(y, t, w))


def _sd(y: FloatArray, w: FloatArray) -> float:
    return float(np.sqrt(np.average((y - np.average(y, weights=w)) ** 2, weights=w))) if w.sum() > 0 else 1.0


def _regress(
    y: FloatArray, t: FloatArray, covariates: FloatArray, weight: FloatArray, groups: IntArray | None
) -> tuple[float, float, FloatArray]:
    """Effect, cluster-robust standard error and covariates' coefficients of a weighted regression."""
    import statsmodels.api as sm

    model = sm.WLS(y, np.column_stack([np.ones(len(y)), t, covariates]), weights=weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if groups is None or groups.max() < 1:
            regression = model.fit(cov_type="HC1")
        else:
            regression = model.fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        return float(regression.params[1]), float(regression.bse[1]), np.asarray(regression.params[2:])


def slope_influence(y: FloatArray, t: FloatArray, weight: FloatArray) -> FloatArray:
    """What each unit adds to the slope of a weighted regression on a constant and t, to first order, shape (n,).

    Examples
    --------
    >>> slope_influence(np.array([0.0, 2.0, 1.0, 3.0]), np.array([0.0, 0, 1, 1]), np.ones(4))
    array([ 0.5, -0.5, -0.5,  0.5])
    """
    design = np.column_stack([np.ones(len(y)), t])
    inverse = np.linalg.inv(design.T @ (weight[:, None] * design))
    residual = y - design @ (inverse @ (design.T @ (weight * y)))
    return np.asarray((design @ inverse)[:, 1] * weight * residual)


# ---------------------------------------------------------------------- other assignments
def treatment_redraws(data: ImageFitData, outcome: Outcome, *, share: bool) -> Callable[[np.random.Generator], Cells]:
    """A function that gives the cells under another assignment of the treatment, its effect the same for all units.

    The treatment is drawn anew as :func:`causalsat.inference.reassignment.randomisation_units` finds that it was
    drawn: over clusters, within strata and among units of a like probability.

    Parameters
    ----------
    data : ImageFitData
        Images, treatment, clusters, strata, probabilities, weights.
    outcome : Outcome
        The standardised outcome, whose average effect is taken for that of every unit.
    share : bool
        Whether the units of one image and site share a cluster.
    """
    t, effect = data.treatment, outcome.prior.effect
    strata = _randomisation_strata(data)
    groups = np.arange(len(t)) if data.groups is None else data.groups
    within = np.unique(groups * (int(strata.max()) + 1) + strata, return_inverse=True)[1].astype(np.int64)
    units = randomisation_units(t, within, strata)
    untreated, site = outcome.y - effect * t, site_codes(data)

    def redraw(rng: np.random.Generator) -> Cells:
        new = units.reassign(t, rng)
        weight = data.sample_weight
        if data.balanced and data.propensity is not None:  # weights are inverse probabilities of the unit's own arm
            own, other = (np.where(arm > 0, data.propensity, 1 - data.propensity) for arm in (t, new))
            weight = weight * own / other
        y = untreated + effect * new
        return make_cells(data.images.unit_image, site, new.astype(np.int64), y, weight, share=share)[0]

    return redraw


def _randomisation_strata(data: ImageFitData) -> IntArray:
    """Strata within which treatment can be drawn anew, shape (n,): those given, by classes of the probability."""
    strata = np.zeros(len(data.y), dtype=np.int64) if data.strata is None else data.strata
    if data.propensity is None:
        return strata
    values = np.unique(data.propensity)
    edges = values if len(values) <= MAX_CLASSES else np.quantile(data.propensity, np.arange(5) / 5)
    classes = np.searchsorted(edges, data.propensity, side="right")
    return np.unique(strata * (len(edges) + 1) + classes, return_inverse=True)[1].astype(np.int64)


def site_codes(data: ImageFitData) -> IntArray | None:
    """Clusters of the units, shape (n,), where some have several units."""
    return data.groups if data.groups is not None and data.n_groups < len(data.y) else None


# ---------------------------------------------------------------------- folds
def image_folds(block: IntArray, image: IntArray, arm: IntArray, n_folds: int, seed: int) -> IntArray:
    """Fold of each image; blocks stay whole. Fewer folds where an arm has fewer blocks; one where it has one."""
    unit_block = block[image]
    n = min(n_folds, *(len(np.unique(unit_block[arm == a])) for a in (0, 1)))
    if n < 2:
        return np.zeros(len(block), dtype=np.int64)
    codes = np.unique(unit_block, return_inverse=True)[1].ravel()
    unit_fold = assign_folds(n, np.random.default_rng(seed), groups=codes, treatment=arm.astype(float))
    fold = np.zeros(len(block), dtype=np.int64)
    fold[image] = unit_fold
    return fold


# ---------------------------------------------------------------------- cells
def make_cells(
    image: IntArray, site: IntArray | None, arm: IntArray, y: FloatArray, weight: FloatArray, *, share: bool
) -> tuple[Cells, IntArray]:
    """Sum units up.

    Parameters
    ----------
    image : ndarray of int of shape (n,)
        Image of each unit.
    site : ndarray of int of shape (n,) or None
        Site of each unit.
    arm : ndarray of int of shape (n,)
        0 or 1.
    y, weight : ndarray of shape (n,)
        Outcome and weight.
    share : bool
        Whether the units of one image and site share a cluster; else every unit is a cell.

    Returns
    -------
    cells : Cells
    unit_site : ndarray of int of shape (n,)
        Position of each unit's site among the cells' sites.

    Examples
    --------
    >>> image, site = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    >>> cells, _ = make_cells(image, site, np.array([0, 0, 1, 1]), np.arange(4.0), np.ones(4), share=True)
    >>> cells.count.tolist(), cells.mean.tolist(), cells.spread.tolist()
    ([[2.0, 0.0], [0.0, 2.0]], [[0.5, 0.0], [0.0, 2.5]], [[0.5, 0.0], [0.0, 0.5]])
    """
    n = len(y)
    unit = np.zeros(n, dtype=np.int64) if share else np.arange(n)
    keys = np.column_stack([image if site is None else site, image, unit])
    distinct, cell = np.unique(keys, axis=0, return_inverse=True)
    cell, c = cell.ravel(), len(distinct)
    flat = 2 * cell + arm
    count: FloatArray = np.bincount(flat, weight, minlength=2 * c).astype(float)
    total = np.bincount(flat, weight * y, minlength=2 * c)
    mean = total / np.where(count > 0, count, 1.0)
    spread: FloatArray = np.bincount(flat, weight * (y - mean[flat]) ** 2, minlength=2 * c).astype(float)
    labels = distinct[:, 0] if site is not None else np.arange(c)
    _, first, cell_site = np.unique(labels, return_index=True, return_inverse=True)
    cells = Cells(
        image=np.ascontiguousarray(distinct[:, 1]),
        start=np.append(first, c).astype(np.int64),
        count=count.reshape(c, 2),
        mean=mean.reshape(c, 2),
        spread=spread.reshape(c, 2),
        has_sites=site is not None,
    )
    return cells, cell_site.ravel()[cell].astype(np.int64)
