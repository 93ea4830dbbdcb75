"""Calibration of risks against scikit-learn and a known distortion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

import causalsat
from causalsat import SelectiveLabelsRisk, TestedOnlyRisk
from causalsat.evaluation import follow_up_calibration, risk_calibration
from causalsat.exceptions import DataError


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    p = rng.beta(2, 5, 20_000)
    return p, (rng.random(20_000) < p).astype(float)


def test_equals_scikit_learn(world):
    p, y = world
    found = risk_calibration(p, y)
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.predicted, predicted, atol=1e-3)
    np.testing.assert_allclose(found.observed, observed, atol=1e-2)
    assert found.brier == pytest.approx(brier_score_loss(y, p))
    assert found.log_loss == pytest.approx(log_loss(y, p))


def test_distortion_is_found(world):
    p, y = world
    good, bold, high = (risk_calibration(q, y) for q in (p, expit(2 * logit(p)), expit(logit(p) + 0.5)))
    assert good.slope == pytest.approx(1.0, abs=0.05)
    assert bold.slope == pytest.approx(0.5, abs=0.03)
    assert high.slope == pytest.approx(1.0, abs=0.05)
    assert good.calibration_error < 0.01 < 0.05 < high.calibration_error
    assert good.brier < min(bold.brier, high.brier)


def test_whole_weights_are_copies(world):
    p, y = (v[:500] for v in world)
    copies = np.random.default_rng(1).integers(1, 4, 500)
    weighted = risk_calibration(p, y, weights=copies, bins=1)
    repeated = risk_calibration(np.repeat(p, copies), np.repeat(y, copies), bins=1)
    for name in ("brier", "log_loss", "calibration_error", "slope"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), rel=1e-6)


def test_constant_probability_is_one_bin():
    found = risk_calibration(np.full(50, 0.3), np.r_[np.ones(10), np.zeros(40)])
    assert found.to_dataframe().shape == (1, 4)
    assert found.calibration_error == pytest.approx(0.1)
    assert np.isnan(found.slope)


@pytest.mark.parametrize(
    ("p", "y", "words"),
    [([0.5, 1.2], [0, 1], "between 0 and 1"), ([0.5, 0.2], [0, 2], "0 and 1"), ([0.5, np.nan], [0, 1], "missing")],
)
def test_bad_input(p, y, words):
    with pytest.raises(DataError, match=words):
        risk_calibration(p, y)


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_a_follow_up_finds_which_model_knows_the_untested():
    """Officials see more than the data: learning from the tested alone overstates the risk of the untested."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((2000, 2))
    r = -2.0 + X[:, 0] + rng.uniform(0, 2.5, 2000)
    tested = (rng.random(2000) < expit(2 * r + 1.0)).astype(int)
    happens = rng.random(2000) < expit(r)
    audited = np.where(rng.random(2000) < 0.6, happens, np.nan)
    y = np.where(tested == 1, happens, np.nan)
    settings = {"n_draws": 100, "n_chains": 2, "random_state": 0}
    models = {"ours": SelectiveLabelsRisk(prevalence=(happens.mean(), 0.01), **settings),
              "tested only": TestedOnlyRisk(**settings)}  # fmt: skip
    found = {name: follow_up_calibration(m.fit(X, y, treatment=tested), X, tested, audited, bins=5)
             for name, m in models.items()}  # fmt: skip
    for name, both in found.items():
        assert sorted(both) == ["tested", "untested"], name
        seen = np.isfinite(audited)
        assert [both[k].n_units for k in sorted(both)] == [(seen & (tested == 1)).sum(), (seen & (tested == 0)).sum()]
        group = seen & (tested == 0)
        p = models[name].risk(X, given="untested").mean()[group]
        assert both["untested"].brier == pytest.approx(np.mean((p - audited[group]) ** 2))
    assert found["ours"]["untested"].calibration_error < 0.04
    assert found["tested only"]["untested"].calibration_error > 0.08
    weighted = follow_up_calibration(models["ours"], X, tested, audited, weights=np.where(tested, 1.0, 2.0))
    assert weighted["untested"].brier == pytest.approx(found["ours"]["untested"].brier)


def test_a_follow_up_of_nobody_or_of_one_group():
    X, tested = np.zeros((40, 1)) + np.arange(40)[:, None] / 40, np.arange(40) % 2
    y = np.where(tested == 1, np.arange(40) % 3 == 0, np.nan)
    model = TestedOnlyRisk(n_draws=100, n_tune=100, n_chains=2, random_state=0)
    with pytest.warns(causalsat.exceptions.ConvergenceWarning, match="effective"):
        model.fit(X, y, treatment=tested)
    with pytest.raises(DataError, match="follow-up"):
        follow_up_calibration(model, X, tested, np.full(40, np.nan))
    with pytest.raises(DataError, match="0 and 1"):
        follow_up_calibration(model, X, tested, np.full(40, 2.0))
    assert list(follow_up_calibration(model, X, tested, np.where(tested == 0, 1.0, np.nan))) == ["untested"]
