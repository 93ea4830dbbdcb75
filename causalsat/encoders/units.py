"""Units at the door of the image encoder: geometry, coordinate reference system, kept columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from causalsat.exceptions import ColumnError, DataError

__all__ = ["check_keep", "check_units"]


def check_units(X: Any) -> Any:
    """GeoSeries of a table's units; refuses tables without geometry, CRS or units.

    Parameters
    ----------
    X : GeoDataFrame or GeoSeries
    """
    geometry = _geometry(X)
    if not len(geometry):
        raise DataError("no units at all (0 rows)", expected="at least one unit")
    if geometry.crs is None:
        raise DataError(
            "units without a coordinate reference system",
            expected="a geometry whose CRS is known",
            todo="say which it is, for example units.set_crs('EPSG:4326')",
        )
    absent = np.asarray(geometry.isna() | geometry.is_empty)
    if absent.any():
        shown = ", ".join(repr(label) for label in geometry.index[absent][:5])
        raise DataError(
            f"{int(absent.sum())} of {len(absent)} units have no geometry, at index {shown}",
            expected="a place for each unit",
            todo="drop those units, or find their coordinates",
        )
    return geometry


def _geometry(X: Any) -> Any:
    if hasattr(X, "crs") and not hasattr(X, "columns") and hasattr(X, "geometry"):
        return X
    if hasattr(X, "crs") and hasattr(X, "columns"):
        try:
            return X.geometry
        except AttributeError:
            pass
    kind = type(X).__name__
    columns = f" with columns {', '.join(map(str, list(X.columns)[:6]))}" if hasattr(X, "columns") else ""
    raise DataError(
        f"a {kind}{columns}, which has no geometry to read imagery at",
        expected="a GeoDataFrame with a geometry column",
        todo="geopandas.GeoDataFrame(table, geometry=geopandas.points_from_xy(table.lon, table.lat), "
        "crs='EPSG:4326'), or Study(...).X; in a ColumnTransformer name the column 'geometry'",
    )


def check_keep(X: Any, keep: Sequence[str], prefix: str) -> None:
    """Refuse kept columns that are absent, not numeric, or named like image features."""
    if isinstance(keep, str):
        raise ColumnError(f"keep={keep!r}", expected="a list of column names", todo=f"keep=[{keep!r}]")
    columns = list(getattr(X, "columns", ()))
    for name in keep:
        if name not in columns:
            raise ColumnError(
                f"keep names {name!r}, which is not a column of X",
                expected=f"one of {', '.join(map(str, columns[:10]))}",
                todo="check the spelling; in a ColumnTransformer pass covariates beside the encoder instead",
            )
        if getattr(X[name].dtype, "kind", "O") not in "fiub":
            raise ColumnError(
                f"kept column {name!r} holds {X[name].dtype}, not numbers",
                expected="numeric or boolean columns",
                todo="encode it (sklearn.preprocessing.OneHotEncoder) or leave it out",
            )
        if name.startswith(prefix) and name[len(prefix) :].isdigit():
            raise ColumnError(
                f"kept column {name!r} is named like an image feature",
                expected="other names",
                todo="rename it, or pass prefix=",
            )
