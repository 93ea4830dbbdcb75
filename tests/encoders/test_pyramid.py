"""PyramidFeatures: pooled responses against a plain computation, invalid pixels, a confounder that only it sees."""

import numpy as np
import pytest
from scipy.signal import correlate
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import causalsat
from causalsat.encoders import PyramidFeatures, RandomConvFeatures
from causalsat.exceptions import ImageryError, ParameterError
from causalsat.simulate import kernel_confounding


@pytest.fixture(scope="module")
def chips():
    return np.random.default_rng(0).normal(3.0, 2.0, size=(30, 2, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder(chips):
    return PyramidFeatures(n_filters=3, levels=2).fit(chips)


def test_pooled_responses_are_those_of_plain_convolutions(chips, encoder):
    features = dict(zip(encoder.get_feature_names_out(), encoder.transform(chips).T, strict=True))
    scaled = (chips - encoder.band_mean_[:, None, None]) / encoder.band_sd_[:, None, None]
    half = scaled.reshape(30, 2, 16, 2, 16, 2).mean(axis=(3, 5))
    for level, images in enumerate((scaled, half)):
        for j in (0, 3):
            weight, offset = encoder.filters_[level][j], encoder.offsets_[level][j]
            response = np.stack([correlate(image, weight, mode="valid")[0] for image in images]) + offset
            label = f"pyr{level}_{'mean' if j == 3 else j}"
            np.testing.assert_allclose(features[f"{label}_max"], response.max(axis=(1, 2)), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(features[f"{label}_min"], response.min(axis=(1, 2)), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(features[f"{label}_avg"], response.mean(axis=(1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features["mean_b1"], chips[:, 1].mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(features["sd_b0"], chips[:, 0].std(axis=(1, 2)), rtol=1e-4)


def test_invalid_pixels_are_left_out(chips, encoder):
    holed = chips.copy()
    holed[:, 0, :8] = np.nan  # the upper quarter, invalid in one band
    rest = encoder.transform(holed)
    np.testing.assert_allclose(rest, encoder.transform(chips[:, :, 8:]), rtol=1e-4, atol=1e-4)
    holed[3] = np.nan
    assert np.isnan(encoder.transform(holed)[3]).all()
    speckled = chips.copy()
    speckled[:, :, ::3, ::3] = np.nan  # no 4 x 4 patch of the finest level is whole
    assert np.isfinite(encoder.transform(speckled)).all()


def test_features_do_not_depend_on_company_and_survive_saving(chips, encoder, tmp_path):
    features = encoder.transform(chips)
    np.testing.assert_allclose(encoder.transform(chips[4:5])[0], features[4], rtol=1e-4, atol=1e-5)
    causalsat.save(encoder, tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(causalsat.load(tmp_path / "encoder.safetensors").transform(chips), features)


def test_sequences_get_features_of_each_date(chips, encoder):
    sequence = np.stack([chips, chips[::-1]], axis=1)
    twice = PyramidFeatures(n_filters=3, levels=2).fit(sequence)
    features = twice.transform(sequence)
    assert twice.get_feature_names_out()[0] == "t0_pyr0_0_max"
    np.testing.assert_allclose(features[:, : features.shape[1] // 2], features[::-1, features.shape[1] // 2 :])


def test_bad_input_says_what_to_do(chips):
    with pytest.raises(ParameterError, match="levels=6"):
        PyramidFeatures(levels=6).fit(chips)
    with pytest.raises(ParameterError, match="n_filters=0"):
        PyramidFeatures(n_filters=0).fit(chips)
    with pytest.raises(ImageryError, match="bands"):
        PyramidFeatures(2).fit(chips).transform(chips[:, :1])
    holed = chips.copy()
    holed[:, :, ::3, ::3] = np.nan
    with pytest.raises(ImageryError, match="free of missing pixels"):
        PyramidFeatures(levels=1).fit(holed)


def test_it_sees_a_streak_that_mean_pooling_does_not():
    data = kernel_confounding(4, 300, 64, seed=1)
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 15)))
    r2 = {
        type(encoder).__name__: cross_val_score(model, encoder.fit_transform(data.images), data.confounder).mean()
        for encoder in (PyramidFeatures(), RandomConvFeatures(64, statistics=True))
    }
    assert r2["PyramidFeatures"] > 0.75
    assert r2["PyramidFeatures"] > r2["RandomConvFeatures"] + 0.15
