"""Risk models: do predicted risks come true, among the tested and the untested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_risk_calibration"]


def plot_risk_calibration(
    result: Any, *, level: float = 0.9, title: str = "Do predicted risks come true?", ax: Any = None
) -> Axes:
    """Reliability curve: share of events against mean predicted probability, by bins of equal counts.

    Parameters
    ----------
    result : RiskCalibration, or mapping of str to it
        A mapping draws one curve a name, such as tested and untested, or several models.
    level : float
        Level of the pointwise binomial intervals.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    from scipy.stats import norm

    curves = result if isinstance(result, Mapping) else {"": result}
    if not curves:
        raise DataError("no curve", expected="at least one RiskCalibration")
    ax = _style.new_axes(ax)
    z = norm.ppf(0.5 + level / 2)
    top = 0.0
    for number, (name, item) in enumerate(curves.items()):
        colour = _style.COLOURS[number % len(_style.COLOURS)]
        below, above = np.minimum(z * item.se, item.observed), np.minimum(z * item.se, 1 - item.observed)
        words = f"{name}, " if name else ""
        ax.errorbar(
            item.predicted, item.observed, yerr=[below, above], color=colour, marker="o", markersize=5, linewidth=1.5,
            elinewidth=1, capsize=0, label=f"{words}Brier {item.brier:.3f}, slope {item.slope:.2f}",
        )  # fmt: skip
        top = max(top, item.predicted.max(), (item.observed + above).max())
    top = min(1.0, 1.05 * top)
    ax.plot([0, top], [0, top], color=_style.INK, linewidth=0.9, linestyle="--")
    ax.set_xlim(0, top)
    ax.set_ylim(0, top * (1 + 0.09 * len(curves)))  # room for the legend
    ax.legend(frameon=False, fontsize=10, loc="upper left")
    return _style.tidy(ax, title=title, x="mean predicted probability", y="share of events")
