"""The two confounding benchmarks hold what their description says."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from causalsat.exceptions import ParameterError
from causalsat.simulate import colour_confounding, kernel_confounding
from causalsat.simulate.confounded_images import antidiagonal_maximum, natural_images, redraw


def test_red_holds_the_confounder_and_nothing_else_does():
    data = colour_confounding(1000, 8, seed=1)
    level = data.images.mean(axis=(2, 3))
    assert np.corrcoef(level[:, 0], data.confounder)[0, 1] > 0.9999
    assert np.abs(np.corrcoef(level[:, 1:].T, data.confounder)[2, :2]).max() < 0.1
    np.testing.assert_allclose(np.ptp(data.images.mean(axis=3), axis=2), 0.05, atol=1e-4)


def test_naive_difference_is_biased_by_two_and_the_oracle_is_not():
    naive, oracle = [], []
    for seed in range(30):
        data = colour_confounding(1000, 2, seed=seed)
        design = np.column_stack([np.ones(1000), data.treatment, data.confounder, *data.covariates.values()])
        naive.append(data.naive() - 2)
        oracle.append(np.linalg.lstsq(design, data.outcome, rcond=None)[0][1] - 2)
    assert 1.9 < np.mean(naive) < 2.2
    assert abs(np.mean(oracle)) < 0.06


def test_antidiagonal_maximum_is_a_convolution():
    images = np.random.default_rng(0).standard_normal((5, 20, 24))
    for width in (1, 2, 7):
        kernel = np.fliplr(np.eye(width))
        expected = [convolve2d(image, kernel, mode="valid").max() for image in images]
        np.testing.assert_allclose(antidiagonal_maximum(images, width), expected)
    with pytest.raises(ParameterError, match="width=21"):
        antidiagonal_maximum(images, 21)


def test_kernel_confounding_follows_its_propensity_and_equation():
    data = kernel_confounding(8, 4000, 16, seed=2)
    assert abs(data.confounder.mean()) < 1e-6
    assert data.confounder.std() == pytest.approx(1)
    residual = data.outcome - data.confounder - data.treatment
    assert residual.std() == pytest.approx(0.1, rel=0.05)
    expected = 1 / (1 + np.exp(-data.confounder))
    assert np.abs(data.propensity - expected).max() < 0.12
    assert np.mean(data.treatment - data.propensity) == pytest.approx(0, abs=0.03)
    assert 0.7 < data.naive() - 1 < 0.95
    again = redraw(data, 3)
    assert again.images is data.images
    assert (again.treatment != data.treatment).mean() > 0.3


def test_natural_images_have_equal_variance_in_each_octave():
    images = natural_images(60, 64, seed=0)[:, 0]
    assert images.std() == pytest.approx(1, rel=0.1)
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None, :])
    octaves = [power[(frequency >= low) & (frequency < 2 * low)].sum() for low in (0.05, 0.1, 0.2)]
    assert max(octaves) / min(octaves) < 1.5
    assert images.mean(axis=(1, 2)).std() > 0.1


def test_same_seed_same_data_and_covariates_are_coordinates():
    one, two = colour_confounding(50, 4, seed=5), colour_confounding(50, 4, seed=5)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.outcome, two.outcome)
    chips = one.chips()
    assert chips.dims == ("unit", "band", "y", "x")
    np.testing.assert_array_equal(chips["x1"], one.covariates["x1"])
    with pytest.raises(ParameterError, match="n=3"):
        colour_confounding(3)
