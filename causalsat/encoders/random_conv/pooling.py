"""Convolve, rectify and mean-pool: patch by patch, and wall to wall with running sums.

Both forms compute the same responses; they differ in how they add them up. Blocks of image columns are unfolded
and multiplied by the filters so that the responses of a block stay in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.dense.window import LinearHead
from causalsat.encoders.random_conv.filters import FilterBank

__all__ = ["Kernel", "chip_means", "chip_moments", "make_kernel", "window_means", "window_moments"]

FloatArray = NDArray[np.float64]

_CPU_BLOCK = 1 << 17  # responses at a time, 0.5 MB: 1,024 columns of the unfolded image for 128 filters
_CUDA_BLOCK = 1 << 19
_STRIP_ROWS = 32  # rows added up in single precision
_INTEGRAL_BYTES = 256 << 20  # running sums held at once


@dataclass(frozen=True)
class Kernel:
    """A filter bank on a device.

    Attributes
    ----------
    weight : torch.Tensor of shape (filters, band * patch * patch)
    offset : torch.Tensor of shape (filters, 1)
    patch_px, stride : int
        Side of a patch, and step between positions.
    threshold : float
        Both signs are rectified as max(z - threshold, 0) and max(-z - threshold, 0).
    """

    weight: Any
    offset: Any
    patch_px: int
    stride: int
    threshold: float
    half: bool

    @property
    def n_filters(self) -> int:
        """Number of filters."""
        return int(self.weight.shape[0])

    @property
    def block(self) -> int:
        """Columns of the unfolded image to process at a time."""
        return _CUDA_BLOCK if self.weight.is_cuda else max(_CPU_BLOCK // self.n_filters, 256)

    def part(self, start: int, stop: int) -> Kernel:
        """Some of the filters."""
        w, b = self.weight[start:stop], self.offset[start:stop]
        return Kernel(w, b, self.patch_px, self.stride, self.threshold, self.half)


def make_kernel(bank: FilterBank, stride: int, threshold: float, device: Any, half: bool) -> Kernel:
    """Put a filter bank on a device; ``half`` multiplies in bfloat16."""
    import torch

    weight = torch.from_numpy(bank.weight.reshape(len(bank.weight), -1)).to(device)
    offset = torch.from_numpy(bank.offset[:, None]).to(device)
    if half:
        weight, offset = weight.bfloat16(), offset.bfloat16()
    return Kernel(weight, offset, bank.patch_px, stride, threshold, half)


def _unfold(image: Any, kernel: Kernel) -> Any:
    """View of (k, band, h, w) as (band, patch, patch, k, rows, cols) of positions."""
    p, s = kernel.patch_px, kernel.stride
    return image.unfold(2, p, s).unfold(3, p, s).permute(1, 4, 5, 0, 2, 3)


def _valid_positions(valid: Any, kernel: Kernel) -> Any:
    """Positions whose whole patch is valid: (k, h, w) bool to (k, rows, cols) bool."""
    p, s = kernel.patch_px, kernel.stride
    rows = valid.unfold(1, p, s).all(-1)
    return rows.unfold(2, p, s).all(-1)


def _respond(patches: Any, kernel: Kernel) -> Any:
    """Responses (filters, n) to a block of an unfolded image."""
    import torch

    columns = patches.reshape(kernel.weight.shape[1], -1)
    if kernel.half:
        return torch.addmm(kernel.offset, kernel.weight, columns.bfloat16()).float()
    return torch.addmm(kernel.offset, kernel.weight, columns)


def _rectify(z: Any, threshold: float) -> tuple[Any, Any]:
    """Both signs, rectified. The negative one comes first out of z, then z is overwritten."""
    import torch

    if threshold:
        z = torch.nn.functional.softshrink(z, threshold)
    minus = z.clamp(max=0).neg_()
    return z.clamp_(min=0), minus


def chip_means(images: Any, valid: Any, kernel: Kernel) -> tuple[FloatArray, FloatArray]:
    """Pool each chip over its valid positions.

    Parameters
    ----------
    images : torch.Tensor of shape (k, band, y, x)
        Standardised chips, 0 where invalid.
    valid : torch.Tensor of shape (k, y, x), bool
        Pixels that are valid in all bands.
    kernel : Kernel
        The filters.

    Returns
    -------
    means : ndarray of shape (k, 2 * filters)
        Mean of max(z - b, 0), then of max(-z - b, 0); NaN where no position is valid.
    counts : ndarray of shape (k,)
        Number of valid positions.
    """
    import torch

    patches = _unfold(images, kernel)
    mask = _valid_positions(valid, kernel)
    complete = mask.all(2).cpu().numpy()
    k, rows, cols = patches.shape[3:]
    sums = torch.zeros((2 * kernel.n_filters, k), dtype=torch.float64, device=images.device)
    units_step = max(1, kernel.block // (rows * cols))
    rows_step = max(1, kernel.block // cols) if units_step == 1 else rows
    for u in range(0, k, units_step):
        for r in range(0, rows, rows_step):
            here = slice(u, u + units_step), slice(r, r + rows_step)
            signs = _rectify(_respond(patches[:, :, :, *here], kernel), kernel.threshold)
            weight = None if complete[here].all() else mask[here]
            sums[:, here[0]] += torch.cat([_add_up(z, weight, len(complete[here])) for z in signs])
    counts = mask.sum((1, 2), dtype=torch.float64).cpu().numpy()
    return _divide(sums.T.cpu().numpy(), counts), counts


def _add_up(z: Any, weight: Any, n_units: int) -> Any:
    """Sums over the valid positions of each unit: (filters, units * positions) to (filters, units)."""
    per_unit = z.reshape(len(z), n_units, -1)
    return (per_unit if weight is None else per_unit * weight.reshape(n_units, -1)).sum(2)


def _divide(sums: FloatArray, counts: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts[:, None] > 0, sums / counts[:, None], np.nan)


def window_means(
    image: Any,
    valid: Any,
    kernel: Kernel,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    size_px: int,
    head: LinearHead | None = None,
) -> FloatArray:
    """Pool many chips of one window: each response is computed once, chips are differences of running sums.

    A linear head commutes with sums: it is applied to those of few rows, so that only its k outputs are run on.

    Parameters
    ----------
    image : torch.Tensor of shape (band, h, w)
        Standardised window, 0 where invalid.
    valid : torch.Tensor of shape (h, w), bool
        Pixels that are valid in all bands.
    kernel : Kernel
        The filters.
    rows, cols : ndarrays of shape (n,)
        Upper-left pixels of the chips in the window.
    size_px : int
        Side of a chip.
    head : LinearHead, optional
        Linear map of the features.

    Returns
    -------
    ndarray of shape (n, 2 * filters) or (n, k)
        As :func:`chip_means` gives for the chips, to rounding; after the head.
    """
    out = np.empty((len(rows), 2 * kernel.n_filters if head is None else head.weight.shape[1]))
    stride, positions = kernel.stride, (size_px - kernel.patch_px) // kernel.stride + 1
    phase = (rows % stride) * stride + cols % stride
    for value in np.unique(phase):
        chosen = np.flatnonzero(phase == value)
        top, left = divmod(int(value), stride)
        first, last = (rows[chosen] - top) // stride, (cols[chosen] - left) // stride
        sub, sub_valid = image[:, top:, left:], valid[top:, left:]
        out[chosen] = _pool_phase(sub, sub_valid, kernel, first, last, positions, head)
    return out


def _pool_phase(
    image: Any,
    valid: Any,
    kernel: Kernel,
    first: NDArray[np.int64],
    left: NDArray[np.int64],
    positions: int,
    head: LinearHead | None,
) -> FloatArray:
    """Pool chips whose positions lie on one grid: chip j covers positions first[j] + 0..positions-1, and so on."""
    import torch

    row_edges, r0, r1 = _edges(first, positions)
    col_edges, c0, c1 = _edges(left, positions)
    patches = _unfold(image[None], kernel)[:, :, :, 0, :, col_edges[0] : col_edges[-1]]
    mask = _valid_positions(valid[None], kernel)[0, :, col_edges[0] : col_edges[-1]]
    edges = torch.as_tensor(col_edges - col_edges[0], device=image.device)

    def corners(table: Any) -> Any:
        return (table[r1, :, c1] - table[r0, :, c1]) - (table[r1, :, c0] - table[r0, :, c0])

    counts = corners(_mask_integral(mask, row_edges, edges)).cpu().numpy()[:, 0]
    if head is not None:
        weight = torch.as_tensor(head.weight.T, dtype=torch.float32, device=image.device).contiguous()
        sums = corners(_integral(patches, mask, kernel, row_edges, edges, weight)).cpu().numpy()
        return _divide(sums, counts) - head.mean @ head.weight
    per_filter = 16 * (len(row_edges) * len(col_edges) + 4 * len(first))  # running sums, and a chip's four corners
    step = int(np.clip(_INTEGRAL_BYTES // per_filter, 1, kernel.n_filters))
    out = np.empty((len(first), 2 * kernel.n_filters))
    for start in range(0, kernel.n_filters, step):
        part = kernel.part(start, min(start + step, kernel.n_filters))
        sums = corners(_integral(patches, mask, part, row_edges, edges, None)).cpu().numpy()
        means = _divide(sums, counts)
        out[:, start : start + part.n_filters] = means[:, : part.n_filters]
        out[:, kernel.n_filters + start : kernel.n_filters + start + part.n_filters] = means[:, part.n_filters :]
    return out


def _edges(
    first: NDArray[np.int64], positions: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct borders of the chips along one axis, and which of them each chip starts and ends at."""
    edges = np.unique(np.concatenate([first, first + positions]))
    return edges, np.searchsorted(edges, first), np.searchsorted(edges, first + positions)


