"""The scale diagnostic of effect posteriors: known factors are found, and its interval has its level."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import DoublyRobustEffect, EffectPosterior
from causalsat.evaluation import crossfit_effects, crossfit_nuisances, dr_scores, out_of_fold_draws, posterior_scale
from causalsat.exceptions import DataError


def held_out(rng, factor, *, n_folds=1, n_clusters=120, size=5, noise=1.0, spread=0.3):
    """Linear effects, ``factor`` times as far from the posterior's centre as its draws; scores with cluster noise."""
    k, n = 3, n_clusters * size
    Z = rng.standard_normal((n, k))
    groups = np.repeat(np.arange(n_clusters), size)
    fold = groups % n_folds
    draws, tau = np.empty((300, n)), np.empty(n)
    centre = np.array([1.0, 1.0, 0.0])
    for f in range(n_folds):
        units = fold == f
        truth = centre + factor * spread * rng.standard_normal(k)
        beta = centre + spread * rng.standard_normal((300, k))
        draws[:, units] = beta @ Z[units].T
        tau[units] = Z[units] @ truth
    village = noise * rng.standard_normal(n_clusters)[groups]
    return draws, tau + 0.5 * village + noise * rng.standard_normal(n), groups, fold


@pytest.mark.statistical
@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_interval_holds_the_factor_as_often_as_it_says(factor):
    rng = np.random.default_rng(0)
    hits, rejected = [], []
    for _ in range(120):
        draws, scores, groups, fold = held_out(rng, factor, n_folds=5, n_clusters=200)
        found = posterior_scale(draws, scores, groups=groups, folds=fold, level=0.9)
        hits.append(found.lower <= factor <= found.upper)
        rejected.append(found.p_value < 0.1)
    assert 0.84 < np.mean(hits) <= 0.99
    assert np.mean(rejected) < 0.16 if factor == 1 else np.mean(rejected) > 0.5


def test_a_narrow_posterior_is_found_out_and_stretching_mends_it():
    rng = np.random.default_rng(1)
    draws, scores, groups, fold = held_out(rng, 4.0, n_folds=10, n_clusters=400, noise=0.3)
    found = posterior_scale(draws, scores, groups=groups, folds=fold)
    assert found.lower > 2
    assert found.factor == pytest.approx(4, rel=0.4)
    posterior = EffectPosterior(draws)
    wide = found.stretch(posterior)
    np.testing.assert_allclose(wide.mean(), posterior.mean())
    np.testing.assert_allclose(wide.sd(), found.factor * posterior.sd())
    again = posterior_scale(wide, scores, groups=groups, folds=fold)
    assert again.factor == pytest.approx(1, abs=0.03)


def test_noise_alone_leaves_the_factor_open():
    rng = np.random.default_rng(2)
    draws, scores, groups, _ = held_out(rng, 1.0, noise=20.0)
    found = posterior_scale(draws, scores, groups=groups)
    assert found.lower < 0.1
    assert found.upper > 3
    assert found.p_value > 0.1


def test_z_scores_by_hand():
    rng = np.random.default_rng(3)
    draws, scores, groups, _ = held_out(rng, 1.0)
    found = posterior_scale(draws, scores, groups=groups, n_groups=1)
    mean = scores.mean()
    difference = scores - draws.mean(axis=0)
    by_cluster = np.bincount(groups, difference - difference.mean()) / len(scores)
    se = np.sqrt((by_cluster**2).sum() * 120 / 119)
    average = draws.mean(axis=1)
    assert found.se[0, 0] == pytest.approx(se)
    assert found.sd[0, 0] == pytest.approx(average.std(ddof=1))
    assert found.z[0, 0] == pytest.approx((mean - average.mean()) / np.hypot(se, average.std(ddof=1)))
    assert found.to_dataframe().shape == (1, 5)


def test_with_cross_fitted_models_of_a_real_estimator():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(100), 8)
    X, t = rng.standard_normal((800, 2)), (rng.permutation(100) % 2)[groups]
    y = X[:, 1] + t * (1 + X[:, 0]) + 0.3 * rng.standard_normal(100)[groups] + rng.standard_normal(800)
    options = {"treatment": t, "groups": groups}
    effects = crossfit_effects(DoublyRobustEffect(), X, y, progress=False, return_models=True, **options)
    draws = out_of_fold_draws(effects, X)
    np.testing.assert_allclose(draws.mean(axis=0), effects.tau)
    scores = dr_scores(y, t, crossfit_nuisances(X, y, t, groups=groups))
    found = posterior_scale(draws, scores, groups=groups, folds=effects.fold, level=0.99)
    assert found.lower < 1 < found.upper
    with pytest.raises(DataError, match="return_models"):
        out_of_fold_draws(crossfit_effects(DoublyRobustEffect(), X, y, progress=False, **options), X)


def test_too_few_clusters_or_draws_are_refused():
    rng = np.random.default_rng(5)
    draws, scores, groups, _ = held_out(rng, 1.0, n_clusters=4)
    with pytest.raises(DataError, match="4 clusters in a fold for 3 groups"):
        posterior_scale(draws, scores, groups=groups)
    with pytest.raises(DataError, match="draws of shape"):
        posterior_scale(draws[:3], scores, groups=groups)


def test_the_winners_curse_of_a_flat_prior_counts_as_overconfidence():
    """No heterogeneity, unshrunk noise as predictions: right sds, but the groups called high are so by error."""
    rng = np.random.default_rng(6)
    Z, groups = rng.standard_normal((3000, 8)), np.repeat(np.arange(300), 10)
    fold, draws = groups % 10, np.empty((200, 3000))
    for f in range(10):
        units = fold == f
        draws[:, units] = (rng.standard_normal(8) + rng.standard_normal((200, 8))) @ Z[units].T
    found = posterior_scale(draws, 0.1 * rng.standard_normal(3000), groups=groups, folds=fold)
    assert found.lower > 1.2


@pytest.mark.parametrize("unit", [1e-200, 1e160, 1e300])
def test_the_factor_does_not_depend_on_the_unit(unit):
    rng = np.random.default_rng(0)
    draws, scores = rng.standard_normal((50, 300)), rng.standard_normal(300)
    expected, result = posterior_scale(draws, scores), posterior_scale(unit * draws, unit * scores)
    assert result.factor == pytest.approx(expected.factor)
    np.testing.assert_allclose(result.se / unit, expected.se)
    np.testing.assert_allclose(result.z, expected.z)
