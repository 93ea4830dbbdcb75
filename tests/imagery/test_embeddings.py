"""Precomputed embeddings: the formula that gives length 1 is found, nodata and scales are heeded."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.exceptions import DataWarning, ImageryError, ParameterError
from causalsat.imagery import open_embeddings


@pytest.fixture
def unit_vectors() -> np.ndarray:
    """Embeddings of length 1, (64, 60, 70)."""
    values = np.random.default_rng(0).normal(size=(64, 60, 70))
    return values / np.linalg.norm(values, axis=0)


def quantise(values: np.ndarray, formula: str) -> np.ndarray:
    """The inverse of the published formulas."""
    raw = 127.5 * np.sign(values) * np.sqrt(np.abs(values)) if formula == "square" else 127 * values
    return np.clip(np.rint(raw), -127, 127).astype(np.int8)


@pytest.mark.parametrize(("formula", "tolerance"), [("square", 0.006), ("linear", 0.004)])
def test_alphaearth(write, unit_vectors, formula, tolerance):
    # half a step: 1 / 254 for linear; d(v^2)/dv times half a step, at most 2 * 0.63 / 255, for square
    stored = quantise(unit_vectors, formula)
    stored[:, :10] = -128
    stored[5, 20, 20] = -128
    imagery = open_embeddings(write("embedding_2016.tif", stored))
    assert imagery.formula == formula
    assert imagery.days == ("2016-12-31",)
    got = imagery.read_window(0, 0, 60, 70)
    assert np.isnan(got[:, :10]).all()
    assert np.isnan(got[:, 20, 20]).all()
    good = np.isfinite(got).all(axis=0)
    assert good.sum() == 50 * 70 - 1
    np.testing.assert_allclose(got[:, good], unit_vectors[:, good], atol=tolerance)
    some = open_embeddings(imagery.path, bands=["band_3", "band_1"])
    np.testing.assert_array_equal(some.read_window(0, 0, 60, 70)[:, good], got[[2, 0]][:, good])


def test_float_embeddings_and_scales(write, unit_vectors):
    scales = np.abs(unit_vectors).max(axis=0, keepdims=True).astype(np.float32) / 127
    stored = np.rint(unit_vectors / scales).astype(np.int8)
    scales[0, 3, 4] = np.nan
    path, scales_path = write("embedding_2016.tif", stored), write("scales_2016.tif", scales)
    for given in (scales_path, ("embedding", "scales")):
        imagery = open_embeddings(path, scales=given)
        got = imagery.read_window(0, 0, 60, 70)
        assert np.isnan(got[:, 3, 4]).all()
        good = np.isfinite(got)
        assert (~good).sum() == 64
        np.testing.assert_allclose(got[good], unit_vectors[good], atol=0.5 * np.nanmax(scales) * 1.001)
    floats = open_embeddings(write("float_2016.tif", unit_vectors.astype(np.float32)))
    np.testing.assert_array_equal(floats.read_window(0, 0, 60, 70), unit_vectors.astype(np.float32))
    assert floats.formula == "none"


def test_a_folder_of_years(write, unit_vectors):
    for year in (2015, 2016):
        folder = write(f"years/ae_{year}.tif", quantise(unit_vectors, "square")).parent
    imagery = open_embeddings(folder)
    assert imagery.read_window(0, 0, 5, 5).shape == (2, 64, 5, 5)
    assert imagery.images_before("2016-06-01").days == ("2015-12-31",)


def test_what_is_not_an_embedding(write, unit_vectors):
    path = write("codes_2016.tif", np.rint(40 * unit_vectors).astype(np.int8))
    with pytest.raises(ImageryError, match=r"no published formula.*pass scales="):
        open_embeddings(path)
    assert open_embeddings(path, formula="linear").formula == "linear"
    with pytest.raises(ParameterError, match="formula='cube'"):
        open_embeddings(path, formula="cube")
    with pytest.raises(ImageryError, match=r"no valid pixel.*pass formula="):
        open_embeddings(write("empty_2016.tif", np.full((64, 20, 20), -128, np.int8)))
    with pytest.raises(ImageryError, match=r"scales .*shape"):
        open_embeddings(path, scales=write("small.tif", np.ones((1, 20, 20), np.float32)))
    with pytest.warns(DataWarning, match=r"undated.*after the treatment"):
        open_embeddings(write("undated.tif", quantise(unit_vectors, "square")))
