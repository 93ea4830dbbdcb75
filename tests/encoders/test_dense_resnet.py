"""The dense form of ResNets: the same responses as torchvision's, the same features in every window."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest

from causalsat import load, save
from causalsat.encoders import ImageEncoder, TorchvisionEncoder
from causalsat.encoders.dense import window as dense_window
from causalsat.encoders.dense.boxes import valid_shares
from causalsat.encoders.dense.resnet import build_dense
from causalsat.encoders.dense.window import Squares, any_valid, pool_squares, squares_of, wanted_squares
from causalsat.exceptions import DataError, ParameterError
from causalsat.imagery import open_imagery

BANDS = 2


def scene(side: int = 640, seed: int = 0, dates: int = 0) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    shape = (dates or 1, BANDS, side, side)
    pixels = gaussian_filter(rng.standard_normal(shape), (0, 0, 2, 2)) * 8 + 0.3 * rng.standard_normal(shape)
    return (pixels if dates else pixels[0]).astype("f4")


def as_imagery(pixels: np.ndarray):
    import rioxarray  # noqa: F401
    import xarray

    side = pixels.shape[-1]
    dims = ("band", "y", "x") if pixels.ndim == 3 else ("time", "band", "y", "x")
    coords = {"band": ["red", "nir"], "y": 4e5 - 10.0 * (np.arange(side) + 0.5), "x": 10.0 * (np.arange(side) + 0.5)}
    if pixels.ndim == 4:
        coords["time"] = np.array([f"20{10 + k}-01-01" for k in range(len(pixels))], dtype="datetime64[ns]")
    return open_imagery(xarray.DataArray(pixels, dims=dims, coords=coords).rio.write_crs("EPSG:32636"))


def points(rows: np.ndarray, cols: np.ndarray):
    return gpd.GeoDataFrame(
        geometry=gpd.points_from_xy(10.0 * (np.asarray(cols) + 0.5), 4e5 - 10.0 * (np.asarray(rows) + 0.5)),
        crs="EPSG:32636",
    )


def fitted(stride: int = 16, backbone: str = "resnet18", dates: int = 0, **options):
    training = scene(64, seed=9, dates=dates)[None]
    return TorchvisionEncoder(backbone, dense_stride=stride, random_state=3, **options).fit(training)


@pytest.mark.parametrize(
    ("backbone", "stride", "field"),
    [
        ("resnet18", 16, 435),
        ("resnet18", 8, 435),
        ("resnet18", 32, 435),
        pytest.param("resnet50", 16, 427, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", 8, 427, marks=pytest.mark.slow),
    ],
)
def test_responses_are_torchvisions_far_from_the_border(backbone: str, stride: int, field: int) -> None:
    """Against torchvision's padded network, dilated by hand, in the middle of a large image."""
    import torch
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.get_model(backbone, weights=None).eval()
        for layer in network.modules():  # random statistics, so that folding them is tested
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2.0)
        image = torch.randn(1, 3, 576, 576)
    dense = build_dense(network, stride, backbone)
    assert (dense.geometry.field_px, dense.geometry.stride) == (field, stride)
    dilate(network, stride)
    stages = [network.conv1, network.bn1, network.relu, network.maxpool]
    stages += [network.layer1, network.layer2, network.layer3, network.layer4]
    radius = dense.geometry.radius_px
    first, last = (
        -(-radius // stride),
        (576 - radius - 1) // stride,
    )  # torchvision's response k is centred at k stride
    with torch.inference_mode():
        wanted = torch.nn.Sequential(*stages)(image)[0, :, first : last + 1, first : last + 1]
        low, high = first * stride - radius, last * stride + radius + 1
        found = dense(image[:, :, low:high, low:high].contiguous(memory_format=torch.channels_last))[0]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=2e-4 * float(wanted.std()) + 1e-5)


