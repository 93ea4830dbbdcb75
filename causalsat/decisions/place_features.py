"""Image features of candidate places: what power, assignment and the choice of sites look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.encoders.image_encoder import ImageEncoder
from causalsat.encoders.random_conv.features import RandomConvFeatures
from causalsat.exceptions import DataError, ParameterError

__all__ = ["by_label", "image_features", "one_row_a_village", "whitened"]

FloatArray = NDArray[np.float64]

CHIP_PX = 32  # side of the chip where no size is given


def one_row_a_village(villages: Any) -> pd.DataFrame:
    """The table of villages, each once, by a unique index."""
    frame = villages if isinstance(villages, pd.DataFrame) else pd.DataFrame(np.asarray(villages))
    if not len(frame):
        raise DataError("no villages (0 rows)", expected="one row for each candidate village")
    if frame.index.has_duplicates:
        label = frame.index[frame.index.duplicated()][0]
        raise DataError(
            f"{int(frame.index.duplicated().sum())} villages whose index repeats, such as {label!r}",
            expected="one row for each village, the unit of assignment",
            todo="make it so: units.drop_duplicates('village').set_index('village')",
        )
    return frame


def by_label(index: pd.Index) -> NDArray[np.int64]:
    """Rank of each label, whatever the labels' types; equal labels in the order of their rows.

    Examples
    --------
    >>> by_label(pd.Index(["c", "a", "b"]))
    array([2, 0, 1])
    """
    try:
        order = np.argsort(index.to_numpy(), kind="stable")
    except TypeError:
        order = np.argsort([f"{type(label).__name__} {label!r}" for label in index], kind="stable")
    return np.asarray(np.argsort(order), dtype=np.int64)


def image_features(
    villages: Any, imagery: Any, *, size_m: float | None = None, n_components: int = 10, seed: int = 0
) -> FloatArray:
    """Features of the villages, uncorrelated and with unit variance, in falling order of what they explain.

    Parameters
    ----------
    villages : DataFrame or GeoDataFrame of n rows
        Places with a geometry; without imagery, the table of features itself.
    imagery : Imagery, dict of Imagery, array of shape (n, k) or None
        Images, encoded by :class:`causalsat.RandomConvFeatures` with band statistics, as the default model of an
        analysis does; or features in the rows' order; or None, where the villages' numeric columns are the features.
    size_m : float, optional
        Side of the chip around a place; by default 32 pixels.
    n_components : int
        At most so many.
    seed : int
        Of the encoder.

    Returns
    -------
    ndarray of shape (n, at most n_components)

    Examples
    --------
    >>> table = pd.DataFrame({"a": [0.0, 1.0, 2.0, 5.0], "b": [1.0, 0.0, 1.0, 0.0]})
    >>> image_features(table, None).std(axis=0)
    array([1., 1.])
    """
    if hasattr(imagery, "iter_chips") or isinstance(imagery, dict):
        return whitened(_encoded(villages, imagery, size_m, n_components, seed), n_components)
    values = villages if imagery is None else imagery
    if isinstance(values, pd.DataFrame):
        values = pd.DataFrame(values).drop(columns="geometry", errors="ignore").select_dtypes(["number", "bool"])
        if not values.shape[1]:
            raise DataError(
                "villages without imagery and without numeric columns",
                expected="imagery, or a table of features",
                todo="pass imagery=causalsat.open_imagery('raster.tif')",
            )
    table = np.asarray(values)
    if table.dtype.kind not in "biuf" or table.ndim != 2 or len(table) != len(villages):
        raise DataError(
            f"features of type {type(values).__name__} and shape {table.shape} for {len(villages)} villages",
            expected="an imagery, or a numeric table with one row a village",
            todo="open the raster first: causalsat.open_imagery(path)",
        )
    if not np.isfinite(table.astype(float)).all():
        raise DataError("features that are missing or infinite", expected="finite numbers", todo="drop such villages")
    return whitened(table.astype(float), n_components)


def _encoded(villages: Any, imagery: Any, size_m: float | None, n_components: int, seed: int) -> FloatArray:
    first = next(iter(imagery.values())) if isinstance(imagery, dict) else imagery
    encoder = ImageEncoder(
        imagery,
        size_m=CHIP_PX * first.resolution_m if size_m is None else size_m,
        encoder=RandomConvFeatures(statistics=True, random_state=seed),
        n_components=min(n_components, max(1, len(villages) - 1)),
    )
    return np.asarray(encoder.fit_transform(villages), dtype=float)


def whitened(table: FloatArray, n_components: int) -> FloatArray:
    """Principal components of standardised columns with unit variance, the empty ones left out."""
    if n_components < 1:
        raise ParameterError(f"n_components={n_components!r}", expected="at least 1")
    spread = table.std(axis=0)
    varies = spread > 1e-12 * np.maximum(np.abs(table).max(axis=0), 1e-300)
    if not varies.any():
        raise DataError("features that are the same in all villages", expected="features that vary")
    z = (table[:, varies] - table[:, varies].mean(axis=0)) / spread[varies]
    left, scale, right = np.linalg.svd(z, full_matrices=False)
    kept = np.flatnonzero(scale > 1e-8 * scale[0])[:n_components]
    sign = np.sign(right[kept, np.abs(right[kept]).argmax(axis=1)])
    return np.asarray(left[:, kept] * sign * np.sqrt(len(z)), dtype=np.float64)
