"""Spatial cross-validation: blocks of ground that no two folds share, and how large they should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.ground import planar_metres
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.exceptions import DataError, DataWarning, ParameterError
from causalsat.inference.folds import assign_folds

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BlockSize", "SpatialBlockCV", "suggest_block_size"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def metres(geometry: Any) -> FloatArray:
    """Coordinates in metres on the ground, shape (n, 2), whatever the CRS of a geometry and its unit.

    Parameters
    ----------
    geometry : GeoDataFrame, GeoSeries or array of shape (n, 2)
        Places; an array is taken as metres. Polygons are represented by an inner point.
    """
    if hasattr(geometry, "columns") and hasattr(geometry, "geometry"):
        geometry = geometry.geometry
    if hasattr(geometry, "to_crs"):
        if geometry.crs is None:
            raise DataError(
                "a geometry without a coordinate reference system", todo="set it, for example set_crs(4326)"
            )
        return planar_metres(geometry)
    try:
        xy = np.asarray(geometry, dtype=float)
    except (TypeError, ValueError):
        xy = np.empty(0)
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
        raise DataError(
            f"places of type {type(geometry).__name__} and shape {np.shape(geometry)}",
            expected="a GeoDataFrame, or finite coordinates (n, 2) in metres",
            todo="pass geometry= to the splitter where X holds features only",
        )
    return xy


class SpatialBlockCV:
    """Folds of square blocks of ground; blocks that share a cluster go to the same fold.

    Parameters
    ----------
    block_m : float
        Side of a block in metres; see :func:`suggest_block_size`.
    n_splits : int
        Number of folds.
    random_state : int
        Seed of the grid's origin and of the shuffle.
    geometry : GeoSeries or array of shape (n, 2), optional
        Places of the units, where X is not a GeoDataFrame.
    buffer_m : float
        Units within so many metres of a unit of the test fold are left out of its training rows, so that what is
        correlated over that distance, or chips that overlap, cannot reach the test fold.

    Examples
    --------
    >>> xy = np.random.default_rng(0).uniform(0, 100_000, size=(200, 2))
    >>> folds = SpatialBlockCV(20_000, n_splits=4)
    >>> sum(len(test) for _, test in folds.split(xy))
    200
    """

    def __init__(
        self,
        block_m: float,
        n_splits: int = 5,
        random_state: int = 0,
        geometry: Any = None,
        *,
        buffer_m: float = 0.0,
    ) -> None:
        if not np.isfinite(block_m) or block_m <= 0:
            raise ParameterError(f"block_m={block_m!r}", expected="a positive number of metres")
        if not np.isfinite(buffer_m) or buffer_m < 0:
            raise ParameterError(f"buffer_m={buffer_m!r}", expected="metres, 0 for no buffer")
        self.block_m = float(block_m)
        self.n_splits = checks.count(n_splits, "n_splits", 2)
        self.random_state = random_state
        self.geometry = geometry
        self.buffer_m = float(buffer_m)

    def __repr__(self) -> str:
        """Say the block size, the folds and the buffer."""
        buffer = f", buffer_m={self.buffer_m:g}" if self.buffer_m else ""
        options = f"n_splits={self.n_splits}, random_state={self.random_state}{buffer}"
        return f"SpatialBlockCV(block_m={self.block_m:g}, {options})"

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds."""
        return self.n_splits

    def blocks(self, X: Any, groups: ArrayLike | None = None) -> IntArray:
        """Block of each unit, shape (n,): connected blocks, where clusters span several, count as one."""
        return self._blocks(self._places(X), groups)

    def _places(self, X: Any) -> FloatArray:
        xy = metres(X if self.geometry is None else self.geometry)
        if self.geometry is not None and X is not None and len(X) != len(xy):
            raise DataError(f"geometry= of {len(xy)} places for {len(X)} units", expected="one place a unit")
        return xy

    def _blocks(self, xy: FloatArray, groups: ArrayLike | None) -> IntArray:
        origin = np.random.default_rng(self.random_state).uniform(0, self.block_m, size=2)
        cell = np.floor((xy - xy.min(axis=0) + origin) / self.block_m).astype(np.int64)
        _, block = np.unique(cell, axis=0, return_inverse=True)
        block = block.reshape(-1)
        if groups is None:
            return block
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        group = checks.codes(groups, len(xy))
        n_blocks, n_groups = int(block.max()) + 1, int(group.max()) + 1
        shape = (n_blocks + n_groups, n_blocks + n_groups)
        links = coo_matrix((np.ones(len(xy)), (block, n_blocks + group)), shape=shape)
        _, label = connected_components(links, directed=False)
        return np.unique(label[block], return_inverse=True)[1].astype(np.int64)

    def split(self, X: Any, y: Any = None, groups: ArrayLike | None = None) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield (train, test) positions of each fold.

        Parameters
        ----------
        X : GeoDataFrame or array of shape (n, 2)
            Units, or their coordinates in metres.
        y : ignored
            For scikit-learn.
        groups : array of shape (n,), optional
            Clusters that must not be split.

        Raises
        ------
        DataError
            If there are fewer blocks than folds, or the buffer leaves a fold nothing to train on.
        """
        xy = self._places(X)
        block = self._blocks(xy, groups)
        count = int(block.max()) + 1
        if count < self.n_splits:
            raise DataError(
                f"{count} blocks of {self.block_m:g} m for {self.n_splits} folds",
                expected="at least as many blocks as folds",
                todo="take smaller blocks or fewer folds",
            )
        fold = assign_folds(self.n_splits, np.random.default_rng(self.random_state), groups=block)
        for k in range(self.n_splits):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            if self.buffer_m:
                train = train[_distance_to(xy[test], xy[train]) > self.buffer_m]
            if not len(train):
                raise DataError(
                    f"no unit is further than the buffer of {self.buffer_m:g} m from fold {k}",
                    expected="units to train on",
                    todo="take a smaller buffer",
                )
            yield train, test


def _distance_to(places: FloatArray, xy: FloatArray) -> FloatArray:
    """Metres from each of xy (n, 2) to the nearest of the places (m, 2)."""
    from scipy.spatial import KDTree

    return np.asarray(KDTree(places).query(xy)[0], dtype=float)


@dataclass(frozen=True, eq=False)
class BlockSize(Tabular):
    """A suggested block size with the variogram that it rests on.

    Attributes
    ----------
    block_m : float
        Suggested side of a block: the range, where values are no longer correlated.
    range_m : float
        Practical range of the fitted exponential variogram, 95 % of the sill (infinite: no sill in sight).
    nugget_share : float
        Share of the variance that has no spatial pattern.
    distance_m, semivariance : ndarray of shape (b,)
        Empirical variogram: mean distance and semivariance of each bin.
    fitted : ndarray of shape (b,)
        Fitted semivariance.
    """

    block_m: float
    range_m: float
    nugget_share: float
    distance_m: FloatArray
    semivariance: FloatArray
    fitted: FloatArray

    def __repr__(self) -> str:
        """Say the suggestion in a line."""
        return (
            f"BlockSize(block_m={self.block_m:.0f}: the variogram reaches 95 % of its sill at {self.range_m:.0f} m, "
            f"nugget {self.nugget_share:.0%} of the variance)"
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Table of the variogram: distance_m, semivariance, fitted."""
        import pandas as pd

        columns = {"distance_m": self.distance_m, "semivariance": self.semivariance, "fitted": self.fitted}
        return pd.DataFrame(columns)


