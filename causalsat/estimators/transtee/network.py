"""The network of TransTEE: several members side by side, covariates as tokens, the treatment as a query.

All members of the ensemble are computed by the same calls: parameters have a leading member dimension M, activations
are (M, batch, token, width). A member's output is a row of features of a unit under a treatment; what it predicts is
a Bayesian linear regression on them (:mod:`causalsat.estimators.transtee.head`).

Images come as tokens: features of an encoder at the cells of a grid.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from causalsat.core.inputs import FloatArray
from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder
from causalsat.encoders.device import resolve_device
from causalsat.estimators.transtee.data import ImageShape, NetworkShape

__all__ = ["CellTokens", "TokenNetwork", "member_modules"]


class MemberLinear(nn.Module):
    """A linear layer for each member: (M, ..., in) to (M, ..., out)."""

    def __init__(self, members: int, n_in: int, n_out: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, n_in, n_out) * (scale / math.sqrt(max(n_in, 1))))
        self.bias = nn.Parameter(torch.zeros(members, 1, n_out))

    def forward(self, x: Any) -> Any:
        flat = torch.baddbmm(self.bias, x.reshape(x.shape[0], -1, x.shape[-1]), self.weight)
        return flat.reshape(*x.shape[:-1], -1)


class MemberNorm(nn.Module):
    """Layer normalisation with a scale and a shift for each member; nothing where ``active`` is false."""

    def __init__(self, members: int, width: int, active: bool = True) -> None:
        super().__init__()
        self.active, self.width = active, width
        if active:
            self.scale = nn.Parameter(torch.ones(members, 1, 1, width))
            self.shift = nn.Parameter(torch.zeros(members, 1, 1, width))

    def forward(self, x: Any) -> Any:
        if not self.active:
            return x
        return functional.layer_norm(x, (self.width,)) * self.scale + self.shift


class Attention(nn.Module):
    """Multi-head attention of queries (M, B, q, d) to tokens (M, B, p, d)."""

    def __init__(self, members: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = MemberLinear(members, width, width)
        self.key_value = MemberLinear(members, width, 2 * width)
        self.out = MemberLinear(members, width, width, scale=0.5)

    def _split(self, queries: Any, tokens: Any) -> tuple[Any, Any, Any]:
        m, b, n, d = queries.shape
        h = self.heads
        q = self.query(queries).reshape(m * b, n, h, d // h).transpose(1, 2)
        k, v = self.key_value(tokens).reshape(m * b, tokens.shape[2], 2, h, d // h).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, queries: Any, tokens: Any) -> Any:
        mixed = functional.scaled_dot_product_attention(*self._split(queries, tokens))
        return self.out(mixed.transpose(1, 2).reshape(queries.shape))

    def weights(self, queries: Any, tokens: Any) -> Any:
        """Attention (M, B, q, p), averaged over the heads."""
        q, k, _ = self._split(queries, tokens)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        weights = scores.softmax(dim=-1).mean(dim=1)
        return weights.reshape(*queries.shape[:3], -1)


class FeedForward(nn.Module):
    """Two layers with a smooth activation between them."""

    def __init__(self, members: int, width: int, hidden: int) -> None:
        super().__init__()
        self.first = MemberLinear(members, width, hidden)
        self.second = MemberLinear(members, hidden, width, scale=0.5)

    def forward(self, x: Any) -> Any:
        return self.second(functional.gelu(self.first(x)))


class Residual(nn.Module):
    """x + layer(norm(x)), or norm(x + layer(x))."""

    def __init__(self, members: int, width: int, layer: nn.Module, norm: str) -> None:
        super().__init__()
        self.layer, self.post = layer, norm == "post"
        self.norm = MemberNorm(members, width, active=norm != "none")

    def forward(self, x: Any, tokens: Any = None) -> Any:
        inner = x if self.post else self.norm(x)
        change = self.layer(inner) if tokens is None else self.layer(inner, tokens)
        return self.norm(x + change) if self.post else x + change


class SelfAttention(Attention):
    """Attention of tokens to one another."""

    def forward(self, queries: Any, tokens: Any = None) -> Any:
        return super().forward(queries, queries if tokens is None else tokens)


class ColumnTokens(nn.Module):
    """Token j of a unit: w_j x_j + b_j + V_j tanh(a_j x_j + o_j), a map of each column's own unless ``shared``."""

    hidden = 3

    def __init__(self, members: int, n_columns: int, width: int, shared: bool) -> None:
        super().__init__()
        p = 1 if shared else n_columns
        self.n_columns = n_columns
        self.slope = nn.Parameter(0.5 * torch.randn(members, 1, p, width))
        self.place = nn.Parameter(0.5 * torch.randn(members, 1, p, width))
        self.rate = nn.Parameter(torch.randn(members, 1, p, self.hidden))
        self.offset = nn.Parameter(torch.randn(members, 1, p, self.hidden))
        self.curve = nn.Parameter(0.3 * torch.randn(members, p, self.hidden, width))

    def forward(self, columns: Any) -> Any:
        x = columns[None, :, :, None]
        bent = torch.tanh(self.rate * x + self.offset)
        curve = self.curve.expand(-1, self.n_columns, -1, -1)
        return self.place + self.slope * x + torch.einsum("mbpk,mpkd->mbpd", bent, curve)


