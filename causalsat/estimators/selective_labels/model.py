"""The models of this family in PyMC, as they are read: what ``to_pymc`` returns, and what tests the densities.

Three models: the selective-labels model with a uniform unobservable, with a normal one, and Heckman's selection model
of a continuous outcome. The first has two forms: ``raw``, in the parameters of the paper (slow: beta_Y0 and sigma are
nearly collinear), and in the coordinates of :mod:`causalsat.estimators.selective_labels.density`, whose log density
equals that of the fast path up to a constant. The others are in the parameters of the paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from causalsat.estimators.selective_labels.density import CURVATURE, SelectiveData
from causalsat.estimators.selective_labels.heckman import HeckmanData
from causalsat.estimators.selective_labels.normal import NODES, WEIGHTS

__all__ = ["build_heckman_model", "build_model", "build_normal_model"]


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
        _pull_to_prevalence(data, _integral(a, sigma) / sigma)
    return model


def _pull_to_prevalence(data: SelectiveData, risk: Any) -> None:
    """Add the known prevalences, of all units or of groups, at the units' implied risks (n,)."""
    import pymc as pm
    import pytensor.tensor as pt

    codes, known = data.constraints
    if not len(known):
        return
    member = np.array([data.weight * (codes == k).any(axis=1) for k in range(len(known))])
    implied = pt.dot(member / member.sum(axis=1, keepdims=True), risk)
    pm.Potential("prevalence", (-0.5 * ((implied - known[:, 0]) / known[:, 1]) ** 2).sum())


def build_normal_model(data: SelectiveData, alpha: float, sigma: float) -> Any:
    """PyMC model of prepared data with a normal unobservable.

    Parameters
    ----------
    data : SelectiveData
        Standardised features, cells, weights, constraints, priors.
    alpha, sigma : float
        The known one; NaN marks the one that is learned.

    Returns
    -------
    pymc.Model
        With the variables ``risk``, ``departures`` (``decision`` with zeros where it is that of an expert), ``sigma``
        and ``alpha``.
    """
    import pymc as pm
    import pytensor.tensor as pt

    p, free, priors = data.X.shape[1], data.free, data.priors
    of_risk, of_decision = priors.coefficients("risk", p), priors.coefficients("decision", p)[:, free]
    with pm.Model() as model:
        risk = pm.Normal("risk", of_risk[0], of_risk[1], shape=p)
        departures = pm.Normal("departures", of_decision[0], of_decision[1], shape=len(free))
        decision = pm.Deterministic("decision", pt.set_subtensor(pt.zeros(p)[free], departures))
        if np.isnan(sigma):
            scale, slope = pm.HalfNormal("sigma", priors.scale("sigma")), pm.Data("alpha", alpha)
        else:
            scale, slope = pm.Data("sigma", sigma), pm.Normal("alpha", priors.mean("alpha"), priors.scale("alpha"))
        risk_logit = pt.dot(data.X, risk)[:, None] + scale * NODES  # at each node of the unobservable
        tested = pt.sigmoid(slope * risk_logit + pt.dot(data.X, decision)[:, None])
        positive = pt.sigmoid(risk_logit)
        cell = data.cell[:, None]
        seen = pt.switch(pt.eq(cell, 0), 1.0 - tested, tested * pt.switch(pt.eq(cell, 1), 1.0 - positive, positive))
        pm.Potential("cells", (data.weight * pt.log(pt.dot(seen, WEIGHTS))).sum())
        _pull_to_prevalence(data, pt.dot(positive, WEIGHTS))
    return model


def build_heckman_model(data: HeckmanData) -> Any:
    """PyMC model of prepared data with a continuous outcome.

    Parameters
    ----------
    data : HeckmanData
        Standardised features, outcome in standard deviations of the tested, weights, constraints, priors.

    Returns
    -------
    pymc.Model
        With the variables ``outcome``, ``departures``, ``decision`` (beta_T), ``sigma`` and ``correlation``.
    """
    import pymc as pm
    import pytensor.tensor as pt

    p, free, priors, tested = data.X.shape[1], data.free, data.priors, data.tested
    of_outcome, of_decision = priors.coefficients("outcome", p), priors.coefficients("decision", p)[:, free]
    with pm.Model() as model:
        outcome = pm.Normal("outcome", of_outcome[0], of_outcome[1], shape=p)
        departures = pm.Normal("departures", of_decision[0], of_decision[1], shape=len(free))
        sigma = pm.HalfNormal("sigma", priors.scale("sigma"))
        r = pm.Uniform("correlation", -1.0, 1.0)
        pm.Potential("correlation prior", (priors.scale("correlation") - 1.0) * pt.log1p(-(r**2)))
        beyond = pt.set_subtensor(pt.zeros(p)[free], departures)
        decision = pm.Deterministic("decision", r / sigma * outcome + beyond)
        score = pt.dot(data.X, decision)
        e = (data.y - pt.dot(data.X, outcome)) / sigma
        inside = pt.switch(tested, (score + r * e) / pt.sqrt(1.0 - r**2), -score)
        seen = _log_normal_cdf(inside) - pt.switch(tested, pt.log(sigma) + 0.5 * e**2, 0.0)
        pm.Potential("decisions and outcomes", (data.weight * seen).sum())
        if data.mean[1] < np.inf:
            mean = pt.dot(data.weight @ data.X / data.weight.sum(), outcome)
            pm.Potential("mean", -0.5 * ((mean - data.mean[0]) / data.mean[1]) ** 2)
    return model


def _log_normal_cdf(z: Any) -> Any:
    """Log of the normal distribution function, without underflow."""
    import pytensor.tensor as pt

    far = pt.log(0.5 * pt.erfcx(-pt.minimum(z, 0.0) / np.sqrt(2.0))) - 0.5 * z**2
    return pt.switch(z < 0.0, far, pt.log1p(-0.5 * pt.erfc(pt.maximum(z, 0.0) / np.sqrt(2.0))))


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
