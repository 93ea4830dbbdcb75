"""Figures of image effect clusters: densities of their effects, sheets of images, and a map of their probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import geography, style
from causalsat.plots.salience import show_image, show_salience
from causalsat.posterior import draw_quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_cluster_effects", "plot_cluster_images", "plot_cluster_map"]

_POINTS = 200


def plot_cluster_effects(estimator: Any, *, level: float = 0.9, units: str = "", ax: Any = None) -> Axes:
    """Posterior densities of the clusters' effects and of the average effect, with their intervals.

    Parameters
    ----------
    estimator : ImageEffectClusters
        Fitted.
    level : float
        Level of the intervals, drawn beneath the densities.
    units : str
        Units of the outcome.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    from scipy.stats import gaussian_kde

    table = estimator.cluster_effects(level)
    ax = style.new_axes(ax)
    series = [(estimator.draws_["ate"], style.GREY, "average")]
    series += [
        (draws, style.COLOURS[k % len(style.COLOURS)], f"cluster {k + 1} ({table['share'].iloc[k]:.0%} of units)")
        for k, draws in enumerate(estimator.draws_["tau"].T)
    ]
    low = min(float(draws.min()) for draws, *_ in series)
    high = max(float(draws.max()) for draws, *_ in series)
    grid = np.linspace(low, high, _POINTS)
    tallest = 0.0
    for draws, colour, label in series:
        density = gaussian_kde(draws)(grid) if np.ptp(draws) > 0 else np.zeros_like(grid)
        ax.plot(grid, density, color=colour, linewidth=2, label=label)
        ax.fill_between(grid, density, color=colour, alpha=0.15, linewidth=0)
        tallest = max(tallest, float(density.max()))
    for j, (draws, colour, _) in enumerate(series):
        lower, upper = draw_quantiles(draws, [(1 - level) / 2, (1 + level) / 2])
        height = -0.05 * tallest * (j + 1)
        ax.plot([lower, upper], [height, height], color=colour, linewidth=3, solid_capstyle="butt")
        ax.plot([draws.mean()], [height], "o", color=colour, markersize=5)
    ax.axvline(0, color=style.INK, linewidth=0.8)
    ax.set_yticks([])
    ax.legend(frameon=False, fontsize=9)
    title = f"Effects of {len(table)} types of image; {level:.0%} intervals beneath"
    return style.tidy(ax, title=title, x=style.with_units("effect", units), grid="")  # type: ignore[no-any-return]


def plot_cluster_images(
    estimator: Any,
    X: Any,
    *,
    clusters: Sequence[int] | None = None,
    n: int = 4,
    kind: str = "most",
    bands: Sequence[int | str] | None = None,
    salience: bool = True,
    min_distance_m: float = 1000.0,
) -> Any:
    """A sheet of images that are typical of each cluster, with what makes them so beside them.

    Parameters
    ----------
    estimator : ImageEffectClusters
        Fitted.
    X : chips or GeoDataFrame
        Where to look for them.
    clusters : sequence of int, optional
        Clusters, one row each; all unless given.
    n : int
        Images a cluster, at least ``min_distance_m`` apart where X has places.
    kind : {"most", "least", "uncertain"}
        See :meth:`causalsat.ImageEffectClusters.typical_images`.
    bands : sequence of three, optional
        Positions or names of the bands shown as red, green and blue; by default the first three, or one in grey.
    salience : bool
        Draw integrated gradients of the cluster's log probability, summed over bands, to the right of each image.

    Returns
    -------
    matplotlib Figure
    """
    import matplotlib.pyplot as plt

    rows = list(range(1, estimator.n_clusters_ + 1)) if clusters is None else list(clusters)
    if n < 1 or not rows:
        raise ParameterError(f"n={n}, clusters={rows}", expected="at least one image and one cluster")
    wide = 2 if salience else 1
    figure, axes = plt.subplots(
        len(rows), n * wide, figsize=(1.7 * n * wide, 2.1 * len(rows)), squeeze=False, layout="constrained"
    )
    table = estimator.cluster_effects()
    for ax in axes.ravel():
        ax.axis("off")
    for line, k in zip(axes, rows, strict=True):
        places = estimator.typical_images(X, k, n=n, kind=kind, min_distance_m=min_distance_m)
        chosen = _take(X, places)
        chips, chance = estimator.read_chips(chosen), estimator.cluster_probabilities(chosen)
        result = estimator.salience(chosen, k) if salience else None
        for j in range(len(places)):
            ax = line[j * wide]
            show_image(chips[j], bands=band_positions(bands, chips.shape[1], estimator), ax=ax)
            mean, sd = chance[(k, "mean")].iloc[j], chance[(k, "sd")].iloc[j]
            ax.set_title(f"p = {mean:.2f} ± {sd:.2f}", fontsize=9, color=style.INK)
            if result is not None:
                show_salience(result[j], ax=line[j * wide + 1])
        effect = f"cluster {k}: {table.loc[k, 'mean']:.2f} ({table.loc[k, 'lower']:.2f}, {table.loc[k, 'upper']:.2f})"
        line[0].text(
            -0.08, 0.5, effect, rotation=90, va="center", ha="right", fontsize=9, transform=line[0].transAxes
        )
    label = {"most": "most typical", "least": "least typical", "uncertain": "most uncertain"}[kind]
    beside = "; beside each, what raises (blue) or lowers (red) its probability" if salience else ""
    figure.suptitle(f"Images {label} of each type{beside}", fontsize=11, fontweight="bold", x=0.01, ha="left")
    return style.shown_once(figure)


