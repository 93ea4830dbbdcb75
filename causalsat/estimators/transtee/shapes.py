"""Sizes and choices of TransTEE's network, without torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ImageShape", "NetworkShape", "column_groups"]


@dataclass(frozen=True)
class ImageShape:
    """Images that a network reads: dates, bands and pixels of a side."""

    n_time: int
    n_bands: int
    height: int
    width: int

    @property
    def cells(self) -> tuple[int, int, int]:
        """Tokens of an image: dates, rows, columns."""
        return max(self.n_time, 1), -(-self.height // 4), -(-self.width // 4)


@dataclass(frozen=True)
class NetworkShape:
    """Sizes and choices of a network.

    Attributes
    ----------
    n_members, n_columns, n_basis : int
        Members of the ensemble, covariates, treatment features.
    width, n_heads, n_blocks, n_features : int
        Width of a token, heads of an attention, self-attention blocks over the covariate tokens, output features.
    column_embedding : bool
        Whether each column has maps to tokens of its own, or all share one.
    norm : str
        ``"pre"`` (before a layer), ``"post"`` (after its residual sum, as in the paper) or ``"none"``.
    crossed : int
        The last ``crossed`` treatment features also enter multiplied with every covariate, linearly.
    image : ImageShape or None
        Images, where units have them.
    """

    n_members: int
    n_columns: int
    n_basis: int
    width: int = 16
    n_heads: int = 2
    n_blocks: int = 0
    n_features: int = 16
    column_embedding: bool = True
    norm: str = "pre"
    crossed: int = 0
    image: ImageShape | None = None


def column_groups(shape: NetworkShape) -> list[int]:
    """Block of each output column: 0 constant, 1 treatment, 2 covariates, 3 learned, 4 crossed.

    Columns of a block share a prior scale.

    Examples
    --------
    >>> column_groups(NetworkShape(1, n_columns=2, n_basis=1, n_features=3))
    [0, 1, 2, 2, 3, 3, 3]
    """
    counts = (1, shape.n_basis, shape.n_columns, shape.n_features, shape.crossed * shape.n_columns)
    return [block for block, count in enumerate(counts) for _ in range(count)]