def dilate(network, stride: int) -> None:
    """Strides beyond ``stride`` to dilation, in torchvision's own modules, written out."""
    reached, dilation = 4, 1
    for stage in (network.layer2, network.layer3, network.layer4):
        keep = reached * 2 <= stride
        for number, block in enumerate(stage):
            three = [c for c in (block.conv1, block.conv2) if c.kernel_size == (3, 3)]
            for k, conv in enumerate(three):
                d = dilation if (number == 0 and k == 0) or keep else 2 * dilation
                conv.dilation = conv.padding = (d, d)
                if conv.stride == (2, 2) and not keep:
                    conv.stride = (1, 1)
            if block.downsample is not None and not keep:
                block.downsample[0].stride = (1, 1)
        reached, dilation = (reached * 2, dilation) if keep else (reached, 2 * dilation)


def test_features_do_not_depend_on_the_window_or_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:

    encoder, pixels = fitted(), scene()
    halo = encoder.halo_px
    assert halo == 224
    rows, cols = np.array([224, 300, 331]), np.array([224, 257, 350])
    whole = encoder.dense(pixels, rows, cols, 48)
    assert whole.shape == (3, 512)
    scale = whole.std()
    part = encoder.dense(pixels[:, 32:, 16:], rows[1:] - 32, cols[1:] - 16, 48)  # moved by whole squares
    np.testing.assert_allclose(part, whole[1:], atol=1e-4 * scale)
    monkeypatch.setattr(dense_window, "block_squares", lambda geometry: 4)
    np.testing.assert_allclose(encoder.dense(pixels, rows, cols, 48), whole, atol=1e-4 * scale)
    far = pixels.copy()
    far[:, :70], far[:, :, :70] = 50.0, -50.0  # beyond the receptive field of the last chip, within the others'
    moved = encoder.dense(far, rows, cols, 48)
    np.testing.assert_allclose(moved[2], whole[2], atol=1e-4 * scale)
    assert np.abs(moved[0] - whole[0]).max() > 0.1 * scale


def test_a_small_window_is_refused() -> None:
    with pytest.raises(DataError, match="224 pixels round each chip"):
        fitted().dense(scene(), np.array([100]), np.array([224]), 48)


def test_chips_with_their_surroundings() -> None:
    encoder, pixels = fitted(), scene()
    chip = pixels[None, :, 16 : 16 + 512, 32 : 32 + 512]
    wanted = encoder.dense(pixels, np.array([240]), np.array([256]), 64)
    np.testing.assert_allclose(encoder.transform(chip), wanted, atol=1e-4 * wanted.std())
    with pytest.raises(ParameterError, match="224 pixels of surroundings"):
        encoder.transform(pixels[None, :, :64, :64])


def test_pooling_is_the_average_over_the_area() -> None:
    """Against the map blown up to pixels."""
    rng = np.random.default_rng(1)
    stride, size = 8, 19
    rows, cols = rng.integers(40, 90, 30), rng.integers(24, 80, 30)
    squares = squares_of(rows, cols, size, stride)
    responses = rng.standard_normal((squares.rows, squares.cols, 3)).astype("f4")
    fine = responses.repeat(stride, 0).repeat(stride, 1)
    r, c = rows - squares.row * stride, cols - squares.col * stride
    wanted = [fine[a : a + size, b : b + size].mean(axis=(0, 1), dtype=float) for a, b in zip(r, c, strict=True)]
    np.testing.assert_allclose(pool_squares(responses, squares, rows, cols, size, stride), wanted, atol=1e-10)
    wanted_here = wanted_squares(rows[:2], cols[:2], size, stride, squares)
    marks = np.zeros(wanted_here.shape, dtype=bool)
    for a, b in zip(r[:2], c[:2], strict=True):
        marks[a // stride : (a + size - 1) // stride + 1, b // stride : (b + size - 1) // stride + 1] = True
    np.testing.assert_array_equal(wanted_here, marks)
    assert squares == Squares(squares.row, squares.col, *marks.shape)


def test_bfloat16_on_a_cpu_is_close() -> None:
    pixels = scene()
    rows, cols = (g.ravel() for g in np.meshgrid(np.arange(224, 368, 16), np.arange(224, 368, 16)))
    exact = fitted().dense(pixels, rows, cols, 48)
    encoder = fitted(precision="bfloat16")
    rounded = encoder.dense(pixels, rows, cols, 48)
    error = np.abs(rounded - exact) / exact.std(axis=0).clip(1e-3 * exact.std())
    assert 0 < np.median(error) < 0.05
    encoder.set_params(precision="float32")
    np.testing.assert_allclose(encoder.dense(pixels, rows, cols, 48), exact, atol=1e-5 * exact.std())


def test_invalid_pixels_and_dates() -> None:
    encoder, pixels = fitted(dates=2), scene(dates=2)
    pixels[1, :, 250:330, 250:330] = np.nan
    rows, cols = np.array([240, 260]), np.array([300, 260])
    found = encoder.dense(pixels, rows, cols, 40)
    assert found.shape == (2, 1024)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1, 512:]).all()
    assert np.isfinite(found[1, :512]).all()
    filled = np.where(np.isnan(pixels), encoder.band_mean_[:, None, None], pixels).astype("f4")
    np.testing.assert_allclose(found[0], encoder.dense(filled, rows, cols, 40)[0], atol=1e-4 * np.nanstd(found))


