"""DEUP: ranks errors of unseen regions better than an sd that saturates, as well as one that does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import BayesianRidge

import causalsat
from causalsat.evaluation import DirectUncertainty
from causalsat.exceptions import DataError, ParameterError

NOISE = 0.5


def truth(X):
    return X[:, 0] + np.sin(1.5 * X[:, 1]) + 0.5 * X[:, 2] ** 2


def regions(seed, trial=15, new=15, size=40):
    """Latents of regions of the trial and of new regions, which lie further out; outcome with noise of sd 0.5."""
    rng = np.random.default_rng(seed)
    centres = np.vstack([1.0 * rng.standard_normal((trial, 4)), 2.5 * rng.standard_normal((new, 4))])
    region = np.repeat(np.arange(trial + new), size)
    X = centres[region] + 0.5 * rng.standard_normal((len(region), 4))
    return X, truth(X) + NOISE * rng.standard_normal(len(region)), region, region < trial


def linear(train, y, new):
    """Mean and posterior sd of a linear model: its sd grows with the distance from the trial's middle."""
    return BayesianRidge().fit(train, y).predict(new, return_std=True)


def forest(train, y, new):
    """Mean and sd over trees, which far from the trial all say the same."""
    trees = RandomForestRegressor(30, min_samples_leaf=3, random_state=0).fit(train, y).estimators_
    found = np.array([tree.predict(new) for tree in trees])
    return found.mean(axis=0), found.std(axis=0)


def scores(seed, predict=linear):
    X, y, region, inside = regions(seed)
    loss, spread = np.empty(inside.sum()), np.empty(inside.sum())
    for k in np.unique(region[inside]):
        held = region[inside] == k
        mean, spread[held] = predict(X[inside][~held], y[inside][~held], X[inside][held])
        loss[held] = (y[inside][held] - mean) ** 2
    trust = DirectUncertainty(aleatoric=NOISE**2).fit(X[inside], loss, folds=region[inside], sd=spread)
    mean, sd = predict(X[inside], y[inside], X[~inside])
    error = (truth(X[~inside]) - mean) ** 2
    return spearmanr(trust.predict(X[~inside], sd), error)[0], spearmanr(sd, error)[0], trust, X, inside, sd, error


@pytest.mark.slow
@pytest.mark.statistical
def test_ranks_errors_of_unseen_regions_better_than_an_sd_that_saturates():
    found = np.array([scores(seed, forest)[:2] for seed in range(6)])
    gain = found[:, 0] - found[:, 1]
    assert found[:, 0].mean() > 0.25
    assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain))


def test_is_no_worse_than_an_sd_that_is_a_distance_itself():
    found = np.array([scores(seed)[:2] for seed in range(8)])
    assert found[:, 0].mean() > 0.3
    assert (found[:, 0] - found[:, 1]).mean() > -0.03


def test_trusts_the_trial_more_than_new_regions():
    _, _, trust, X, inside, sd, _ = scores(0)
    _, own = linear(X[inside], truth(X[inside]), X[inside])
    assert np.median(trust.predict(X[inside], own)) < np.median(trust.predict(X[~inside], sd))
    assert (trust.coef_ >= 0).all()
    assert trust.expected_loss(X[~inside], sd).mean() > 1.5 * trust.expected_loss(X[inside], own).mean()


def test_pure_noise_leaves_no_excess():
    rng = np.random.default_rng(0)
    X, folds = rng.standard_normal((2000, 3)), np.arange(2000) % 10
    trust = DirectUncertainty(aleatoric=0.25).fit(X, 0.25 * rng.chisquare(1, 2000), folds=folds)
    assert trust.predict(X).mean() < 0.03
    assert DirectUncertainty().fit(X, 0.25 * rng.chisquare(1, 2000), folds=folds).aleatoric_ == pytest.approx(
        0.25, abs=0.05
    )


def test_saved_and_loaded(tmp_path):
    trust, X, sd = scores(0)[2], scores(0)[3], np.ones(1200)
    causalsat.save(trust, tmp_path / "trust.safetensors")
    again = causalsat.load(tmp_path / "trust.safetensors")
    np.testing.assert_array_equal(again.predict(X, sd), trust.predict(X, sd))


def test_bad_input_is_named():
    X, folds = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 2
    good = DirectUncertainty().fit(X, np.ones(20), folds=folds)
    for call, error, words in (
        (lambda: DirectUncertainty().fit(X, -np.ones(20), folds=folds), DataError, "at least 0"),
        (lambda: DirectUncertainty().fit(X, np.ones(20), folds=0 * folds), DataError, "two folds"),
        (lambda: DirectUncertainty().fit(X, np.ones(19), folds=folds), DataError, "one loss a row"),
        (lambda: DirectUncertainty(n_neighbours=0).fit(X, np.ones(20), folds=folds), ParameterError, "n_neighbours"),
        (lambda: DirectUncertainty().fit(X * np.nan, np.ones(20), folds=folds), DataError, "complete"),
        (lambda: good.predict(X, np.ones(20)), DataError, "only there"),
        (lambda: good.predict(X[:, :1]), DataError, "as in fit"),
    ):
        with pytest.raises(error, match=words):
            call()
