"""Intervals and regions of VLUCI hold the truth where the data say little."""

import numpy as np
import pytest

from causalsat import VLUCI, DoublyRobustEffect
from causalsat.simulate import hidden_confounding


def covers(interval, value):
    return interval[0] <= value <= interval[1]


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_the_likelihood_region_holds_the_truth_where_data_say_little():
    """Small studies with and without a confounder: region and interval hold the truth, that of X alone seldom."""
    base = DoublyRobustEffect(propensity_model="logistic")
    held = {"region": 0, "posterior": 0, "X only": 0}
    for strength, seed in ((0.0, 0), (0.5, 2), (0.5, 3), (1.0, 4), (1.0, 5)):
        w = hidden_confounding(500, strength=strength, observed=2.0, n_features=6, seed=20 + seed)
        model = VLUCI(base, n_imputations=5, n_grid=5, n_draws=600).fit(w.X, w.outcome, treatment=w.treatment)
        region = model.likelihood_region(0.9)
        held["region"] += covers((region.lower, region.upper), w.tau.mean())
        held["posterior"] += covers(np.quantile(model.ate_draws_, [0.05, 0.95]), w.tau.mean())
        naive = base.fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate()
        held["X only"] += covers(naive.interval(0.9)[0], w.tau.mean())
    assert held["region"] >= 4
    assert held["posterior"] >= 4
    assert held["X only"] <= 2


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_where_nothing_speaks_for_a_confounder_the_base_alone_is_the_estimate_and_the_interval_is_wider():
    w = hidden_confounding(800, strength=0.0, observed=2.0, n_features=5, seed=1)
    base = DoublyRobustEffect(propensity_model="logistic")
    model = VLUCI(base, n_imputations=6, n_grid=5, n_draws=600).fit(w.X, w.outcome, treatment=w.treatment)
    naive = base.fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate()
    ate = model.effect(w.X).ate()
    assert model.probability_ < 0.2
    assert float(ate) == pytest.approx(float(naive) + model.engine_.expected_move, abs=0.1)
    assert np.ptp(ate.interval(0.9)[0]) > 1.5 * np.ptp(naive.interval(0.9)[0])
    region = model.likelihood_region(0.9)
    low, high = ate.interval(0.9)[0]
    assert low < region.lower + 0.15
    assert high > region.upper - 0.15
    back = model.effect(w.X, treatment=0.0, baseline=1.0).ate()
    assert float(back) == pytest.approx(-float(ate), abs=1e-9)
