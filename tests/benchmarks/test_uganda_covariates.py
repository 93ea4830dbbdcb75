"""The simulated worlds of benchmarks/uganda_covariates.py: who carries the effects, and covariates like Uganda's."""

import sys
from pathlib import Path

import numpy as np
import pytest

from causalsat.simulate import satellite_trial


@pytest.fixture
def worlds(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import uganda_covariates

    yield uganda_covariates
    for name in (
        "uganda_covariates",
        "uganda_seeds",
        "uganda_design",
        "uganda_estimators",
        "uganda",
        "kept_rows",
        "sections",
    ):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def trial():
    return satellite_trial("smooth", n_units=1500, n_sites=110, size_px=448, tau_mean=0.7, tau_sd=0.25, seed=4)


def explained(y, columns):
    design = np.column_stack([np.ones(len(y)), columns])
    return 1 - np.var(y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) / np.var(y)


def test_effects_are_the_covariates_in_the_share_asked_for(worlds, trial):
    none, people = worlds.partly_in_households(trial, 0.0, "linear", 11)
    whole, same = worlds.partly_in_households(trial, 1.0, "linear", 11)
    np.testing.assert_allclose(none.units.tau, trial.units.tau, rtol=1e-12)
    assert same.equals(people)
    assert explained(whole.units.tau.to_numpy(), people.to_numpy()) == pytest.approx(1)
    assert whole.units.tau.mean() == pytest.approx(worlds.TAU_MEAN)
    assert whole.units.tau.std(ddof=0) == pytest.approx(worlds.TAU_SD)
    sharp, _ = worlds.partly_in_households(trial, 1.0, "threshold", 11)
    assert sharp.units.tau.nunique() == 2
    assert explained(sharp.units.tau.to_numpy(), people.to_numpy()) < 0.6


def test_outcomes_follow_the_effects_and_the_covariates_move_both_arms(worlds, trial):
    changed, people = worlds.partly_in_households(trial, 0.5, "linear", 12)
    before, after = trial.units, changed.units
    moved = after.outcome - before.outcome - before.treatment * (after.tau - before.tau)
    assert explained(moved.to_numpy(), people.to_numpy()) == pytest.approx(1)
    assert (after.treatment == before.treatment).all()


def test_covariates_lie_between_and_within_sites_as_ugandas_do(worlds, trial):
    people = worlds.households(trial, 13)
    within = people - people.groupby(trial.units.site).transform("mean")
    between = 1 - within.var() / people.var()
    assert between["x3"] > 0.9
    assert (between[["x1", "x5"]] < 0.4).all()
    np.testing.assert_allclose(people[["x1", "x5"]].mean(), [0.32, 0.46], atol=0.01)
