"""Strata of BayesianLinearEffect: partial pooling against its closed form, coverage, new strata."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat import BayesianLinearEffect
from causalsat.exceptions import ColumnError, DataError, ParameterError

QUICK = {"n_draws": 250, "n_tune": 150, "n_chains": 2, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")


def sites(sizes, *, effect_sd=0.6, seed=0, noise=1.0):
    """A trial in several sites, half of each treated: intercepts sd 1, effects 1 + N(0, effect_sd^2)."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(len(sizes)), sizes)
    t = np.concatenate([rng.permutation(np.arange(n) % 2) for n in sizes]).astype(float)
    b = effect_sd * rng.standard_normal(len(sizes))
    a = rng.standard_normal(len(sizes))
    x = rng.standard_normal(len(site))
    y = a[site] + t * (1.0 + b[site]) + noise * rng.standard_normal(len(site))
    return np.column_stack([x, site]), y, t, 1.0 + b


def test_stratum_effects_are_shrunken_as_the_closed_form_says():
    """Given the scales, a site's effect is its own difference of means drawn towards the common effect."""
    sizes = np.array([8, 16, 40, 80, 160, 320, 12, 24, 60, 120])
    X, y, t, _ = sites(sizes)
    est = BayesianLinearEffect(strata=1, modifiers=[], prior="normal", **QUICK).fit(X, y, treatment=t)
    d = est.draws_
    own = np.array([y[(X[:, 1] == h) & (t == 1)].mean() - y[(X[:, 1] == h) & (t == 0)].mean() for h in range(10)])
    omega, noise = d["stratum_slope_sd"][:, None], d["noise"]
    variance = noise[:, [0]] ** 2 / (sizes / 2) + noise[:, [1]] ** 2 / (sizes / 2)
    share = omega**2 / (omega**2 + variance)
    closed = (share * (own - d["treatment"][:, None])).mean(axis=0)
    found = d["stratum_slope"].mean(axis=0)
    # the intercept's own shrinkage and the covariate move small sites by a few hundredths
    np.testing.assert_allclose(found, closed, atol=0.1)
    assert np.corrcoef(found, closed)[0, 1] > 0.99
    raw = own - d["treatment"].mean()
    ratio = found @ raw / (raw @ raw)
    assert 0.4 < ratio < 1.0
    small, large = np.argsort(sizes)[:3], np.argsort(sizes)[-3:]
    assert d["stratum_slope"].std(axis=0)[small].mean() > 1.5 * d["stratum_slope"].std(axis=0)[large].mean()


def test_known_strata_use_their_effect_and_new_ones_the_populations_spread():
    X, y, t, truth = sites([200] * 12, effect_sd=0.8)
    est = BayesianLinearEffect(strata=1, modifiers=[0], **QUICK).fit(X, y, treatment=t)
    known = est.effect(np.column_stack([np.zeros(12), np.arange(12)]))
    assert np.corrcoef(known.mean(), truth)[0, 1] > 0.97
    new = est.effect(np.array([[0.0, 40.0], [0.0, 41.0], [0.0, 40.0], [0.0, np.nan]]))
    assert new.sd().min() > 3 * known.sd().max()
    assert abs(new.mean()[0] - est.draws_["treatment"].mean()) < 4 * new.sd()[0] / np.sqrt(500)
    spread = np.sqrt((est.draws_["stratum_slope_sd"] ** 2).mean() + est.draws_["treatment"].var())
    assert new.sd()[0] == pytest.approx(spread, rel=0.15)
    np.testing.assert_array_equal(new.draws[:, 0], new.draws[:, 2])  # the same new site
    assert abs(np.corrcoef(new.draws[:, 0], new.draws[:, 1])[0, 1]) < 0.3  # another one
    alone = est.effect(np.array([[0.0, 41.0]]))
    np.testing.assert_array_equal(alone.draws[:, 0], new.draws[:, 1])  # whatever stands beside it
    assert est.draws_["ate"].mean() == pytest.approx(known.mean().mean(), abs=0.02)


