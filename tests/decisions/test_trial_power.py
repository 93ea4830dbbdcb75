"""Power: against formulas, against households simulated one by one, size, and refusals."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nct
from scipy.stats import t as student

import causalsat
from causalsat.decisions.trial_power import World, difference, p_values, simulate_trial
from causalsat.evaluation import permutation_test
from causalsat.exceptions import ParameterError

FEATURES = np.random.default_rng(0).standard_normal((200, 4))


def test_average_effect_has_the_power_of_the_noncentral_t():
    result = causalsat.power(
        FEATURES, n_villages=60, people=15, effect=0.3, icc=0.15, heterogeneity=0.0, share_explained=0.5,
        n_simulations=400, n_permutations=1, progress=False,
    )  # fmt: skip
    se = np.sqrt((0.15 + 0.85 / 15) * 4 / 60)
    edge = student(58).ppf(0.975)
    expected = nct(58, 0.3 / se).sf(edge) + nct(58, 0.3 / se).cdf(-edge)
    row = result.table.iloc[0]
    assert abs(row["average_effect"] - expected) < 4 * max(row["average_effect_se"], 0.01)


def test_difference_is_least_squares_of_people_with_cr2_errors():
    from causalsat.inference.robust import least_squares

    rng = np.random.default_rng(1)
    village, people = np.repeat(np.arange(24), 7), 7
    t = (np.arange(24) < 9).astype(float)
    y = 0.4 * t[village] + rng.standard_normal(24)[village] + rng.standard_normal(24 * people)
    means = y.reshape(24, people).mean(axis=1)
    fit = least_squares(y, np.column_stack([np.ones(len(y)), t[village]]), clusters=village)
    estimate, p = difference(means, t)
    assert estimate == pytest.approx(fit.coef[1])
    assert p == pytest.approx(float(fit.p_value[1]), abs=2e-3)


def test_means_of_villages_are_all_that_the_permutation_test_uses():
    rng = np.random.default_rng(2)
    z, y, t = simulate_trial(FEATURES, 40, 5, World(0.3, 0.3, 0.1, 0.5, 0.5), rng)
    village = np.repeat(np.arange(40), 5)
    noise = rng.standard_normal((40, 5))
    people = y[village] + (noise - noise.mean(axis=1, keepdims=True)).ravel()
    fold = np.arange(40) % 5
    options = {"n_permutations": 49, "random_state": 0, "progress": False}
    of_means = permutation_test(z, y, t, folds=fold, **options)
    of_people = permutation_test(z[village], people, t[village], groups=village, folds=fold[village], **options)
    assert of_means.statistic == pytest.approx(of_people.statistic)
    assert of_means.p_value == of_people.p_value


@pytest.mark.statistical
def test_size_at_no_effect_is_the_level():
    result = causalsat.power(
        FEATURES, n_villages=60, people=10, effect=0.0, icc=0.1, share_explained=0.5, n_simulations=500,
        n_permutations=59, progress=False, seed=3,
    )  # fmt: skip
    row = result.table.iloc[0]
    assert abs(row["average_effect"] - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 500)
    assert abs(row["heterogeneity"] - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 500)
    assert row["autoc"] < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_power_grows_with_villages_people_and_share_explained():
    def at(**options):
        given = {"n_villages": 80, "people": 20, "effect": 0.25, "icc": 0.05, "heterogeneity": 0.4}
        return causalsat.power(
            FEATURES, **(given | options), n_simulations=60, n_permutations=19, progress=False
        ).table

    table = at(n_villages=[30, 150])
    assert table["heterogeneity"].is_monotonic_increasing
    assert table["autoc"].iloc[1] > table["autoc"].iloc[0]
    assert at(share_explained=1.0)["heterogeneity"][0] > at(share_explained=0.0)["heterogeneity"][0] + 0.3
    assert at(people=[2, 60], n_villages=50)["average_effect"].is_monotonic_increasing


def test_result_repeats_by_seed_and_shows_what_was_assumed():
    options = {"n_villages": [20, 30], "people": [5, 10], "n_simulations": 8, "n_permutations": 9, "progress": False}
    first, again = causalsat.power(FEATURES, **options), causalsat.power(FEATURES, **options)
    pd.testing.assert_frame_equal(first.table.drop(columns="seconds"), again.table.drop(columns="seconds"))
    assert len(first.to_dataframe()) == 4
    assert "intra-cluster correlation 0.1" in str(first)
    alone = causalsat.power(FEATURES, **(options | {"n_villages": 30, "people": 10}))
    assert alone.table["average_effect"][0] == first.table["average_effect"][3]
    ax = first.plot()
    assert ax.get_ylabel() == "power"
    assert len(ax.get_legend_handles_labels()[1]) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_villages": 201}, "out of 200 candidate villages"),
        ({"n_villages": 4}, "at least 10 villages"),
        ({"people": 0}, "at least 1"),
        ({"people": 2.5}, "whole number"),
        ({"icc": 1.2}, "share between 0 and 1"),
        ({"effect": np.nan}, "standard deviations"),
        ({"share_explained": -0.1}, "share between 0 and 1"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ParameterError, match=words):
        causalsat.power(FEATURES, **({"n_villages": 40, "people": 10} | options), n_simulations=2)


def test_p_values_are_three():
    rng = np.random.default_rng(0)
    p = p_values(*simulate_trial(FEATURES, 30, 5, World(0.2, 0.1, 0.1, 0.5, 0.5), rng), 9, rng)
    assert p.shape == (3,)
    assert ((p > 0) & (p <= 1)).all()
