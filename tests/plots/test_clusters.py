"""Figures of image effect clusters: what is drawn is what the model says."""

import warnings

import matplotlib

matplotlib.use("Agg")
import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pytest

from causalsat import ImageEffectClusters
from causalsat.exceptions import CausalsatWarning, DataError, ParameterError
from causalsat.plots import plot_cluster_effects, plot_cluster_images, plot_cluster_map, show_image, show_salience
from causalsat.plots.clusters import band_positions
from causalsat.plots.salience import stretch


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    kind = np.arange(40) % 2
    images = (rng.normal(size=(40, 3, 10, 10)) + kind[:, None, None, None]).astype(np.float32)
    image = np.repeat(np.arange(40), 5)
    t = (np.arange(40) // 2 % 2)[image]
    y = 2.0 * t * kind[image] + rng.normal(size=200)
    est = ImageEffectClusters(
        backbone="random_conv", n_clusters=2, n_components=2, n_draws=60, n_tune=60, n_restarts=1, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return est.fit(images[image], y, treatment=t, groups=image), images


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_densities_have_the_clusters_intervals(fitted):
    est, _ = fitted
    ax = plot_cluster_effects(est, level=0.8, units="UGX")
    table = est.cluster_effects(0.8)
    bars = {tuple(np.round(line.get_xdata(), 6)) for line in ax.lines}
    for k in (1, 2):
        assert tuple(np.round(table.loc[k, ["lower", "upper"]].to_numpy(float), 6)) in bars
    assert ax.get_xlabel() == "effect (UGX)"
    assert [text.get_text()[:9] for text in ax.get_legend().get_texts()] == ["average", "cluster 1", "cluster 2"]


def test_sheet_shows_the_typical_images_beside_their_salience(fitted):
    est, images = fitted
    figure = plot_cluster_images(est, images, n=2)
    axes = np.array(figure.axes).reshape(2, 4)
    first = est.typical_images(images, 1, n=2)
    shown = axes[0, 0].images[0].get_array()
    np.testing.assert_allclose(shown, stretch(images[first[0]], [0, 1, 2]))
    chance = est.cluster_probabilities(images[first[:1]])[(1, "mean")].iloc[0]
    assert axes[0, 0].get_title().startswith(f"p = {chance:.2f}")
    attribution = axes[0, 1].images[0].get_array()
    assert attribution.shape == (10, 10)
    plain = plot_cluster_images(est, images, n=2, kind="uncertain", salience=False, clusters=[2])
    assert len(plain.axes) == 2
    with pytest.raises(ParameterError, match="at least one"):
        plot_cluster_images(est, images, n=0)


def test_map_needs_places(fitted):
    est, images = fitted
    with pytest.raises(DataError, match="without places"):
        plot_cluster_map(est, images)


def test_map_draws_each_place_once(fitted, monkeypatch):
    est, images = fitted
    points = gpd.points_from_xy(np.arange(40) % 8, np.arange(40) // 8, crs="EPSG:32636")
    table = gpd.GeoDataFrame({"j": np.arange(40)}, geometry=points).iloc[np.repeat(np.arange(40), 2)]
    whole = est.cluster_probabilities(images)
    monkeypatch.setattr(type(est), "cluster_probabilities", lambda self, X: whole.iloc[X["j"]])
    ax = plot_cluster_map(est, table, cluster=1)
    drawn = ax.collections[0]
    np.testing.assert_allclose(drawn.get_array(), whole[(1, "mean")])
    assert "40 places" in ax.get_title(loc="left")


def test_bands_by_position_and_refusals():
    np.testing.assert_array_equal(band_positions([2, 0, 1], 3), [2, 0, 1])
    with pytest.raises(ParameterError, match="below 3"):
        band_positions([0, 1, 3], 3)
    with pytest.raises(ParameterError, match="'red'"):
        band_positions(["red", "green", "blue"], 3)


def test_invalid_pixels_are_white_and_salience_is_centred_on_no_effect():
    chip = np.arange(48.0).reshape(3, 4, 4)
    chip[:, 0, 0] = np.nan
    assert (stretch(chip)[0, 0] == 1).all()
    assert stretch(np.full((1, 2, 2), np.nan)).min() == 1
    ax = show_salience(np.concatenate([np.ones((2, 5, 8)), -np.ones((2, 5, 8))], axis=1), smooth_px=0)
    low, high = ax.images[0].get_clim()
    assert low == -high == pytest.approx(-2.0)
    assert show_image(chip[:1]).images[0].get_array().ndim == 2
    with pytest.raises(DataError, match="a chip of shape"):
        stretch(np.ones((4, 4)))
