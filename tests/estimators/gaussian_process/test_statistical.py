"""Coverage of GaussianProcessEffect's intervals over simulated trials, and accuracy on IHDP where it is at hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from causalsat import GaussianProcessEffect

REPOSITORY = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("CAUSALSAT_DATA", REPOSITORY.parent / "shared" / "data"))
N_TRIALS = 60


def one_trial(seed):
    """100 units; curved prognosis, curved effect of random size; arms of unequal noise."""
    rng = np.random.default_rng(seed)
    X, t = rng.standard_normal((100, 2)), rng.permutation(100) % 2
    tau = 1 + rng.normal() * X[:, 0] + rng.normal() * np.sin(1.5 * X[:, 1])
    y = np.cos(X[:, 0]) + X[:, 1] + t * tau + np.where(t, 1.0, 0.6) * rng.standard_normal(100)
    return X, y, t, tau


@pytest.fixture(scope="module")
def posteriors():
    settings = {"n_draws": 200, "n_hyper": 10, "n_burn": 4, "max_iter": 25, "random_state": 0}
    found = []
    for seed in range(N_TRIALS):
        X, y, t, tau = one_trial(seed)
        found.append((GaussianProcessEffect(**settings).fit(X, y, treatment=t).effect(X), tau))
    return found


@pytest.mark.statistical
@pytest.mark.slow
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_intervals_cover_unit_and_average_effects(posteriors, level):
    units, averages = [], []
    for post, tau in posteriors:
        lower, upper = post.interval(level).T
        units.append(np.mean((lower < tau) & (tau < upper)))
        low, high = post.ate().interval(level)[0]
        averages.append(low < tau.mean() < high)
    units_se = np.std(units) / np.sqrt(N_TRIALS)
    assert level - 0.03 - 2 * units_se < np.mean(units) < min(1, level + 0.06 + 2 * units_se)
    assert abs(np.mean(averages) - level) < 3 * np.sqrt(level * (1 - level) / N_TRIALS) + 0.02


@pytest.mark.statistical
@pytest.mark.slow
def test_ihdp_is_fitted_better_than_by_the_best_peer():
    if not (DATA / "ihdp").is_dir():
        pytest.skip(f"no IHDP data in {DATA}")
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        import ihdp
    finally:
        sys.path.pop(0)
    found = ihdp.evaluate(ihdp.FACTORIES["GaussianProcessEffect"], 1)
    assert found["nPEHE"] < 0.61  # PEERS: stochtree's mean over ten replications
    assert found["coverage"] > 0.85