def test_labels_may_be_texts_and_survive_a_file(tmp_path):
    X, y, t, _ = sites([60] * 5)
    names = np.array(["north", "south", "east", "west", "centre"])
    table = pd.DataFrame({"age": X[:, 0], "site": names[X[:, 1].astype(int)]})
    by_name = BayesianLinearEffect(strata="site", **QUICK).fit(table, y, treatment=t)
    assert by_name.strata_ == sorted(names)
    assert by_name.modifiers_.tolist() == [0]
    assert "treatment x stratum west" in by_name.summary().table.index
    order = np.argsort(names)  # the same numbers as codes in that order
    by_code = BayesianLinearEffect(strata=1, **QUICK).fit(
        np.column_stack([X[:, 0], np.argsort(order)[X[:, 1].astype(int)]]), y, treatment=t
    )
    np.testing.assert_allclose(by_name.predict(table), by_code.predict(np.column_stack([X[:, 0], by_codes(table)])))
    by_name.save(tmp_path / "sites.safetensors")
    loaded = causalsat.load(tmp_path / "sites.safetensors")
    new = table.head(3).assign(site=["north", "abroad", None])
    np.testing.assert_array_equal(loaded.effect(new).draws, by_name.effect(new).draws)
    shuffled = table.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(by_name.effect(shuffled).draws, by_name.effect(table).draws[:, shuffled.index])


def by_codes(table):
    return np.unique(table["site"], return_inverse=True)[1]


@pytest.mark.parametrize("family", ["bernoulli", "negative_binomial", "gamma"])
def test_strata_go_with_other_families_villages_and_noise_by_arm(family):
    X, y, t, truth = sites([250] * 6, effect_sd=0.5, noise=0.3, seed=2)
    rng = np.random.default_rng(0)
    y = {
        "bernoulli": (y + rng.logistic(size=len(y)) > 0.5).astype(float),
        "negative_binomial": rng.poisson(np.exp(0.5 * y)).astype(float),
        "gamma": np.exp(0.5 * y),
    }[family]
    groups = X[:, 1] * 25 + np.tile(np.arange(25), 60)
    est = BayesianLinearEffect(strata=1, family=family, modifiers=[], group_slopes=False, **QUICK)
    est.fit(X, y, treatment=t, groups=groups)
    assert np.corrcoef(est.draws_["stratum_slope"].mean(axis=0), truth)[0, 1] > 0.85
    assert est.draws_["noise"].shape[1] == (0 if family == "bernoulli" else 2)
    own = [y[(X[:, 1] == h) & (t == 1)].mean() - y[(X[:, 1] == h) & (t == 0)].mean() for h in range(6)]
    effects = est.effect(np.column_stack([np.zeros(6), np.arange(6)])).mean()
    assert np.corrcoef(effects, own)[0, 1] > 0.85
    assert abs(effects.mean() - np.mean(own)) < 0.25 * abs(np.mean(own)) + 0.03


def test_refusals():
    X, y, t, _ = sites([40] * 4)
    table = pd.DataFrame(X, columns=["age", "site"])
    cases = [
        ({"strata": "place"}, table, ColumnError, "place"),
        ({"strata": "site"}, X, ColumnError, "without columns"),
        ({"strata": 1}, table, ParameterError, "name of a column"),
        ({"strata": 7}, X, ColumnError, "2 columns"),
        ({"strata": True}, X, ParameterError, "strata=True"),
        ({"strata": "site", "modifiers": ["age", "site"]}, table, ParameterError, "treatment effects of their own"),
        ({"strata": "site"}, table.assign(site=[np.nan, *X[1:, 1]]), DataError, "1 missing label"),
    ]
    for options, given, error, words in cases:
        with pytest.raises(error, match=words):
            BayesianLinearEffect(**options, **QUICK).fit(given, y, treatment=t)


@pytest.mark.statistical
def test_intervals_of_site_effects_cover():
    """Known sites and a site that the trial did not reach, over trials whose effects come from the prior's kind."""
    rng, inside = np.random.default_rng(5), []
    for trial in range(60):
        X, y, t, truth = sites(rng.integers(20, 80, 10), effect_sd=0.5, seed=100 + trial)
        keep = X[:, 1] != 9
        est = BayesianLinearEffect(strata=1, modifiers=[], n_draws=120, n_tune=120, n_chains=2, random_state=trial)
        est.fit(X[keep], y[keep], treatment=t[keep])
        post = est.effect(np.column_stack([np.zeros(10), np.arange(10)]))
        row = [(post.interval(v)[:, 0] < truth) & (truth < post.interval(v)[:, 1]) for v in (0.5, 0.9)]
        inside.append([row[0][:9].mean(), row[1][:9].mean(), row[1][9]])
    half, ninety, new = np.mean(inside, axis=0)
    # 540 known sites and 60 new ones: standard errors 0.022, 0.013 and 0.039
    assert abs(half - 0.5) < 0.07
    assert abs(ninety - 0.9) < 0.045
    assert abs(new - 0.9) < 0.11
