from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import pytest

sys.path.insert(0, str(Path(__file__).parent))
mpl.use("Agg")

from map_toys import places, smooth_pixels, write_raster


@pytest.fixture(scope="session")
def raster(tmp_path_factory):
    """Path of a 90 x 120 raster of 30 m pixels in UTM, with a hole of nodata."""
    return write_raster(tmp_path_factory.mktemp("imagery") / "scene.tif", smooth_pixels())


@pytest.fixture(scope="session")
def imagery(raster):
    from causalsat.imagery import open_imagery

    return open_imagery(raster)


@pytest.fixture(scope="session")
def trial(imagery):
    """Places of a trial, away from the hole."""
    points = places(160, imagery.shape)
    rows, _ = imagery.windows(points, 1)
    return points[(rows < 15) | (rows > 48)].reset_index(drop=True)


@pytest.fixture(scope="session")
def model(imagery, trial):
    from map_toys import toy_model

    return toy_model(imagery, trial, 240.0)
