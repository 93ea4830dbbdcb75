"""Power of a trial against its number of villages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causalsat.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_power"]

LABELS = {"average_effect": "average effect", "heterogeneity": "heterogeneity", "autoc": "AUTOC"}
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")


def plot_power(result: Any, *, title: str = "Power by number of villages", ax: Any = None) -> Axes:
    """Power against villages: a colour for each test, a line style for each number of people in a village.

    Parameters
    ----------
    result : PowerResult
        What :func:`causalsat.power` returns.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    ax = style.new_axes(ax)
    for colour, (test, name) in zip(style.COLOURS, LABELS.items(), strict=False):
        for number, (people, rows) in enumerate(result.table.groupby("people", sort=True)):
            rows = rows.sort_values("n_villages")
            ax.errorbar(
                rows["n_villages"],
                rows[test],
                yerr=1.96 * rows[f"{test}_se"],
                color=colour,
                linestyle=LINES[number % len(LINES)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                linewidth=1.8,
                elinewidth=0.9,
                label=f"{name}, {people} people",
            )
    ax.axhline(0.8, color=style.INK, linewidth=0.8, linestyle=":")
    ax.axhline(result.level, color=style.INK, linewidth=0.8, linestyle=":")
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter("{x:.0%}")
    ax.set_xlabel("villages in the trial")
    ax.set_ylabel("power")
    ax.set_title(title)
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), handlelength=3.5)
    return ax