def plot_cluster_map(estimator: Any, X: Any, *, cluster: int | None = None, ax: Any = None) -> Axes:
    """Places coloured by their probability of a cluster, the more uncertain the smaller.

    Parameters
    ----------
    estimator : ImageEffectClusters
        Fitted on a GeoDataFrame.
    X : GeoDataFrame
        Places.
    cluster : int, optional
        The last (largest effect) unless given.
    ax : matplotlib Axes, optional
        Where to draw.
    """
    if not hasattr(X, "geometry"):
        raise DataError(f"a {type(X).__name__} without places", expected="a GeoDataFrame")
    k = estimator.n_clusters_ if cluster is None else cluster
    places = X.loc[~X.geometry.duplicated()]
    table = estimator.cluster_probabilities(places)[k]
    points = places.geometry.representative_point()
    ax = style.new_axes(ax, (6.4, 6.0))
    size = 8 + 28 * (1 - np.clip(table["sd"].to_numpy() / 0.5, 0, 1))
    drawn = ax.scatter(points.x, points.y, c=table["mean"], s=size, cmap="viridis", vmin=0, vmax=1, linewidths=0)
    ax.figure.colorbar(drawn, ax=ax, shrink=0.7, label=f"probability of cluster {k}")
    title = f"Cluster {k} at {len(places)} places (small: uncertain)"
    style.tidy(ax, title=title, grid="")
    frame = geography.padded(np.column_stack([points.x, points.y]), 0.05)
    geography.frame_axes(ax, frame, places.crs)
    return ax  # type: ignore[no-any-return]


def band_positions(bands: Sequence[int | str] | None, n_bands: int, estimator: Any = None) -> NDArray[np.int64]:
    """Positions of three bands, or of one.

    Examples
    --------
    >>> band_positions(None, 6), band_positions(None, 2), band_positions([2, 1, 0], 3)
    (array([0, 1, 2]), array([0]), array([2, 1, 0]))
    """
    if bands is None:
        return np.arange(3) if n_bands >= 3 else np.arange(1)
    names = [str(name) for name in getattr(getattr(estimator, "imagery", None), "bands", ())]
    result = [names.index(b) if isinstance(b, str) and b in names else b for b in bands]
    if any(isinstance(b, str) or not 0 <= int(b) < n_bands for b in result) or len(result) not in (1, 3):
        raise ParameterError(
            f"bands={list(bands)!r}", expected=f"three positions below {n_bands}, or names of the imagery's bands"
        )
    return np.array([int(b) for b in result], dtype=np.int64)


def _take(X: Any, rows: NDArray[np.int64]) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]