def suggest_block_size(
    values: ArrayLike, geometry: Any, *, n_bins: int = 15, max_points: int = 1500, random_state: Any = 0
) -> BlockSize:
    """Suggest a block size from the range of an empirical variogram.

    The semivariance ``mean (v_i - v_j)^2 / 2`` of pairs by distance, up to half of the largest distance
    (Matheron 1963), is fitted by an exponential variogram ``nugget + sill (1 - exp(-3 h / range))``.

    Parameters
    ----------
    values : array of shape (n,)
        What is correlated in space: residuals of the outcome, or doubly robust scores.
    geometry : GeoDataFrame, GeoSeries or array of shape (n, 2)
        Places; coordinates in metres if an array. Values of one place are averaged.
    n_bins : int
        Distance bins, narrower at short distances.
    max_points : int
        A random sample of so many places is taken where there are more.
    random_state : int or numpy.random.Generator
        Seed of that sample.

    Warns
    -----
    DataWarning
        If the values show no spatial pattern, or none that ends within the study area.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> xy = rng.uniform(0, 50_000, size=(600, 2))
    >>> patch = rng.standard_normal((10, 10))[tuple((xy // 5_000).astype(int).T)]
    >>> 2_000 < suggest_block_size(patch, xy).block_m < 12_000
    True
    """
    import warnings

    from scipy.spatial.distance import pdist

    v = checks.numbers(values, "values")
    xy = metres(geometry)
    if len(xy) != len(v):
        raise DataError(f"{len(xy)} places for {len(v)} values", expected="one place a value")
    xy, v = _one_per_place(xy, v)
    if len(v) < 30:
        raise DataError(f"{len(v)} distinct places", expected="at least 30 for a variogram")
    if len(v) > max_points:
        chosen = np.random.default_rng(random_state).choice(len(v), max_points, replace=False)
        xy, v = xy[chosen], v[chosen]
    distance, half_square = pdist(xy), pdist(v[:, None], "sqeuclidean") / 2
    near = distance <= distance.max() / 2
    distance, half_square = distance[near], half_square[near]
    steps = np.linspace(0, 1, checks.count(n_bins, "n_bins", 4) + 1)[1:-1]
    edges = np.quantile(distance, steps**2)  # narrow bins at short distances, where the range is decided
    which = np.searchsorted(edges, distance)
    pairs = np.bincount(which, minlength=n_bins)
    filled = pairs > 0  # places on a grid lie at a few distances only
    h = np.bincount(which, distance, minlength=n_bins)[filled] / pairs[filled]
    gamma = np.bincount(which, half_square, minlength=n_bins)[filled] / pairs[filled]
    nugget, sill, reach = _fit_variogram(h, gamma)
    total = nugget + sill
    share = nugget / total if total > 0 else 1.0
    if share > 0.95:
        warnings.warn("the values show no spatial pattern: the block size is the shortest distance", DataWarning, 2)
        reach = float(h[0])
    elif reach > h[-1]:
        warnings.warn(
            f"the variogram is still rising at {h[-1]:.0f} m: the block size is that distance, and blocks may be "
            "correlated",
            DataWarning,
            2,
        )
    fitted = nugget + sill * (1 - np.exp(-3 * h / reach))
    return BlockSize(float(min(reach, h[-1])), float(reach), float(share), h, gamma, fitted)


def _one_per_place(xy: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    places, where = np.unique(xy, axis=0, return_inverse=True)
    where = where.reshape(-1)
    return places, np.bincount(where, v) / np.bincount(where)


def _fit_variogram(h: FloatArray, gamma: FloatArray) -> tuple[float, float, float]:
    """Nugget, partial sill and practical range by least squares: linear given the range, on a grid of ranges."""
    from scipy.optimize import nnls

    best = (float("inf"), float(gamma.mean()), 0.0, float(h[-1]))
    for reach in np.geomspace(h[0] / 2, 4 * h[-1], 120):
        design = np.column_stack([np.ones_like(h), 1 - np.exp(-3 * h / reach)])
        (nugget, sill), loss = nnls(design, gamma)
        if loss < best[0] - 1e-12 * gamma.mean():
            best = (float(loss), float(nugget), float(sill), float(reach))
    return best[1:]
