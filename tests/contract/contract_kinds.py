"""Every public effect estimator, made small and fitted to the small trials of ``contract_worlds``."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
from contract_worlds import has_one_effect, uses_images, world_of

import causalsat
from causalsat.base import EffectEstimator
from causalsat.exceptions import CausalsatWarning


def public_estimators() -> list[type[EffectEstimator]]:
    found = [getattr(causalsat, name) for name in causalsat.__all__]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, EffectEstimator)]


ESTIMATORS = public_estimators()


def for_each(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.__name__)


each = for_each(ESTIMATORS)
each_of_tables = for_each([kind for kind in ESTIMATORS if not uses_images(kind)])
each_of_images = for_each([kind for kind in ESTIMATORS if uses_images(kind)])
each_conditional = for_each([kind for kind in ESTIMATORS if not has_one_effect(kind)])


def make(kind, **more):
    return kind(**{**kind._contract_parameters, **more})


def make_for_frame(kind, world, **more):
    """An estimator whose X is the world's data frame: one of places needs to know what to read there."""
    places = {"imagery": world.imagery, "size_m": world.size_m} if uses_images(kind) else {}
    return make(kind, **places, **more)


def fit(estimator, world, *, frame=False, groups=True, **more):
    """Fit, without the warnings of short chains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        X = world.frame if frame else world.X
        return estimator.fit(X, world.y, treatment=world.t, groups=world.groups if groups else None, **more)


@cache
def fitted(kind):
    """Each estimator fitted once, for the tests that only read it."""
    return fit(make(kind), world_of(kind))


@cache
def fitted_small(kind):
    """The same on 120 units: what fits in another form are compared with."""
    return fit(make(kind), world_of(kind, 120))


def equal_up_to_rounding(kind, ours, other):
    """Tables give the same answer to the sixth digit; of images, one channel mean in another order may differ."""
    np.testing.assert_allclose(ours, other, rtol=1e-3 if uses_images(kind) else 1e-6, atol=1e-8)
