"""Convolutions on a CPU in one pass with the addition and the ReLU that follow them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FusedConv", "fuses"]


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
