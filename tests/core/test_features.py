"""One scaler: a column varies relative to its own size, whatever its unit and origin."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.core.features import learn_scaler, warn_of_unresolved
from causalsat.exceptions import DataWarning


def test_weighted_moments_are_those_of_repeated_rows():
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((50, 3)), rng.integers(0, 4, 50)
    found, repeated = learn_scaler(X, w), learn_scaler(np.repeat(X, w, axis=0))
    np.testing.assert_allclose(found.mean, np.average(X, axis=0, weights=w), rtol=1e-12)
    np.testing.assert_allclose(found.scale, np.repeat(X, w, axis=0).std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(repeated.transform(X), found.transform(X), atol=1e-12)


@pytest.mark.parametrize("factor", [1e-300, 1e-200, 1e-14, 1e-12, 1e12, 1e200, 1e300])
def test_another_unit_is_the_same_feature(factor):
    X = np.random.default_rng(1).standard_normal((80, 2))
    plain, scaled = learn_scaler(X), learn_scaler(X * factor)
    np.testing.assert_allclose(scaled.transform(X * factor), plain.transform(X), atol=1e-10)


@pytest.mark.parametrize("shift", [1e6, 1e10, -1e11])
def test_another_origin_is_the_same_feature_up_to_the_rounding_of_its_values(shift):
    X = np.random.default_rng(2).standard_normal((80, 2))
    found = learn_scaler(X + shift)
    assert found.varies.all()
    np.testing.assert_allclose(found.transform(X + shift), learn_scaler(X).transform(X), atol=4e-16 * abs(shift))


def test_what_does_not_vary_is_zero_wherever_it_is_asked():
    X = np.column_stack([np.full(6, 0.1), np.arange(6.0)])
    found = learn_scaler(X)
    assert found.varies.tolist() == [False, True]
    assert not found.unresolved.any()
    assert found.transform([[7.0, 2.5]]).tolist() == [[0.0, 0.0]]
    assert (found.factor[0], found.scale_or_one[0]) == (0.0, 1.0)


def test_rounding_is_no_variation_and_is_said():
    rng = np.random.default_rng(3)
    double = 1.0 + 1e-15 * rng.integers(-3, 4, 100)
    single = np.float32(0.3) + np.float32(3e-8) * rng.integers(-1, 2, 100).astype(np.float32)
    whole = 10_000_000.0 + rng.integers(0, 3, 100)  # exact, though it varies in the eighth digit
    found = learn_scaler(np.column_stack([double, single, whole, rng.standard_normal(100)]))
    assert found.varies.tolist() == [False, False, True, True]
    with pytest.warns(DataWarning, match=r"no more than rounding count as constant: flat, grey\."):
        warn_of_unresolved(found, ["flat", "grey", "id", "x"])
    contrast = 0.5 + 1e-8 * rng.standard_normal(100)  # computed in single precision, averaged in double
    assert learn_scaler(contrast).varies
    assert not learn_scaler(contrast, resolution=1e-6).varies


def test_rows_of_weight_zero_count_for_nothing():
    X, w = np.array([[1.0], [3.0], [1e12]]), np.array([1.0, 1.0, 0.0])
    found = learn_scaler(X, w)
    assert (found.mean[0], found.scale[0]) == (2.0, 1.0)
    assert not learn_scaler(np.array([1.0, 1.0, 9.0]), w).varies


def test_a_principal_component_that_is_zero_but_for_rounding_is_no_feature():
    from sklearn.decomposition import PCA

    images = np.random.default_rng(4).standard_normal((12, 300))
    components = PCA(12).fit_transform(images)  # twelve centred rows vary in eleven directions
    found = learn_scaler(components)
    assert found.varies.tolist() == [True] * 11 + [False]
    assert found.unresolved[11]
    mixed = np.column_stack([images[:, 0], 1e-12 * images[:, 1]])  # another unit is a feature
    assert learn_scaler(mixed).varies.all()