def _mask_integral(mask: Any, row_edges: NDArray[np.int64], col_edges: Any) -> Any:
    """Running count of valid positions at the borders: (row borders, 1, column borders)."""
    import torch

    table = torch.zeros((len(row_edges), 1, len(col_edges)), dtype=torch.float64, device=mask.device)
    for j in range(len(row_edges) - 1):
        _accumulate(table, j, mask[row_edges[j] : row_edges[j + 1]].sum(0)[None], col_edges)
    return table


def _accumulate(table: Any, j: int, strip: Any, col_edges: Any) -> None:
    """Add a strip's running sums along columns, read at the borders, to the table's row j: its row j + 1."""
    import torch

    running = torch.cumsum(strip, dim=1, dtype=torch.float64)
    torch.add(table[j, :, 1:], running.index_select(1, col_edges[1:] - 1), out=table[j + 1, :, 1:])
    table[j + 1, :, 0] = 0.0


def _integral(
    patches: Any, mask: Any, kernel: Kernel, row_edges: NDArray[np.int64], col_edges: Any, weight: Any
) -> Any:
    """Running sums of both signs at the chips' borders: (row borders, 2 * filters or k, column borders).

    Rows between two borders are added up in single precision (they are few), everything across borders in double.
    ``weight`` (k, 2 * filters), or None, is applied to the sums of those rows.
    """
    import torch

    n, width = kernel.n_filters, patches.shape[-1]
    n_out = 2 * n if weight is None else len(weight)
    table = torch.empty((len(row_edges), n_out, len(col_edges)), dtype=torch.float64, device=mask.device)
    table[0] = 0.0
    strip = torch.empty((2 * n, width), dtype=torch.float32, device=mask.device)
    for j in range(len(row_edges) - 1):
        start, stop = int(row_edges[j]), int(row_edges[j + 1])
        step = int(np.ceil((stop - start) / np.ceil((stop - start) / _STRIP_ROWS)))
        for r in range(start, stop, step):
            rows = slice(r, min(r + step, stop))
            _add_rows(strip, patches[:, :, :, rows], mask[rows], kernel, first=r == start)
        torch.sub(strip[:n], strip[n:], out=strip[n:])  # negative parts
        _accumulate(table, j, strip if weight is None else weight @ strip, col_edges)
    return table


