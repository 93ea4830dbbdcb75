"""Random convolutional features against a plain loop, and the dense form against the patchwise one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.base import clone

from causalsat import load, save
from causalsat.encoders import RandomConvFeatures
from causalsat.encoders.random_conv.filters import learn_filters
from causalsat.exceptions import DataError, ImageryError, ParameterError


def landscape(seed: int, shape: tuple[int, ...] = (3, 120, 140)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = [gaussian_filter(rng.normal(size=shape[-2:]), 1 + 2 * j) * (3 + 6 * j) for j in range(shape[-3])]
    noise = 0.2 * rng.normal(size=shape[-3:])
    return (100 + 40 * (np.stack(smooth) + noise)).astype(np.float32)


def holes(window: np.ndarray, seed: int) -> np.ndarray:
    """Missing pixels: a block in all bands, lone pixels in one band."""
    rng = np.random.default_rng(seed)
    out = window.copy()
    height, width = out.shape[-2:]
    r, c = rng.integers(height - 20), rng.integers(width - 20)
    out[..., r : r + 18, c : c + 12] = np.nan
    out[..., 0, rng.integers(height, size=4), rng.integers(width, size=4)] = np.nan
    return out


def cut(window: np.ndarray, rows: np.ndarray, cols: np.ndarray, size: int) -> np.ndarray:
    return np.stack([window[..., r : r + size, c : c + size] for r, c in zip(rows, cols, strict=True)])


@pytest.fixture(scope="module")
def window() -> np.ndarray:
    return holes(landscape(0), 1)


@pytest.fixture(scope="module")
def chips(window: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(2)
    return cut(window, rng.integers(0, 120 - 32, 60), rng.integers(0, 140 - 32, 60), 32)


def plain_loop(encoder: RandomConvFeatures, chip: np.ndarray) -> np.ndarray:
    """The definition, position by position, in double precision."""
    x = (chip.astype(float) - encoder.band_mean_[:, None, None]) / encoder.band_sd_[:, None, None]
    parts = []
    for weight, offset in zip(encoder.filters_, encoder.offsets_, strict=True):
        p = weight.shape[-1]
        responses = []
        for r in range(0, x.shape[1] - p + 1, encoder.stride):
            for c in range(0, x.shape[2] - p + 1, encoder.stride):
                patch = x[:, r : r + p, c : c + p]
                if np.isfinite(patch).all():
                    responses.append(np.einsum("fbrc,brc->f", weight.astype(float), patch) + offset)
        z = np.array(responses)
        parts += [np.maximum(z - encoder.threshold, 0).mean(0), np.maximum(-z - encoder.threshold, 0).mean(0)]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    "options", [{}, {"patch_px": (2, 5)}, {"stride": 2}, {"threshold": 0.8}, {"stride": 3, "patch_px": 5}]
)
def test_features_are_what_the_definition_says(chips: np.ndarray, options: dict) -> None:
    encoder = RandomConvFeatures(n_features=12, **options).fit(chips)
    found = encoder.transform(chips[:4])
    wanted = np.array([plain_loop(encoder, chip) for chip in chips[:4]])
    np.testing.assert_allclose(found, wanted, atol=2e-6)  # single precision sums of about 1,000 responses near 1


def test_statistics_are_the_means_and_sds_of_pixels_valid_in_all_bands(chips: np.ndarray) -> None:
    encoder = RandomConvFeatures(n_features=4, statistics=True).fit(chips)
    found = encoder.transform(chips)[:, 4:]
    for chip, row in zip(chips, found, strict=True):
        pixels = chip[:, np.isfinite(chip).all(axis=0)].astype(float)
        np.testing.assert_allclose(row, np.concatenate([pixels.mean(1), pixels.std(1)]), rtol=2e-5)
    assert list(encoder.get_feature_names_out()[4:]) == ["mean_b0", "mean_b1", "mean_b2", "sd_b0", "sd_b1", "sd_b2"]


def test_whitened_responses_have_mean_zero_and_unit_variance() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    patches = (rng.normal(size=(20_000, 12)) @ mixing + 3).reshape(-1, 3, 2, 2).astype(np.float32)
    bank = learn_filters(patches, 30, 0.0, rng)
    z = patches.reshape(len(patches), -1) @ bank.weight.reshape(30, -1).T + bank.offset
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-3)  # exact for ridge 0: u'W C W u = u'u = 1


def test_ridge_weakens_directions_without_variance() -> None:
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(5_000, 8)) * np.array([1, 1, 1, 1, 1, 1, 1, 1e-4])
    bank = learn_filters(flat.reshape(-1, 2, 2, 2).astype(np.float32), 50, 0.1, rng)
    weight = np.abs(bank.weight.reshape(50, 8))
    assert weight[:, 7].max() < 0.01 * np.median(weight[:, :7].max(axis=1))


DENSE = [
    {},
    {"patch_px": (3, 6)},
    {"stride": 2},
    {"stride": 3, "patch_px": 5, "threshold": 0.5},
    {"statistics": True},
]


@pytest.mark.parametrize("options", DENSE)
@pytest.mark.parametrize("layout", ["grid", "scattered"])
def test_dense_equals_patchwise(window: np.ndarray, chips: np.ndarray, options: dict, layout: str) -> None:
    encoder = RandomConvFeatures(n_features=32, **options).fit(chips)
    if layout == "grid":
        rows, cols = (g.ravel() for g in np.meshgrid(np.arange(3, 80, 8), np.arange(1, 100, 8), indexing="ij"))
    else:
        rng = np.random.default_rng(5)
        rows, cols = rng.integers(0, 120 - 40 + 1, 90), rng.integers(0, 140 - 40 + 1, 90)
    wanted = encoder.transform(cut(window, rows, cols, 40))
    found = encoder.dense(window, rows, cols, 40)
    assert np.abs((found - wanted) / wanted.std(axis=0)).max() < 1e-5


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(6, 20),
    patch=st.integers(1, 6),
    stride=st.integers(1, 3),
    n=st.integers(1, 12),
)
def test_dense_equals_patchwise_anywhere(seed: int, size: int, patch: int, stride: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(size, 50, size=2)
    window = rng.normal(size=(2, height, width)).astype(np.float32)
    window[:, rng.random((height, width)) < 0.02] = np.nan
    training = rng.normal(size=(20, 2, 12, 12)).astype(np.float32)
    encoder = RandomConvFeatures(n_features=6, patch_px=patch, stride=stride, statistics=True).fit(training)
    rows, cols = rng.integers(0, height - size + 1, n), rng.integers(0, width - size + 1, n)
    wanted = encoder.transform(cut(window, rows, cols, size))
    # features are of order 1 here; NaN exactly where no patch is valid
    np.testing.assert_allclose(encoder.dense(window, rows, cols, size), wanted, atol=2e-6)


def test_dense_bounds_its_memory_by_filters(
    window: np.ndarray, chips: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = RandomConvFeatures(n_features=32).fit(chips)
    rows, cols = np.arange(40), np.arange(40)
    whole = encoder.dense(window, rows, cols, 40)
    monkeypatch.setattr("causalsat.encoders.random_conv.pooling._INTEGRAL_BYTES", 1)  # one filter at a time
    np.testing.assert_allclose(encoder.dense(window, rows, cols, 40), whole, rtol=1e-5, atol=1e-7)


def test_sequences_are_encoded_date_by_date_in_both_forms(window: np.ndarray) -> None:
    sequence = np.stack([window, landscape(9)])
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, 80, 30), rng.integers(0, 100, 30)
    chips = cut(sequence, rows, cols, 32)
    encoder = RandomConvFeatures(n_features=6, statistics=True).fit(chips)
    found = encoder.transform(chips)
    names = encoder.get_feature_names_out()
    assert found.shape == (30, 24)
    assert names[0] == "t0_rcf0_pos"
    assert names[12] == "t1_rcf0_pos"
    np.testing.assert_allclose(encoder.dense(sequence, rows, cols, 32), found, atol=2e-4)
    np.testing.assert_allclose(found[0, :6], plain_loop(encoder, chips[0, 0]), atol=2e-6)
    np.testing.assert_allclose(found[0, 12:18], plain_loop(encoder, chips[0, 1]), atol=2e-6)


def test_a_chip_without_valid_patch_gets_missing_features(chips: np.ndarray) -> None:
    encoder = RandomConvFeatures(n_features=4, statistics=True).fit(chips)
    empty = chips[:2].copy()
    empty[0] = np.nan
    empty[1, 0] = np.nan  # one band suffices to make a pixel invalid
    assert np.isnan(encoder.transform(empty)).all()
    checkered = chips[:1].copy()
    checkered[:, :, ::3, ::3] = np.nan  # pixels remain, but no 4 x 4 patch
    found = encoder.transform(checkered)
    assert np.isnan(found[:, :4]).all()
    assert np.isfinite(found[:, 4:]).all()


def test_features_do_not_depend_on_values_of_invalid_pixels(chips: np.ndarray) -> None:
    encoder = RandomConvFeatures(n_features=8).fit(chips)
    one = chips[:1].copy()
    one[0, 1, 10, 10] = np.nan
    other = one.copy()
    other[0, 0, 10, 10], other[0, 2, 10, 10] = 1e6, np.inf
    np.testing.assert_array_equal(encoder.transform(one), encoder.transform(other))


def test_seed_decides_and_batches_do_not(chips: np.ndarray) -> None:
    reference = RandomConvFeatures(n_features=16, random_state=3).fit(chips).transform(chips)
    again = RandomConvFeatures(n_features=16, random_state=3, batch_size=7).fit(chips).transform(chips)
    np.testing.assert_allclose(again, reference, atol=1e-6)
    encoder = RandomConvFeatures(n_features=16, random_state=3).fit(chips)
    np.testing.assert_allclose(encoder.transform(chips[10:11])[0], reference[10], atol=1e-6)
    other = RandomConvFeatures(n_features=16, random_state=4).fit(chips).transform(chips)
    assert np.abs(other - reference).max() > 0.01


def test_features_see_a_texture_that_means_do_not() -> None:
    """Stripes and a chessboard with the same mean and variance."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24]
    stripes, board = np.where(x % 2, 1.0, -1.0), np.where((x + y) % 2, 1.0, -1.0)
    kind = rng.integers(2, size=200)
    chips = np.where(kind[:, None, None], stripes, board)[:, None] + rng.normal(size=(200, 1, 24, 24))
    features = RandomConvFeatures(n_features=32).fit_transform(chips)
    centres = [features[:100][kind[:100] == k].mean(0) for k in (0, 1)]
    nearer = np.linalg.norm(features[100:, None] - np.array(centres), axis=2).argmin(axis=1)
    assert (nearer == kind[100:]).mean() == 1.0
    means = chips.mean(axis=(1, 2, 3))
    assert abs(np.corrcoef(means, kind)[0, 1]) < 0.25


