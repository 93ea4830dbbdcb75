"""The selective-labels model written in PyMC, as it is read: the reference of the fast density.

Two forms: ``raw``, in the parameters of the paper (slow: beta_Y0 and sigma are nearly collinear), and
``reparametrised``, in the coordinates of :mod:`causalsat.estimators.selective_labels.density`, whose log density
equals that of the fast path up to a constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from causalsat.estimators.selective_labels.density import CURVATURE, SelectiveData


def build_model(data: SelectiveData, *, raw: bool = False) -> Any:
    """PyMC model of prepared data.

    Parameters
    ----------
    data : SelectiveData
        Standardised features, cells, weights, constraints, priors.
    raw : bool
        Whether to sample beta_Y, beta_Delta and sigma themselves.

    Returns
    -------
    pymc.Model
        With the variables ``risk``, ``decision`` and ``sigma``; unless raw, ``gamma``, ``tau`` and ``u`` are sampled.
    """
    import pymc as pm
    import pytensor.tensor as pt

    p, free = data.X.shape[1], data.free
    of_risk, of_decision = data.priors.coefficients("risk", p), data.priors.coefficients("decision", p)[:, free]
    with pm.Model() as model:
        if raw:
            risk = pm.Normal("risk", of_risk[0], of_risk[1], shape=p)
            sigma = pm.HalfNormal("sigma", data.priors.scale("sigma"))
            departures = pm.Normal("departures", of_decision[0], of_decision[1], shape=len(free))
        else:
            gamma, tau, u = pm.Flat("gamma", shape=p), pm.Flat("tau", shape=len(free)), pm.Flat("u")
            sigma = pm.Deterministic("sigma", pt.softplus(u))
            k = pt.sqrt(1.0 + CURVATURE * sigma**2)
            shift = np.zeros(p)
            shift[0] = 0.5
            risk = pm.Deterministic("risk", k * gamma - shift * sigma)
            departures = k * (tau - gamma[free])
            pm.Potential("jacobian", (p + len(free)) * pt.log(k) + pt.log1p(-pt.exp(-sigma)))
            pm.Potential("risk prior", pm.logp(pm.Normal.dist(of_risk[0], of_risk[1]), risk).sum())
            pm.Potential("decision prior", pm.logp(pm.Normal.dist(of_decision[0], of_decision[1]), departures).sum())
            pm.Potential("sigma prior", pm.logp(pm.HalfNormal.dist(data.priors.scale("sigma")), sigma))
        decision = pm.Deterministic("decision", pt.set_subtensor(pt.zeros(p)[free], departures))
        a, d = pt.dot(data.X, risk), pt.dot(data.X, decision)
        pm.Potential("cells", (data.weight * _log_cells(a, d, sigma, data.cell)).sum())
        if np.isfinite(data.prevalence[1]):
            share = (data.weight * _integral(a, sigma)).sum() / (sigma * data.weight.sum())
            pm.Potential("prevalence", -0.5 * ((share - data.prevalence[0]) / data.prevalence[1]) ** 2)
    return model


def _integral(b: Any, sigma: Any) -> Any:
    """Integral of s(b + z) over (0, sigma): the difference of two softplus."""
    import pytensor.tensor as pt

    return pt.softplus(b + sigma) - pt.softplus(b)


def _log_cells(a: Any, d: Any, sigma: Any, cell: Any) -> Any:
    """Log probability of what was seen of each unit, in the stable form of the fast path without its tails."""
    import pytensor.tensor as pt

    b = a + d
    untested = _integral(-(b + sigma), sigma)
    q = pt.sigmoid(-b) * pt.sigmoid(a + sigma) * (1.0 - pt.exp(-sigma))
    x = q * pt.expm1(d)
    small = pt.abs(x) < 1e-4
    safe = pt.switch(small, 1.0, x)
    ratio = pt.switch(small, 1.0 - x / 2.0 + x**2 / 3.0, pt.log1p(safe) / safe)
    positive_untested = q * ratio
    positive_tested = pt.maximum(_integral(a, sigma) - positive_untested, 1e-300)
    value = pt.switch(
        pt.eq(cell, 0),
        pt.log(untested),
        pt.switch(pt.eq(cell, 1), d + pt.log(positive_untested), pt.log(positive_tested)),
    )
    return value - pt.log(sigma)
