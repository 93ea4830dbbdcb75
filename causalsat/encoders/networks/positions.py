"""Positional embeddings of a vision transformer brought to another number of patches, by bicubic interpolation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interpolate_positions", "interpolated", "vit_macs", "vit_tokens"]

_NAMES = ("pos_embed", "pos_embedding", "position_embeddings")
_MAX_PREFIX = 16


def interpolate_positions(embedding: Any, side: int) -> Any:
    """Embeddings (1, prefix + m * m, k) of a square of patches as (1, prefix + side * side, k).

    Examples
    --------
    >>> import torch
    >>> interpolate_positions(torch.ones(1, 1 + 4 * 4, 3), 6).shape
    torch.Size([1, 37, 3])
    """
    import torch

    count = int(embedding.shape[1])
    own = math.isqrt(count)
    prefix = count - own**2
    if own == side or prefix > _MAX_PREFIX:
        return embedding
    first, patches = embedding[:, :prefix], embedding[:, prefix:]
    maps = patches.reshape(1, own, own, -1).permute(0, 3, 1, 2).float()
    maps = torch.nn.functional.interpolate(maps, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, maps.permute(0, 2, 3, 1).reshape(1, side * side, -1).to(first.dtype)], dim=1)


@contextmanager
def interpolated(module: Any, side: int) -> Iterator[None]:
    """Within it, a module's embeddings named ``pos_embed`` or alike are those of side x side patches."""
    changed: list[tuple[Any, str, Any, bool]] = []
    try:
        for owner in module.modules():
            for name in _NAMES:
                own: Any = getattr(owner, name, None)
                if not hasattr(own, "ndim") or own.ndim != 3 or own.shape[0] != 1:
                    continue
                new = interpolate_positions(own, side)
                if new is own:
                    continue
                is_parameter = name in owner._parameters
                store = owner._parameters if is_parameter else owner._buffers
                if name in store:
                    changed.append((store, name, own, is_parameter))
                    store[name] = new
        yield
    finally:
        for store, name, own, _ in changed:
            store[name] = own


def vit_tokens(module: Any, images: Any) -> Any:
    """Patch tokens (n, rows, columns, k), after the last normalisation, of a vision transformer of torchvision.

    Parameters
    ----------
    module : torchvision.models.VisionTransformer
    images : tensor of shape (n, band, y, x)
        Squares of whole patches; the positional embeddings are interpolated to them.
    """
    import torch

    patches = module.conv_proj(images)
    side, encoder = int(patches.shape[-1]), module.encoder
    tokens = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat([module.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
    tokens = tokens + interpolate_positions(encoder.pos_embedding, side)
    tokens = encoder.ln(encoder.layers(encoder.dropout(tokens)))
    return tokens[:, 1:].reshape(len(images), side, side, -1)


def vit_macs(module: Any, n_tokens: int) -> float:
    """Multiplications and additions, in pairs, of a window of so many tokens."""
    weights = sum(p.numel() for p in module.encoder.layers.parameters() if p.ndim == 2)
    weights += module.conv_proj.weight.numel()
    attention = 2 * n_tokens * module.hidden_dim * len(module.encoder.layers)
    return float(n_tokens) * (weights + attention)
