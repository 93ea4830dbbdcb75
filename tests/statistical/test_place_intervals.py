"""Intervals of the place itself, and of the standard deviation of what is its own, over repeated trials."""

import numpy as np
import pytest

from causalsat import DoublyRobustEffect

pytestmark = pytest.mark.statistical

N_TRIALS, S_U = 40, 1.0


def one(seed, curved, whole):
    """Whether the interval of s_u covers it, and the share of 200 new places whose own effect is covered."""
    rng = np.random.default_rng([11, seed])
    village = np.repeat(np.arange(80), 5)
    X, places = rng.standard_normal((80, 3)), rng.standard_normal((200, 3))
    t = (rng.permutation(80) % 2)[village] if whole else rng.permutation(400) % 2
    effect = (lambda Z: 1.4 * np.sin(2 * Z[:, 0])) if curved else (lambda Z: Z[:, 0])
    own = S_U * rng.standard_normal(280)
    y = (X[:, 1] + 0.5 * rng.standard_normal(80))[village] + rng.standard_normal(400)
    y = y + t * (1 + effect(X) + own[:80])[village]
    model = DoublyRobustEffect(n_draws=300, random_state=seed).fit(X[village], y, treatment=t, groups=village)
    low, high = np.quantile(model.place_deviation_.sd, [0.05, 0.95])
    lower, upper = model.effect(places, scope="place").interval(0.9).T
    truth = 1 + effect(places) + own[80:]
    return low <= S_U <= high, np.mean((lower < truth) & (truth < upper))


@pytest.mark.parametrize(("curved", "whole"), [(False, False), (True, False), (False, True)])
def test_intervals_cover_the_place_and_the_sd_of_its_own_part(curved, whole):
    sd_covered, covered = np.array([one(seed, curved, whole) for seed in range(N_TRIALS)]).T
    assert 0.86 < covered.mean() < 0.95
    if not curved:  # what a linear model misses of a curve counts as the places' own
        assert sd_covered.mean() > 0.9 - 3 * np.sqrt(0.09 / N_TRIALS)
