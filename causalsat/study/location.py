"""Displaced coordinates: by how far, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.displacement import possible_places
from causalsat.exceptions import CausalsatError, ColumnError, ParameterError
from causalsat.inference.displacement import location_error_cost
from causalsat.study.building import numeric_column, require_column
from causalsat.study.report import Finding

__all__ = ["add_location_roles", "displaced", "location_radius", "with_positions"]

DHS = "dhs"
URBAN_M, RURAL_M = 2000.0, 5000.0
URBAN_LABELS = {"u": True, "urban": True, "r": False, "rural": False}


def add_location_roles(frame: pd.DataFrame, roles: dict[str, str], location_error: Any, urban: Any) -> dict[str, Any]:
    """The setting of the displacement, checked; its columns become roles."""
    if urban is not None:
        if location_error != DHS:
            raise ParameterError("urban= without location_error='dhs'", expected="both")
        roles["urban"] = require_column(frame, urban, "urban")
        _urban(frame[roles["urban"]])
    if location_error is None:
        return {"location_error": None}
    if isinstance(location_error, str):
        if location_error == DHS:
            if urban is None:
                raise ParameterError(
                    "location_error='dhs' without urban=",
                    expected="the column that says which places are urban (displaced up to 2 km; rural ones up to 5)",
                    todo="urban='URBAN_RURA' in the files of the DHS",
                )
        else:
            name = require_column(frame, location_error, "location_error")
            values = numeric_column(frame[name], "location_error")
            if not (np.isfinite(values) & (values >= 0)).all():
                raise ColumnError(f"location_error {name!r} has missing or negative values", expected="metres")
        return {"location_error": location_error}
    number = isinstance(location_error, int | float | np.number) and not isinstance(location_error, bool)
    if not number or not 0 <= location_error < np.inf:
        raise ParameterError(
            f"location_error={location_error!r}", expected="metres, a column of metres, or 'dhs' with urban="
        )
    return {"location_error": float(location_error) or None}


def location_radius(study: Any) -> NDArray[np.float64] | None:
    """Largest displacement of each unit's coordinates in metres, shape (n,); None where they are exact.

    Of the DHS: 2 km in towns and 5 km elsewhere, where one place in a hundred is moved up to 10 km.
    """
    error = study.location_error
    if error is None:
        return None
    if error == DHS:
        return np.where(_urban(study.units[study.roles["urban"]]), URBAN_M, RURAL_M)
    if isinstance(error, str):
        return numeric_column(study.units[error], "location_error")
    return np.full(len(study.units), float(error))


def with_positions(study: Any, table: Any) -> Any:
    """The table with MultiPoints of the positions where each unit may live, those off the imagery left out."""
    import shapely

    radius = location_radius(study)
    gone = table.geometry.isna() | table.geometry.is_empty
    if radius is None or study.imagery is None or table.crs is None or gone.any():
        return table
    first = next(iter(study.imagery.values())) if isinstance(study.imagery, Mapping) else study.imagery
    places = possible_places(table.geometry, radius)
    seen = places.to_crs(first.crs).to_numpy()
    frame = shapely.box(*first.bounds)
    kept = []
    for place, there in zip(places, seen, strict=True):
        inside = [p for p, q in zip(place.geoms, there.geoms, strict=True) if frame.covers(q)]
        kept.append(shapely.MultiPoint(inside) if inside else place)
    return table.set_geometry(type(places)(kept, index=table.index, crs=table.crs, name="geometry"))


def displaced(study: Any, size_m: float | None) -> Iterator[Finding]:
    """What the displacement costs of the images' signal, said before anything is fitted."""
    radius = location_radius(study)
    if radius is None or not (radius > 0).any():
        return
    typical = float(np.median(radius[radius > 0]))
    first = next(iter(study.imagery.values())) if isinstance(study.imagery, Mapping) else study.imagery
    try:
        cost = location_error_cost(first, typical, places=study.units, size_m=size_m)
    except CausalsatError as error:
        yield Finding(
            "note", "displaced coordinates", f"what the displacement costs is not known here: {error}",
            "take imagery that covers the places and their surroundings",
        )  # fmt: skip
        return
    yield Finding(
        "warning" if cost.cost > 0.25 else "note",
        "displaced coordinates",
        f"coordinates are displaced by up to {typical:,.0f} m, which costs {cost.cost:.0%} of the signal of image "
        f"features here even when they are averaged over the possible positions ({1 - cost.kept_at_point:.0%} if "
        "read at the displaced coordinates)",
        "expect wider intervals and weaker tests of heterogeneity; larger chips (size_m) lose less",
    )


def _urban(values: pd.Series) -> NDArray[np.bool_]:
    """Whether each place is urban: True/False, 1/0, or U/R as the DHS writes."""
    text = values.astype(object).map(lambda v: URBAN_LABELS.get(v.strip().casefold(), v) if isinstance(v, str) else v)
    if pd.isna(text).any() or not text.isin([True, False]).all():
        raise ColumnError(
            f"urban {values.name!r} holds {sorted(set(map(str, values.unique())))[:5]}",
            expected="True/False, 1/0, or U/R",
        )
    return text.to_numpy(dtype=bool)
