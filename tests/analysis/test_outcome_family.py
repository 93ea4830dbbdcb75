"""Families of outcomes: estimates of the design, stepdown p-values by hand, the index, the family-wise error."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalsat import Study, analyse_outcomes
from causalsat.analysis.outcome_family import INDEX, summary_index
from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError
from causalsat.inference.average_effects import blocked_difference
from causalsat.inference.stepdown import FamilyStatistics, romano_wolf, westfall_young


def table_of(k=10, villages=40, size=5, effects=(), seed=0, strata=1):
    """Outcomes of correlation .6 with village effects."""
    rng = np.random.default_rng(seed)
    village = np.repeat(np.arange(villages), size)
    block = np.arange(villages) % strata
    t = np.zeros(villages)
    for s in range(strata):
        own = np.flatnonzero(block == s)
        t[rng.permutation(own)[: len(own) // 2]] = 1
    n = len(village)
    common = rng.standard_normal((n, 1)) + 0.5 * rng.standard_normal((villages, 1))[village]
    y = (
        np.sqrt(0.6) * common
        + np.sqrt(0.4) * rng.standard_normal((n, k))
        + 0.3 * rng.standard_normal((villages, k))[village]
    )
    y[:, : len(effects)] += t[village][:, None] * np.asarray(effects)
    table = pd.DataFrame(y, columns=[f"y{j}" for j in range(k)])
    return table.assign(t=t[village], village=village, block=block[village], lon=32 + 0.01 * village, lat=1.0)


def study_of(table, **roles):
    given = {"outcome": "y0", "treatment": "t", "cluster": "village", "lon": "lon", "lat": "lat", **roles}
    return Study(table, **given)


def test_estimates_and_own_p_values_are_those_of_the_design():
    table = table_of(k=3, effects=(0.8,), strata=2)
    found = analyse_outcomes(study_of(table, strata="block"), outcomes=["y0", "y1", "y2"], n_draws=1999)
    for name in ("y0", "y1", "y2"):
        fit = blocked_difference(table[name], table["t"], strata=table["block"], clusters=table["village"])
        row = found.table.loc[name]
        assert row["estimate"] == pytest.approx(fit.estimate)
        assert row["se"] == pytest.approx(fit.se)
        assert row["p_value"] == pytest.approx(fit.p_value)
        assert abs(row["p_randomisation"] - fit.p_value) < 0.05
    assert found.assignment == "treatment of clusters"
    assert found.table["n"].iloc[0] == 200


def test_the_statistic_is_the_difference_over_its_clustered_error():
    table = table_of(k=2, strata=2)
    village = table.groupby("village")
    mass = np.repeat(village.size().to_numpy(dtype=float)[:, None], 2, axis=1)
    total = village[["y0", "y1"]].sum().to_numpy()
    t, block = village["t"].first().to_numpy(), village["block"].first().to_numpy()
    got = FamilyStatistics(mass, total, block)(t)
    for j in (0, 1):
        fit = blocked_difference(table[f"y{j}"], table["t"], strata=table["block"], clusters=table["village"])
        assert got[j] == pytest.approx(fit.estimate / fit.se, rel=1e-6)


def test_pairs_have_the_error_of_their_differences():
    rng = np.random.default_rng(0)
    y, pair = rng.standard_normal((40, 1)) + np.repeat(np.arange(20), 2)[:, None], np.repeat(np.arange(20), 2)
    t = np.tile([0.0, 1.0], 20)
    got = FamilyStatistics(np.ones((40, 1)), y, pair)(t)[0]
    d = y[1::2, 0] - y[::2, 0]
    assert got == pytest.approx(d.mean() / (d.std(ddof=1) / np.sqrt(20)))


def test_stepdown_by_hand():
    drawn = np.array([[0.5, 2.2, 0.1], [1.9, 0.3, 0.2], [0.2, 0.4, 2.6], [0.3, 0.2, 0.8]])
    observed = np.array([2.0, 2.5, 0.5])  # the order is 1, 0, 2
    first = (1 + (drawn.max(axis=1) >= 2.5).sum()) / 5
    second = max(first, (1 + (drawn[:, [0, 2]].max(axis=1) >= 2.0).sum()) / 5)
    third = max(second, (1 + (drawn[:, 2] >= 0.5).sum()) / 5)
    np.testing.assert_allclose(romano_wolf(observed, drawn), [second, first, third])
    np.testing.assert_allclose(romano_wolf(-observed, -drawn), [second, first, third])


def test_westfall_young_does_not_depend_on_the_scale_of_a_statistic():
    rng = np.random.default_rng(0)
    observed, drawn = np.array([2.1, 1.0, 0.4]), rng.standard_normal((999, 3))
    scale = np.array([1.0, 100.0, 0.01])
    np.testing.assert_array_equal(westfall_young(observed, drawn), westfall_young(observed * scale, drawn * scale))
    np.testing.assert_allclose(westfall_young(observed, drawn), romano_wolf(observed, drawn), atol=0.04)


def test_family_p_values_are_no_smaller_than_the_own_and_grow_with_the_family():
    study = study_of(table_of(effects=(0.6,)))
    names = [f"y{j}" for j in range(10)]
    found = analyse_outcomes(study, outcomes=names, n_draws=999).table.iloc[:10]
    for column in ("p_romano_wolf", "p_westfall_young"):
        assert (found[column] >= found["p_randomisation"] - 1e-12).all()
    two = analyse_outcomes(study, outcomes=names[:2], n_draws=999).table
    assert two.loc["y0", "p_romano_wolf"] <= found.loc["y0", "p_romano_wolf"]


def test_the_index_is_the_formula_of_anderson():
    table = table_of(k=3, effects=(0.5, 0.5, -0.5))
    values, t = table[["y0", "y1", "y2"]].to_numpy(), table["t"].to_numpy()
    found = analyse_outcomes(study_of(table), outcomes=["y0", "y1", "y2"], signs={"y2": -1}, n_draws=99)
    signed = values * [1, 1, -1]
    z = (signed - signed[t == 0].mean(axis=0)) / signed[t == 0].std(axis=0)
    weight = np.linalg.inv(np.cov(z.T, bias=True)).sum(axis=1)
    expected = z @ weight / weight.sum()
    np.testing.assert_allclose(found.index, expected)
    fit = blocked_difference(expected, t, clusters=table["village"])
    assert found.table.loc[INDEX, "estimate"] == pytest.approx(fit.estimate)
    assert fit.estimate > 0.3


def test_missing_outcomes_leave_their_units_out_and_the_index_uses_the_others():
    table = table_of(k=3)
    table.loc[:9, "y1"] = np.nan
    with pytest.warns(DataWarning, match="y1 10 of 200"):
        found = analyse_outcomes(study_of(table), outcomes=["y0", "y1", "y2"], n_draws=99)
    seen = table["y1"].notna()
    fit = blocked_difference(table["y1"][seen], table["t"][seen], clusters=table["village"][seen])
    assert found.table.loc["y1", "estimate"] == pytest.approx(fit.estimate)
    assert found.index.notna().all()
    score, weight = summary_index(
        table[["y0", "y1", "y2"]].to_numpy(), table["t"].to_numpy(), np.ones(200), np.ones(3)
    )
    np.testing.assert_allclose(found.index_weights, weight)
    np.testing.assert_allclose(found.index, score)


def test_invariances():
    table = table_of(k=3, effects=(0.6,))
    names = ["y0", "y1", "y2"]
    found = analyse_outcomes(study_of(table), outcomes=names, n_draws=299).table
    scaled = table.assign(y1=1e6 * table["y1"] + 1e6)
    other = analyse_outcomes(study_of(scaled), outcomes=names, n_draws=299).table
    columns = ["p_romano_wolf", "p_westfall_young", "p_value"]
    np.testing.assert_allclose(found[columns], other[columns], atol=1e-9)
    doubled = analyse_outcomes(study_of(table.assign(w=3.0), weights="w"), outcomes=names, n_draws=299).table
    np.testing.assert_allclose(found[columns], doubled[columns], atol=1e-9)


def test_refusals():
    study = study_of(table_of(k=3), covariates=["y2"])
    with pytest.raises(ColumnError, match="did you mean 'y1'"):
        analyse_outcomes(study, outcomes=["y0", "y11"])
    with pytest.raises(ParameterError, match="two or more"):
        analyse_outcomes(study, outcomes=["y0"])
    with pytest.raises(ParameterError, match="covariate"):
        analyse_outcomes(study, outcomes=["y0", "y2"])
    with pytest.raises(DataError, match="not randomised"):
        analyse_outcomes(study.replace(randomised=False), outcomes=["y0", "y1"])
    with pytest.raises(ParameterError, match="signs"):
        analyse_outcomes(study, outcomes=["y0", "y1"], signs={"y0": 2})


@pytest.mark.statistical
def test_the_family_wise_error_of_ten_correlated_nulls_is_five_per_cent():
    """Unadjusted p-values reject some outcome in a fifth of the trials."""
    names, n = [f"y{j}" for j in range(10)], 90
    false = {"p_value": 0, "p_romano_wolf": 0, "p_westfall_young": 0}
    for seed in range(n):
        study = study_of(table_of(villages=24, size=2, seed=seed))
        found = analyse_outcomes(study, outcomes=names, n_draws=199).table.iloc[:10]
        for column in false:
            false[column] += bool((found[column] <= 0.05).any())
    assert false["p_value"] / n > 0.15
    assert 0.005 <= false["p_romano_wolf"] / n <= 0.11
    assert 0.005 <= false["p_westfall_young"] / n <= 0.11


def test_the_predicted_outcome_of_a_study_is_corrected():
    table = table_of(k=2, effects=(1.0, 0.0), size=20)
    rng = np.random.default_rng(0)
    table["survey"] = np.where(rng.random(len(table)) < 0.4, table["y0"], np.nan)
    table["guess"] = 0.5 * table["y0"]
    told = study_of(table, outcome="guess", outcome_predicted=True, outcome_labelled="survey")
    whole = analyse_outcomes(study_of(table), outcomes=["y0", "y1"], n_draws=199).table.loc["y0", "estimate"]
    found = analyse_outcomes(told, outcomes=["guess", "y1"], n_draws=199).table.loc["guess", "estimate"]
    plain = analyse_outcomes(study_of(table), outcomes=["guess", "y1"], n_draws=199).table.loc["guess", "estimate"]
    assert plain == pytest.approx(whole / 2)
    assert abs(found - whole) < 0.1