def _add_rows(strip: Any, patches: Any, mask: Any, kernel: Kernel, *, first: bool) -> None:
    """Add rows of responses up along y into ``strip`` (2 * filters, columns): positive parts, then both signs' sum.

    Where all positions of a tile are valid and there is no threshold, both signs' sum is that of the responses, which
    is the response to the summed patches.
    """
    n, (rows, width) = kernel.n_filters, patches.shape[-2:]
    tile = max(1, kernel.block // rows)
    complete = mask.all(0).cpu().numpy()
    plain = kernel.threshold == 0 and not kernel.half
    both = _sum_of_responses(patches, kernel) if plain else strip.new_empty((n, width))
    for c in range(0, width, tile):
        cols = slice(c, min(c + tile, width))
        z = _respond(patches[..., cols], kernel)
        if plain and complete[cols].all():
            positive = z.clamp_(min=0).reshape(n, rows, -1).sum(1)
        else:
            signs = (sign.reshape(n, rows, -1) * mask[:, cols] for sign in _rectify(z, kernel.threshold))
            positive, negative = (sign.sum(1) for sign in signs)
            both[:, cols] = positive - negative
        if first:
            strip[:n, cols] = positive
        else:
            strip[:n, cols] += positive
    if first:
        strip[n:] = both
    else:
        strip[n:] += both


def _sum_of_responses(patches: Any, kernel: Kernel) -> Any:
    """Sums (filters, columns) over rows of the responses to patches (band, patch, patch, rows, columns)."""
    import torch

    columns = patches.sum(-2).reshape(kernel.weight.shape[1], -1)
    return torch.addmm(kernel.offset * patches.shape[-2], kernel.weight, columns)


def chip_moments(images: Any, valid: Any) -> tuple[FloatArray, FloatArray]:
    """First and second moments of each band over each chip's valid pixels, both (k, band); images are 0 elsewhere."""
    import torch

    counts = valid.sum((1, 2), dtype=torch.float64).cpu().numpy()
    first = images.sum((2, 3), dtype=torch.float64).cpu().numpy()
    second = images.double().square_().sum((2, 3)).cpu().numpy()
    return _divide(first, counts), _divide(second, counts)


def window_moments(
    image: Any, valid: Any, rows: NDArray[np.int64], cols: NDArray[np.int64], size_px: int
) -> tuple[FloatArray, FloatArray]:
    """As :func:`chip_moments` for the chips of one window (band, h, w), through running sums."""
    import torch

    corners = [torch.as_tensor(index, device=image.device) for index in (rows, rows + size_px, cols, cols + size_px)]

    def box_sums(layer: Any) -> FloatArray:
        table = torch.nn.functional.pad(layer.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
        r0, r1, c0, c1 = corners
        sums = (table[r1, c1] - table[r0, c1]) - (table[r1, c0] - table[r0, c0])
        return np.asarray(sums.cpu().numpy())

    counts = np.rint(box_sums(valid))
    first = np.column_stack([box_sums(band) for band in image])
    second = np.column_stack([box_sums(band.double().square_()) for band in image])
    return _divide(first, counts), _divide(second, counts)
