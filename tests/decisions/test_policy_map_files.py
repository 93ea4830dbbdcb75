"""Rasters that a map of whom to treat reads: local ones, and nothing that they name on the net."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from causalsat import map_policy
from causalsat.exceptions import DataError, ImageryError

PROFILE = {
    "driver": "GTiff", "width": 4, "height": 4, "dtype": "float32", "crs": "EPSG:32636",
    "transform": from_origin(500000, 100000, 10, 10),
}  # fmt: skip
VRT = (
    '<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:32636</SRS><GeoTransform>500000, 10, 0, 100000, 0, -10'
    '</GeoTransform><VRTRasterBand dataType="Float32" band="1"><SimpleSource><SourceFilename>/vsicurl/http://192.0.2.1/x.tif'
    "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)


@pytest.fixture
def effects(tmp_path):
    path = tmp_path / "effects.tif"
    with rasterio.open(path, "w", count=3, **PROFILE) as raster:
        raster.write(np.ones((3, 4, 4), dtype=np.float32))
        raster.descriptions = ("cate", "prob_positive", "support")
    return path


def test_costs_and_effects_from_the_net_are_refused_before_anything_is_asked(effects, tmp_path):
    (tmp_path / "net.vrt").write_text(VRT)
    for cost in ("http://192.0.2.1/x.tif", "/vsicurl/http://192.0.2.1/x.tif", tmp_path / "net.vrt"):
        with pytest.raises(ImageryError, match="net"):
            map_policy(effects, tmp_path / "p.tif", budget=3.0, cost=cost)
    with pytest.raises(ImageryError, match="net"):
        map_policy("/vsicurl/http://192.0.2.1/x.tif", tmp_path / "p.tif", budget=3.0)
    assert not (tmp_path / "p.tif").exists()


def test_rasters_that_cannot_be_used_are_named(effects, tmp_path):
    (tmp_path / "noise.tif").write_bytes(b"II*\x00noise")
    with pytest.raises(ImageryError, match=r"noise\.tif"):
        map_policy(effects, tmp_path / "p.tif", budget=3.0, cost=tmp_path / "noise.tif")
    with rasterio.open(tmp_path / "plain.tif", "w", count=1, **{**PROFILE, "crs": None}) as raster:
        raster.write(np.ones((1, 4, 4), dtype=np.float32))
    with pytest.raises(DataError, match="coordinate system"):
        map_policy(effects, tmp_path / "p.tif", budget=3.0, cost=tmp_path / "plain.tif")
