"""What all figures share: colours that colour-blind people can tell apart, axes, small helpers."""

from __future__ import annotations

from typing import Any

import numpy as np

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
INK, GREY, PALE = "#222222", "#777777", "#e9e9e7"


def new_axes(ax: Any, size: tuple[float, float] = (6.4, 4.2)) -> Any:
    """The given axes, or those of a new figure with constrained layout."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=size, layout="constrained")
    return ax


def shown_once(figure: Any) -> Any:
    """A figure to return: a notebook shows what a cell ends with, and would show the open figure a second time."""
    import matplotlib

    if "inline" in matplotlib.get_backend().lower():
        import matplotlib.pyplot as plt

        plt.close(figure)
    return figure


def tidy(ax: Any, *, title: str = "", x: str = "", y: str = "", grid: str = "y") -> Any:
    """Leave the left and bottom spine, a faint grid, a left title, readable sizes."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GREY)
    if grid:
        ax.grid(axis=grid, color=PALE, linewidth=0.8)
        ax.set_axisbelow(True)
    if title:
        ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    ax.set_xlabel(x, fontsize=11)
    ax.set_ylabel(y, fontsize=11)
    ax.tick_params(labelsize=10, color=GREY)
    return ax


def plain(words: str) -> str:
    """Words of a user as matplotlib shows them literally: dollars are no mathematics."""
    return str(words).replace("$", r"\$")


def with_units(label: str, units: str) -> str:
    """Label followed by its units in brackets."""
    return f"{label} ({units})" if units else label


def column(table: Any, *names: str) -> Any:
    """The first of the named columns that the table has, as floats, or None."""
    for name in names:
        if name in table.columns:
            return np.asarray(table[name], dtype=float)
    return None


def bounds(table: Any, estimate: Any, level: float) -> tuple[Any, Any]:
    """Lower and upper columns of a table, or the normal interval from its standard errors."""
    lower, upper = column(table, "lower", "ci_lower"), column(table, "upper", "ci_upper")
    if lower is not None and upper is not None:
        return lower, upper
    from scipy.stats import norm

    se = column(table, "se", "sd", "std_error")
    half = np.zeros(len(estimate)) if se is None else float(norm.ppf(0.5 + level / 2)) * se
    return estimate - half, estimate + half
