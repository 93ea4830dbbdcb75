"""Where a treatment's query looks: bars over covariates, a heat map over the chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import style
from causalsat.plots.salience import show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_attention", "show_attention"]


def plot_attention(
    attention: Any, *, most: int = 15, title: str = "What the treatment reads", ax: Any = None
) -> Axes:
    """Mean attention to each covariate over the units, with the range of the middle 80 % of them.

    Parameters
    ----------
    attention : Attention
        What :meth:`causalsat.TransTEE.attention` gives; an image is one bar, the sum over its cells.
    most : int
        Covariates shown, those with the highest means.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    table = attention.to_dataframe()
    if most < 1:
        raise ParameterError(f"most={most!r}", expected="an integer of at least 1")
    if not table.shape[1]:
        raise DataError("attention to no covariate", expected="at least one, or an image")
    means = table.mean().sort_values(ascending=False, kind="stable").head(most)[::-1]
    low, high = (table[means.index].quantile(q).to_numpy() for q in (0.1, 0.9))
    ax = style.new_axes(ax, (6.4, 1.2 + 0.32 * len(means)))
    at = np.arange(len(means))
    ax.barh(at, means.to_numpy(), color=style.BLUE, alpha=0.85, height=0.7)
    ax.hlines(at, low, high, color=style.INK, linewidth=1.4)
    ax.axvline(1 / table.shape[1], color=style.GREY, linestyle=(0, (2, 3)), linewidth=1.2)
    ax.text(1 / table.shape[1], len(means) - 0.45, " even", color=style.GREY, fontsize=9, va="bottom")
    ax.set_yticks(at, list(means.index))
    ax.set_xlim(0, None)
    ax.set_ylim(-0.6, len(means) - 0.1)
    words = f"attention (mean; line: middle 80 % of units{_agreement(attention)})"
    return style.tidy(ax, title=title, x=words, grid="x")


def _agreement(attention: Any) -> str:
    """How far the networks of the ensemble agree, for an axis; empty of a single one."""
    value = attention.agreement
    return f"; correlation of networks {value:.2f}" if np.isfinite(value) else ""


def show_attention(
    attention: Any, unit: int, *, chip: ArrayLike | None = None, date: int = -1, bands: Any = None, ax: Any = None
) -> Axes:
    """Attention to the cells of one unit's image, over the chip.

    Parameters
    ----------
    attention : Attention
        What :meth:`causalsat.TransTEE.attention` gives for images.
    unit : int
        Position of the unit.
    chip : array of shape (band, y, x), optional
        The chip, drawn beneath.
    date : int
        Which date of a sequence.
    bands : array of int, optional
        Bands of the chip to show.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    if attention.cells is None:
        raise DataError("attention without images", expected="a model with backbone='cnn'")
    cells = np.asarray(attention.cells[unit][date], dtype=float)
    ax = style.new_axes(ax, (3.2, 3.2))
    rows, columns = cells.shape if chip is None else np.shape(chip)[-2:]
    if chip is not None:
        show_image(chip, bands=bands, ax=ax)
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    picture = ax.imshow(
        cells * cells.size, cmap="magma", extent=extent, alpha=1.0 if chip is None else 0.55, interpolation="bilinear"
    )
    ax.figure.colorbar(picture, ax=ax, shrink=0.8, label=f"attention, times the even share{_agreement(attention)}")
    ax.axis("off")
    return ax  # type: ignore[no-any-return]