def test_scikit_learn_conventions(chips: np.ndarray, tmp_path) -> None:
    encoder = RandomConvFeatures(n_features=8, patch_px=(3, 4), stride=2, random_state=1)
    twin = clone(encoder)
    assert twin.get_params() == encoder.get_params()
    assert twin is not encoder
    fitted = encoder.fit(chips)
    assert fitted is encoder
    table = clone(encoder).set_output(transform="pandas").fit_transform(chips)
    assert list(table.columns) == list(encoder.get_feature_names_out())
    save(encoder, tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "encoder.safetensors").transform(chips), encoder.transform(chips))


def test_names_of_bands_are_checked(chips: np.ndarray) -> None:
    xr = pytest.importorskip("xarray")
    named = xr.DataArray(chips, dims=("unit", "band", "y", "x"), coords={"band": ["red", "green", "nir"]})
    encoder = RandomConvFeatures(n_features=4, statistics=True).fit(named)
    assert "mean_nir" in encoder.get_feature_names_out()
    np.testing.assert_array_equal(encoder.transform(named), encoder.transform(chips))
    with pytest.raises(ImageryError, match=r"nir, green, red.*red, green, nir"):
        encoder.transform(named.isel(band=[2, 1, 0]))
    with pytest.raises(ImageryError, match=r"\(2\).*\(3\)"):
        encoder.transform(chips[:, :2])
    with pytest.raises(ImageryError, match="no dates"):
        encoder.transform(chips[:, None])


