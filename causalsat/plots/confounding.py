"""Figures of observational studies: balance before and after weighting, sensitivity, what raises the propensity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from causalsat.inference.balance import Balance
    from causalsat.inference.sensitivity import Sensitivity

__all__ = ["plot_balance", "plot_propensity_salience", "plot_sensitivity"]


def plot_balance(balance: Balance, *, most: int = 25, title: str = "", ax: Any = None) -> Axes:
    """Absolute standardised differences of each feature, before and after weighting, the largest on top.

    Parameters
    ----------
    balance : Balance
        From ``ImageConfounding.balance_`` or :func:`causalsat.evaluation.balance`.
    most : int
        Features shown: those that differed most before weighting.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from causalsat.evaluation import balance
    >>> rng = np.random.default_rng(0)
    >>> found = balance(rng.standard_normal((50, 3)), np.arange(50) % 2, np.full(50, 0.5))
    >>> len(plot_balance(found).get_yticks())
    3
    """
    if not len(balance.names):
        raise DataError("no features", expected="at least one")
    order = np.argsort(-np.abs(balance.raw), kind="stable")[:most][::-1]
    at, raw, weighted = np.arange(len(order)), np.abs(balance.raw)[order], np.abs(balance.weighted)[order]
    ax = style.new_axes(ax, (6.4, 1.4 + 0.26 * len(order)))
    ax.hlines(at, raw, weighted, color=style.PALE, linewidth=2)
    ax.plot(raw, at, "o", color=style.VERMILION, label="as observed", markersize=6, markeredgecolor="white")
    ax.plot(weighted, at, "o", color=style.BLUE, label="weighted", markersize=6, markeredgecolor="white")
    ax.axvline(0.1, color=style.GREY, linewidth=1, linestyle=(0, (5, 3)))
    ax.set_yticks(at, [balance.names[j] for j in order])
    ax.set_xlim(left=0)
    ax.legend(frameon=False, fontsize=10, loc="lower right")
    title = title or "Differences of the arms, in standard deviations"
    return style.tidy(ax, title=title, x="absolute standardised difference", grid="x")


def plot_sensitivity(
    sensitivity: Sensitivity,
    *,
    benchmarks: Sequence[str] | None = None,
    times: Sequence[float] = (1.0,),
    limit: float | None = None,
    units: str = "",
    title: str = "",
    ax: Any = None,
) -> Axes:
    """Contours of the estimate that an omitted confounder would leave (Cinelli and Hazlett 2020, figure 2).

    Parameters
    ----------
    sensitivity : Sensitivity
        From ``ImageConfounding.sensitivity_`` or :func:`causalsat.evaluation.sensitivity`.
    benchmarks : sequence of str, optional
        Benchmarks to mark; by default up to six, those that would move the estimate by more than 2 %.
    times : sequence of float
        How many times as strong as each benchmark.
    limit : float, optional
        Largest partial R2 of the axes; by default what shows the zero contour and the benchmarks.
    units, title : str
        Units of the estimate; title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from causalsat.evaluation import Sensitivity
    >>> found = Sensitivity(0.097, 0.023, 783, 0.65, {"female": (0.009, 0.109)})
    >>> plot_sensitivity(found).get_xlim()[0]
    np.float64(0.0)
    """
    if not sensitivity.scale > 0:
        raise DataError("an estimate without residual variance", expected="outcome and treatment that vary")
    from matplotlib.ticker import MaxNLocator

    marks = _marks(sensitivity, benchmarks, times)
    value = sensitivity.robustness_value()
    if limit is None:
        limit = float(np.clip(1.15 * max([1.3 * value, *(max(m[1:]) for m in marks)], default=0.3), 0.05, 0.98))
    ax = style.new_axes(ax, (6.4, 5.2))
    grid = np.linspace(0, limit, 200)
    remaining = sensitivity.adjusted(grid[None, :], grid[:, None])
    levels = [v for v in MaxNLocator(9).tick_values(remaining.min(), remaining.max()) if abs(v) > 1e-12]
    lines = ax.contour(grid, grid, remaining, levels=levels, colors=style.GREY, linewidths=0.9)
    ax.clabel(lines, fontsize=9, fmt="%.3g")
    zero = ax.contour(grid, grid, remaining, levels=[0.0], colors=style.VERMILION, linewidths=2)
    ax.clabel(zero, fontsize=10, fmt="0")
    for name, x, y in marks:
        ax.plot(x, y, "D", color=style.BLUE, markersize=6, markeredgecolor="white", zorder=3)
        ax.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=9.5, color=style.BLUE)
    if value < limit:
        ax.plot(value, value, "o", color=style.VERMILION, markersize=7, markeredgecolor="white", zorder=3)
        ax.annotate(
            f"robustness value {value:.2f}", (value, value), xytext=(8, 6), textcoords="offset points",
            fontsize=9.5, color=style.VERMILION,
        )  # fmt: skip
    ax.set_xlim(0, limit)
    ax.set_ylim(0, limit)
    label = style.with_units(f"{sensitivity.estimate:.3g}", units)
    return style.tidy(
        ax,
        title=title or f"What an omitted confounder would leave of {label}",
        x="partial R2 of the confounder with the treatment",
        y="partial R2 with the outcome",
        grid="",
    )


def _marks(found: Sensitivity, names: Sequence[str] | None, times: Sequence[float]) -> list[tuple[str, float, float]]:
    marks = []
    for name in found.benchmarks if names is None else names:
        for k in times:
            try:
                marks.append((name if k == 1 else f"{k:g} x {name}", *found.bound(name, k)))
            except ParameterError:
                if name not in found.benchmarks:
                    raise
    if names is None:
        moved = [float(found.bias(min(mark[1], 0.999), mark[2])) for mark in marks]
        order = [j for j in np.argsort(moved)[::-1][:6] if moved[j] > 0.02 * abs(found.estimate)]
        marks = [marks[j] for j in order]
    return marks


def plot_propensity_salience(
    chips: Any, salience: Any, *, rgb: Sequence[int] = (0, 1, 2), labels: Sequence[str] | None = None
) -> Any:
    """Images in pairs: the picture, and what in it makes treatment likelier (blue) or less likely (red).

    Parameters
    ----------
    chips : array of shape (n, band, y, x)
        Images.
    salience : array of shape (n, y, x)
        From ``ImageConfounding.salience``.
    rgb : sequence of int
        Bands shown as red, green and blue; one band is shown in grey.
    labels : sequence of str, optional
        One a picture.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> rng = np.random.default_rng(0)
    >>> figure = plot_propensity_salience(rng.random((2, 3, 8, 8)), rng.standard_normal((2, 8, 8)))
    >>> len(figure.axes)  # four pictures and the colour bar
    5
    """
    import matplotlib.pyplot as plt

    pictures, values = np.asarray(chips, dtype=float), np.asarray(salience, dtype=float)
    if pictures.ndim != 4 or values.shape != (len(pictures), *pictures.shape[2:]):
        raise DataError(
            f"chips of shape {pictures.shape} and salience of shape {values.shape}",
            expected="(n, band, y, x) and (n, y, x)",
        )
    n = len(pictures)
    fig, axes = plt.subplots(2, n, figsize=(max(2.1 * n, 4.2), 4.4), layout="constrained", squeeze=False)
    shown = pictures[:, list(rgb)] if pictures.shape[1] >= 3 else pictures[:, :1]
    low, high = np.nanpercentile(shown, [2, 98], axis=(0, 2, 3), keepdims=True)
    shown = np.nan_to_num(np.clip((shown - low) / np.maximum(high - low, 1e-12), 0, 1)).transpose(0, 2, 3, 1)
    span = float(np.nanmax(np.abs(values))) or 1.0
    for i in range(n):
        picture = shown[i] if shown.shape[-1] == 3 else shown[i, :, :, 0]
        axes[0, i].imshow(picture, cmap="gray", vmin=0, vmax=1)
        drawn = axes[1, i].imshow(values[i], cmap="RdBu", vmin=-span, vmax=span)
        if labels is not None:
            axes[0, i].set_title(labels[i], fontsize=10, color=style.INK)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    bar = fig.colorbar(drawn, ax=axes[1].tolist(), shrink=0.85)
    bar.set_label("log-odds of treatment", fontsize=10)
    return style.shown_once(fig)
