"""The choice of sites: against direct Gaussian conditioning, exhaustive search, random and spread sites."""

import itertools

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.decisions.sites import expected_gain, greedy
from causalsat.exceptions import ParameterError


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.standard_normal((160, 3)) * [1.0, 0.3, 0.3], columns=["a", "b", "c"])
    t = (np.arange(160) % 2).astype(float)
    y = t * (0.5 + X["a"]) + rng.standard_normal(160)
    return causalsat.BayesianLinearEffect(prior="normal", random_state=0).fit(X, y, treatment=t)


def conditioned(C, chosen, noise):
    """Covariance after readings of the chosen, by the textbook formula."""
    K = C[:, chosen] @ np.linalg.inv(C[np.ix_(chosen, chosen)] + noise * np.eye(len(chosen)))
    return C - K @ C[chosen]


def test_path_is_that_of_gaussian_conditioning():
    rng = np.random.default_rng(1)
    draws = rng.standard_normal((3000, 5)) @ rng.standard_normal((5, 12))
    chosen, path = greedy(draws, draws, 0.7, 4, lambda left: -left)
    C = np.cov(draws.T, bias=True)
    for k in range(4):
        assert -path[k] == pytest.approx(np.diag(conditioned(C, chosen[: k + 1], 0.7)).mean())


def test_greedy_is_near_the_best_of_all_sets():
    rng = np.random.default_rng(2)
    draws = rng.standard_normal((2000, 4)) @ rng.standard_normal((4, 10))
    C = np.cov(draws.T, bias=True)
    best = min(np.trace(conditioned(C, list(s), 1.0)) for s in itertools.combinations(range(10), 3))
    _, path = greedy(draws, draws, 1.0, 3, lambda left: -left)
    gained = np.trace(C) + path[-1] * 10
    assert gained >= 0.95 * (np.trace(C) - best)


def test_expected_gain_is_that_of_simulation():
    z = np.random.default_rng(0).standard_normal(400_000)
    for m, s in ((0.3, 0.5), (-0.2, 1.0), (1.0, 0.1)):
        direct = np.maximum(m + s * z, 0).mean() - max(m, 0)
        assert expected_gain(np.array([m]), np.array([s]))[0] == pytest.approx(direct, abs=4e-3)


def test_goals_choose_what_they_need(fitted):
    rng = np.random.default_rng(3)
    sites = pd.DataFrame(rng.standard_normal((50, 3)), columns=["a", "b", "c"], index=[f"s{k}" for k in range(50)])
    sites["district"] = np.arange(50) % 4
    places = sites.iloc[:30]
    by_map = causalsat.next_sites(fitted, sites[["a", "b", "c"]], 6, places=places[["a", "b", "c"]])
    assert by_map.after < by_map.before
    assert (by_map.table["gain"] > 0).all()
    assert by_map.table["site"].tolist() == by_map.sites.index.tolist()
    options = {"goal": "districts", "districts": sites["district"]}
    by_district = causalsat.next_sites(fitted, sites[["a", "b", "c"]], 6, **options)
    assert by_district.before < by_map.before
    worthless = causalsat.next_sites(fitted, sites[["a", "b", "c"]], 3, goal="decision", cost=100.0)
    assert worthless.before == pytest.approx(0.0, abs=1e-12)
    decision = causalsat.next_sites(fitted, sites[["a", "b", "c"]], 3, goal="decision", cost=0.5)
    assert 0 < decision.after < decision.before
    assert "expected regret" in str(decision)


def test_map_of_chosen_sites_beats_random_and_spread_ones():
    """Effects linear in skewed features, conjugate updates: the map's error after the new trial, over 40 worlds."""
    rng = np.random.default_rng(5)
    errors = {"chosen": [], "random": []}
    for _ in range(40):
        Z = np.column_stack([np.ones(300), rng.standard_normal((300, 6)) ** 3 / 4])
        prior = rng.standard_normal((500, 7)) * 0.3
        draws = prior @ Z.T
        beta, noise = rng.standard_normal(7) * 0.3, 0.5
        picked = {
            "chosen": greedy(draws, draws, noise, 15, lambda left: -left)[0],
            "random": rng.choice(300, 15, replace=False),
        }
        for name, rows in picked.items():
            reading = Z[rows] @ beta + np.sqrt(noise) * rng.standard_normal(15)
            P = np.eye(7) / 0.09 + Z[rows].T @ Z[rows] / noise
            errors[name].append(np.mean((Z @ (np.linalg.solve(P, Z[rows].T @ reading / noise) - beta)) ** 2))
    assert np.sqrt(np.mean(errors["chosen"])) < 0.8 * np.sqrt(np.mean(errors["random"]))


def test_refusals(fitted):
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((5, 3)), columns=["a", "b", "c"])
    with pytest.raises(ParameterError, match="n=6 sites of 5"):
        causalsat.next_sites(fitted, X, 6)
    with pytest.raises(ParameterError, match="goal="):
        causalsat.next_sites(fitted, X, 2, goal="profit")
    with pytest.raises(ParameterError, match="without districts"):
        causalsat.next_sites(fitted, X, 2, goal="districts")
    with pytest.raises(ParameterError, match="site_sd="):
        causalsat.next_sites(fitted, X, 2, site_sd=-1)