def test_lazy_chips_give_the_same(chips: np.ndarray) -> None:
    xr, dask = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    lazy = xr.DataArray(dask.from_array(chips, chunks=(7, 3, 32, 32)), dims=("unit", "band", "y", "x"))
    encoder = RandomConvFeatures(n_features=6)
    np.testing.assert_array_equal(encoder.fit(lazy).transform(lazy), clone(encoder).fit(chips).transform(chips))


def test_bfloat16_is_close(chips: np.ndarray) -> None:
    exact = RandomConvFeatures(n_features=16).fit(chips).transform(chips)
    rough = RandomConvFeatures(n_features=16, precision="bfloat16").fit(chips).transform(chips)
    assert 0 < np.abs(rough - exact).max() < 0.05


@pytest.mark.parametrize(
    ("options", "data", "error", "says"),
    [
        ({"n_features": 7}, None, ParameterError, "even number"),
        ({"patch_px": 0}, None, ParameterError, "patch_px=0"),
        ({"patch_px": (2, 3, 4), "n_features": 4}, None, ParameterError, "3 patch sizes"),
        ({"stride": 0}, None, ParameterError, "stride=0"),
        ({"device": "tpu9"}, None, ParameterError, "device='tpu9'"),
        ({"precision": "float8"}, None, ParameterError, "precision='float8'"),
        ({"patch_px": 40}, None, ParameterError, "32 x 32"),
        ({}, np.zeros((5, 3)), DataError, r"shape \(5, 3\)"),
        ({}, np.zeros((0, 3, 9, 9)), DataError, "0 units"),
        ({}, np.full((2, 3, 9, 9), np.nan), ImageryError, "no pixel"),
        ({}, np.ones((2, 3, 9, 9)), ImageryError, "constant"),
        ({}, np.full((2, 3, 9, 9), "a"), DataError, "numbers"),
    ],
)
def test_bad_input_is_refused(chips: np.ndarray, options: dict, data, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        RandomConvFeatures(**{"n_features": 8, **options}).fit(chips if data is None else data).transform(chips)


def test_patches_without_gaps_are_needed() -> None:
    chips = np.random.default_rng(0).normal(size=(4, 1, 12, 12))
    chips[:, :, ::3, ::3] = np.nan
    with pytest.raises(ImageryError, match="free of missing pixels"):
        RandomConvFeatures(n_features=4).fit(chips)
    assert np.isfinite(RandomConvFeatures(n_features=4, patch_px=2).fit_transform(chips)).all()


def test_dense_refuses_chips_beyond_the_window(window: np.ndarray, chips: np.ndarray) -> None:
    encoder = RandomConvFeatures(n_features=4).fit(chips)
    with pytest.raises(DataError, match="beyond the window of 120 x 140"):
        encoder.dense(window, [0, 90], [0, 0], 40)
    with pytest.raises(DataError, match="two equal lengths"):
        encoder.dense(window, [0, 1], [0], 40)
    with pytest.raises(ImageryError, match=r"\(2\)"):
        encoder.dense(window[:2], [0], [0], 40)
