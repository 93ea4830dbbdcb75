"""Effects on compliers at new places: coverage of their intervals where one of eight features matters."""

import numpy as np
import pytest

from causalsat import ComplierEffect

pytestmark = pytest.mark.statistical
VILLAGES, PEOPLE, FEATURES, TRIALS = 140, 15, 8, 20


def trial(seed):
    """People are drawn, half of them take up; the effect on compliers is 1 + .7 x0."""
    rng = np.random.default_rng([11, seed])
    village = np.repeat(np.arange(VILLAGES), PEOPLE)
    X, z = rng.standard_normal((VILLAGES, FEATURES))[village], rng.permutation(len(village)) % 2
    complier = rng.random(len(village)) < 0.5 + 0.1 * np.clip(X[:, 1], -3, 3)
    y = 0.5 * X[:, 1] + 0.3 * rng.standard_normal(VILLAGES)[village] + rng.standard_normal(len(village))
    y = y + z * complier * (1 + 0.7 * X[:, 0]) - 0.5 * complier
    model = ComplierEffect(n_draws=400).fit(X, y, treatment=z, take_up=z * complier, groups=village)
    new = rng.standard_normal((300, FEATURES))
    return model.effect(new), 1 + 0.7 * new[:, 0]


def test_intervals_of_places_cover_and_the_slope_that_matters_is_not_shrunk_away():
    covered, slopes, averages = [], [], []
    for seed in range(TRIALS):
        posterior, truth = trial(seed)
        low, high = posterior.interval(0.9).T
        covered.append(np.mean((low < truth) & (truth < high)))
        slopes.append(np.polyfit(truth, posterior.mean(), 1)[0])
        low, high = posterior.ate().interval(0.9)[0]
        averages.append(low < truth.mean() < high)
    assert 0.8 < np.mean(covered) < 0.95  # .80 with one scale for all slopes
    assert np.mean(slopes) == pytest.approx(1.0, abs=0.2)
    assert np.mean(averages) > 0.75
