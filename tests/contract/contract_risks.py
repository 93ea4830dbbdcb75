"""Every public risk model, made small and fitted to a small world with a known risk."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalsat
from causalsat.exceptions import CausalsatWarning
from causalsat.risk_base import RiskEstimator


def public_risk_models() -> list[type[RiskEstimator]]:
    found = [getattr(causalsat, name) for name in causalsat.__all__]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, RiskEstimator)]


MODELS = public_risk_models()
each = pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)


@dataclass(frozen=True)
class World:
    """Units of 40 places: features (n, 3), outcome (NaN untested), who was tested, place, P(Y = 1 | x)."""

    X: Any
    y: np.ndarray
    t: np.ndarray
    groups: np.ndarray
    risk: np.ndarray

    @property
    def frame(self):
        return pd.DataFrame(np.asarray(self.X), columns=list("abc"), index=np.arange(len(self.y)) + 1000)

    def take(self, rows):
        return World(*(values[rows] for values in vars(self).values()))


def world_of(n=400, seed=0):
    """Logit of risk -1 + 1.5 x0 + Z, Z uniform on (0, 2); three in four are tested, more often at higher risk."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    z = rng.uniform(0, 2, n)
    logit = -1 + 1.5 * X[:, 0] + z
    t = (rng.random(n) < expit(logit + 1.2 + X[:, 1])).astype(int)
    y = np.where(t == 1, rng.random(n) < expit(logit), np.nan)
    u = np.linspace(0, 2, 101)
    return World(X, y, t, np.arange(n) % 40, expit(-1 + 1.5 * X[:, :1] + u).mean(axis=1))


def make(kind, **more):
    return kind(**{**kind._contract_parameters, **more})


def fit(estimator, world, **more):
    """Fit, without the warnings of short chains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return estimator.fit(world.X, world.y, treatment=world.t, **more)


@cache
def fitted(kind):
    """Each model fitted once, for the tests that only read it."""
    return fit(make(kind), world_of())


@cache
def fitted_small(kind):
    """The same on 160 units: what fits in another form are compared with."""
    return fit(make(kind), world_of(160))


def risk_of(model, X):
    return model.predict_proba(X)[:, 1]
