"""Pixels on another scale than the fit's: stopped, told of, and of less support; weather and land cover pass."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import causalsat
from causalsat.encoders import RandomConvFeatures, allow_other_scale
from causalsat.encoders.scale import (
    BandScale,
    check_scale,
    compare_scale,
    familiar_shares,
    known_scale,
    support_factor,
)
from causalsat.exceptions import ImageryError, ImageryWarning

MEANS = np.array([0.06, 0.08, 0.10, 0.28])


def scenes(n=40, seed=0, size=24, bands=4):
    """Reflectances of places that differ in brightness and in vegetation."""
    rng = np.random.default_rng(seed)
    place = np.exp(0.25 * rng.standard_normal((n, bands, 1, 1)))
    chips = MEANS[:bands, None, None] * place * np.exp(0.2 * rng.standard_normal((n, bands, size, size)))
    return chips.astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    return RandomConvFeatures(n_features=16, random_state=0).fit(scenes())


@pytest.mark.parametrize("factor", [10.0, 0.1, 100.0, 1e4, 1e-4, 255.0, 0.01])
def test_factors_that_cannot_be_stop(encoder, factor):
    with pytest.raises(ImageryError, match=r"about .* times those of the fit in all bands.*scale="):
        encoder.transform(factor * scenes(30, seed=1))
    with allow_other_scale(), pytest.warns(ImageryWarning, match="times those of the fit"):
        assert np.isfinite(encoder.transform(factor * scenes(30, seed=1))).all()
    with pytest.raises(ImageryError):  # the block has ended
        encoder.transform(factor * scenes(30, seed=1))


@pytest.mark.parametrize("factor", [10.0, 1e4])
def test_few_chips_suffice_for_large_numbers(encoder, factor):
    with pytest.raises(ImageryError, match="times those of the fit"):
        encoder.transform(factor * scenes(3, seed=1))


def test_kelvin_are_no_degrees():
    degrees = 27 + 4 * np.random.default_rng(0).standard_normal((30, 1, 12, 12))
    fitted = RandomConvFeatures(n_features=8, random_state=0).fit(degrees)
    with pytest.raises(ImageryError, match=r"from 293.* to 306.* fitted on 20.* to 33"):
        fitted.transform(degrees + 273.15)


@pytest.mark.filterwarnings("error")
def test_other_places_of_the_same_sensor_pass(encoder):
    for seed in range(5):
        many, one = (np.asarray(encoder.transform(scenes(n, seed=seed + 10))) for n in (40, 1))
        assert (len(many), len(one)) == (40, 1)
        assert np.isfinite(many).all()
    water = np.array([0.05, 0.04, 0.02, 0.01])[:, None, None] * np.exp(0.05 * scenes(3, seed=2))
    clouds = 0.8 + 0.05 * np.random.default_rng(0).standard_normal((3, 4, 24, 24))
    shadow = 0.4 * scenes(20, seed=3)
    for chips in (water, clouds, shadow, 2.0 * scenes(20, seed=4)):
        assert np.isfinite(np.asarray(encoder.transform(chips.astype(np.float32)))).all()


def test_a_shift_is_told_where_there_are_enough_chips(encoder):
    with pytest.warns(ImageryWarning, match="pixels of band 'b0' from 0.1.* fitted on 0.0"):
        encoder.transform(scenes(40, seed=1) + 0.1)


def test_undeclared_fill_is_told_and_not_familiar(encoder):
    chips = scenes(40, seed=1)
    chips[:20] = 0.0
    chips[20:30, :, :12] = 0.0
    with pytest.warns(ImageryWarning, match=r"62% of the pixels repeat .* most often 0, 0, 0, 0\. .* nodata="):
        encoder.transform(chips)
    scale = known_scale(encoder)
    shares = familiar_shares(scale, chips)
    np.testing.assert_allclose(shares[:20], 0)
    np.testing.assert_allclose(shares[20:30], 0.5, atol=0.01)
    assert support_factor(scale, shares)[30:].min() > 0.95
    noisy = scenes(40, seed=1)
    noisy[:, :, ::2] = np.nan
    np.testing.assert_allclose(familiar_shares(scale, noisy), 0.5, atol=0.04)
    assert compare_scale(scale, noisy) == ("", [])


def test_images_that_are_flat_at_fit_may_be_flat_later():
    classes = np.random.default_rng(0).integers(0, 3, size=(30, 1, 12, 12)).astype(np.float32)
    fitted = RandomConvFeatures(n_features=8, random_state=0).fit(classes)
    scale = known_scale(fitted)
    assert scale.flat > 0.3
    assert familiar_shares(scale, np.zeros((2, 1, 12, 12), dtype=np.float32)).tolist() == [1.0, 1.0]


def test_embeddings_that_were_not_dequantised_are_stopped():
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((40, 16, 8, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    fitted = RandomConvFeatures(n_features=8, random_state=0).fit(unit)
    with pytest.raises(ImageryError, match="times those of the fit"):
        fitted.transform(127 * unit[:20])
    flat = unit.mean(axis=(2, 3), keepdims=True) + 0.01 * unit  # one kind of place: its small spread is no unit
    fitted.transform(flat[:5])


def test_the_scale_is_saved_and_older_models_say_nothing(encoder, tmp_path):
    causalsat.save(encoder, tmp_path / "encoder.safetensors")
    again = causalsat.load(tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(known_scale(again).quantiles, known_scale(encoder).quantiles)
    with pytest.raises(ImageryError, match="times those"):
        again.transform(10 * scenes(30, seed=1))
    del again.pixel_scale_
    assert known_scale(again) is None
    assert np.isfinite(again.transform(10 * scenes(30, seed=1))).all()
    check_scale(None, 10 * scenes(30, seed=1))


# ---------------------------------------------------------------------- dark and bright places of an honest raster
def raster(seed, sd, side=320):
    """Reflectances under an illumination whose logarithm has standard deviation ``sd`` from place to place."""
    rng = np.random.default_rng(seed)

    def field():
        smooth = gaussian_filter(rng.standard_normal((side, side)), 12)
        return smooth / smooth.std()

    light = field()
    bands = [m * np.exp(sd * light + 0.15 * field() + 0.15 * rng.standard_normal((side, side))) for m in MEANS]
    return np.array(bands, dtype=np.float32)


def chips_of(image, n, rng, px=16):
    corners = rng.integers(0, image.shape[-1] - px, size=(n, 2))
    return np.stack([image[:, r : r + px, c : c + px] for r, c in corners])


@pytest.mark.parametrize("sd", [0.7, 1.0])
def test_dark_and_bright_chips_pass_and_factors_are_caught(sd):
    """The darkest and the brightest eighth are honest; factors of 10 and 10,000, both ways, are not."""
    refused = {"honest": 0, "ten": 0, "ten thousand": 0}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        here, elsewhere = raster(seed, sd), raster(100 + seed, sd)
        scale = RandomConvFeatures(n_features=2, random_state=0).fit(chips_of(here, 80, rng)).pixel_scale_
        pool = chips_of(here, 200, rng)
        order = np.argsort(np.median(pool, axis=(1, 2, 3)))
        for chosen in (order[:25], order[-25:]):
            refused["honest"] += bool(compare_scale(scale, pool[chosen])[0])
        new = chips_of(elsewhere, 25, rng)
        for factor in (10.0, 0.1):
            refused["ten"] += bool(compare_scale(scale, factor * new)[0])
        for factor in (1e4, 1e-4):
            refused["ten thousand"] += bool(compare_scale(scale, factor * new)[0])
    assert refused["honest"] == 0
    assert refused["ten"] >= 13  # of 16
    assert refused["ten thousand"] == 16


def test_a_lake_of_one_band_passes_where_the_fit_saw_lakes():
    """Lights of settlements and of the dark land between: a region of dark land is no other unit."""
    rng = np.random.default_rng(0)

    def lights(n, share):
        level = np.where(rng.random(n) < share, 0.02, 1.0)[:, None, None, None]
        return (level * np.exp(0.3 * rng.standard_normal((n, 1, 16, 16)))).astype(np.float32)

    with_dark, without = (RandomConvFeatures(n_features=2, random_state=0).fit(lights(80, s)) for s in (0.2, 0.0))
    dark = lights(70, 1.0)
    with pytest.warns(ImageryWarning, match=r"about 0.02\d? times .* as those of some places of the fit were: water"):
        assert np.isfinite(np.asarray(with_dark.transform(dark))).all()
    with pytest.raises(ImageryError, match=r"about 0\.02\d? times those of the fit"):
        without.transform(dark)
    with pytest.raises(ImageryError, match="times those of the fit"):
        with_dark.transform(0.001 * lights(25, 0.2))


def test_scales_saved_without_levels_still_compare(encoder):
    scale = known_scale(encoder)
    older = BandScale(scale.quantiles, scale.flat, scale.share)
    assert compare_scale(older, scenes(30, seed=1)) == ("", [])
    assert "about 10 times" in compare_scale(older, 10 * scenes(30, seed=1))[0]