class ImageTokens(nn.Module):
    """Cells of a small convolutional network's feature map as tokens (M, B, cells, d); members apart.

    Two convolutions with pooling to a quarter of the resolution, and a third; dates pass through the same network.
    The tokens do not know their place: :class:`TokenNetwork` adds that.
    """

    def __init__(self, members: int, image: ImageShape, width: int) -> None:
        super().__init__()
        self.members, self.image, self.width = members, image, width
        sizes = [image.n_bands, width, width, width]
        stages = [
            nn.Conv2d(members * a, members * b, 3, padding=1, padding_mode="replicate", groups=members)
            for a, b in pairwise(sizes)
        ]
        self.stages = nn.ModuleList(stages)
        for stage in stages:
            nn.init.kaiming_normal_(stage.weight, nonlinearity="relu")
            nn.init.zeros_(stage.bias)  # type: ignore[arg-type]
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, images: Any) -> Any:
        time, rows, columns = self.image.cells
        n = len(images)
        x = images.reshape(n * time, self.image.n_bands, *images.shape[-2:]).repeat(1, self.members, 1, 1)
        for number, stage in enumerate(self.stages):
            x = functional.gelu(stage(x))
            x = self.pool(x) if number < 2 else x
        x = x.reshape(n, time, self.members, self.width, rows * columns)
        return x.permute(2, 0, 1, 4, 3).reshape(self.members, n, time * rows * columns, self.width)