def test_training_places_and_cells_of_a_map_are_encoded_alike() -> None:
    """Scattered one by one, together in a window, and with the projection before or after pooling."""
    imagery = as_imagery(scene(400))
    rng = np.random.default_rng(2)
    places = points(rng.integers(30, 370, 12), rng.integers(30, 370, 12))
    encoder = ImageEncoder(imagery, 320.0, TorchvisionEncoder(dense_stride=32, random_state=0), n_components=3)
    fit = encoder.fit_transform(places)
    again = encoder.transform(places.iloc[:4])
    np.testing.assert_allclose(again, fit.iloc[:4], atol=2e-3)
    rows, cols = (g.ravel() for g in np.meshgrid(np.arange(100, 164, 16), np.arange(100, 164, 16), indexing="ij"))
    cells = encoder.transform(points(rows, cols))  # one window
    alone = encoder.transform(points(rows[5:6], cols[5:6]))
    np.testing.assert_allclose(cells.iloc[5:6], alone, atol=2e-3)
    every = ImageEncoder(imagery, 320.0, TorchvisionEncoder(dense_stride=32, random_state=0), n_components=None)
    every.fit(places)
    late = every.transform(points(rows, cols)).to_numpy() @ encoder.reduction_.components.T
    np.testing.assert_allclose(cells, late, atol=2e-3)


def test_a_saved_encoder_encodes_the_same(tmp_path) -> None:
    encoder, pixels = fitted(32), scene()
    rows, cols = np.array([240, 260]), np.array([300, 260])
    save(encoder, tmp_path / "encoder.safetensors")
    found = load(tmp_path / "encoder.safetensors").dense(pixels, rows, cols, 40)
    np.testing.assert_allclose(found, encoder.dense(pixels, rows, cols, 40), atol=1e-6 * found.std())


def test_what_has_no_dense_form_is_refused() -> None:
    with pytest.raises(ParameterError, match="a ResNet of torchvision"):
        fitted(backbone="shufflenet_v2_x0_5")
    with pytest.raises(ParameterError, match="dense_stride=12"):
        fitted(12)
    with pytest.raises(ParameterError, match="image_px"):
        fitted(image_px=64)
    assert not hasattr(TorchvisionEncoder(), "dense")
    torchvisions = (1.814e9 - 512_000) / 224**2 - 64 * 49 / 4  # its figure, without the head and the third band
    assert fitted(32).flops_per_px == pytest.approx(2 * torchvisions, rel=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 1.0])
def test_any_valid_is_a_share_above_zero(share):
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((3, 90, 80)).astype(np.float32)
    pixels[:, rng.random((90, 80)) < share] = np.nan
    pixels[:, :, 30:55] = np.nan
    rows, cols = rng.integers(0, 80, 60), rng.integers(0, 70, 60)
    found = any_valid(pixels, rows, cols, 10)
    np.testing.assert_array_equal(found, valid_shares(pixels, rows, cols, 10) > 0)
    assert not found[(cols >= 30) & (cols <= 45)].any()
