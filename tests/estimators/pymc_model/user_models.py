"""Models that a user would write, for the tests: build functions in a module of their own."""

from __future__ import annotations

import pymc as pm


def simple(data):
    """Normal noise and a linear effect; all numbers are data, nothing else is read."""
    p = data.X.shape[1]
    with pm.Model() as model:
        X, treatment, y = pm.Data("X", data.X), pm.Data("t", data.treatment), pm.Data("outcome", data.y)
        slopes = pm.Normal("slopes", sigma=10, shape=p)
        effect = pm.Deterministic("effect", pm.Normal("at_zero", sigma=10) + X @ slopes)
        mean = pm.Normal("level", sigma=10) + X @ pm.Normal("prognosis", sigma=10, shape=p) + treatment * effect
        pm.Normal("y", mean, pm.HalfNormal("noise", 2), observed=y)
    return model


def weighted(data):
    """Differences of means, whose likelihood is weighed; all numbers are data."""
    with pm.Model() as model:
        pm.Data("X", data.X)
        effect = pm.Deterministic("effect", pm.Normal("average", sigma=10))
        mean = pm.Normal("level", sigma=10) + pm.Data("t", data.treatment) * effect
        likelihood = pm.logp(pm.Normal.dist(mean, pm.HalfNormal("noise", 5)), pm.Data("outcome", data.y))
        pm.Potential("y", (pm.Data("weight", data.sample_weight) * likelihood).sum())
    return model


def villages(data):
    """Villages with a level of their own."""
    with pm.Model() as model:
        pm.Data("X", data.X)
        effect = pm.Deterministic("effect", pm.Normal("average", sigma=5))
        own = pm.Normal("own", shape=data.n_groups) * pm.HalfNormal("village_sd", 2)
        mean = pm.Normal("level", sigma=5) + data.treatment * effect + own[data.groups]
        pm.Normal("y", mean, pm.HalfNormal("noise", 2), observed=data.y)
    return model


def strata(data):
    """Strata with a level of their own."""
    with pm.Model() as model:
        pm.Data("X", data.X)
        effect = pm.Deterministic("effect", pm.Normal("average", sigma=5))
        own = pm.Normal("stratum", sigma=5, shape=data.n_strata)
        mean = data.treatment * effect + own[data.strata]
        pm.Normal("y", mean, pm.HalfNormal("noise", 2), observed=data.y)
    return model


def saturating(data):
    """A dose whose effect saturates: the mean outcome at a level."""
    with pm.Model() as model:
        pm.Data("X", data.X)
        dose = pm.Data("treatment", data.treatment)
        gain, half = pm.HalfNormal("gain", 5), pm.HalfNormal("half", 2)
        mean = pm.Deterministic("mean_outcome", pm.Normal("level", sigma=5) + gain * dose / (half + dose))
        pm.Normal("y", mean, pm.HalfNormal("noise", 2), observed=data.y)
    return model


def without_effect(data):
    """Nothing that gives an effect."""
    with pm.Model() as model:
        pm.Data("X", data.X)
        pm.Normal("y", pm.Normal("level"), observed=data.y)
    return model


def without_features(data):
    """The features as an array."""
    with pm.Model() as model:
        pm.Deterministic("effect", data.X @ pm.Normal("slopes", shape=data.X.shape[1]))
        pm.Normal("y", model["effect"] * data.treatment, observed=data.y)
    return model


def of_the_table(data):
    """Effects whose features are standardised by the table at hand."""
    with pm.Model() as model:
        X = pm.Data("X", data.X)
        effect = pm.Deterministic("effect", (X - X.mean(axis=0)) @ pm.Normal("slopes", shape=data.X.shape[1]))
        pm.Normal("y", effect * data.treatment, observed=data.y)
    return model


def of_the_villages(data):
    """Effects that hold the village's own deviation."""
    with pm.Model() as model:
        X = pm.Data("X", data.X)
        own = pm.Normal("own", shape=data.n_groups)
        effect = pm.Deterministic("effect", X[:, 0] * pm.Normal("slope") + own[pm.Data("village", data.groups)])
        pm.Normal("y", effect * data.treatment, observed=data.y)
    return model


def with_classes(data):
    """A latent class for each unit."""
    with pm.Model() as model:
        X = pm.Data("X", data.X)
        kind = pm.Bernoulli("kind", 0.5, shape=len(data.y))
        pm.Deterministic("effect", X[:, 0] * pm.Normal("slope"))
        pm.Normal("y", model["effect"] * data.treatment + kind, observed=data.y)
    return model


def einsum(data):
    """The simple model, whose effect has an operation that no file holds."""
    import pytensor.tensor as pt

    model = simple(data)
    with model:
        slopes = pt.einsum("ij,j->i", model["X"], model["slopes"])
        pm.Deterministic("mean_outcome", pm.Data("treatment", data.treatment) * (model["at_zero"] + slopes))
    return model
