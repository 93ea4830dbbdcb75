"""Balance of features: the same as overlap's, and brought by weighting with a known propensity."""

import numpy as np
import pandas as pd
import pytest

from causalsat.evaluation import overlap
from causalsat.exceptions import DataError
from causalsat.inference.balance import balance
from causalsat.study.balance import standardised_differences


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


def test_a_constant_feature_is_balanced_whatever_its_number():
    """The mean of many times 0.1 differs from 0.1 in its last bits, and otherwise in each arm."""
    t = (np.arange(317) % 3 == 0).astype(float)
    X = np.broadcast_to([0.1, 1 / 3, 1234.567], (317, 3))
    np.testing.assert_array_equal(overlap(np.full(317, 1 / 3), t, X).smd_raw, 0.0)
    np.testing.assert_array_equal(balance(X, t, np.full(317, 1 / 3)).worst, 0.0)
    assert standardised_differences(pd.DataFrame(X), t)["difference"].isna().all()


def test_what_weights_nothing_is_refused():
    X, t, e = np.arange(6.0)[:, None], np.array([0, 1, 0, 1, 0, 1]), np.full(6, 0.5)
    np.testing.assert_allclose(balance(X, t, e, weights=np.full(6, 1e300)).raw, balance(X, t, e).raw)
    with pytest.raises(DataError, match="negative values"):
        balance(X, t, e, weights=np.full(6, -1.0))
    with pytest.raises(DataError, match="no treated unit with a positive weight"):
        balance(X, t, e, weights=1.0 - t)
    for wrong in (np.nan, 0.0, 1.5):
        with pytest.raises(DataError, match="propensity of"):
            balance(X, t, np.r_[e[:5], wrong])
    with pytest.raises(DataError, match="treatment with 2"):
        balance(X, t * 2, e)
