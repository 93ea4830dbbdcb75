"""Prediction-powered effects: formulas at the ends of lambda, coverage where predictions shrink."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.evaluation import linear_calibration, prediction_powered
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.average_effects import blocked_difference


def world(n=1500, seed=0, share=0.2, villages=None, shrink=0.4, gap=0.0):
    """Effect .5 on y; predictions shrink y and know nothing of ``gap`` of the effect."""
    rng = np.random.default_rng(seed)
    g = np.arange(n) if villages is None else np.repeat(np.arange(villages), n // villages)
    t = (rng.permutation(int(g.max()) + 1) % 2)[g]
    common = 0.0 if villages is None else 0.5 * rng.standard_normal(villages)[g]
    y = 0.5 * t + common + rng.standard_normal(n)
    f = shrink * (y - gap * t) + 0.3 * rng.standard_normal(n)
    seen = rng.random(n) < share
    return f, np.where(seen, y, np.nan), t, g, y


def test_lambda_zero_is_the_measured_difference_and_everything_measured_the_true_one():
    f, labelled, t, _, y = world()
    seen = np.isfinite(labelled)
    found = prediction_powered(f, labelled, t, lam=0.0)
    only = labelled[seen & (t == 1)].mean() - labelled[seen & (t == 0)].mean()
    assert found.estimate == pytest.approx(only)
    assert found.labelled_only.estimate == pytest.approx(only)
    assert found.se == pytest.approx(found.labelled_only.se, rel=0.02)
    whole = prediction_powered(f, y, t, lam=0.7)
    assert whole.estimate == pytest.approx(blocked_difference(y, t).estimate)
    assert whole.se == pytest.approx(blocked_difference(y, t).se, rel=0.01)


def test_at_a_given_lambda_it_is_the_formula_of_the_paper():
    """theta = lambda mean f + mean over the measured of (y - lambda f), in each arm."""
    f, labelled, t, _, _ = world(seed=1)
    seen, expected = np.isfinite(labelled), []
    for arm in (0, 1):
        own = t == arm
        expected.append(0.8 * f[own].mean() + (labelled - 0.8 * f)[own & seen].mean())
    assert prediction_powered(f, labelled, t, lam=0.8).estimate == pytest.approx(expected[1] - expected[0])


def test_the_tuned_lambda_has_the_smallest_error():
    f, labelled, t, g, _ = world(seed=2, villages=150)
    tuned = prediction_powered(f, labelled, t, g)
    others = [prediction_powered(f, labelled, t, g, lam=lam) for lam in (0.0, 0.5, 1.0, 3.0)]
    assert all(tuned.se < other.se * 1.02 for other in others)
    assert tuned.se < 0.8 * others[0].se


def test_useless_predictions_cost_nothing_and_the_outcome_has_the_measured_mean():
    f, labelled, t, _, _ = world(seed=3)
    noise = np.random.default_rng(0).standard_normal(len(f))
    found = prediction_powered(noise, labelled, t)
    assert found.se < 1.02 * found.labelled_only.se
    assert np.abs(found.lam).max() < 0.25
    powered = prediction_powered(f, labelled, t)
    difference = blocked_difference(powered.outcome, t)
    assert difference.estimate == pytest.approx(powered.estimate)


def test_units_of_measurement_and_constants_of_the_prediction_do_not_matter():
    f, labelled, t, g, _ = world(seed=4, villages=150)
    found, other = prediction_powered(f, labelled, t, g), prediction_powered(100 + 1e3 * f, labelled, t, g)
    assert other.estimate == pytest.approx(found.estimate)
    assert other.se == pytest.approx(found.se)
    scaled = prediction_powered(f, 1e6 * labelled, t, g)
    assert scaled.se == pytest.approx(1e6 * found.se)


def test_stated_probabilities_correct_an_uneven_draw():
    """Measured more often where y is large: only the stated probability makes it right."""
    rng = np.random.default_rng(5)
    n = 20000
    t, x = rng.permutation(n) % 2, rng.integers(0, 2, n)
    y = 0.5 * t * (1 + x) + 2 * x + 0.3 * rng.standard_normal(n)
    pi = np.where(x == 1, 0.4, 0.1)
    labelled = np.where(rng.random(n) < pi, y, np.nan)
    f = 0.1 * y + rng.standard_normal(n)
    found = prediction_powered(f, labelled, t, probability=pi)
    assert abs(found.estimate - 0.75) < 4 * found.se
    assert prediction_powered(f, labelled, t).estimate > 0.85


def test_calibration_divides_by_the_slope_and_carries_its_error_on():
    f, _, t, _, y = world(seed=6)
    line = linear_calibration(f[:300], y[:300])
    found = prediction_powered(f, None, t, calibration=line)
    plain = blocked_difference(f, t)
    assert found.estimate == pytest.approx(plain.estimate / line.slope)
    expected = np.hypot(plain.se / line.slope, plain.estimate * line.slope_se / line.slope**2)
    assert found.se == pytest.approx(expected)
    assert list(found.to_dataframe().index) == ["corrected (linear calibration)", "predictions, uncorrected"]


def test_refusals():
    f, labelled, t, _, y = world(n=100)
    with pytest.raises(ParameterError, match="neither labelled= nor calibration="):
        prediction_powered(f, None, t)
    with pytest.raises(DataError, match="at least 3 in each arm"):
        prediction_powered(f, np.where(t == 1, labelled, np.nan), t)
    with pytest.raises(DataError, match="slope"):
        prediction_powered(f, None, t, calibration=linear_calibration(np.random.default_rng(1).random(100), y))


@pytest.mark.statistical
@pytest.mark.parametrize(("villages", "share"), [(None, 0.2), (60, 0.2), (60, 0.05)])
def test_intervals_cover_where_the_predictions_do_not(villages, share):
    inside, naive, ratio = [], [], []
    for seed in range(200):
        f, labelled, t, g, _ = world(900, seed, share, villages, gap=0.2)
        found = prediction_powered(f, labelled, t, g)
        low, high = found.uncorrected.interval(0.95)
        inside.append(found.lower < 0.5 < found.upper)
        naive.append(low < 0.5 < high)
        ratio.append(found.estimate)
    assert 0.91 <= np.mean(inside) <= 0.985
    assert np.mean(naive) < 0.35
    assert abs(np.mean(ratio) - 0.5) < 3 * np.std(ratio) / np.sqrt(200)
