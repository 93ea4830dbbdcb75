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
