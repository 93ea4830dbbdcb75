"""LearnedFilters: a known filter is found, responses are plain convolutions, no place meets its own outcomes."""

import numpy as np
import pytest
from scipy.signal import correlate

import causalsat
from causalsat import LearnedFilters
from causalsat.encoders.filters.levels import coarser, make_level, scan, strongest
from causalsat.exceptions import DataError, ParameterError
from causalsat.simulate import kernel_confounding


@pytest.fixture(scope="module")
def streaks():
    """Images whose brightest streak of 4 pixels moves the outcome: 200 to learn from, 100 new ones."""
    data = kernel_confounding(4, 300, 40, seed=3)
    return data, slice(0, 200), slice(200, 300)


@pytest.fixture(scope="module")
def fitted(streaks):
    data, old, _ = streaks
    encoder = LearnedFilters(max_px=8)
    features = encoder.fit_transform(data.images[old], data.outcome[old], treatment=data.treatment[old])
    return encoder, features


def test_the_filter_that_made_the_outcome_is_found(streaks, fitted):
    data, old, new = streaks
    encoder, features = fitted
    assert encoder.kept_ == [True]
    assert encoder.signs_ == [1]
    assert encoder.levels_ == [0]
    kernel = encoder.filters_[0][0]
    assert kernel.shape == (4, 4)
    assert np.corrcoef(kernel.ravel(), np.fliplr(np.eye(4)).ravel())[0, 1] > 0.98
    response = encoder.transform(data.images[new])[:, 0]
    slope, _ = np.polyfit(response, data.confounder[new], 1)
    assert np.corrcoef(response, data.confounder[new])[0, 1] > 0.995
    assert slope == pytest.approx(1, abs=0.06)  # in units of the outcome
    assert np.corrcoef(features[:, 0], data.confounder[old])[0, 1] > 0.99


def test_features_are_strongest_plain_convolutions_and_band_statistics(streaks, fitted):
    data, _, new = streaks
    encoder, _ = fitted
    images = data.images[new][:5]
    scaled = (images[:, 0] - encoder.band_mean_[0]) / encoder.band_sd_[0]
    plain = [correlate(image, encoder.filters_[0][0], mode="valid").max() for image in scaled]
    features = encoder.transform(images)
    np.testing.assert_allclose(features[:, 0], plain, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features[:, 1], images.mean(axis=(1, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features[:, 2], images.std(axis=(1, 2, 3)), rtol=1e-4)
    assert encoder.get_feature_names_out().tolist() == ["outcome0", "mean_b0", "sd_b0"]


def test_an_outcome_that_falls_with_the_strongest_streak(streaks):
    data, old, new = streaks
    encoder = LearnedFilters(max_px=4, n_folds=1, statistics=False)
    encoder.fit(data.images[old], -data.outcome[old], treatment=data.treatment[old])
    assert encoder.signs_ == [-1]
    response = encoder.transform(data.images[new])
    assert response.shape == (100, 1)
    assert np.corrcoef(response[:, 0], -data.confounder[new])[0, 1] > 0.99


def test_a_place_never_meets_its_own_outcomes(streaks):
    data, _, _ = streaks
    chips = data.images[:60]
    y, t = data.outcome[:60], data.treatment[:60]
    one, other = LearnedFilters(max_px=4), LearnedFilters(max_px=4)
    before = one.fit_transform(chips, y, treatment=t)
    moved = np.where(np.arange(60) == 7, y + 3.0, y)
    after = other.fit_transform(chips, moved, treatment=t)
    own = one.folds_ == one.folds_[7]
    if one.folds_[7] != 0:  # what fold 0 decides, extent and resolution, is shared
        np.testing.assert_array_equal(after[own], before[own])
    assert np.abs(after[~own] - before[~own]).max() > 0.01


def test_units_of_a_place_share_its_chip_and_effects_are_found(streaks):
    data, _, _ = streaks
    rng = np.random.default_rng(0)
    place = np.repeat(np.arange(200), 3)
    t = rng.integers(0, 2, 600).astype(float)
    y = t * data.confounder[place] + 0.3 * rng.standard_normal(600)
    encoder = LearnedFilters(targets="effect", max_px=4, n_folds=2, statistics=False)
    crossed = encoder.fit_transform(data.images[:200], y, treatment=t, groups=place, unit_place=place)
    assert crossed.shape == (200, 1)
    assert np.corrcoef(encoder.transform(data.images[200:])[:, 0], data.confounder[200:])[0, 1] > 0.95


def test_nothing_to_find_leaves_no_filter(streaks):
    data, old, new = streaks
    rng = np.random.default_rng(1)
    noise, t = rng.standard_normal(200), rng.integers(0, 2, 200).astype(float)
    encoder = LearnedFilters(max_px=4)
    features = encoder.fit_transform(data.images[old], noise, treatment=t)
    assert encoder.kept_ == [False]
    assert (features[:, 0] == 0).all()
    assert (encoder.transform(data.images[new])[:, 0] == 0).all()


def test_invalid_pixels_are_left_out(streaks, fitted):
    data, _, new = streaks
    encoder, _ = fitted
    images = data.images[new][:3].copy()
    images[0, :, :10] = np.nan
    images[1] = np.nan
    found = encoder.transform(images)
    np.testing.assert_allclose(found[0], encoder.transform(images[:1, :, 10:])[0], rtol=1e-4, atol=1e-5)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[2]).all()


def test_scan_gives_the_largest_responses_of_blocks():
    rng = np.random.default_rng(0)
    level = make_level(rng.standard_normal((4, 2, 21, 17)).astype(np.float32), None)
    kernel, rows = rng.standard_normal((2, 5, 5)), np.arange(4)
    largest, places = scan(level, rows, kernel, 6, 4)
    for i in range(4):
        plain = sum(correlate(level.images[i, b], kernel[b], mode="valid") for b in range(2))
        blocks = [plain[r : r + 4, c : c + 4].max() for r in range(0, 17, 4) for c in range(0, 13, 4)]
        found = plain[places[i] // 17, places[i] % 17]
        np.testing.assert_allclose(found, sorted(blocks)[::-1][:6], rtol=1e-4)
        assert largest[i] == pytest.approx(plain.max(), rel=1e-4)
    np.testing.assert_allclose(strongest(level, rows, kernel), largest, rtol=1e-6)
    half = coarser(level)
    assert half.shape == (10, 8)
    np.testing.assert_allclose(half.images[1, 0, 2, 3], level.images[1, 0, 4:6, 6:8].mean(), rtol=1e-5)


def test_saved_and_loaded_it_is_the_same(streaks, fitted, tmp_path):
    data, _, new = streaks
    encoder, _ = fitted
    causalsat.save(encoder, tmp_path / "encoder.safetensors")
    loaded = causalsat.load(tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(loaded.transform(data.images[new]), encoder.transform(data.images[new]))


@pytest.mark.parametrize("options", [{"targets": "income"}, {"n_filters": 0}, {"max_px": 2}, {"statistics": "no"}])
def test_wrong_parameters_are_refused(streaks, options):
    data, old, _ = streaks
    with pytest.raises(ParameterError, match=next(iter(options))):
        LearnedFilters(**options).fit(data.images[old], data.outcome[old], treatment=data.treatment[old])


def test_without_outcomes_it_says_what_to_do(streaks):
    data, old, _ = streaks
    with pytest.raises(DataError, match="without outcome or treatment"):
        LearnedFilters().fit(data.images[old])
