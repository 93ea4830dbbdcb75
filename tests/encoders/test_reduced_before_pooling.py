"""Components of overlapping places: reduced before responses are added up, equal to reduced afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.encoders import RandomConvFeatures
from causalsat.encoders.dense.window import LinearHead, sum_of_parts
from causalsat.encoders.reduce import learn_reduction

SIZE = 24


@pytest.mark.parametrize(
    "settings", [{}, {"threshold": 0.5}, {"stride": 2}, {"patch_px": (3, 5)}, {"statistics": True}]
)
def test_head_before_pooling_equals_head_after(settings):
    rng = np.random.default_rng(0)
    chips = rng.normal(100, 20, (40, 2, SIZE, SIZE)).astype(np.float32)
    encoder = RandomConvFeatures(32, **settings).fit(chips)
    reduction = learn_reduction(encoder.transform(chips), 6)
    window = rng.normal(100, 20, (2, 120, 150)).astype(np.float32)
    window[:, 30:34, 20:70] = np.nan
    window[:, 80:, 100:] = np.nan  # some chips are empty
    rows, cols = (axis.ravel() for axis in np.meshgrid(np.arange(0, 97, 6), np.arange(0, 127, 7)))
    features = encoder.dense(window, rows, cols, SIZE)
    first = encoder.dense(window, rows, cols, SIZE, head=LinearHead(reduction.mean, reduction.weight))
    after = reduction.apply_known(features)
    assert np.isnan(after).any()
    np.testing.assert_array_equal(np.isnan(first), np.isnan(after))
    np.testing.assert_allclose(first, after, atol=1e-4)  # of components with unit variance


def test_dates_without_pixels_count_as_average():
    rng = np.random.default_rng(1)
    chips = rng.normal(100, 20, (40, 3, 2, SIZE, SIZE)).astype(np.float32)
    chips[:8, 1] = np.nan
    encoder = RandomConvFeatures(16).fit(chips)
    reduction = learn_reduction(encoder.transform(chips), 4)
    window = rng.normal(100, 20, (3, 2, 60, 60)).astype(np.float32)
    window[1, :, :30] = np.nan
    rows, cols = np.array([0, 2, 20, 36]), np.array([0, 30, 20, 36])
    first = encoder.dense(window, rows, cols, SIZE, head=LinearHead(reduction.mean, reduction.weight))
    after = reduction.apply_known(encoder.dense(window, rows, cols, SIZE))
    np.testing.assert_allclose(first, after, atol=1e-4)


def test_sum_of_parts():
    parts = [np.array([[1.0], [np.nan], [np.nan]]), np.array([[2.0], [3.0], [np.nan]])]
    np.testing.assert_array_equal(sum_of_parts(parts), [[3.0], [3.0], [np.nan]])
