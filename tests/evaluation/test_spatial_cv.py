"""Spatial blocks: nothing is split, and the suggested size is the range of the field."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsRegressor

from causalsat.evaluation import SpatialBlockCV, suggest_block_size
from causalsat.exceptions import DataError, DataWarning, ParameterError


def places(n=300, seed=0, extent=200_000):
    return np.random.default_rng(seed).uniform(0, extent, size=(n, 2))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.floats(5_000, 40_000), st.integers(0, 50))
def test_folds_partition_the_units_and_split_neither_blocks_nor_clusters(n_splits, block_m, seed):
    xy = places(seed=seed)
    groups = np.arange(300) // 2  # clusters of two distant places link their blocks
    groups[60:] = np.arange(240) + 1000
    cv = SpatialBlockCV(block_m, n_splits, random_state=seed)
    block = cv.blocks(xy, groups)
    if block.max() + 1 < n_splits:
        return
    fold = np.full(300, -1)
    for k, (train, test) in enumerate(cv.split(xy, groups=groups)):
        assert not set(train) & set(test)
        assert len(train) + len(test) == 300
        fold[test] = k
    assert (fold >= 0).all()
    for labels in (block, groups):
        assert all(len(set(fold[labels == b])) == 1 for b in np.unique(labels))


def test_places_of_a_block_are_no_further_apart_than_its_diagonal():
    xy = places()
    block = SpatialBlockCV(25_000).blocks(xy)
    for b in np.unique(block):
        assert np.ptp(xy[block == b], axis=0).max() <= 25_000
    assert block.max() > 40


def test_degrees_are_projected_to_metres():
    xy = places(extent=50_000)
    utm = gpd.GeoSeries.from_xy(*(xy + np.array([400_000, 100_000])).T, crs=32636)
    metric = SpatialBlockCV(10_000, random_state=3).blocks(gpd.GeoDataFrame(geometry=utm))
    degrees = SpatialBlockCV(10_000, random_state=3).blocks(gpd.GeoDataFrame(geometry=utm.to_crs(4326)))
    same = (metric[:, None] == metric) == (degrees[:, None] == degrees)
    assert same.mean() > 0.995  # rounding at a border may move a place


def test_works_as_a_splitter_of_features_with_the_geometry_given():
    xy = places()
    smooth = np.sin(xy[:, 0] / 30_000) + np.cos(xy[:, 1] / 30_000)
    near = KNeighborsRegressor(3)
    blocked = cross_val_score(near, xy, smooth, cv=SpatialBlockCV(60_000, 5, geometry=xy)).mean()
    random = cross_val_score(near, xy, smooth, cv=5).mean()
    assert random > 0.9
    assert blocked < random - 0.1
    assert SpatialBlockCV(60_000, 5).get_n_splits() == 5
    assert "60000" in repr(SpatialBlockCV(60_000, 5))


def test_a_buffer_keeps_training_units_away_from_the_test_fold():
    from scipy.spatial.distance import cdist

    xy = places()
    plain, buffered = SpatialBlockCV(25_000, 4), SpatialBlockCV(25_000, 4, buffer_m=6_000)
    lost = 0
    for (train, test), (near, same) in zip(plain.split(xy), buffered.split(xy), strict=True):
        np.testing.assert_array_equal(test, same)
        distance = cdist(xy[train], xy[test]).min(axis=1)
        np.testing.assert_array_equal(near, train[distance > 6_000])
        lost += len(train) - len(near)
    assert lost > 40
    assert repr(buffered).endswith("buffer_m=6000)")
    assert "buffer" not in repr(plain)


def test_a_buffer_in_degrees_is_in_metres():
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy([32.0, 32.02, 32.04, 32.06], [1.0] * 4), crs=4326)
    sizes = [[len(train) for train, _ in SpatialBlockCV(2_000, 4, buffer_m=b).split(points)] for b in (2_000, 2_300)]
    assert sum(sizes[0]) == 12  # 0.02 degrees of longitude are 2,226 m here
    assert sum(sizes[1]) == 12 - 6


def test_bad_blocks():
    with pytest.raises(ParameterError, match="buffer_m"):
        SpatialBlockCV(10, buffer_m=-1)
    with pytest.raises(DataError, match="smaller buffer"):
        list(SpatialBlockCV(25_000, 4, buffer_m=1e6).split(places()))
    with pytest.raises(DataError, match="one place a unit"):
        list(SpatialBlockCV(1e4, 2, geometry=places(20)).split(np.zeros((10, 7))))
    with pytest.raises(ParameterError, match="block_m"):
        SpatialBlockCV(0)
    with pytest.raises(ParameterError, match="n_splits"):
        SpatialBlockCV(10, n_splits=1)
    with pytest.raises(DataError, match="blocks of"):
        list(SpatialBlockCV(1e7, 5).split(places()))
    with pytest.raises(DataError, match="geometry="):
        list(SpatialBlockCV(1e4, 5).split(np.zeros((10, 7))))
    with pytest.raises(DataError, match="coordinate reference"):
        list(SpatialBlockCV(1e4, 5).split(gpd.GeoDataFrame(geometry=gpd.points_from_xy([0, 1], [0, 1]))))


def field(xy, practical_range, seed, nugget=0.0):
    """A Gaussian field with exponential covariance, which falls to 5 % at the practical range."""
    rng = np.random.default_rng(seed)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    cov = np.exp(-3 * distance / practical_range) + 1e-9 * np.eye(len(xy))
    return np.linalg.cholesky(cov) @ rng.standard_normal(len(xy)) + np.sqrt(nugget) * rng.standard_normal(len(xy))


@pytest.mark.statistical
@pytest.mark.parametrize("practical_range", [15_000, 40_000])
def test_suggested_size_is_the_practical_range(practical_range):
    xy = places(500)
    sizes = [suggest_block_size(field(xy, practical_range, s, nugget=0.3), xy).block_m for s in range(12)]
    assert 0.6 * practical_range < np.median(sizes) < 1.6 * practical_range


def test_noise_and_trends_are_said_to_have_no_range():
    xy = places(600)
    with pytest.warns(DataWarning, match="no spatial pattern"):
        suggest_block_size(np.random.default_rng(2).standard_normal(600), xy)
    with pytest.warns(DataWarning, match="still rising"):
        size = suggest_block_size(xy.sum(axis=1), xy)
    assert size.block_m < size.range_m
    assert "BlockSize(block_m=" in repr(size)
    assert list(size.to_dataframe().columns) == ["distance_m", "semivariance", "fitted"]
    with pytest.raises(DataError, match="at least 30"):
        suggest_block_size(np.arange(10.0), places(10))


def test_places_on_a_grid_have_a_variogram_that_follows_the_scale_of_the_values():
    """Few distinct distances leave distance bins empty."""
    rng = np.random.default_rng(0)
    xy = 1000.0 * np.stack(np.meshgrid(np.arange(12), np.arange(12)), axis=-1).reshape(-1, 2)
    values = np.sin(xy[:, 0] / 3000) + 0.3 * rng.standard_normal(144)
    found = [suggest_block_size(scale * values, xy) for scale in (1, 1e-8)]
    assert np.isfinite(found[0].semivariance).all()
    assert 3000 < found[0].block_m < 9000
    assert found[1].block_m == pytest.approx(found[0].block_m)