class TokenNetwork(nn.Module):
    """Covariate tokens, self-attention, and cross-attention of the treatment's query to the tokens.

    Called with ``columns`` (B, p) standardised covariates and ``basis`` (B, K) treatment features; ``unit_image``
    (B,) positions among the images that :meth:`set_images` was given, or ``cells`` (M, B, cells, d) tokens that
    :meth:`encode_images` made before. Returns (M, B, features): constant, treatment features, covariates, learned
    features, crossed terms.

    Parameters
    ----------
    shape : NetworkShape
        Sizes.
    treatment_module : torch.nn.ModuleList or None
        A module for each member that turns the table of treatments into embeddings (treatment, K); ``basis`` then
        holds positions in the table (B, 1).
    """

    def __init__(self, shape: NetworkShape, treatment_module: Any = None) -> None:
        super().__init__()
        self.shape, m, d = shape, shape.n_members, shape.width
        self.tokens = ColumnTokens(m, shape.n_columns, d, shared=not shape.column_embedding)
        if shape.image is not None:
            self.pixels = ImageTokens(m, shape.image, d)
            t, y, x = shape.image.cells
            self.date = nn.Parameter(0.3 * torch.randn(m, 1, t, 1, 1, d))
            self.row = nn.Parameter(0.3 * torch.randn(m, 1, 1, y, 1, d))
            self.column = nn.Parameter(0.3 * torch.randn(m, 1, 1, 1, x, d))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    Residual(m, d, SelfAttention(m, d, shape.n_heads), shape.norm),
                    Residual(m, d, FeedForward(m, d, 2 * d), shape.norm),
                ]
            )
            for _ in range(shape.n_blocks)
        )
        self.treatments = treatment_module
        if treatment_module is not None:  # what tells treatments apart may be a small part of their embeddings
            self.spread = nn.ModuleList(nn.BatchNorm1d(shape.n_basis, affine=False) for _ in range(m))
        self.query = MemberLinear(m, shape.n_basis, d)
        self.query_more = FeedForward(m, d, 2 * d)
        self.key_norm = MemberNorm(m, d, active=shape.norm == "pre")
        self.read = Residual(m, d, Attention(m, d, shape.n_heads), shape.norm)
        self.last_norm = MemberNorm(m, d, active=shape.norm == "pre")
        self.last = MemberLinear(m, d, shape.n_features)
        self.gate = MemberLinear(m, shape.n_basis, shape.n_features, scale=0.3)
        self.token_mean: Any = None
        self.mixed = False  # multiply in bfloat16; features come out in the precision of the weights all the same

    # ------------------------------------------------------------------ images and treatments of a fit
    def set_images(self, images: Any) -> None:
        """Keep the distinct training images (m, time * band, y, x); they are no part of the state."""
        self.register_buffer("images", images, persistent=False)

    def set_treatments(self, table: Any) -> None:
        """Keep the table of treatments; it is no part of the state."""
        self.register_buffer("treatment_table", table, persistent=False)

    def encode_images(self, images: Any) -> Any:
        """Tokens (M, n, cells, d) of images, with their places."""
        t, y, x = self.shape.image.cells  # type: ignore[union-attr]
        tokens = self.pixels(images)
        place = (self.date + self.row + self.column).expand(-1, -1, t, y, x, -1).flatten(2, 4)
        return tokens + place

    def _basis(self, basis: Any) -> Any:
        """Treatment features (M, B, K)."""
        if self.treatments is None:
            return basis[None].expand(self.shape.n_members, -1, -1)
        rows, where = torch.unique(basis[:, 0].long(), return_inverse=True)
        table: Any = self.treatment_table[rows]  # type: ignore[index]
        embeddings = [module(table)[where] for module in self.treatments]
        pairs = zip(embeddings, self.spread, strict=True)
        return torch.stack([_standardised(values, norm) for values, norm in pairs])

    def _tokens(self, columns: Any, unit_image: Any, cells: Any) -> Any:
        parts = [self.tokens(columns)] if self.shape.n_columns else []
        if self.shape.image is not None:
            if cells is None:
                rows, where = torch.unique(unit_image, return_inverse=True)
                images: Any = self.images[rows]  # type: ignore[index]
                cells = self.encode_images(_turned(images) if self.training else images)[:, where]
            parts.append(cells)
        tokens = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        for block in self.blocks:
            for layer in block:  # type: ignore[attr-defined]
                tokens = layer(tokens)
        return tokens

    def _query(self, basis: Any) -> Any:
        query = self.query(basis)[:, :, None]
        return query + self.query_more(query)

    def forward(
        self, columns: Any, basis: Any, unit_image: Any = None, cells: Any = None, treatment: Any = None
    ) -> Any:
        """The treatment's query after it has read the tokens of covariates and image cells."""
        with torch.autocast(columns.device.type, torch.bfloat16) if self.mixed else nullcontext():
            basis = self._basis(basis)
            tokens = self._tokens(columns, unit_image, cells)
            self.token_mean = tokens.mean(dim=2).to(columns.dtype)
            hidden = self.read(self._query(basis), self.key_norm(tokens))
            learned = functional.gelu(self.last(self.last_norm(hidden)))[:, :, 0] * (1 + self.gate(basis))
        basis, learned = basis.to(columns.dtype), learned.to(columns.dtype)
        x = columns[None].expand(self.shape.n_members, -1, -1)
        parts = [torch.ones_like(learned[..., :1]), basis, x, learned]
        if self.shape.crossed:
            crossed = basis[..., -self.shape.crossed :, None] * x[:, :, None]
            parts.append(crossed.flatten(2))
        return torch.cat(parts, dim=2)

    def attention(self, columns: Any, basis: Any, unit_image: Any = None, cells: Any = None) -> Any:
        """Weights (M, B, tokens) with which the treatment's query reads the tokens; they sum to 1."""
        tokens = self.key_norm(self._tokens(columns, unit_image, cells))
        query = self._query(self._basis(basis))
        inner = query if self.read.post else self.read.norm(query)
        return self.read.layer.weights(inner, tokens)[:, :, 0]  # type: ignore[union-attr, operator]


