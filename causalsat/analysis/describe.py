"""Groups by predicted effect, described by what the images show: spectral indices and land cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.evaluation.average_effects import clustered_mean
from causalsat.exceptions import DataError, ImageryError, ParameterError
from causalsat.imagery import indices

__all__ = ["describe_effects"]

FloatArray = NDArray[np.float64]
INDICES = ("ndvi", "ndbi", "mndwi")
_MAX_CLASSES = 30


def describe_effects(
    study: Any,
    tau: ArrayLike,
    *,
    folds: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    n_groups: int = 5,
    indices: Sequence[str] = INDICES,
    bands: Mapping[str, str] | None = None,
    size_m: float | None = None,
    land_cover: Any = None,
    classes: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Mean spectral indices and land cover around the units, by group of predicted effect.

    Parameters
    ----------
    study : Study
        With imagery, if ``indices`` are asked for; of a sequence the last date is described, and the change since
        the first (``ndvi change``).
    tau : array of shape (n,)
        Predicted effects, from other folds.
    folds : array of shape (n,), optional
        The fold in which each unit was held out; groups are then formed by the rank within the fold.
    scores : array of shape (n,), optional
        Doubly robust scores: adds the average effect of each group.
    n_groups : int
        Number of groups of equal size; 5 for quintiles.
    indices : sequence of str
        Of :func:`causalsat.imagery.indices`; those whose bands the imagery lacks raise, an empty sequence asks none.
    bands : mapping of str to str, optional
        From the names in formulas to the imagery's.
    size_m : float, optional
        Side of the square around a unit; default the study's ``chip_size_m``, or 32 pixels.
    land_cover : Imagery, optional
        Raster of classes in its first band.
    classes : mapping of int to str, optional
        Names of the classes; others are left out.

    Returns
    -------
    DataFrame
        One row a group from the lowest to the highest predicted effect, and ``highest - lowest`` with the standard
        error of that difference, clustered by site, in the row ``se``: ``n, predicted, effect, effect_se``, an index
        or a class (share of the square) a column.
    """
    effects = np.asarray(tau, dtype=float)
    if effects.shape != (len(study),) or not np.isfinite(effects).all():
        raise DataError(f"effects of shape {effects.shape}", expected=f"{len(study)} finite numbers")
    if not 2 <= n_groups <= len(study):
        raise ParameterError(f"n_groups={n_groups}", expected=f"from 2 to {len(study)}")
    group = _groups(effects, folds, n_groups)
    described = pd.DataFrame(index=range(len(study)))
    if len(indices):
        described = described.join(_indices(study, list(indices), bands, size_m))
    if land_cover is not None:
        described = described.join(_classes(study, land_cover, classes, size_m))
    values = pd.DataFrame({"predicted": effects}).join(described)
    table = values.groupby(group).mean()
    table.insert(0, "n", np.bincount(group, minlength=n_groups))
    if scores is not None:
        gamma = np.asarray(scores, dtype=float)
        rows = [_mean(study, gamma, group == k) for k in range(n_groups)]
        table.insert(2, "effect", [r["estimate"] for r in rows])
        table.insert(3, "effect_se", [r["se"] for r in rows])
        values = values.assign(effect=gamma)
    table.index = pd.Index([str(k + 1) for k in range(n_groups)], name="group")
    return pd.concat([table, _difference(study, values, group, n_groups)]).rename_axis("group")


def _groups(tau: FloatArray, folds: Any, n_groups: int) -> NDArray[np.int64]:
    fold = np.zeros(len(tau), dtype=int) if folds is None else pd.factorize(np.asarray(folds))[0]
    rank = np.empty(len(tau))
    for k in np.unique(fold):
        here = np.flatnonzero(fold == k)
        rank[here[np.argsort(tau[here], kind="stable")]] = (np.arange(len(here)) + 0.5) / len(here)
    return np.minimum((rank * n_groups).astype(np.int64), n_groups - 1)


def _mean(study: Any, values: FloatArray, rows: NDArray[np.bool_]) -> dict[str, float]:
    groups = None if study.groups is None else np.asarray(study.groups)[rows]
    weights = None if study.weights is None else study.weights[rows]
    return clustered_mean(values[rows], groups=groups, sample_weight=weights)


