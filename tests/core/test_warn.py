"""Warnings name the user's file, whether the package warns at once or many calls deep."""

import warnings

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalsat import VLUCI, DoublyRobustEffect
from causalsat.core.warn import warn
from causalsat.exceptions import DataWarning


def test_a_warning_points_at_the_line_of_the_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("few units", DataWarning)
    assert [(w.category, w.filename) for w in caught] == [(DataWarning, __file__)]


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: make_pipeline(StandardScaler(), model)])
def test_a_warning_of_a_fit_points_at_the_fit(wrap):
    X, t = np.arange(18.0)[:, None] % 5, np.arange(18) % 2
    model = VLUCI(DoublyRobustEffect(n_splits=2), n_imputations=2)
    name = "vluci__treatment" if hasattr(wrap(model), "steps") else "treatment"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrap(model).fit(X, t + X[:, 0] ** 2, **{name: t})
    files = [w.filename for w in caught if "no confounder is inferred" in str(w.message)]
    assert files == [__file__]
