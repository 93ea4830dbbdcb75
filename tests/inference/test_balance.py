"""Balance of features: the same as overlap's, and brought by weighting with a known propensity."""

import numpy as np
import pytest

from causalsat.evaluation import overlap
from causalsat.exceptions import DataError
from causalsat.inference.balance import balance


def test_balance_is_that_of_overlap_and_weighting_brings_it():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 3))
    e = 1 / (1 + np.exp(-X[:, 0] - 0.5 * X[:, 1]))
    t = (rng.random(4000) < e).astype(float)
    found = balance(X, t, e)
    other = overlap(e, t, X)
    np.testing.assert_allclose(found.raw, other.smd_raw)
    np.testing.assert_allclose(found.weighted, other.smd_weighted)
    np.testing.assert_allclose(found.ess, other.ess)
    assert found.worst[0] > 0.7
    assert found.worst[1] < 0.15
    with pytest.raises(DataError, match="complete table"):
        balance(X[:5], t, e)
