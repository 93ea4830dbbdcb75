"""From what a network gives to features of an image: vectors as they are, maps averaged, tokens as declared."""

from __future__ import annotations

import math
from typing import Any

from causalsat.exceptions import DataError, ParameterError

__all__ = ["n_prefix", "patch_tokens", "pooled"]

_MAX_PREFIX = 16  # tokens before those of the patches: a class token, registers


def n_prefix(n_tokens: int, shape: tuple[int, int], patch: int | None) -> int:
    """Tokens before those of the patches.

    With ``patch`` the patches are counted; without, their number is taken to be the next smaller square.

    Examples
    --------
    >>> n_prefix(197, (224, 224), 16), n_prefix(49, (224, 224), None), n_prefix(201, (224, 224), None)
    (1, 0, 5)
    """
    if patch is None:
        return n_tokens - math.isqrt(n_tokens) ** 2
    patches = (shape[0] // patch) * (shape[1] // patch)
    extra = n_tokens - patches
    if not 0 <= extra <= _MAX_PREFIX:
        raise DataError(
            f"{n_tokens} tokens of an image of {shape[0]} x {shape[1]} pixels",
            expected=f"{patches} patches of {patch} x {patch} pixels, with up to {_MAX_PREFIX} tokens before them",
            todo="check patch= and image_px=",
        )
    return extra


def patch_tokens(tokens: Any, shape: tuple[int, int], patch: int) -> Any:
    """Tokens (n, token, k) as maps (n, rows, columns, k) of the patches; maps (n, k, y, x) likewise."""
    rows, cols = shape[0] // patch, shape[1] // patch
    if tokens.ndim == 4 and tuple(tokens.shape[2:]) != (rows, cols):
        raise DataError(
            f"maps of {tokens.shape[2]} x {tokens.shape[3]} tokens for windows of {shape[0]} x {shape[1]} pixels",
            expected=f"{rows} x {cols}, one a patch of {patch} pixels",
            todo="check patch=, or leave window_px=None",
        )
    if tokens.ndim == 4:
        return tokens.permute(0, 2, 3, 1)
    return tokens[:, n_prefix(tokens.shape[1], shape, patch) :].reshape(len(tokens), rows, cols, -1)


def pooled(found: Any, pooling: str | None, shape: tuple[int, int], patch: int | None, n_frames: int = 1) -> Any:
    """Features (n, k) of what a network gives.

    Parameters
    ----------
    found : tensor of shape (n, k), (n, token, k) or (n, k, y, x)
    pooling : {"cls", "mean", "tokens"} or None
        ``"cls"`` the first token, ``"mean"`` the mean of the patches' tokens without those before them, ``"tokens"``
        these one after another. None is the mean, and refused where there are tokens before the patches'.
    shape : (int, int)
        Rows and columns of the image that the network saw.
    patch : int or None
    n_frames : int
        Images whose patches are tokens of one call.
    """
    if found.ndim == 2:
        if pooling == "tokens":
            raise ParameterError("pooling='tokens' of one vector an image", expected="tokens (n, token, k)")
        return found
    if found.ndim == 4:
        if pooling == "cls":
            raise ParameterError("pooling='cls' of maps (n, k, y, x)", expected="tokens", todo="pooling='mean'")
        return found.flatten(1) if pooling == "tokens" else found.mean(dim=(2, 3))
    if pooling == "cls":
        return found[:, 0]
    count = int(found.shape[1])
    if patch is not None and n_frames > 1:
        extra = count % ((shape[0] // patch) * (shape[1] // patch))
    else:
        extra = n_prefix(count, shape, patch)
    if pooling is None and extra and (patch is not None or extra <= _MAX_PREFIX):
        raise ParameterError(
            f"{count} tokens, {extra} of them before the patches' such as the class token, without pooling=",
            expected="to know which tokens are features",
            todo="pass pooling='cls' (the first token) or pooling='mean' (the patches' tokens)",
        )
    if patch is None and extra > _MAX_PREFIX:  # not a square of patches: all are
        extra = 0
    patches = found[:, extra:]
    return patches.flatten(1) if pooling == "tokens" else patches.mean(dim=1)
