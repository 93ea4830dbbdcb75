"""The cluster model in PyMC, as it is read: what ``to_pymc`` returns, and what tests the density.

Types are summed over. Site effects are variables here; :mod:`causalsat.estimators.clusters.density` integrates them
out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.clusters.density import DEGREES, Cells, Prior

__all__ = ["build_model"]

FloatArray = NDArray[np.float64]


def build_model(cells: Cells, features: FloatArray, prior: Prior, n_clusters: int) -> Any:
    """PyMC model of prepared data.

    Parameters
    ----------
    cells : Cells
        Outcomes: counts, means and sums of squares by cell and arm.
    features : ndarray of shape (m, d)
        Features of the images.
    prior : Prior
        Scales.
    n_clusters : int
        K.

    Returns
    -------
    pymc.Model
        With the variables ``intercept``, ``prognostic`` (d,), ``tau`` (K,) and ``sigma`` (arm, K, or 1 where the
        noise is the arm's); of several types ``logit_intercepts`` (K - 1,), ``logit_weights`` ((K - 1) d,) and
        ``pivot``; of several units a site ``site_sd`` and ``site``; and the types' probabilities ``probability``
        (m, K).
    """
    import pymc as pm
    import pytensor.tensor as pt
    from pymc.distributions.transforms import ordered

    k, d, arm = n_clusters, features.shape[1], np.array([0.0, 1.0])
    with pm.Model() as model:
        intercept = pm.Normal("intercept", 0.0, 1.0)
        prognostic = pm.MvStudentT("prognostic", nu=DEGREES, mu=np.zeros(d), scale=prior.prognostic_sd**2 * np.eye(d))
        prognosis = intercept + pt.dot(features, prognostic)
        spread_out = prior.effect + 0.1 * np.arange(k)
        tau = pm.Normal("tau", prior.effect, prior.effect_sd, shape=k, transform=ordered, initval=spread_out)
        n_scales = 1 if prior.tied_noise else k
        sigma = pm.LogNormal("sigma", np.log(prior.arm_sd)[:, None], prior.noise_log_sd, shape=(2, n_scales))
        logits, pivot = pt.zeros((len(features), 1)), pt.constant(0.5)
        if k > 1:
            difference = (np.eye(k - 1) + 1.0) / 2  # covariance of K independent normals less the first, halved
            intercepts = pm.MvNormal("logit_intercepts", np.zeros(k - 1), prior.intercept_logit_sd**2 * difference)
            scale = prior.logit_sd**2 * np.kron(difference, np.eye(d))
            weights = pm.MvStudentT("logit_weights", nu=DEGREES, mu=np.zeros((k - 1) * d), scale=scale)
            logits = pt.concatenate([logits, intercepts + pt.dot(features, weights.reshape((k - 1, d)).T)], axis=1)
            pivot = pm.Uniform("pivot", 0.0, 1.0)
        log_pi = logits - pt.logsumexp(logits, axis=1, keepdims=True)
        probability = pm.Deterministic("probability", pt.exp(log_pi))
        effect = tau[None] + pt.zeros((len(features), 1))  # image, type
        if prior.shares:  # all units of an image have its mean effect
            effect, log_pi = pt.dot(probability, tau)[:, None], pt.zeros((len(features), 1))
        # means by cell, type and arm
        shift = (arm - 0.5) * prior.effect + (arm - pivot) * (effect[cells.image][:, :, None] - prior.effect)
        level = prognosis[cells.image]
        if cells.has_sites:
            n_sites = len(cells.start) - 1
            site = pm.HalfNormal("site_sd", prior.site_sd) * pm.Normal("site", 0.0, 1.0, shape=n_sites)
            level = level + site[np.repeat(np.arange(n_sites), np.diff(cells.start))]
        error = cells.mean[:, None] - level[:, None, None] - shift
        square = cells.spread[:, None] + cells.count[:, None] * error**2
        scale = sigma.T[None]
        log_normal = -0.5 * square / scale**2 - cells.count[:, None] * (pt.log(scale) + 0.5 * np.log(2 * np.pi))
        by_type = log_pi[cells.image] + log_normal.sum(axis=2)
        pm.Potential("outcomes", pt.logsumexp(by_type, axis=1).sum())
    return model
