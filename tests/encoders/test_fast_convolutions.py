"""Fast forms of convolutions against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from causalsat.encoders.dense.fast import FusedConv, fits, fuses, pool_rectified, winograd


def images(channels: int, side: tuple[int, int], n: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(n, channels, *side, generator=generator).to(dtype)
    return found.contiguous(memory_format=torch.channels_last)


def convolution(inputs: int, outputs: int, dilation: int, **options) -> torch.nn.Conv2d:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layer = torch.nn.Conv2d(inputs, outputs, 3, dilation=dilation, **options)
    return layer.requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs", "dilation"), [(64, 64, 1), (64, 128, 2), (128, 64, 3)])
def test_winograd_is_the_direct_sum(inputs: int, outputs: int, dilation: int, threads: int) -> None:
    """Sides that are no multiple of a tile, two images, more tiles than fit at a time."""
    layer, x = convolution(inputs, outputs, dilation), images(inputs, (49, 62), n=2)
    added = images(outputs, (60, 70), n=2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        plain, summed = winograd(layer)(x), winograd(layer)(x, added, 4)
    finally:
        torch.set_num_threads(before)
    wanted = layer(x)
    height, width = wanted.shape[-2:]
    assert plain.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, wanted.relu(), atol=5e-5, rtol=0)
    more = added[:, :, 4 : 4 + height, 4 : 4 + width]
    torch.testing.assert_close(summed, (wanted + more).relu(), atol=5e-5, rtol=0)


def test_a_side_of_one_tile_or_less() -> None:
    layer = convolution(64, 64, 2)
    for side in ((5, 5), (6, 40), (5, 8)):
        x = images(64, side)
        torch.testing.assert_close(winograd(layer)(x), layer(x).relu(), atol=5e-5, rtol=0)


def test_which_convolutions_have_a_fast_form() -> None:
    assert fits(convolution(64, 128, 2))
    for options in ({"stride": 2}, {"groups": 2}, {"bias": False}):
        assert not fits(convolution(64, 128, 1, **options))
    assert not fits(convolution(32, 64, 1))
    assert not fits(convolution(64, 64, 1).to(torch.bfloat16))
    assert not fuses(convolution(64, 64, 1))


def test_fused_in_bfloat16() -> None:
    layer = convolution(64, 128, 1, stride=2).to(torch.bfloat16)
    if not fuses(layer):
        pytest.skip("this torch has no fused convolutions in bfloat16")
    x, added = images(64, (21, 30), dtype=torch.bfloat16), images(128, (14, 20), dtype=torch.bfloat16)
    wanted = layer(x)
    assert FusedConv(layer)(x).equal(wanted.relu())
    more = added[:, :, 2 : 2 + wanted.shape[2], 2 : 2 + wanted.shape[3]]
    exact = torch.nn.functional.conv2d(x.float(), layer.weight.float(), layer.bias.float(), stride=2) + more.float()
    error = (FusedConv(layer)(x, added, 2).float() - exact.relu()).abs()
    assert float((error / (1 + exact.abs())).max()) < 2**-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maximum_of_the_rectified(dtype: torch.dtype) -> None:
    x = images(5, (23, 30), n=2, dtype=dtype)
    x[:, :, :8, :8] = -x[:, :, :8, :8].abs()  # nothing to keep
    wanted = torch.nn.functional.max_pool2d(x.relu(), 3, 2)
    found = pool_rectified(x)
    assert found.dtype == dtype
    assert found.equal(wanted)
    assert np.all(found[:, :, :3, :3].float().numpy() == 0)
