"""Images with the segments that raise or lower a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import ParameterError
from causalsat.plots import style
from causalsat.plots.salience import show_image, stretch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_segments"]


def plot_segments(result: Any, *, n: int = 4, bands: Any = None) -> Figure:
    """Draw images, and beside each its segments: blue raises the prediction, red lowers it, deeper is more.

    Segments whose interval includes no change are hatched.

    Parameters
    ----------
    result : SegmentImportance
        Of :func:`causalsat.analysis.segment_importance`.
    n : int
        At most so many images, the first ones.
    bands : array of three or one int, optional
        Positions of the bands shown.

    Returns
    -------
    matplotlib Figure
    """
    import matplotlib.pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    if n < 1:
        raise ParameterError(f"n={n}", expected="at least 1 image")
    shown = min(n, len(result.chips))
    units = list(dict.fromkeys(result.table.index.get_level_values("unit")))
    most = float(result.table["mean"].abs().max()) or 1.0
    figure, axes = plt.subplots(2, shown, figsize=(2.1 * shown + 0.6, 4.6), squeeze=False, layout="constrained")
    starts = np.cumsum([0, *(int(labels.max()) for labels in result.labels)])
    for i in range(shown):
        chip, labels = result.chips[i], result.labels[i]
        frame = chip[-1] if chip.ndim == 4 else chip
        rows = result.table.iloc[starts[i] : starts[i + 1]]
        show_image(frame, bands=bands, ax=axes[0, i])
        axes[0, i].set_title(str(units[i]), fontsize=9, color=style.INK)
        _paint(axes[1, i], frame, labels, rows, most, bands)
    key = ScalarMappable(Normalize(-most, most), "RdBu")
    figure.colorbar(key, ax=axes[1].tolist(), shrink=0.85, label=f"change of\n{result.what}")
    title = f"What raises (blue) or lowers (red) {result.what}; hatched: the {result.level:.0%} interval includes 0"
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure  # type: ignore[no-any-return]


def _paint(ax: Any, frame: Any, labels: Any, rows: Any, most: float, bands: Any) -> None:
    """Segments in colour over the grey image, with their outlines."""
    grey = stretch(frame, bands if bands is not None else (np.arange(3) if len(frame) >= 3 else np.arange(1)))
    ax.imshow(grey.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    values = np.concatenate([[np.nan], rows["mean"].to_numpy()])[labels]
    ax.imshow(values, cmap="RdBu", vmin=-most, vmax=most, alpha=0.75)
    open_ends = (rows["lower"] <= 0) & (rows["upper"] >= 0)
    unsure = np.concatenate([[False], open_ends.to_numpy()])[labels]
    if unsure.any():
        ax.contourf(unsure.astype(float), levels=[0.5, 1.5], hatches=["////"], colors="none")
    for k in range(1, labels.max() + 1):
        ax.contour((labels == k).astype(float), levels=[0.5], colors="white", linewidths=0.4)
    ax.axis("off")
