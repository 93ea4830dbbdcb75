"""Fast parts of a network on a CPU: bands standardised, pooled in one pass, fused and Winograd convolutions.

Winograd's minimal filtering F(4 x 4, 3 x 3) as Lavin and Gray (2016, "Fast algorithms for convolutional neural
networks", section 4.2) nest it: a tile of 6 x 6 inputs is transformed, ``B' d B``, multiplied number by number by the
transformed filters, ``G g G'``, which for all channels and many tiles is 36 products of matrices, and transformed
back, ``A' m A``, to 4 x 4 outputs: 36 multiplications for 144. A dilated convolution is that of every d-th row and
column. In float32 the outputs differ from a direct sum's by some 1e-5 of their standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["CHANNELS", "FusedConv", "WinogradConv", "fits", "fuses", "pool_rectified", "standardised", "winograd"]


def standardised(pixels: NDArray[np.float32], mean: NDArray[Any], sd: NDArray[Any]) -> NDArray[np.float32]:
    """Standardised bands of pixels (band, y, x), channels last, (y, x, band); 0 where any band is invalid.

    Examples
    --------
    >>> pixels = np.array([[[3.0, np.nan]], [[1.0, 1.0]]], dtype=np.float32)
    >>> standardised(pixels, np.array([1.0, 1.0]), np.array([2.0, 1.0])).tolist()
    [[[1.0, 0.0], [0.0, 0.0]]]
    """
    out = np.empty((*pixels.shape[1:], len(pixels)), dtype=np.float32)
    _standardise(pixels, mean.astype(np.float32), (1 / sd).astype(np.float32), out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _standardise(pixels, mean, scale, out):  # type: ignore[no-untyped-def]
    for row in range(pixels.shape[1]):
        for col in range(pixels.shape[2]):
            total = np.float32(0)
            for band in range(pixels.shape[0]):
                value = (pixels[band, row, col] - mean[band]) * scale[band]
                out[row, col, band] = value
                total += value
            if not np.isfinite(total):
                for band in range(pixels.shape[0]):
                    out[row, col, band] = 0


def pool_rectified(images: Any) -> Any:
    """ReLU and the maximum over 3 x 3 at stride 2 of a tensor (n, channel, y, x) on a CPU, channels last.

    bfloat16 is compared by its bits as whole numbers: among numbers of which one is above 0 the order is the same.
    """
    import torch

    n, channels, height, width = images.shape
    out = torch.empty((n, (height - 1) // 2, (width - 1) // 2, channels), dtype=images.dtype)
    source = images.permute(0, 2, 3, 1).contiguous()
    kind = torch.int16 if images.dtype == torch.bfloat16 else images.dtype
    for image, result in zip(source.view(kind), out.view(kind), strict=True):
        _pool(image.numpy(), result.numpy())
    return out.permute(0, 3, 1, 2)


@njit(cache=True, nogil=True, error_model="numpy")
def _pool(x, out):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    best = np.empty((x.shape[1], x.shape[2]), x.dtype)
    for row in range(out.shape[0]):
        for col in range(x.shape[1]):
            a, b, c, up = x[2 * row, col], x[2 * row + 1, col], x[2 * row + 2, col], best[col]
            for k in range(x.shape[2]):
                up[k] = max(max(a[k], b[k]), max(c[k], zero))
        for col in range(out.shape[1]):
            a, b, c, to = best[2 * col], best[2 * col + 1], best[2 * col + 2], out[row, col]
            for k in range(x.shape[2]):
                to[k] = max(max(a[k], b[k]), c[k])


@dataclass(frozen=True)
class FusedConv:
    """A convolution, then an addition where asked, then ReLU, by oneDNN's own fusion.

    The sum is formed before rounding, so that in bfloat16 it is a little closer than in three passes.

    Attributes
    ----------
    layer : torch.nn.Conv2d
    """

    layer: Any

    def __call__(self, images: Any, added: Any = None, offset: int = 0) -> Any:
        """Rectified outputs; ``added`` is added before ReLU, from its row and column ``offset`` on."""
        import torch

        layer, fused = self.layer, torch.ops.mkldnn._convolution_pointwise
        how = ([int(v) for v in pair] for pair in (layer.padding, layer.stride, layer.dilation))
        if added is None:
            return fused(images, layer.weight, layer.bias, *how, layer.groups, "relu", [], "")
        height, width = (
            (int(side) - d * (k - 1) - 1) // s + 1
            for side, d, k, s in zip(images.shape[-2:], layer.dilation, layer.kernel_size, layer.stride, strict=True)
        )
        more = added[:, :, offset : offset + height, offset : offset + width]
        more = more.contiguous(memory_format=torch.channels_last)
        into = torch.ops.mkldnn._convolution_pointwise_.binary  # the sum takes the place of what was added
        return into(more, images, layer.weight, layer.bias, *how, layer.groups, "add", 1.0, "relu", [], "")


def fuses(layer: Any) -> bool:
    """Whether this torch can fuse the convolution: in bfloat16 on a CPU with oneDNN."""
    import torch

    return (
        layer.weight.dtype == torch.bfloat16
        and layer.weight.device.type == "cpu"
        and layer.padding_mode == "zeros"
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


Float32Array = NDArray[np.float32]

CHANNELS = 64  # worked on at a time: channels are multiples of it
_TILES = 128  # transformed at a time by each thread: they stay in the processor's cache
_FILTER = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24  # G
_TWO, _FOUR, _FIVE, _EIGHT, _ZERO = (np.float32(v) for v in (2, 4, 5, 8, 0))


@dataclass(frozen=True)
class WinogradConv:
    """A convolution of 3 x 3 without padding, then an addition where asked, then ReLU.

    Attributes
    ----------
    weight : torch.Tensor of shape (36, inputs, outputs)
        Transformed filters.
    bias : ndarray of shape (outputs,)
    dilation : int
    """

    weight: Any
    bias: Float32Array
    dilation: int

    def __call__(self, images: Any, added: Any = None, offset: int = 0) -> Any:
        """Rectified outputs (n, outputs, y - 2 dilation, x - 2 dilation), channels last.

        Parameters
        ----------
        images : torch.Tensor of shape (n, inputs, y, x), float32, channels last
        added : torch.Tensor of shape (n, outputs, at least y, at least x), channels last, optional
            Added before ReLU, from its row and column ``offset`` on.
        offset : int
        """
        import torch

        n, _, height, width = images.shape
        lost, outputs = 2 * self.dilation, self.weight.shape[2]
        out = torch.empty((n, height - lost, width - lost, outputs))
        more = torch.empty((n, 1, 1, outputs)) if added is None else added.permute(0, 2, 3, 1)
        for image, plus, result in zip(images.permute(0, 2, 3, 1), more, out, strict=True):
            self._image(image.numpy(), plus.numpy(), -1 if added is None else offset, result.numpy())
        return out.permute(0, 3, 1, 2)

    def _image(self, x: Float32Array, added: Float32Array, offset: int, y: Float32Array) -> None:
        import torch

        threads, d = torch.get_num_threads(), self.dilation
        most = _TILES * threads
        room = [torch.empty(36 * most * channels) for channels in self.weight.shape[1:]]
        with _Parts(threads) as parts:
            for row, col in np.ndindex(d, d):
                down, across = _tiles(y.shape[0] - row, d), _tiles(y.shape[1] - col, d)
                share = _ceil(down * across, max(_ceil(down * across, most), 1))
                inputs, products = (
                    part[: 36 * share * channels].view(36, share, channels)
                    for part, channels in zip(room, self.weight.shape[1:], strict=True)
                )
                for first in range(0, down * across, max(share, 1)):
                    n, where = min(share, down * across - first), (first, across, d, row, col)
                    parts(n, partial(_call, _transform_inputs, (x, inputs.numpy()), where))
                    torch.bmm(inputs, self.weight, out=products)
                    m = (products.numpy(), self.bias, added, offset, y)
                    parts(n, partial(_call, _transform_outputs, m, where))


def _tiles(side: int, d: int) -> int:
    """Tiles that cover the outputs of a side at every d-th pixel."""
    return _ceil(_ceil(side, d), 4)


def _ceil(a: int, b: int) -> int:
    return (a + b - 1) // b


def _call(
    kernel: Callable[..., None], arrays: tuple[Any, ...], where: tuple[int, ...], start: int, stop: int
) -> None:
    kernel(*arrays, start, stop, *where)


class _Parts:
    """Does a range in parts, one a thread."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    def __call__(self, n: int, work: Callable[[int, int], None]) -> None:
        """Call ``work(start, stop)`` for parts of 0 to n."""
        if self.pool is None:
            work(0, n)
            return
        edges = np.linspace(0, n, self.threads + 1).astype(int).tolist()
        for done in [self.pool.submit(work, a, b) for a, b in pairwise(edges)]:
            done.result()


