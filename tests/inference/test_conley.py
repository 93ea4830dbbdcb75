"""Conley standard errors against the double sum, and in a world of correlated errors."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest

from causalsat.evaluation import average_effects
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.conley import EARTH_KM, conley_covariance, near_pairs


def great_circle(degrees):
    """Haversine, (n, n)."""
    lon, lat = np.radians(degrees).T
    a = np.sin((lat[:, None] - lat) / 2) ** 2
    a = a + np.cos(lat[:, None]) * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(a, 1.0)))


def world(n=120, seed=0):
    rng = np.random.default_rng(seed)
    degrees = np.column_stack([rng.uniform(31, 33, n), rng.uniform(0, 2, n)])
    degrees[:20] = degrees[20:40]  # shared places
    return degrees, rng


@pytest.mark.parametrize("kernel", ["bartlett", "uniform"])
@pytest.mark.parametrize("km", [5.0, 40.0, 5000.0])
def test_covariance_is_the_double_sum(kernel, km):
    degrees, rng = world()
    psi = rng.standard_normal((120, 2))
    d = great_circle(degrees)
    weight = (d <= km) * (1 - d / km if kernel == "bartlett" else 1.0)
    expected = psi.T @ weight @ psi
    np.testing.assert_allclose(conley_covariance(psi, degrees, km, kernel=kernel), expected, rtol=1e-9, atol=1e-9)


def test_pairs_cross_the_date_line():
    degrees = np.array([[179.9, 0.0], [-179.9, 0.0]])
    i, _, d = near_pairs(degrees, 30.0)
    assert len(i) == 4
    np.testing.assert_allclose(d.max(), great_circle(degrees)[0, 1])


def test_rows_of_the_table_are_ols_with_the_double_sum():
    """A regression on a constant, treatment and a covariate by hand."""
    degrees, rng = world(seed=1)
    x, t = rng.standard_normal(120), rng.permutation(120) % 2
    y = t + x + rng.standard_normal(120)
    table = average_effects(y, t, covariates=x[:, None], places=degrees, conley_km=[20, 60])
    d = great_circle(degrees)
    for km in (20, 60):
        for name, X in (
            ("difference in means", np.column_stack([t, np.ones(120)])),
            ("OLS with covariates", np.column_stack([t, np.ones(120), x])),
        ):
            bread = np.linalg.inv(X.T @ X)
            e = y - X @ bread @ X.T @ y
            weight = np.maximum(1 - d / km, 0) * np.outer(e, e)
            expected = np.sqrt((bread @ X.T @ weight @ X @ bread)[0, 0])
            row = table.loc[f"{name}, Conley {km} km"]
            assert row["estimate"] == table.loc[name, "estimate"]
            np.testing.assert_allclose(row["se"], expected, rtol=1e-8)
            np.testing.assert_allclose(row["upper"] - row["estimate"], 1.959964 * expected, rtol=1e-6)


def test_at_distances_below_all_others_it_is_the_robust_error_of_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    degrees = np.column_stack([np.arange(80) * 0.5, np.zeros(80)])
    t, stratum = np.tile([0, 1], 40), np.repeat([0, 1], 40)
    y, w = rng.standard_normal(80), rng.uniform(1, 2, 80)
    row = average_effects(y, t, sample_weight=w, places=degrees, conley_km=1).iloc[-1]
    expected = sm.WLS(y, sm.add_constant(t), weights=w).fit(cov_type="HC0")
    np.testing.assert_allclose([row["estimate"], row["se"]], [expected.params[1], expected.bse[1]], rtol=1e-8)
    row = average_effects(y, t, strata=stratum, covariates=w[:, None], places=degrees, conley_km=1).iloc[-1]
    cell = (stratum * 2 + t)[:, None] == np.arange(4)
    c = (w - w.mean())[:, None]
    fit = sm.OLS(y, np.hstack([cell, c * (1 - t)[:, None], c * t[:, None]]).astype(float)).fit(cov_type="HC0")
    test = fit.t_test(np.array([-0.5, 0.5, -0.5, 0.5, 0, 0]))
    np.testing.assert_allclose([row["estimate"], row["se"]], [test.effect[0], test.sd[0, 0]], rtol=1e-7)


def test_clusters_are_one_place():
    degrees, rng = world(seed=3)
    t, village = np.repeat(rng.permutation(30) % 2, 4), np.repeat(np.arange(30), 4)
    degrees = degrees[village + 40]
    y = rng.standard_normal(120)
    points = gpd.GeoSeries.from_xy(*degrees.T, crs="EPSG:4326").to_crs("EPSG:32636")
    row = average_effects(y, t, groups=village, places=points, conley_km=0.001).iloc[-1]
    e = y - np.where(t == 1, y[t == 1].mean(), y[t == 0].mean())
    s = np.bincount(village, e * np.where(t == 1, 1 / t.sum(), -1 / (120 - t.sum())))
    np.testing.assert_allclose(row["se"], np.sqrt(s @ s), rtol=1e-8)
    assert row["clusters"] == 30


def test_refusals():
    with pytest.raises(DataError, match="without places"):
        average_effects([0.0, 1, 2, 3], [0, 1, 0, 1], conley_km=10)
    with pytest.raises(DataError, match="no degrees"):
        average_effects([0.0, 1, 2, 3], [0, 1, 0, 1], conley_km=10, places=np.full((4, 2), 5e5))
    with pytest.raises(ParameterError, match="conley_km"):
        conley_covariance([[1.0]], [[0.0, 0.0]], -1.0)
    with pytest.raises(ParameterError, match="conley_kernel"):
        conley_covariance([[1.0]], [[0.0, 0.0]], 1.0, kernel="gaussian")


@pytest.mark.statistical
def test_intervals_cover_where_errors_and_treatment_are_correlated_in_space():
    """Treatment of squares of 4 x 4 cells and errors of the same squares: robust errors cover .5, Conley's .9."""
    rng = np.random.default_rng(0)
    gx, gy = np.meshgrid(np.arange(40), np.arange(40))
    degrees = np.column_stack([gx.ravel() * 0.1, gy.ravel() * 0.1])  # 11 km apart
    block = (gx // 4 * 10 + gy // 4).ravel()
    inside = {"Conley 60 km": 0, "difference in means": 0}
    n = 100
    for _ in range(n):
        t = (rng.permutation(100) % 2)[block]
        y = t + rng.standard_normal(100)[block] + rng.standard_normal(1600)
        table = average_effects(y, t, places=degrees, conley_km=60, conley_kernel="uniform")
        for name in inside:
            row = table[table.index.str.contains(name)].iloc[-1 if "Conley" in name else 0]
            inside[name] += row["lower"] < 1 < row["upper"]
    assert inside["difference in means"] / n < 0.65
    assert inside["Conley 60 km"] / n > 0.86
