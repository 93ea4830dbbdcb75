"""The two baselines under selective labels: equal to a logistic regression, and wrong in the known directions."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit

import causalsat
from causalsat import SelectiveLabelsRisk, TestedOnlyRisk, UntestedNegativeRisk


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((2000, 2))
    z = rng.uniform(0, 3, 2000)
    risk = -2.0 + X[:, 0] + z
    y = (rng.random(2000) < expit(risk)).astype(float)
    tested = (rng.random(2000) < expit(risk + 0.5 - X[:, 1])).astype(int)
    return X, np.where(tested == 1, y, np.nan), tested, y


@pytest.fixture(scope="module")
def fits(world):
    X, y, tested, truth = world
    models = (
        TestedOnlyRisk(random_state=0),
        UntestedNegativeRisk(random_state=0),
        SelectiveLabelsRisk(prevalence=(truth.mean(), 0.02), expertise=[1], random_state=0),
    )
    return [model.fit(X, y, treatment=tested) for model in models]


@pytest.mark.parametrize("which", [0, 1])
def test_equals_maximum_likelihood_where_the_prior_is_weak(world, fits, which):
    X, y, tested, _ = world
    used = tested == 1 if which == 0 else np.ones(2000, bool)
    scaled = sm.add_constant((X - X.mean(axis=0)) / X.std(axis=0))
    reference = sm.Logit(np.nan_to_num(y)[used], scaled[used]).fit(disp=0)
    np.testing.assert_allclose(fits[which].risk_draws_.mean(axis=0), reference.params, atol=0.03)
    np.testing.assert_allclose(fits[which].risk_draws_.std(axis=0), reference.bse, rtol=0.1)


def test_known_directions_and_calibration_of_the_untested(world, fits):
    """Tested only overstates the risk of the untested, untested-as-negative understates it, the model neither."""
    X, _, tested, truth = world
    untested = tested == 0
    only, negative, model = (fit.risk(X, given="untested").mean()[untested].mean() for fit in fits)
    actual = truth[untested].mean()
    assert only > actual + 0.05
    assert negative < actual - 0.05
    assert model == pytest.approx(actual, abs=0.03)


def test_saved_and_loaded(world, fits, tmp_path):
    X, *_ = world
    fits[0].save(tmp_path / "only.safetensors")
    again = causalsat.load(tmp_path / "only.safetensors")
    np.testing.assert_array_equal(again.predict_decision(X), fits[0].predict_decision(X))
    assert "risk: x0" in str(again.summary())
