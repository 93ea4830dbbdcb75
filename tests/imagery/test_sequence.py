"""Folders of dated scenes, and dates."""

from __future__ import annotations

import copy
import pickle

import geopandas
import numpy as np
import pytest

from causalsat.exceptions import ImageryError
from causalsat.imagery import open_imagery
from causalsat.imagery.dates import as_day, day_in_name

DAYS = ("2014-03-05", "2015-07-01", "2016-01-31")


@pytest.fixture
def scenes(write):
    """Three scenes with cloud (9) in a quality band, and the pixels expected of them, (time, band, y, x)."""
    rng = np.random.default_rng(0)
    data = rng.integers(1, 100, size=(3, 3, 60, 70), dtype=np.uint8)
    data[:, 2] = rng.choice([4, 9], p=[0.8, 0.2], size=(3, 60, 70))
    for t in (2, 0, 1):  # written in another order than that of their dates
        name = f"stack/site_{DAYS[t].replace('-', '')}_v1.tif"
        folder = write(name, data[t], names=["red", "nir", "SCL"], blockxsize=16 * (t + 1)).parent
    expected = np.where(data[:, 2:] == 9, np.nan, data[:, :2].astype(np.float32))
    return folder, expected


def test_a_folder_is_a_sequence_with_a_mask_by_date(scenes):
    folder, expected = scenes
    imagery = open_imagery(folder, mask="sentinel2-scl")
    assert imagery.days == DAYS
    assert imagery.bands == ("red", "nir")
    assert imagery.has_time
    np.testing.assert_array_equal(imagery.read_window(0, 0, 60, 70), expected)
    points = geopandas.GeoSeries.from_xy([500205, 500305, 500405], [99795, 99695, 99595], crs="EPSG:32636")
    got = imagery.chips(points, size_px=7, min_valid=0.3)
    assert got.dims == ("unit", "time", "band", "y", "x")
    assert got.time.values.astype("datetime64[D]").astype(str).tolist() == list(DAYS)
    cut = np.stack([expected[:, :, r - 3 : r + 4, r - 3 : r + 4] for r in (20, 30, 40)])
    np.testing.assert_array_equal(got.values, cut)
    np.testing.assert_allclose(got.valid_fraction, np.isfinite(cut).mean(axis=(1, 2, 3, 4)))
    for positions, batch in imagery.iter_chips(points, 7, 2):
        np.testing.assert_array_equal(batch, cut[positions])
    lazy = imagery.chips(points, size_px=7, min_valid=0.3, lazy=True)
    np.testing.assert_array_equal(lazy.isel(time=1, unit=[2, 0]).values, cut[[2, 0], 1])


def test_selection_by_time_and_band(scenes):
    folder, expected = scenes
    imagery = open_imagery(str(folder / "*.tif"), mask="sentinel2-scl")
    whole = {"row0": 0, "col0": 0, "height": 60, "width": 70}
    for chosen, days in [
        (imagery.sel(dates="2015-07-01"), [1]),
        (imagery.sel(dates=["2016-01-31", "2014-03-05"]), [2, 0]),
        (imagery.sel(dates=slice("2014", "2015-07")), [0, 1]),
        (imagery.sel(dates=slice("2015", None)), [1, 2]),
        (imagery.images_before("2016-01-31"), [0, 1]),
        (imagery.images_before("2016"), [0, 1]),
        (imagery.images_before(np.datetime64("2016-02-01")), [0, 1, 2]),
    ]:
        np.testing.assert_array_equal(chosen.read_window(**whole), expected[days])
        assert chosen.days == tuple(DAYS[t] for t in days)
    np.testing.assert_array_equal(
        imagery.sel(bands=["nir"], dates="2015-07-01").read_window(**whole), expected[1:2, 1:2]
    )
    assert copy.deepcopy(imagery) is imagery
    assert pickle.loads(pickle.dumps(imagery)) == imagery


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.sel(dates="2013-01-01"), r"no image of \['2013-01-01'\]"),
        (lambda s: s.sel(dates=slice("2017", None)), "no image in"),
        (lambda s: s.sel(bands=["swir"]), "no band 'swir'.*one of"),
        (lambda s: s.images_before("2014-03-05"), "no image before 2014-03-05; the first is of 2014-03-05"),
        (lambda s: s.images_before("soon"), "'soon' is not a date"),
    ],
)
def test_bad_selection(scenes, call, message):
    with pytest.raises(ImageryError, match=message):
        call(open_imagery(scenes[0]))


def test_one_image_before_treatment(write, image):
    imagery = open_imagery(write("scene.tif", image), dates="2000")
    assert imagery.images_before("2001-01-01") is imagery
    with pytest.raises(ImageryError, match="no image before"):
        imagery.images_before("2000-12-31")
    with pytest.raises(ImageryError, match='dates="'):
        open_imagery(write("scene.tif", image)).images_before("2001")


@pytest.mark.parametrize(
    ("name", "regex", "day"),
    [
        ("LC08_L2SP_172059_20160703_02.tif", None, "2016-07-03"),
        ("S2_2016-07-03.tif", None, "2016-07-03"),
        ("a_2016_07_03.tif", None, "2016-07-03"),
        ("monthly_201602.tif", None, "2016-02-29"),
        ("annual_2015.tif", None, "2015-12-31"),
        ("h21v08_99999999.tif", None, None),
        ("x03-07-2016.tif", r"(?P<day>\d\d)-(?P<month>\d\d)-(?P<year>\d{4})", "2016-07-03"),
        ("MOD_A2016185.hdf", r"A(?P<year>\d{4})(?P<doy>\d{3})", "2016-07-03"),
    ],
)
def test_days_in_names(name, regex, day):
    assert day_in_name(name, regex) == day


def test_days_of_values():
    import datetime

    import pandas as pd

    for value in (
        "2016-07-03",
        20160703,
        datetime.date(2016, 7, 3),
        pd.Timestamp("2016-07-03 10:00"),
        "2016-07-03T10:00",
    ):
        assert as_day(value) == "2016-07-03"
    assert as_day(np.datetime64("2016")) == "2016-12-31"
