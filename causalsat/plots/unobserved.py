"""Figures of unobserved confounding: the average effect at each strength, and under other priors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import style

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plot_strength", "plot_unobserved"]


def _needs(table: Any, columns: tuple[str, ...], source: str) -> None:
    missing = [name for name in columns if name not in getattr(table, "columns", ())]
    if missing:
        raise DataError(f"a table without {', '.join(missing)}", expected=f"the result of {source}")


def plot_strength(
    curve: pd.DataFrame, *, units: str = "", title: str = "If somebody unseen chose the treated", ax: Any = None
) -> Any:
    """Average effect against the strength of confounding, darker where the likelihood is higher.

    Parameters
    ----------
    curve : DataFrame
        From ``VLUCI.strength_curve``: link, share, ate, lower, upper, evidence.
    units : str
        Units of the outcome.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    DataError
        If the table lacks columns.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import pandas as pd
    >>> rows = {"link": 2.0, "share": [-0.5, 0.0, 0.5], "ate": [3.0, 2.0, 1.0], "lower": [2.5, 1.5, 0.5]}
    >>> curve = pd.DataFrame({**rows, "upper": [3.5, 2.5, 1.5], "evidence": [-4.0, 0.0, 2.0]})
    >>> len(plot_strength(curve).lines)
    2
    """
    _needs(curve, ("link", "share", "ate", "lower", "upper", "evidence"), "VLUCI.strength_curve()")
    ax = style.new_axes(ax)
    best = float(np.nanmax(curve["evidence"]))
    ax.axhline(0, color=style.GREY, linewidth=0.8)
    for colour, (link, part) in zip(style.COLOURS, curve.groupby("link"), strict=False):
        part = part.sort_values("share")
        share = 100 * part["share"]
        ax.plot(share, part["ate"], color=colour, linewidth=1.4, label=f"{link:.2g}")
        ax.fill_between(share, part["lower"], part["upper"], color=colour, alpha=0.12, linewidth=0)
        credence = np.exp(np.clip(part["evidence"] - best, -8, 0))
        ax.scatter(share, part["ate"], s=8 + 60 * credence, color=colour, zorder=3, linewidth=0)
    ax.legend(title="link to treatment", frameon=False, fontsize=10, title_fontsize=10)
    style.tidy(
        ax,
        title=title,
        x="residual variance of the outcome that the unobserved explains (%, with its sign)\n"
        "larger dots: higher likelihood",
        y=style.with_units("average effect", units),
    )
    return ax


def plot_unobserved(
    table: pd.DataFrame, *, units: str = "", title: str = "Average effect under other assumptions", ax: Any = None
) -> Any:
    """Average effects of refits with their intervals, one line each.

    Parameters
    ----------
    table : DataFrame
        From ``VLUCI.sensitivity``, ``negative_control`` or ``placebo``: ate, lower, upper; one row a setting.
    units : str
        Units of the outcome.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    DataError
        If the table lacks columns.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import pandas as pd
    >>> table = pd.DataFrame({"ate": [1.0, 2.0], "lower": [0.0, 1.8], "upper": [2.0, 2.2]}, index=["a", "b"])
    >>> [label.get_text() for label in plot_unobserved(table).get_yticklabels()]
    ['a', 'b']
    """
    _needs(table, ("ate", "lower", "upper"), "VLUCI.sensitivity()")
    ax = style.new_axes(ax, (6.8, 1.4 + 0.36 * len(table)))
    place = np.arange(len(table))[::-1]
    colours = [style.VERMILION if "latent(s)" in str(name) else style.BLUE for name in table.index]
    ax.axvline(0, color=style.GREY, linewidth=0.8)
    for at, colour, (_, row) in zip(place, colours, table.iterrows(), strict=True):
        ax.plot([row["lower"], row["upper"]], [at, at], color=colour, linewidth=2.2, solid_capstyle="round")
        ax.plot(row["ate"], at, "o", color=colour, markersize=6)
    ax.set_ylim(-0.6, len(table) - 0.4)
    style.tidy(ax, title=title, x=style.with_units("average effect", units), grid="x")
    ax.set_yticks(place, [str(name) for name in table.index])
    return ax
