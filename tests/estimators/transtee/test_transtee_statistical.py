"""Coverage of TransTEE's intervals over simulated trials."""

import numpy as np
import pytest

from causalsat import TransTEE
from causalsat.simulate.dose_response import simu1

pytestmark = [pytest.mark.statistical, pytest.mark.slow]


def test_average_curves_are_covered_and_accurate():
    """Pointwise 90 % intervals of the average curve of simu1, eight replications at the size of the benchmark.

    The curve's errors at different doses of one replication are correlated: eight replications leave a standard error
    of about 4 points, so 0.80 is what an honest interval falls below in less than one of a hundred runs.
    """
    doses, inside, errors = np.linspace(0.1, 0.9, 9), [], []
    for seed in range(300, 308):
        rng = np.random.default_rng(seed)
        train, test = simu1(500, rng), simu1(200, rng)
        est = TransTEE(random_state=seed, max_epochs=24).fit(train.X, train.y, treatment=train.dose)
        draws = np.array([est.predict_outcome(test.X, treatment=dose).draws.mean(axis=1) for dose in doses])
        truth = test.average(doses)
        lower, upper = np.quantile(draws, [0.05, 0.95], axis=1)
        inside.append(np.mean((lower < truth) & (truth < upper)))
        errors.append(np.mean((draws.mean(axis=1) - truth) ** 2))
    assert 0.80 <= np.mean(inside) <= 0.99
    assert np.mean(errors) < 0.02


def test_unit_effects_of_a_binary_treatment_are_covered():
    inside, error = [], []
    for seed in range(400, 406):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(400, 4))
        t = (rng.random(400) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)
        tau = 1 + np.tanh(2 * X[:, 1])
        y = X[:, 0] + np.sin(X[:, 2]) + t * tau + 0.5 * rng.normal(size=400)
        post = TransTEE(random_state=seed, max_epochs=20).fit(X, y, treatment=t).effect(X)
        lower, upper = post.interval(0.9).T
        inside.append(np.mean((lower < tau) & (tau < upper)))
        error.append(np.mean((post.mean() - tau) ** 2) / tau.var())
    assert 0.80 <= np.mean(inside) <= 0.99
    assert np.mean(error) < 0.4