def _difference(study: Any, values: pd.DataFrame, group: NDArray[np.int64], n_groups: int) -> pd.DataFrame:
    """Highest less lowest group of every column, and its cluster-robust standard error."""
    import statsmodels.api as sm

    ends = (group == 0) | (group == n_groups - 1)
    design = sm.add_constant((group[ends] == n_groups - 1).astype(float))
    sites = np.arange(len(group)) if study.groups is None else pd.factorize(np.asarray(study.groups))[0]
    out: dict[str, list[float]] = {}
    for name in values.columns:
        column = values[name].to_numpy()[ends]
        seen = np.isfinite(column)
        fit = sm.OLS(column[seen], design[seen]).fit(cov_type="cluster", cov_kwds={"groups": sites[ends][seen]})
        out[str(name)] = [float(fit.params[1]), float(fit.bse[1])]
    return pd.DataFrame(out, index=["highest - lowest", "se"])


def _size(study: Any, imagery: Any, size_m: float | None) -> int:
    size = size_m if size_m is not None else study.chip_size_m
    return int(imagery.size_px(float(size), study.X.geometry)) if size is not None else 32


def _indices(study: Any, names: list[str], bands: Any, size_m: float | None) -> pd.DataFrame:
    """Indices of the last date, and of a sequence their change since the first."""
    imagery = next(iter(study.imagery.values())) if isinstance(study.imagery, Mapping) else study.imagery
    if imagery is None:
        raise ImageryError(f"the study {study.name!r} has no imagery", todo="pass indices=() or a study with imagery")
    if not imagery.has_time:
        return pd.DataFrame(_square_means(study, imagery, names, bands, size_m), columns=names)
    ends = [imagery.sel(dates=[day]) for day in dict.fromkeys((min(imagery.days), max(imagery.days)))]
    means = [_square_means(study, image, names, bands, size_m) for image in ends]
    table = pd.DataFrame(means[-1], columns=names)
    return (
        table.join(pd.DataFrame(means[1] - means[0], columns=names).add_suffix(" change")) if len(ends) > 1 else table
    )


def _square_means(study: Any, imagery: Any, names: list[str], bands: Any, size_m: float | None) -> FloatArray:
    """Mean of each index over the valid pixels around each unit, (n, indices)."""
    import xarray as xr

    out = np.full((len(study), len(names)), np.nan)
    for position, chips in imagery.iter_chips(study.X.geometry, _size(study, imagery, size_m)):
        frame = chips[:, -1] if imagery.has_time else chips
        named = xr.DataArray(frame, dims=("unit", "band", "y", "x"), coords={"band": list(imagery.bands)})
        found = indices(named, names, bands=bands).values
        seen = np.isfinite(found)
        total = np.where(seen, found, 0).sum(axis=(2, 3), dtype=float)
        count = seen.sum(axis=(2, 3))
        out[position] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return out


def _classes(study: Any, land_cover: Any, classes: Any, size_m: float | None) -> pd.DataFrame:
    size = _size(study, land_cover, size_m)
    positions, found = [], []
    for position, chips in land_cover.iter_chips(study.X.geometry, size):
        layer = chips.reshape(len(chips), -1, size, size)[:, 0]
        positions.append(position)
        found.append(layer.reshape(len(chips), -1))
    codes = np.concatenate(found)[np.argsort(np.concatenate(positions))]
    seen = np.isfinite(codes)
    values = sorted(int(v) for v in np.unique(codes[seen])) if classes is None else [int(v) for v in classes]
    if len(values) > _MAX_CLASSES or not np.array_equal(codes[seen], np.rint(codes[seen])):
        raise ImageryError(
            "a land cover whose first band does not hold classes", expected=f"at most {_MAX_CLASSES} whole numbers"
        )
    names = {v: f"class {v}" for v in values} if classes is None else classes
    count = np.maximum(seen.sum(axis=1), 1)
    shares = {str(names[v]): np.where(seen.any(axis=1), (codes == v).sum(axis=1) / count, np.nan) for v in values}
    return pd.DataFrame(shares)