def fits(layer: Any) -> bool:
    """Whether a torch convolution can be done so: 3 x 3, in float32 on a CPU, no stride, channels in 64s."""
    import torch

    return (
        layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.dilation[0] == layer.dilation[1]
        and layer.groups == 1
        and layer.bias is not None
        and layer.in_channels % CHANNELS == layer.out_channels % CHANNELS == 0
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
    )


def winograd(layer: Any) -> WinogradConv:
    """The fast form of a torch convolution that :func:`fits`; filters are transformed in double precision."""
    import torch

    filters = layer.weight.detach().numpy().astype(np.float64)
    turned = np.einsum("ia,kcab,jb->ijck", _FILTER, filters, _FILTER, optimize=True)
    weight = torch.from_numpy(turned.reshape(36, layer.in_channels, layer.out_channels).astype(np.float32))
    return WinogradConv(weight.contiguous(), layer.bias.detach().numpy().copy(), int(layer.dilation[0]))


# ---------------------------------------------------------------------- kernels
@njit(cache=True, nogil=True, error_model="numpy")
def _transform_inputs(x, v, start, stop, first, across, d, row, col):  # type: ignore[no-untyped-def]
    """``B' d B`` of tiles ``start`` to ``stop`` of x (y, x, channel) to v (36, tile, channel).

    ``first`` is the number of tile 0 among all, ``across`` how many there are in a row; row, col the first pixel of
    tile number 0, ``d`` the step between its pixels. What lies beyond x is filled from its border.
    """
    height, width = x.shape[0] - 1, x.shape[1] - 1
    half, line = np.empty(36 * CHANNELS, np.float32), np.empty(6 * CHANNELS, np.float32)
    for tile in range(start, stop):
        top, left = row + 4 * d * ((first + tile) // across), col + 4 * d * ((first + tile) % across)
        for low in range(0, x.shape[2], CHANNELS):
            for j in range(6):
                at = min(left + d * j, width)
                r0 = x[min(top, height), at, low : low + CHANNELS]
                r1 = x[min(top + d, height), at, low : low + CHANNELS]
                r2 = x[min(top + 2 * d, height), at, low : low + CHANNELS]
                r3 = x[min(top + 3 * d, height), at, low : low + CHANNELS]
                r4 = x[min(top + 4 * d, height), at, low : low + CHANNELS]
                r5 = x[min(top + 5 * d, height), at, low : low + CHANNELS]
                for c in range(CHANNELS):
                    b1, b2, b3, b4 = r1[c], r2[c], r3[c], r4[c]
                    even, odd = b4 - _FOUR * b2, b3 - _FOUR * b1
                    step, slope = b4 - b2, _TWO * (b3 - b1)
                    half[j * CHANNELS + c] = _FOUR * r0[c] - _FIVE * b2 + b4
                    half[(6 + j) * CHANNELS + c] = even + odd
                    half[(12 + j) * CHANNELS + c] = even - odd
                    half[(18 + j) * CHANNELS + c] = step + slope
                    half[(24 + j) * CHANNELS + c] = step - slope
                    half[(30 + j) * CHANNELS + c] = _FOUR * b1 - _FIVE * b3 + r5[c]
            for i in range(6):
                part = half[6 * i * CHANNELS : 6 * (i + 1) * CHANNELS]
                for c in range(CHANNELS):
                    b1, b2 = part[CHANNELS + c], part[2 * CHANNELS + c]
                    b3, b4 = part[3 * CHANNELS + c], part[4 * CHANNELS + c]
                    even, odd = b4 - _FOUR * b2, b3 - _FOUR * b1
                    step, slope = b4 - b2, _TWO * (b3 - b1)
                    line[c] = _FOUR * part[c] - _FIVE * b2 + b4
                    line[CHANNELS + c] = even + odd
                    line[2 * CHANNELS + c] = even - odd
                    line[3 * CHANNELS + c] = step + slope
                    line[4 * CHANNELS + c] = step - slope
                    line[5 * CHANNELS + c] = _FOUR * b1 - _FIVE * b3 + part[5 * CHANNELS + c]
                for j in range(6):
                    out = v[6 * i + j, tile, low : low + CHANNELS]
                    for c in range(CHANNELS):
                        out[c] = line[j * CHANNELS + c]


@njit(cache=True, nogil=True, error_model="numpy")
def _transform_outputs(  # type: ignore[no-untyped-def]
    m, bias, added, offset, y, start, stop, first, across, d, row, col
):
    """Rectified ``A' m A`` + bias + added of tiles ``start`` to ``stop`` of m (36, tile, channel), to y.

    y has the shape (y, x, channel).
    Positions as in :func:`_transform_inputs`; ``added`` is read from its row and column ``offset`` on, if that is not
    below 0.
    """
    half, line = np.empty(24 * CHANNELS, np.float32), np.empty(4 * CHANNELS, np.float32)
    for tile in range(start, stop):
        top, left = row + 4 * d * ((first + tile) // across), col + 4 * d * ((first + tile) % across)
        for low in range(0, y.shape[2], CHANNELS):
            shift = bias[low : low + CHANNELS]
            for j in range(6):
                m0, m1 = m[j, tile, low : low + CHANNELS], m[6 + j, tile, low : low + CHANNELS]
                m2, m3 = m[12 + j, tile, low : low + CHANNELS], m[18 + j, tile, low : low + CHANNELS]
                m4, m5 = m[24 + j, tile, low : low + CHANNELS], m[30 + j, tile, low : low + CHANNELS]
                for c in range(CHANNELS):
                    ones, less = m1[c] + m2[c], m1[c] - m2[c]
                    twos, far = m3[c] + m4[c], m3[c] - m4[c]
                    half[j * CHANNELS + c] = m0[c] + ones + twos
                    half[(6 + j) * CHANNELS + c] = less + _TWO * far
                    half[(12 + j) * CHANNELS + c] = ones + _FOUR * twos
                    half[(18 + j) * CHANNELS + c] = less + _EIGHT * far + m5[c]
            for i in range(4):
                r = top + d * i
                if r >= y.shape[0]:
                    break
                part = half[6 * i * CHANNELS : 6 * (i + 1) * CHANNELS]
                for c in range(CHANNELS):
                    b1, b2 = part[CHANNELS + c], part[2 * CHANNELS + c]
                    b3, b4 = part[3 * CHANNELS + c], part[4 * CHANNELS + c]
                    ones, less, twos, far = b1 + b2, b1 - b2, b3 + b4, b3 - b4
                    line[c] = part[c] + ones + twos
                    line[CHANNELS + c] = less + _TWO * far
                    line[2 * CHANNELS + c] = ones + _FOUR * twos
                    line[3 * CHANNELS + c] = less + _EIGHT * far + part[5 * CHANNELS + c]
                for j in range(4):
                    k = left + d * j
                    if k >= y.shape[1]:
                        break
                    out = y[r, k, low : low + CHANNELS]
                    if offset < 0:
                        for c in range(CHANNELS):
                            out[c] = max(line[j * CHANNELS + c] + shift[c], _ZERO)
                    else:
                        more = added[r + offset, k + offset, low : low + CHANNELS]
                        for c in range(CHANNELS):
                            out[c] = max(line[j * CHANNELS + c] + shift[c] + more[c], _ZERO)
