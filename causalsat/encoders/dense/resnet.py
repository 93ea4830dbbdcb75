"""A ResNet without padding, at a stride of one's choice: responses that depend on their receptive field alone.

Padding lets the border of a tile leak into its middle, so that a map would show its tiles. Here every convolution is
"valid": a response is a function of the pixels of its receptive field, the same function in every window that holds
them. Strides beyond the wanted one are replaced by dilation (Yu et al. 2017, "Dilated residual networks", section 2),
which computes the responses of the same network at more places. Batch normalisation is folded into the convolutions.
On a CPU most of these take a quarter of the multiplications (float32), or one pass with what follows them (bfloat16).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from causalsat.encoders.dense.fast import FusedConv, fits, fuses, pool_rectified, winograd
from causalsat.exceptions import ParameterError

__all__ = ["STRIDES", "DenseResNet", "Geometry", "build_dense"]

STRIDES = (4, 8, 16, 32)  # pixels between responses that a ResNet can be brought to
_LIVE = 3  # arrays of a block's size that are alive at once
_STRIP_BYTES = 8 << 20  # the first convolution's output held at once: what stays in the processor's cache


@dataclass(frozen=True)
class Geometry:
    """Where the responses of a network without padding lie.

    Attributes
    ----------
    stride : int
        Pixels between responses.
    field_px : int
        Side of the receptive field; odd.
    n_features : int
        Channels of a response.
    macs_per_response : float
        Multiplications and additions of one response, in pairs, without what the border of a window adds.
    bytes_per_px : float
        Most memory of activations for a pixel of the window, in float32.
    """

    stride: int
    field_px: int
    n_features: int
    macs_per_response: float
    bytes_per_px: float

    @property
    def radius_px(self) -> int:
        """Pixels to either side of a response's centre that decide it."""
        return self.field_px // 2

    @property
    def halo_px(self) -> int:
        """The radius, rounded up to whole strides: what a window holds round the chips."""
        return -(-self.radius_px // self.stride) * self.stride

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """Pixels [start, stop) that decide the responses of the squares ``first`` to ``last``, both included.

        Square i is the pixels [i stride, (i + 1) stride); its response is centred at pixel i stride + stride // 2.
        """
        start = first * self.stride + self.stride // 2 - self.radius_px
        return start, start + (last - first) * self.stride + self.field_px


@dataclass(frozen=True)
class DenseResNet:
    """A network in its dense form.

    Attributes
    ----------
    stem : torch.nn.Conv2d
        First convolution.
    blocks : list of tuple
        For each residual block its convolutions in order and the convolution of its shortcut, or None.
    geometry : Geometry
    fast : dict
        By the ``id`` of a convolution its fast form, where it has one: on a CPU, after :meth:`to`.
    """

    stem: Any
    blocks: list[tuple[list[Any], Any]]
    geometry: Geometry
    fast: dict[int, Any] = field(default_factory=dict)

    def __call__(self, images: Any, prepare: Callable[[Any], Any] | None = None) -> Any:
        """Responses (n, features, rows, columns) to images (n, band, y, x) of the convolutions' type and layout.

        ``prepare`` makes such images of some rows of what is given, where it is something else.
        """
        x = self._stem(images, prepare or (lambda rows: rows))
        for convolutions, shortcut in self.blocks:
            x = self._block(x, convolutions, shortcut)
        return x

    def _stem(self, images: Any, prepare: Callable[[Any], Any]) -> Any:
        """Convolution, ReLU and maximum over 3 x 3, in strips of rows: the first output is large."""
        import torch

        rows, cols = ((int(side) - 11) // 4 + 1 for side in images.shape[-2:])
        weight = self.stem.weight
        a_row = len(images) * self.stem.out_channels * 4 * cols * weight.element_size()
        strip = max(1, min(rows, _STRIP_BYTES // max(a_row, 1)))
        shape = (len(images), rows, cols, self.stem.out_channels)
        out = torch.empty(shape, dtype=weight.dtype, device=weight.device).permute(0, 3, 1, 2)
        for start in range(0, rows, strip):
            stop = min(start + strip, rows)
            part = self.stem(prepare(images[:, :, 4 * start : 4 * (stop - 1) + 11]))
            if part.device.type == "cpu":
                out[:, :, start:stop] = pool_rectified(part)
            else:  # the maximum first: fewer to rectify
                out[:, :, start:stop] = torch.nn.functional.max_pool2d(part, 3, 2).relu_()
        return out

    def _block(self, x: Any, convolutions: list[Any], shortcut: Any) -> Any:
        """A residual block without padding: the shortcut is cropped to what the convolutions leave."""
        out, offset, jump = x, 0, 1
        for layer in convolutions[:-1]:
            out = self._rectified(layer, out)
            offset += jump * _reach(layer)
            jump *= layer.stride[0]
        last = convolutions[-1]
        offset += jump * _reach(last)
        height, width = (jump * (int(side) - 2 * _reach(last) - 1) + 1 for side in out.shape[-2:])
        if shortcut is None:
            return self._rectified(last, out, x, offset)
        kept = x[:, :, offset : offset + height, offset : offset + width]
        return self._rectified(last, out, shortcut(kept))

    def _rectified(self, layer: Any, x: Any, added: Any = None, offset: int = 0) -> Any:
        """A convolution, the addition of ``added`` from its row and column ``offset`` on, ReLU."""
        fast = self.fast.get(id(layer))
        if fast is not None:
            return fast(x, added, offset)
        out = layer(x)
        if added is not None:
            height, width = out.shape[-2:]
            out = out.add_(added[:, :, offset : offset + height, offset : offset + width])
        return out.relu_()

    def to(self, device: Any, dtype: Any) -> DenseResNet:
        """The network on a device and in a precision, once; the weights are changed in place."""
        import torch

        layers = [self.stem, *(c for part, short in self.blocks for c in (*part, short) if c is not None)]
        for layer in layers:
            layer.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.fast.clear()
        for layer in (c for part, _ in self.blocks for c in part):
            if fits(layer):
                self.fast[id(layer)] = winograd(layer)
                layer.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)  # four times as large now
            elif fuses(layer):
                self.fast[id(layer)] = FusedConv(layer)
        return self


def _reach(layer: Any) -> int:
    """Pixels of its input to either side of an output's centre that a convolution sees."""
    return int(layer.dilation[0] * (layer.kernel_size[0] // 2))


def build_dense(module: Any, stride: int, name: str) -> DenseResNet:
    """The dense form of a torchvision ResNet in evaluation mode, whose weights are copied.

    Parameters
    ----------
    module : torchvision.models.ResNet
        With or without its head.
    stride : int
        Pixels between responses: 4, 8, 16 or 32.
    name : str
        For words.

    Raises
    ------
    ParameterError
        If the network is no ResNet, or the stride none of these.
    """
    from torchvision.models import ResNet

    if not isinstance(module, ResNet):
        raise ParameterError(
            f"dense_stride with backbone={name!r}",
            expected="a ResNet of torchvision, such as resnet18, resnet50, resnext50_32x4d",
            todo="leave dense_stride=None: the network is then applied chip by chip",
        )
    if stride not in STRIDES:
        raise ParameterError(f"dense_stride={stride!r}", expected=f"{', '.join(map(str, STRIDES))} pixels, or None")
    blocks, reached, dilation = [], 4, 1
    for stage in (module.layer1, module.layer2, module.layer3, module.layer4):
        for block in stage:
            jump = max(c.stride[0] for c in (block.conv1, block.conv2))
            keep = reached * jump <= stride
            convolutions, shortcut = _folded(
                block, jump if keep else 1, dilation, dilation if keep else dilation * jump
            )
            blocks.append((convolutions, shortcut))
            reached, dilation = (reached * jump, dilation) if keep else (reached, dilation * jump)
    stem = _fold(module.conv1, module.bn1)
    stem.padding = (0, 0)
    return DenseResNet(stem, blocks, _geometry(stem, blocks))


def _folded(block: Any, jump: int, before: int, after: int) -> tuple[list[Any], Any]:
    """Convolutions of a block with its normalisation folded in, at a stride and at two dilations, without padding.

    ``before`` is the dilation up to the convolution that had the stride, ``after`` that of the others.
    """
    pairs = [(f"conv{k}", f"bn{k}") for k in (1, 2, 3) if hasattr(block, f"conv{k}")]
    convolutions, seen = [], before == after
    for conv, norm in pairs:
        layer = _fold(getattr(block, conv), getattr(block, norm))
        dilation = after if seen else before
        if layer.stride[0] > 1:
            layer.stride, seen = (jump, jump), True
        layer.padding, layer.dilation = (0, 0), (dilation, dilation)
        convolutions.append(layer)
    if block.downsample is None:
        return convolutions, None
    shortcut = _fold(*block.downsample)
    shortcut.stride = (jump, jump)
    return convolutions, shortcut


def _fold(convolution: Any, norm: Any) -> Any:
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    return fuse_conv_bn_eval(convolution, norm).requires_grad_(False)


def _geometry(stem: Any, blocks: list[tuple[list[Any], Any]]) -> Geometry:
    """Receptive field and work of a response, layer by layer."""
    field, jump, work, widest = stem.kernel_size[0], 2, [], 0.0
    work.append((_weights(stem), jump))
    field, jump = field + 2 * jump, 4  # the maximum over 3 x 3
    for convolutions, shortcut in blocks:
        for layer in convolutions:
            field += (layer.kernel_size[0] - 1) * layer.dilation[0] * jump
            jump *= layer.stride[0]
            work.append((_weights(layer), jump))
            widest = max(widest, layer.out_channels / jump**2)
        if shortcut is not None:
            work.append((_weights(shortcut), jump))
    macs = sum(weights * (jump / at) ** 2 for weights, at in work)
    return Geometry(jump, field, int(blocks[-1][0][-1].out_channels), float(macs), _LIVE * 4 * widest)


def _weights(layer: Any) -> int:
    return int(layer.weight.numel())
