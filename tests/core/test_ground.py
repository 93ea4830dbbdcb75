"""Metres in the plane against geodesics."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
from pyproj import Geod

from causalsat.core.ground import planar_metres

SYSTEMS = ["EPSG:4326", "EPSG:3857", "ESRI:54009", "own"]


@pytest.mark.parametrize("crs", SYSTEMS)
@pytest.mark.parametrize(
    ("lon", "lat", "own"),
    [
        (33.0, 1.0, "EPSG:32636"), (-74.0, 40.7, "EPSG:2263"), (10.0, 60.0, "EPSG:3035"), (-122.4, 37.8, "EPSG:2227"),
        (0.0, 52.0, "EPSG:27700"), (179.95, -17.0, "EPSG:3460"), (175.0, -41.0, "EPSG:2193"),
    ],
)  # fmt: skip
def test_distances_are_those_on_the_ground(lon, lat, own, crs):
    """Degrees, US feet, Web Mercator, equal-area projections, and both sides of 180 degrees."""
    rng = np.random.default_rng(0)
    x, y = lon + rng.uniform(-0.3, 0.3, 12), lat + rng.uniform(-0.3, 0.3, 12)
    x = (x + 180) % 360 - 180
    places = geopandas.GeoSeries.from_xy(x, y, crs="EPSG:4326").to_crs(own if crs == "own" else crs)
    metres = planar_metres(places)
    first, second = np.triu_indices(12, 1)
    ground = Geod(ellps="WGS84").inv(x[first], y[first], x[second], y[second])[2]
    found = np.hypot(*(metres[first] - metres[second]).T)
    np.testing.assert_allclose(found, ground, rtol=0.021)


def test_a_continent_is_no_zone():
    x, y = np.array([-15.0, 50.0, 20.0]), np.array([14.0, 10.0, -33.0])
    metres = planar_metres(geopandas.GeoSeries.from_xy(x, y, crs="EPSG:4326"))
    ground = Geod(ellps="WGS84").inv(x[:2], y[:2], x[1:], y[1:])[2]
    np.testing.assert_allclose(np.hypot(*np.diff(metres, axis=0).T), ground, rtol=0.1)


def test_blocks_are_squares_of_ground():
    """At 60 north a block of 10 km in Web Mercator would be one of 5 km."""
    from causalsat.evaluation import SpatialBlockCV

    x, y = np.meshgrid(np.linspace(25.0, 26.0, 30), np.linspace(60.0, 60.5, 30))
    places = geopandas.GeoSeries.from_xy(x.ravel(), y.ravel(), crs="EPSG:4326")
    blocks = [
        SpatialBlockCV(10_000).blocks(places.to_crs(system)) for system in ("EPSG:3857", "EPSG:32635", "EPSG:4326")
    ]
    assert [int(b.max()) + 1 for b in blocks] == [int(blocks[1].max()) + 1] * 3
    assert int(blocks[0].max()) + 1 in range(36, 50)  # 55.6 x 55.7 km
