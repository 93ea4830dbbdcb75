"""Exposure effects: exact probabilities, known spillovers, conservative coverage."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from causalsat import Study
from causalsat.evaluation import exposure_effects
from causalsat.exceptions import DataError, DataWarning, TreatmentError


def grid(seed=0, side=14, spill=1.0, size=1):
    """Villages on a lattice 5 km apart, direct effect 2, spillover of the treated share of the four nearest."""
    rng = np.random.default_rng(seed)
    gx, gy = (v.ravel() for v in np.meshgrid(np.arange(side), np.arange(side)))
    n = side * side
    t = rng.permutation(np.arange(n) % 2).astype(float)
    near = (np.abs(gx[:, None] - gx) + np.abs(gy[:, None] - gy)) == 1
    share = (near @ t) / near.sum(axis=1)
    y = 2 * t + spill * (share > 0.5) + 0.7 * rng.standard_normal(n)
    table = pd.DataFrame({"y": y, "t": t, "lon": 32 + gx * 0.045, "lat": gy * 0.045, "village": np.arange(n)})
    table = table.loc[table.index.repeat(size)].reset_index(drop=True)
    return Study(table, outcome="y", treatment="t", cluster="village", lon="lon", lat="lat")


def test_probabilities_are_those_of_all_assignments():
    """Six villages on a line, three treated: 20 assignments, counted one by one."""
    t = np.array([1, 0, 1, 0, 1, 0])
    table = pd.DataFrame({"y": np.arange(6.0), "t": t, "lon": 32 + 0.045 * np.arange(6), "lat": 1.0})
    study = Study(table, outcome="y", treatment="t", lon="lon", lat="lat")
    found = exposure_effects(study, 6, threshold=0.4, n_draws=20000).probabilities[6.0].sort_index()
    count = np.zeros((6, 4))
    for chosen in combinations(range(6), 3):
        z = np.isin(np.arange(6), chosen)
        for i in range(6):
            near = [z[j] for j in (i - 1, i + 1) if 0 <= j < 6]
            count[i, 2 * z[i] + (np.mean(near) > 0.4)] += 1 / 20
    np.testing.assert_allclose(found.to_numpy(), count, atol=0.015)


def test_values_by_hand():
    """Hajek means with the reported probabilities."""
    study = grid()
    found = exposure_effects(study, 6, threshold=0.5, n_draws=1000)
    chance = found.probabilities[6.0].loc[study.groups]
    t, y = study.treatment, study.y
    xy = np.column_stack([study.units.geometry.x, study.units.geometry.y])
    near = np.round(np.abs(xy[:, None] - xy).sum(axis=2) / 0.045) == 1
    many = (near @ t) / near.sum(axis=1) > 0.5
    able = ((chance[["treated, few", "control, few"]] >= 0.01).all(axis=1)).to_numpy()
    means = []
    for name, own in (("treated, few", (t == 1) & ~many), ("control, few", (t == 0) & ~many)):
        w = (own & able) / np.maximum(chance[name].to_numpy(), 1e-9)
        means.append(w @ y / w.sum())
    row = found.table.loc[(6.0, "direct effect, few treated neighbours")]
    assert row["estimate"] == pytest.approx(means[0] - means[1])
    assert row["n_first"] == ((t == 1) & ~many & able).sum()


def test_households_of_a_village_count_as_one():
    one, three = (exposure_effects(grid(size=size), 6, n_draws=300) for size in (1, 3))
    pd.testing.assert_frame_equal(one.table, three.table)


def test_rows_in_another_order():
    study = grid()
    shuffled = study.replace(units=study.units.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(
        exposure_effects(study, 6, n_draws=300).table, exposure_effects(shuffled, 6, n_draws=300).table
    )


def test_refusals():
    study = grid()
    with pytest.raises(DataError, match="within 1 km"):
        exposure_effects(study, 1)
    with pytest.raises(DataError, match="not randomised"):
        exposure_effects(study.replace(randomised=False), 6)
    mixed = study.replace(units=study.units.assign(village=np.arange(len(study)) // 4))
    with pytest.raises(TreatmentError, match="hold both arms"):
        exposure_effects(mixed, 6)


@pytest.mark.statistical
def test_known_spillovers_are_found_and_intervals_cover():
    names = {"direct effect, few treated neighbours": 2.0, "spillover on control": 1.0}
    runs = [exposure_effects(grid(seed), 6, threshold=0.5, n_draws=400).table.loc[6.0] for seed in range(60)]
    for name, truth in names.items():
        estimate = np.array([run.loc[name, "estimate"] for run in runs])
        inside = [run.loc[name, "lower"] < truth < run.loc[name, "upper"] for run in runs]
        assert abs(estimate.mean() - truth) < 3.5 * estimate.std() / np.sqrt(len(runs))
        assert np.mean(inside) >= 0.9
        assert np.mean([run.loc[name, "se"] for run in runs]) < 2.5 * estimate.std()


def test_missing_and_predicted_outcomes_are_used_as_the_study_says():
    """Answers that depend on covariate and arm are weighted; predictions are corrected by measured ones."""
    study = grid(size=12)
    rng = np.random.default_rng(1)
    t, n = study.treatment, len(study)
    x = rng.standard_normal(n)
    y = study.y + 2 * x
    seen = rng.random(n) < 1 / (1 + np.exp(-(0.5 + 1.5 * x * (1 - 2 * t))))
    units = study.units.assign(
        x=x, y=np.where(seen, y, np.nan), guess=0.5 * y, survey=np.where(rng.random(n) < 0.5, y, np.nan)
    )
    settings = {"radii_km": 6, "threshold": 0.5, "n_draws": 500}

    def direct(found):
        return found.table.loc[(6.0, "direct effect, few treated neighbours"), "estimate"]

    whole = direct(exposure_effects(study.replace(units=units.assign(y=y)), **settings))
    lost = study.replace(units=units, covariates=["x"])
    weighted = direct(exposure_effects(lost.replace(missing_outcome="weight"), **settings))
    with pytest.warns(DataWarning, match=f"missing for {(~seen).sum():,} of {n:,} units, which are left out"):
        left = direct(exposure_effects(lost, **settings))
    assert abs(weighted - whole) < 0.3 < 0.8 < abs(left - whole)
    as_it_is = direct(exposure_effects(study.replace(units=units, outcome="guess"), **settings))
    told = study.replace(units=units, outcome="guess", outcome_predicted=True, outcome_labelled="survey")
    assert as_it_is == pytest.approx(whole / 2)
    assert abs(direct(exposure_effects(told, **settings)) - whole) < 0.3
