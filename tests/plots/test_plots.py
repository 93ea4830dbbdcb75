"""Figures show the numbers that they were given, with words that say what they are."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from causalsat import EffectPosterior
from causalsat.evaluation import gates, rate
from causalsat.exceptions import DataError
from causalsat.plots import plot_ate, plot_effects, plot_gates, plot_overlap, plot_study, plot_toc


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def posterior(n, seed=0):
    rng = np.random.default_rng(seed)
    return EffectPosterior(rng.standard_normal(n) + 0.2 * rng.standard_normal((400, n)))


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(0)
    tau = rng.standard_normal(600)
    return tau, 0.3 + tau + 2 * rng.standard_normal(600), np.repeat(np.arange(60), 10)


def test_many_effects_make_a_sorted_curve_with_a_band():
    effects = posterior(200)
    ax = plot_effects(effects, level=0.8, units="kg")
    curve = ax.lines[0]
    np.testing.assert_allclose(curve.get_ydata(), np.sort(effects.mean()))
    band = ax.collections[0].get_paths()[0].vertices
    interval = effects.interval(0.8)
    assert band[:, 1].max() == pytest.approx(interval[:, 1].max())
    assert band[:, 1].min() == pytest.approx(interval[:, 0].min())
    assert ax.get_ylabel() == "effect (kg)"
    assert "80%" in ax.get_title(loc="left")
    assert ax.lines[2].get_ydata()[0] == pytest.approx(float(effects.ate()))


def test_few_effects_make_a_forest_with_their_labels():
    effects = EffectPosterior(posterior(3).draws, index=np.array(["north", "west", "south"]))
    ax = plot_effects(effects)
    order = np.argsort(effects.mean())
    assert [t.get_text() for t in ax.get_yticklabels()] == [str(effects.index[i]) for i in order]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), effects.mean()[order])
    segments = np.array(ax.collections[0].get_segments())
    np.testing.assert_allclose(segments[:, :, 0], effects.interval(0.9)[order])


def test_no_effects_are_refused():
    with pytest.raises(DataError, match="no units"):
        plot_effects(EffectPosterior(np.zeros((3, 0))))


def test_average_effects_by_method():
    table = pd.DataFrame({"estimate": [0.74, 0.70], "se": [0.08, 0.05]}, index=["OLS", "AIPW"])
    ax = plot_ate(table, level=0.95, units="sd")
    segments = np.array(ax.collections[0].get_segments())[:, :, 0]
    np.testing.assert_allclose(segments, [[0.74 - 1.96 * 0.08, 0.74 + 1.96 * 0.08], [0.602, 0.798]], atol=1e-3)
    assert [t.get_text() for t in ax.texts] == ["0.740", "0.700"]
    assert ax.yaxis_inverted()
    given = table.assign(lower=[0.5, 0.6], upper=[0.9, 0.8])
    np.testing.assert_allclose(np.array(plot_ate(given).collections[0].get_segments())[0, :, 0], [0.5, 0.9])
    with pytest.raises(DataError, match="Expected: a column named estimate"):
        plot_ate(pd.DataFrame({"value": [1.0]}))


def test_toc_draws_the_curve_its_band_and_its_ratio(scored):
    tau, scores, groups = scored
    result = rate(tau, scores, groups=groups, random_state=0)
    ax = plot_toc(result)
    table = result.toc.to_dataframe(0.95)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), table["toc"])
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(table["upper"].max())
    assert f"ratio {result.ratio:.2f}" in ax.get_legend().get_texts()[0].get_text()


def test_toc_compares_priorities_on_the_axes_given(scored):
    tau, scores, groups = scored
    noise = np.random.default_rng(1).standard_normal(len(tau))
    results = {"images": rate(tau, scores, groups=groups), "noise": rate(noise, scores, groups=groups)}
    _, given = plt.subplots()
    ax = plot_toc(results, ax=given)
    assert ax is given
    assert [t.get_text().split(":")[0] for t in ax.get_legend().get_texts()] == ["images", "noise"]
    with pytest.raises(DataError, match="no curve"):
        plot_toc({})


def test_gates_draws_groups_and_intervals(scored):
    tau, scores, groups = scored
    result = gates(tau, scores, groups=groups)
    ax = plot_gates(result, units="sd")
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), result.estimate)
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert labels[0] == "1\nlowest"
    assert labels[-1] == "5\nhighest"
    assert ax.get_ylabel() == "average effect (sd)"
    vertical = next(c for c in ax.collections if hasattr(c, "get_segments"))
    lengths = np.array([s[1, 1] - s[0, 1] for s in vertical.get_segments()])
    assert (lengths > 2 * 1.9 * result.se).all()


def test_overlap_counts_each_arm_as_shares():
    e = np.r_[np.full(30, 0.31), np.full(70, 0.71), np.full(50, 0.31), np.full(50, 0.56)]
    t = np.r_[np.ones(100), np.zeros(100)]
    ax = plot_overlap(e, t)
    heights = np.array([p.get_height() for p in ax.patches])
    assert sorted(heights[heights > 0]) == pytest.approx([0.3, 0.7])
    assert sorted(heights[heights < 0]) == pytest.approx([-0.5, -0.5])
    assert [x.get_text() for x in ax.get_legend().get_texts()] == ["treated (100)", "control (100)"]
    with pytest.raises(DataError, match="one probability"):
        plot_overlap([0.5, 1.5], [0, 1])


def test_study_map_shows_places_by_arm_over_the_imagery():
    import geopandas as gpd
    import rioxarray  # noqa: F401
    import xarray as xr

    from causalsat.imagery import open_imagery

    pixels = np.random.default_rng(0).uniform(0, 1, (3, 60, 80)).astype(np.float32)
    coords = {"band": ["red", "green", "blue"], "y": 3e5 - 30.0 * np.arange(60), "x": 4e5 + 30.0 * np.arange(80)}
    array = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords).rio.write_crs(32636)
    x, y = 4e5 + 30 * np.array([10, 10, 40, 70]), 3e5 - 30 * np.array([10, 10, 30, 50])
    units = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=32636).to_crs(4326)
    study = SimpleNamespace(X=units, units=units, treatment=np.array([0, 1, 1, 0]), imagery=open_imagery(array))
    ax = plot_study(study)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names == ["control (1 places)", "treated (1 places)", "both arms (1 places)"]
    treated = ax.collections[1].get_offsets()
    np.testing.assert_allclose(treated, [[4e5 + 1200, 3e5 - 900]], atol=0.01)
    assert len(ax.images) == 1
    assert "4 units at 3 places" in ax.get_title(loc="left")
