"""Small trials with a known effect for the contract tests: tables, and images with a place on a raster.

An estimator says in two class attributes what the contract tests are to give it; both have a default:

``_contract_data``
    "table" (default) or "images": X is chips (unit, band, y, x), or a GeoDataFrame where the constructor has the
    parameters ``imagery`` and ``size_m``.
``_contract_effect``
    "conditional" (default) or "average": the estimator has one effect for all units, so that tests of how effects
    differ between units do not apply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

N_SITES = 40
CHIP_PX, METRES = 16, 10.0
COLUMNS, ROWS = 8, 5  # of the raster, in chips


@dataclass(frozen=True)
class World:
    """A cluster-randomised trial of 40 sites, mean effect 1.

    ``X`` is an array of shape (n, 3), or chips as a DataArray; ``frame`` the same units as a data frame, or as
    points on ``imagery`` whose chips of ``size_m`` metres are ``X``; ``tau`` the effect of each unit.
    """

    X: Any
    frame: Any
    y: np.ndarray
    t: np.ndarray
    groups: np.ndarray
    tau: np.ndarray
    imagery: Any = None
    size_m: float = CHIP_PX * METRES

    def __len__(self):
        return len(self.y)

    def take(self, rows):
        """The world of some of its units."""
        rows = np.asarray(rows)
        return replace(
            self,
            X=take(self.X, rows),
            frame=self.frame.iloc[rows],
            y=self.y[rows],
            t=self.t[rows],
            groups=self.groups[rows],
            tau=self.tau[rows],
        )

    def with_outcome(self, y):
        """The same units with another outcome."""
        return replace(self, y=np.asarray(y))


def take(X, rows):
    """Rows of an array, data frame or DataArray, by position."""
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def outcome(prognosis, tau, t, groups, rng):
    """Village effects of sd 0.5, noise of sd 1."""
    return prognosis + t * tau + 0.5 * rng.standard_normal(N_SITES)[groups] + rng.standard_normal(len(t))


def table_world(n=240, seed=0):
    """Three features; effect 1 + x0."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(N_SITES), n // N_SITES)
    t = (rng.permutation(N_SITES) % 2)[groups]
    X = rng.standard_normal((n, 3))
    tau = 1 + X[:, 0]
    frame = pd.DataFrame(X, columns=list("abc"), index=np.arange(n) + 1000)
    return World(X, frame, outcome(X @ [1, 0.5, 0], tau, t, groups, rng), t, groups, tau)


@lru_cache(maxsize=1)
def scenes():
    """Raster of 5 x 8 scenes of 16 x 16 pixels: the first band is bright in every second one, and textures differ."""
    import rioxarray  # noqa: F401
    import xarray as xr

    rng = np.random.default_rng(0)
    bright = rng.permutation(N_SITES) % 2
    pixels = 0.3 * rng.standard_normal((3, ROWS, CHIP_PX, COLUMNS, CHIP_PX))
    pixels[0] += np.where(bright, 1.0, -1.0).reshape(ROWS, 1, COLUMNS, 1)
    pixels[1] += 0.5 * rng.standard_normal(N_SITES).reshape(ROWS, 1, COLUMNS, 1)
    raster = xr.DataArray(
        pixels.reshape(3, ROWS * CHIP_PX, COLUMNS * CHIP_PX).astype(np.float32),
        dims=("band", "y", "x"),
        coords={
            "band": ["red", "green", "blue"],
            "y": 1e6 - METRES * (np.arange(ROWS * CHIP_PX) + 0.5),
            "x": 5e5 + METRES * (np.arange(COLUMNS * CHIP_PX) + 0.5),
        },
        name="scenes",
    )
    return raster.rio.write_crs("EPSG:32636"), bright


@lru_cache(maxsize=1)
def site_chips():
    """Imagery, the sites' points and their chips (site, band, y, x)."""
    import geopandas as gpd

    import causalsat

    raster, bright = scenes()
    imagery = causalsat.open_imagery(raster)
    row, column = np.divmod(np.arange(N_SITES), COLUMNS)
    points = gpd.points_from_xy(
        5e5 + METRES * CHIP_PX * (column + 0.5), 1e6 - METRES * CHIP_PX * (row + 0.5), crs="EPSG:32636"
    )
    places = gpd.GeoDataFrame(geometry=points)
    chips = causalsat.chips(imagery, places, size_m=CHIP_PX * METRES).load()
    return imagery, places, chips, bright


def image_world(n=240, seed=0):
    """Images of 40 sites, 3 x 16 x 16 pixels, six units each at n = 240; effect 2 in bright scenes, 0 in dark."""
    imagery, places, chips, bright = site_chips()
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(N_SITES), n // N_SITES)
    t = np.empty(N_SITES, dtype=int)
    for kind in (0, 1):  # half of the bright and half of the dark sites are treated
        t[bright == kind] = rng.permutation((bright == kind).sum()) % 2
    t, tau = t[groups], 2.0 * bright[groups]
    index = np.arange(n) + 1000
    X = chips.isel(unit=groups).drop_vars([name for name in chips.coords if name not in ("band", "y", "x")])
    frame = places.iloc[groups].set_axis(index)
    return World(X, frame, outcome(0.0, tau, t, groups, rng), t, groups, tau, imagery)


def world_of(kind, n=240, seed=0):
    """The trial that an estimator is tested on."""
    return (image_world if uses_images(kind) else table_world)(n, seed)


def uses_images(kind):
    """Whether the estimator's X is images."""
    return getattr(kind, "_contract_data", "table") == "images"


def has_one_effect(kind):
    """Whether the estimator has one effect for all units."""
    return getattr(kind, "_contract_effect", "conditional") == "average"


def as_text(parameters):
    """Parameters in a form that compares: two equal estimators or arrays are not one object."""
    return {name: repr(value) for name, value in parameters.items()}
