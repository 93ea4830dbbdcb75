"""The rendered landscape: fields, spectra, dates, clouds, display."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from causalsat.exceptions import ParameterError
from causalsat.simulate import moderators, render_landscape, rgb
from causalsat.simulate.fields import box_mean, drainage, fractal, hillshade, stream


@pytest.fixture(scope="module")
def land():
    return render_landscape(256, n_dates=4, cloud_cover=0.2, seed=2)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_box_mean_equals_the_mean_of_each_window(size):
    values = stream(0, "values").random((13, 11))
    expected = np.empty_like(values)
    for r in range(13):
        for c in range(11):
            top, left = r - size // 2, c - size // 2
            expected[r, c] = values[max(top, 0) : top + size, max(left, 0) : left + size].mean()
    np.testing.assert_allclose(box_mean(values, size), expected, rtol=1e-12)


@pytest.mark.parametrize("roughness", [1.0, 2.0])
def test_fractal_has_the_spectrum_asked_for(roughness):
    taper = np.hanning(256)[:, None]
    fields = [fractal(stream(k, "f"), 256, roughness)[:, ::16] * taper for k in range(8)]
    spectra = [np.abs(np.fft.rfft(field, axis=0)) ** 2 for field in fields]
    power = np.mean(spectra, axis=(0, 2))
    frequency = np.arange(len(power))
    use = slice(6, 60)
    slope = np.polyfit(np.log(frequency[use]), np.log(power[use]), 1)[0]
    # amplitude f^-r in two dimensions is power f^-(2 r - 1) along a line
    assert slope == pytest.approx(-(2 * roughness - 1), abs=0.3)


def test_water_runs_to_the_border_and_all_of_it_arrives():
    elevation = fractal(stream(1, "t"), 40, 2.0)
    downstream, area = drainage(elevation)
    outlets = np.flatnonzero(downstream == np.arange(1600))
    rows, cols = np.divmod(outlets, 40)
    assert ((rows == 0) | (rows == 39) | (cols == 0) | (cols == 39)).all()
    assert area[outlets].sum() == 1600
    inner = np.flatnonzero(downstream != np.arange(1600))
    assert (area[downstream[inner]] > area[inner]).all()


def test_slopes_that_face_the_sun_are_brighter():
    slope = np.linspace(0, 300, 30, dtype=np.float32)
    rising_north = np.repeat(slope[::-1, None], 30, axis=1)  # row 0 is north and highest: it faces south
    assert hillshade(rising_north, 30.0, azimuth=180.0).mean() > 1.02
    assert hillshade(rising_north, 30.0, azimuth=0.0).mean() < 0.98
    np.testing.assert_allclose(hillshade(np.zeros((5, 5), np.float32), 30.0), 1.0, rtol=1e-6)


def test_land_cover_has_the_spectra_of_land_cover(land):
    water = ndimage.binary_erosion(~land.land)  # not the mixed pixels of the banks
    ndvi = land.ndvi()
    assert (~land.land).mean() > 0.002
    assert water.sum() > 20
    assert np.median(ndvi[water]) < 0
    assert np.median(land.band("swir1")[water]) < 0.05
    at = tuple(land.settlements[land.buildings > 60].T)
    assert box_mean(land.band("blue"), 5)[at].mean() > 1.5 * land.band("blue")[land.land].mean()
    assert ndvi[land.land].mean() > 0.3


def test_seasons_change_the_vegetation_and_not_the_towns(land):
    green = [land.ndvi(d)[land.land].mean() for d in range(4)]
    assert green[0] - min(green) > 0.1
    assert [str(d) for d in land.dates] == ["2015-06-20", "2015-09-03", "2015-11-17", "2016-01-31"]
    built = [moderators.built_up(land, 1) ** 2 > 0.1]
    assert np.ptp([land.band("blue", d)[built[0]].mean() for d in range(4)]) < 0.03


def test_imagery_names_its_bands_dates_and_place(land):
    image = land.imagery()
    assert image.dims == ("time", "band", "y", "x")
    assert list(image.band.values) == ["blue", "green", "red", "nir", "swir1", "swir2"]
    assert image.rio.crs.to_epsg() == 32636
    assert image.rio.nodata == 0
    assert image.dtype == np.uint16
    assert image.values.min() > 0
    assert image.rio.resolution() == (30.0, -30.0)
    assert (image.time.values.astype("datetime64[D]") == np.array(land.dates)).all()


def test_clouds_are_flagged_or_left_out(land):
    flagged, empty, clear = land.imagery("qa"), land.imagery("nodata"), land.imagery()
    quality = flagged.sel(band="qa").values
    assert set(np.unique(quality)) == {1, 2, 3}
    assert 0.1 < (quality == 2).mean() < 0.3
    np.testing.assert_array_equal((empty.values == 0).all(axis=1), quality > 1)
    same = np.broadcast_to((quality == 1)[:, None], empty.shape)
    np.testing.assert_array_equal(empty.values[same], clear.values[same])
    blue = flagged.sel(band="blue").values
    assert np.median(blue[quality == 2]) > 3 * np.median(blue[quality == 1])
    assert np.median(blue[quality == 3]) < np.median(blue[quality == 1])


def test_clouds_do_not_change_the_ground(land):
    np.testing.assert_array_equal(render_landscape(256, n_dates=4, seed=2).reflectance, land.reflectance)


def test_clouds_that_were_not_rendered_are_refused():
    with pytest.raises(ParameterError, match="cloud_cover"):
        render_landscape(128).imagery("qa")


def test_settlements_are_on_land_and_apart(land):
    rows, cols = land.settlements.T
    assert land.land[rows, cols].all()
    gaps = np.hypot(*(land.settlements[:, None] - land.settlements[None]).transpose(2, 0, 1))
    gaps[np.diag_indices(len(gaps))] = np.inf
    assert gaps.min(axis=1).mean() > 15
    assert len(land.settlements) > 0.8 * (256 / 30) ** 2


def test_the_kernel_moderator_is_the_maximum_over_the_chip():
    land = render_landscape(192, seed=3)
    kernel = np.ones((32, 32))
    kernel[8:24, 8:24] = -1
    visible = np.mean([land.band(b) for b in ("blue", "green", "red")], axis=0)
    surface = moderators.bright_ring(land, 48)
    for row, col in ((60, 70), (100, 101), (131, 90)):
        chip = visible[row - 24 : row + 24, col - 24 : col + 24]
        windows = np.lib.stride_tricks.sliding_window_view(chip, (32, 32))
        expected = (windows * kernel).sum((2, 3)).max() / 1024
        assert surface[row, col] == pytest.approx(expected, rel=1e-9)


def test_rgb_is_for_display(land):
    shown = rgb(land.imagery("nodata"), ("nir", "red", "green"), date=1)
    assert shown.shape == (256, 256, 3)
    assert shown.min() == 0
    assert shown.max() == 1
    assert (shown[land.imagery("nodata").values[1, 0] == 0] == 0).all()
