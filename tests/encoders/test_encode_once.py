"""Encoders without labels are fitted once within a block, and encode each place once."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from sklearn.base import BaseEstimator, TransformerMixin, clone

from causalsat import open_imagery
from causalsat.encoders import ImageEncoder, RandomConvFeatures
from causalsat.encoders.encode_once import encode_once

SIDE, PIXEL, LEFT, TOP = 200, 10.0, 300_000.0, 400_000.0
SIZE_M = 160


@pytest.fixture(scope="module")
def imagery() -> Any:
    pixels = np.random.default_rng(0).normal(100, 20, (2, SIDE, SIDE)).astype(np.float32)
    pixels[:, :40, :40] = np.nan
    coords = {
        "band": ["red", "nir"],
        "y": TOP - PIXEL * (np.arange(SIDE) + 0.5),
        "x": LEFT + PIXEL * (np.arange(SIDE) + 0.5),
    }
    return open_imagery(xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords).rio.write_crs("EPSG:32636"))


def units_at(rows: np.ndarray, cols: np.ndarray) -> gpd.GeoDataFrame:
    points = gpd.points_from_xy(LEFT + PIXEL * (rows + 0.5), TOP - PIXEL * (cols + 0.5))
    return gpd.GeoDataFrame(geometry=points, crs="EPSG:32636")


@pytest.fixture(scope="module")
def units() -> gpd.GeoDataFrame:
    """60 units at 40 places of valid pixels."""
    rng = np.random.default_rng(1)
    place = np.concatenate([np.arange(40), rng.integers(0, 40, 20)])
    return units_at(rng.integers(60, SIDE - 20, 40)[place], rng.integers(60, SIDE - 20, 40)[place])


@pytest.fixture
def count(monkeypatch) -> dict[str, int]:
    """Fits of random features, and chips that they encoded."""
    counts = {"fits": 0, "chips": 0}
    learn, encode = RandomConvFeatures._learn_chips, RandomConvFeatures._encode_view

    def learning(self: Any, X: Any) -> None:
        counts["fits"] += 1
        learn(self, X)

    def encoding(self: Any, view: Any) -> np.ndarray:
        counts["chips"] += len(view)
        return encode(self, view)

    monkeypatch.setattr(RandomConvFeatures, "_learn_chips", learning)
    monkeypatch.setattr(RandomConvFeatures, "_encode_view", encoding)
    return counts


class Supervised(TransformerMixin, BaseEstimator):
    """Means of bands less those at fit; says that it is trained on outcomes."""

    requests_roles = True

    def fit(self, X: Any, y: Any = None, **roles: Any) -> Supervised:
        self.shift_ = float(np.asarray(X).mean())
        return self

    def transform(self, X: Any) -> np.ndarray:
        return np.asarray(X).mean(axis=(-2, -1)) - self.shift_

    def fit_transform(self, X: Any, y: Any = None, **roles: Any) -> np.ndarray:
        return self.fit(X).transform(X)


def cross_fit(encoder: ImageEncoder, units: gpd.GeoDataFrame) -> list[np.ndarray]:
    """Features of all units by encoders fitted outside each of three folds."""
    fold, out = np.arange(len(units)) % 3, []
    for k in range(3):
        own = clone(encoder).fit(units[fold != k])
        out.append(own.transform(units).to_numpy())
    return out


def test_each_place_is_encoded_once(imagery, units, count):
    encoder = ImageEncoder(imagery, SIZE_M, RandomConvFeatures(8), n_components=2)
    with encode_once(units):
        cross_fit(encoder, units)
        clone(encoder).fit(units).transform(units)
    assert count == {"fits": 1, "chips": 40}
    cross_fit(encoder, units)  # the block is over
    assert count["fits"] == 4
    assert count["chips"] > 4 * 40


def test_a_fit_to_all_places_is_that_of_outside(imagery, units):
    encoder = ImageEncoder(imagery, [SIZE_M, 80], RandomConvFeatures(16, statistics=True), n_components=3)
    with encode_once(units):
        cross_fit(encoder, units)
        inside = clone(encoder).fit(units)
    outside = clone(encoder).fit(units)
    np.testing.assert_array_equal(inside.transform(units), outside.transform(units))


def test_components_are_of_the_training_places(imagery, units):
    encoder = ImageEncoder(imagery, SIZE_M, RandomConvFeatures(16), n_components=2)
    train = units[:30]
    with encode_once(units):
        inside = clone(encoder).fit(train)
        whole = clone(encoder).fit(units)
    assert inside.encoders_[0] is whole.encoders_[0]
    assert inside.n_places_ == clone(encoder).fit(train).n_places_ < 40
    features = inside.transform(train).drop_duplicates().to_numpy()
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(features.std(axis=0, ddof=1), 1, rtol=1e-6)


def test_other_places_are_encoded_beside_the_known(imagery, units):
    rng = np.random.default_rng(5)
    others = units_at(rng.integers(60, SIDE - 20, 7), rng.integers(60, SIDE - 20, 7))
    encoder = ImageEncoder(imagery, SIZE_M, RandomConvFeatures(16), n_components=2)
    mixed = gpd.GeoDataFrame(geometry=[*others.geometry, *units.geometry], crs=units.crs)
    with encode_once(units):
        fitted = clone(encoder).fit(units)
        inside = fitted.transform(mixed).to_numpy()
    np.testing.assert_allclose(inside, fitted.transform(mixed).to_numpy(), atol=1e-6)
    with encode_once(units):  # places that the block does not know are fitted as ever
        alone = clone(encoder).fit(others)
    np.testing.assert_array_equal(alone.transform(others), clone(encoder).fit(others).transform(others))


def test_encoders_that_see_labels_are_fitted_in_each_fold(imagery, units):
    encoder, y = ImageEncoder(imagery, SIZE_M, Supervised(), n_components=2), np.arange(60.0)
    with encode_once(units):
        fits = [clone(encoder).fit(units[k::3], y[k::3]) for k in range(3)]
    assert len({fit.encoders_[0].shift_ for fit in fits}) == 3


def test_settings_are_told_apart(imagery, units, count):
    with encode_once(units):
        for size, features in ((SIZE_M, 8), (80, 8), (80, 4), (SIZE_M, 8)):
            ImageEncoder(imagery, size, RandomConvFeatures(features), n_components=2).fit(units)
    assert count["fits"] == 3