def _standardised(embeddings: Any, norm: Any) -> Any:
    """Embeddings (B, K) with mean 0 and variance 1 over units; a batch of one unit by what is known so far."""
    if len(embeddings) > 1:
        return norm(embeddings)
    return functional.batch_norm(embeddings, norm.running_mean, norm.running_var)


def _turned(images: Any) -> Any:
    """All images of a batch flipped and turned by quarters alike, at random: north is no covariate."""
    kind = int(torch.randint(8 if images.shape[-1] == images.shape[-2] else 4, (1,)))
    images = images.flip(-1) if kind & 1 else images
    images = images.flip(-2) if kind & 2 else images
    return images.transpose(-1, -2) if kind & 4 else images


def member_modules(module: Any, n_members: int, seed: int) -> Any:
    """A copy of a user's module for each member, with weights of its own; None for no module."""
    if module is None:
        return None
    copies = [copy.deepcopy(module).float() for _ in range(n_members)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for own in copies[1:]:
            for part in own.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()
    return nn.ModuleList(copies)


BATCH = 128


class CellTokens(ChipEncoder):
    """Tokens of images by the trained convolutions: (m, members * cells * width).

    Parameters
    ----------
    image_px : int
        Larger chips are averaged down to this side.
    device : str
        Where the network runs.
    """

    _transient: ClassVar[tuple[str, ...]] = ("_network",)

    def __init__(self, image_px: int, device: str) -> None:
        self.image_px = image_px
        self.device = device

    def prepare_training(self, chips: Any) -> Any:
        """Learn the bands' means and spreads from the training chips; returns their standardised tensor."""
        view = _chips.open_chips(chips)
        pixels = view.take(slice(None))
        self.band_mean_, self.band_sd_ = _chips.band_statistics(pixels)
        self._remember(view)
        images = self.prepare(pixels)
        self.image_shape_ = ImageShape(self.n_time_, len(self.bands_), *(int(k) for k in images.shape[-2:]))
        return images

    def prepare(self, chips: NDArray[np.float32]) -> Any:
        """Standardised tensor (m, time * band, px, px) of chips (m, time, band, y, x); 0 at invalid pixels."""
        return self._stacked(chips, self.image_px)

    def set_state(self, shape: NetworkShape, state: dict[str, NDArray[Any]]) -> None:
        """Keep the weights that images need."""
        self.shape_ = shape
        self.state_ = {k: v for k, v in state.items() if k.split(".")[0] in ("pixels", "date", "row", "column")}

    def transform(self, X: Any) -> FloatArray:
        """Tokens (m, members * cells * width) of chips."""
        import torch

        view = self._open_same(X)
        network, device = self._built(), resolve_device(self.device)
        parts = []
        for _, chips in view.batches(BATCH):
            with torch.inference_mode():
                tokens = network.encode_images(self.prepare(chips).double().to(device))
            parts.append(tokens.transpose(0, 1).flatten(1).cpu().numpy())
        return np.concatenate(parts)

    def pooled(self, features: FloatArray) -> FloatArray:
        """Mean over the cells (m, members * width): what the support of a place is judged by."""
        shape = self.shape_
        return (
            features.reshape(len(features), shape.n_members, -1, shape.width).mean(axis=2).reshape(len(features), -1)
        )

    def _built(self) -> Any:
        network = getattr(self, "_network", None)
        if network is None:
            import torch

            with torch.random.fork_rng(devices=[]):
                network = TokenNetwork(self.shape_)
            network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in self.state_.items()}, strict=False)
            network = network.double().eval().to(resolve_device(self.device))
            self._network = network
        return network
