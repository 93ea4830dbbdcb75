"""The simulated studies have the confounding, the effects and the breaks of assumptions that they say."""

import numpy as np
import pytest

from causalsat.exceptions import ParameterError
from causalsat.simulate import hidden_confounding


def slope(columns, target):
    return np.linalg.lstsq(np.column_stack([np.ones(len(target)), *columns]), target, rcond=None)[0][1:]


def test_regression_with_the_true_confounder_finds_the_effect_and_without_it_does_not():
    w = hidden_confounding(40_000, strength=2.0, seed=0)
    X, t, y, L = w.X, w.treatment, w.outcome, w.confounder
    nonlinear = [X[:, 1] ** 2, np.sin(2 * X[:, 2]), X[:, 3] * X[:, 4], t * X[:, 0]]
    with_l = slope([t, *nonlinear, *X.T, L[:, 0], t * L[:, 0]], y)
    without = slope([t, *nonlinear, *X.T], y)
    assert with_l[0] == pytest.approx(1.0, abs=0.05)
    assert with_l[-2:] == pytest.approx([2.0, 0.5], abs=0.05)
    assert without[0] > 3.0
    assert w.tau.mean() == pytest.approx(1.0, abs=0.02)


def test_lengths_of_the_links_are_the_strength_in_every_dimension():
    for d in (1, 3, 5):
        w = hidden_confounding(20_000, n_latents=d, strength=1.5, treatment="dose", seed=1)
        b = slope([*w.confounder.T, *w.X.T], w.treatment)[:d]
        assert w.link == pytest.approx(np.full(d, 1.5 / np.sqrt(d)))
        assert b == pytest.approx(w.link, abs=0.03)


def test_without_strength_there_is_no_confounding_and_in_a_trial_nothing_predicts_treatment():
    none = hidden_confounding(20_000, strength=0.0, seed=2)
    assert np.abs(np.corrcoef(none.confounder[:, 0], none.outcome)[0, 1]) < 0.03
    np.testing.assert_allclose(none.tau, none.tau_x)
    trial = hidden_confounding(20_000, strength=2.0, randomised=True, seed=2)
    columns = np.column_stack([trial.X, trial.confounder])
    assert max(abs(np.corrcoef(c, trial.treatment)[0, 1]) for c in columns.T) < 0.03


def test_binary_outcomes_have_effects_that_are_differences_of_probabilities():
    w = hidden_confounding(60_000, strength=1.0, outcome="binary", randomised=True, seed=3)
    y, t = w.outcome, w.treatment
    assert set(np.unique(y)) == {0.0, 1.0}
    assert y[t == 1].mean() - y[t == 0].mean() == pytest.approx(w.tau.mean(), abs=0.015)
    assert w.tau_x.mean() == pytest.approx(w.tau.mean(), abs=0.005)


def test_observed_scales_the_link_of_x_and_correlation_ties_l_to_it():
    w = hidden_confounding(30_000, observed=2.0, correlation=0.6, treatment="dose", strength=1.0, seed=4)
    a = slope([*w.X.T, w.confounder[:, 0]], w.treatment)[:10]
    assert np.linalg.norm(a) == pytest.approx(2.0, abs=0.04)
    assert np.corrcoef(w.X[:, 0], w.confounder[:, 0])[0, 1] == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("bad", [{"n": 0}, {"strength": -1.0}, {"correlation": 1.0}, {"treatment": "pill"}])
def test_nonsense_is_refused(bad):
    with pytest.raises(ParameterError):
        hidden_confounding(**bad)
