"""Checks of places and imagery: CRS, implausible coordinates, shared points, coverage, dates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from causalsat.core.names import shown
from causalsat.exceptions import CausalsatError
from causalsat.study.building import list_names
from causalsat.study.dates import column_days, why_unread
from causalsat.study.report import Finding

SMALL_WINDOW_PX = 4
FAR_KM = 300.0
AREA_MARGIN = 3.0  # degrees around a projection's area of use, in which neighbours still use it
NEAR_ORIGIN = 10_000.0  # metres from a projection's origin, where kilometres of its area lie


def coordinates(study: Any, a: Any) -> Iterator[Finding]:
    """CRS absent, no geometry, lon/lat swapped, in metres, at 0, 0, or far from all the others."""
    units = study.units
    gone = units.geometry.isna() | units.geometry.is_empty
    if gone.any():
        yield Finding(
            "error",
            "coordinates",
            f"{int(gone.sum()):,} of {len(units):,} units have no place",
            "find their coordinates, or leave them out: study.subset(study.units.geometry.notna())",
            list(units.index[gone]),
        )
    x, y = _xy(units[~gone])
    if not len(x):
        return
    if units.crs is None:
        guess = "EPSG:4326 (lon/lat)" if _is_lonlat(x, y) else "a projected one, such as the UTM zone"
        yield Finding(
            "error",
            "coordinates",
            f"the units have no coordinate reference system; x from {x.min():.6g} to {x.max():.6g}, y from "
            f"{y.min():.6g} to {y.max():.6g}",
            f"pass crs=; it looks like {guess}",
        )
        return
    labels = units.index[~gone]
    yield from _degrees(study, x, y, labels) if units.crs.is_geographic else _metres(study, x, y, labels)


def _xy(frame: Any) -> tuple[Any, Any]:
    points = frame.geometry if (frame.geom_type == "Point").all() else frame.geometry.representative_point()
    return points.x.to_numpy(), points.y.to_numpy()


def _is_lonlat(x: Any, y: Any) -> bool:
    return bool((np.abs(x) <= 180).all() and (np.abs(y) <= 90).all())


def _degrees(study: Any, x: Any, y: Any, labels: Any) -> Iterator[Finding]:
    largest = float(max(np.abs(x).max(), np.abs(y).max()))
    if largest > 400:
        yield Finding(
            "error",
            "coordinates",
            f"coordinates up to {largest:,.0f} in {study.crs.name}, which is in degrees",
            "they look like metres: pass the projection that they are in, such as crs='EPSG:32636' (UTM 36N)",
        )
        return
    if not _is_lonlat(x, y):
        swapped = _is_lonlat(y, x)
        yield Finding(
            "error",
            "coordinates",
            f"{int((np.abs(y) > 90).sum() + (np.abs(x) > 180).sum()):,} places off the globe: longitude from "
            f"{x.min():.5g} to {x.max():.5g}, latitude from {y.min():.5g} to {y.max():.5g}",
            "longitude and latitude look swapped: exchange lon= and lat="
            if swapped
            else "longitudes are counted from 0 to 360: subtract 360 from those above 180"
            if x.min() >= 0 and (np.abs(y) <= 90).all()
            else "check the two columns",
        )
        return
    zero = (x == 0) & (y == 0)
    if zero.any():
        yield Finding(
            "error",
            "coordinates",
            f"{int(zero.sum()):,} units at longitude 0, latitude 0, in the Atlantic",
            "zeros stand for missing: replace them by empty cells, or leave these units out",
            list(labels[zero]),
        )
    yield from _far(x[~zero], y[~zero], labels[~zero])


def _far(x: Any, y: Any, labels: Any) -> Iterator[Finding]:
    if len(x) < 10:
        return
    x = (x - x[0] + 180) % 360 - 180  # counted from the first place, so that both sides of 180 degrees are near
    middle = np.median(x), np.median(y)
    km = 111.2 * np.hypot((x - middle[0]) * np.cos(np.radians(middle[1])), y - middle[1])
    far = (km > FAR_KM) & (km > 8 * np.percentile(km, 90))
    if far.any():
        yield Finding(
            "warning",
            "coordinates",
            f"{int(far.sum())} unit{'s lie' if far.sum() > 1 else ' lies'} up to {km[far].max():,.0f} km from the "
            f"others, such as {list_names(labels[far], 3)}",
            "look for a lost minus sign, swapped digits, or swapped longitude and latitude in these rows",
            list(labels[far]),
        )


def _metres(study: Any, x: Any, y: Any, labels: Any) -> Iterator[Finding]:
    """Projected coordinates that are degrees, zero, swapped, scaled, or off the area that the projection is for."""
    crs = study.units.crs
    span = f"coordinates from {x.min():.7g}, {y.min():.7g} to {x.max():.7g}, {y.max():.7g} in {crs.name}"
    zero = (x == 0) & (y == 0)
    if zero.any() and not zero.all():
        yield Finding(
            "error",
            "coordinates",
            f"{int(zero.sum()):,} units at x 0, y 0 of {crs.name}",
            "zeros stand for missing: replace them by empty cells, or leave these units out",
            list(labels[zero]),
        )
    x, y, labels = x[~zero], y[~zero], labels[~zero]
    if _is_lonlat(x, y) and len(x) > 1:
        yield Finding(
            "error",
            "coordinates",
            f"{span}, which is in {crs.axis_info[0].unit_name}s",
            "they look like degrees: pass crs='EPSG:4326'",
        )
        return
    outside = _outside_area(crs, x, y)
    near_origin = len(x) > 1 and bool((np.abs(x) < NEAR_ORIGIN).all() and (np.abs(y) < NEAR_ORIGIN).all())
    if near_origin and not _outside_area(crs, 1000 * x, 1000 * y, 0.0).any():
        outside = _outside_area(crs, x, y, 0.0)  # kilometres of a zone lie just beside it
    if not outside.any():
        lon, lat = _lonlat(crs, x, y)
        yield from _far(lon, lat, labels)
        return
    unit = float(crs.axis_info[0].unit_conversion_factor)
    ways = {
        "x and y look swapped: exchange lon= and lat=": (y, x),
        "they look like kilometres: multiply them by 1000": (1000 * x, 1000 * y),
        "they look like millimetres or were multiplied by 1000: divide them": (x / 1000, y / 1000),
    }
    name = crs.axis_info[0].unit_name
    if unit == 1:
        ways[f"they look like feet, not {name}s: multiply them by 0.3048"] = 0.3048 * x, 0.3048 * y
    else:
        ways[f"they look like metres, not {name}s: divide them by {unit:g}"] = x / unit, y / unit
    todo = next(
        (words for words, (a, b) in ways.items() if not _outside_area(crs, a[outside], b[outside], 0.0).any()),
        "check that crs= is the system that they are in, and these rows",
    )
    yield Finding(
        "error" if outside.mean() > 0.5 else "warning",
        "coordinates",
        f"{int(outside.sum()):,} of {len(x):,} places lie outside the area that {crs.name} is for, such as "
        f"{list_names(labels[outside], 3)}; {span}",
        todo,
        list(labels[outside]),
    )


def _lonlat(crs: Any, x: Any, y: Any) -> tuple[Any, Any]:
    from pyproj import Transformer

    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return np.asarray(lon, dtype=float), np.asarray(lat, dtype=float)


def _outside_area(crs: Any, x: Any, y: Any, margin: float = AREA_MARGIN) -> Any:
    """Which places lie so many degrees outside the area that a projection is made for; none where it does not say."""
    area = crs.area_of_use
    if area is None or not len(x):
        return np.zeros(len(x), dtype=bool)
    lon, lat = _lonlat(crs, x, y)
    finite = np.isfinite(lon) & np.isfinite(lat)
    width = (area.east - area.west) % 360 or 360.0
    beside = (np.where(finite, lon, 0.0) - area.west + margin) % 360
    inside = (beside <= width + 2 * margin) | (width + 2 * margin >= 360)
    return ~(finite & inside & (lat >= area.south - margin) & (lat <= area.north + margin))


def shared(study: Any, a: Any) -> Iterator[Finding]:
    """Units that share one point; different clusters that do."""
    places = distinct_places(study.units)
    if places is None:
        return
    counts = pd.Series(places).value_counts()
    counts = counts[counts > 1]
    if not len(counts):
        return
    n_units, n_places = int(counts.sum()), len(pd.unique(places))
    if a.clusters is None:
        yield Finding(
            "warning",
            "shared places",
            f"{n_units:,} of {len(study):,} units share their place with another ({n_places:,} distinct places), and "
            "no cluster is named",
            "name the village or site as cluster=: units of one place are not independent",
        )
        return
    owners = pd.DataFrame({"place": places, "cluster": pd.factorize(pd.Series(a.clusters))[0]})
    several = owners.groupby("place")["cluster"].nunique()
    several = several[several > 1]
    if len(several):
        yield Finding(
            "warning",
            "shared places",
            f"{len(several):,} points are shared by units of different clusters (up to {several.max()} clusters)",
            "coordinates may be those of a district office or jittered: images cannot tell these clusters apart; "
            "consider clustering on the place",
            [study.units.index[np.flatnonzero(places == p)[0]] for p in several.index],
        )
    else:
        yield Finding(
            "note",
            "shared places",
            f"{len(study):,} units at {n_places:,} distinct places: units of a cluster share one point and one image",
            "effects vary between places only; standard errors and folds must respect the clusters (they do)",
        )


def distinct_places(units: Any) -> Any:
    """Code of each unit's distinct place, shape (n,); None if no unit has one."""
    there = (units.geometry.notna() & ~units.geometry.is_empty).to_numpy()
    if not there.any():
        return None
    codes = np.full(len(units), -1)
    codes[there] = pd.factorize(pd.Series(units.geometry[there].force_2d().to_wkb()))[0]
    codes[~there] = codes.max() + 1 + np.arange((~there).sum())
    return codes


def dates(study: Any, a: Any) -> Iterator[Finding]:
    """Images that were taken after treatment began."""
    if study.treatment_date is None:
        return
    if "treatment_date" in study.roles:
        column = study.units[study.roles["treatment_date"]]
        days = column_days(column)
        unread = np.isnat(days) & column.notna().to_numpy()
        if unread.any():
            yield _unread_dates(study, column, unread)
        if np.isnat(days).all():
            return
        start = np.nanmin(days)
    else:
        start = study.treatment_date
    known = {name: list(np.asarray(source.dates)) for name, source in _sources(study).items()}
    own = {name: days for name, days in known.items() if days}
    undated = [name for name, days in known.items() if not days]
    if study.image_dates and (undated or not known):
        own["image_dates"] = list(study.image_dates)
    elif undated:
        yield Finding(
            "note",
            "image dates",
            f"treatment began on {start}, but the date of the images"
            f"{f' of {list_names(undated, 3)}' if own else ''} is missing",
            "pass image_dates=: images taken after treatment may show its effects",
        )
    yield from _later_than_stated(study, {name: days for name, days in own.items() if name in known})
    for name, taken in own.items():
        late = [d for d in taken if np.datetime64(d, "D") >= start]
        if late:
            yield Finding(
                "error" if len(late) == len(taken) else "warning",
                "image dates",
                f"{len(late)} of {len(taken)} images of {name} are from {min(late)} or later, treatment from {start}",
                "an image that shows the treatment's effects biases the effect: keep earlier dates only "
                f"(open_imagery(..., dates=...)), before {start}",
                late,
            )


def _later_than_stated(study: Any, dated: Mapping[str, Any]) -> Iterator[Finding]:
    """Images that are of later days, by their files, than image_dates= says."""
    if not study.image_dates:
        return
    stated = max(study.image_dates)
    for name, days in dated.items():
        if (latest := max(np.datetime64(day, "D") for day in days)) > stated:
            yield Finding(
                "warning",
                "image dates",
                f"image_dates= ends on {stated}, and {name} says itself that it has images up to {latest}",
                "leave image_dates= out, which is for images without a date, or open the imagery with other dates=",
            )


def _unread_dates(study: Any, column: pd.Series, unread: Any) -> Finding:
    """Dates that cannot be read: an error where they look like dates, which may be earlier than all others."""
    values = column[unread]
    dated = [value for value in values.unique() if any(c.isdigit() for c in str(value))]
    first = dated[0] if dated else values.iloc[0]
    return Finding(
        "error" if dated or len(values) == column.notna().sum() else "warning",
        "image dates",
        f"{len(values):,} of {len(column):,} treatment dates cannot be read as a date, such as {shown(first)}: "
        f"{why_unread(first)}",
        f"write them as 2008-03-01: pandas.to_datetime(units[{column.name!r}], dayfirst=True), or False where the "
        "month comes first"
        if dated
        else "write them as 2008-03-01: images are compared with the others only",
        list(study.units.index[unread]),
    )


def _sources(study: Any) -> Mapping[str, Any]:
    if study.imagery is None:
        return {}
    if isinstance(study.imagery, Mapping):
        return dict(study.imagery)
    return {str(getattr(study.imagery, "name", None) or "imagery"): study.imagery}


def coverage(study: Any, size_m: float | None) -> Iterator[Finding]:
    """Units outside the imagery or where it is nodata; each distinct place is read once."""
    units = study.units
    usable = (units.geometry.notna() & ~units.geometry.is_empty).to_numpy()
    if units.crs is None or not usable.any():
        return
    codes = distinct_places(units)
    first = pd.Series(np.flatnonzero(usable)).groupby(codes[usable]).first().to_numpy()
    geometry = units.geometry.iloc[first]
    finite = np.isfinite(geometry.bounds.to_numpy()).all(axis=1)
    for name, source in _sources(study).items():
        try:
            yield from _covered(study, name, source, geometry[finite], codes, codes[first][finite], size_m)
            yield from _further_places(study, name, source)
        except (CausalsatError, OSError, ValueError) as error:
            yield Finding(
                "error",
                "imagery",
                f"{name} cannot be read at the units' places: {getattr(error, 'what', error)}",
                getattr(error, "todo", None)
                or "open one chip by hand to see: imagery.chips(study.X.iloc[:1], size_px=4)",
            )


def _further_places(study: Any, name: str, source: Any) -> Iterator[Finding]:
    places = study.places
    if places is None or places.crs is None:
        return
    outside = ~_inside(source, places.geometry[places.geometry.notna()])
    if outside.any():
        yield Finding(
            "note",
            "imagery",
            f"{int(outside.sum()):,} of {len(places):,} further places lie outside {name}",
            "no effect can be predicted there: add imagery that covers them, or leave them out of places=",
        )


def _covered(
    study: Any, name: str, source: Any, geometry: Any, codes: Any, place: Any, size_m: float | None
) -> Iterator[Finding]:
    outside = ~_inside(source, geometry)
    if outside.all() and _inside(source, _swap(geometry)).all():
        yield Finding(
            "error",
            "imagery",
            f"all places lie outside {name}, but inside it with the coordinates exchanged",
            "longitude and latitude are swapped: exchange lon= and lat=",
        )
        return
    size_px = SMALL_WINDOW_PX if size_m is None else source.size_px(size_m, geometry[~outside])
    valid = np.zeros(len(geometry))
    for positions, chips in source.iter_chips(geometry[~outside], size_px):
        flat = np.isfinite(np.asarray(chips)).reshape(len(chips), -1)
        valid[np.flatnonzero(~outside)[positions]] = flat.mean(axis=1)
    yield from _report_coverage(
        study, name, size_m, codes, place[outside], place[~outside & (valid == 0)], len(place)
    )
    partly = ~outside & (valid > 0) & (valid < 0.99)
    if partly.any():
        units = np.flatnonzero(np.isin(codes, place[partly]))
        yield Finding(
            "note",
            "imagery",
            f"{int(partly.sum()):,} places ({len(units):,} units) have gaps in {name} (down to "
            f"{valid[partly].min():.0%} valid" + (f" in {size_m:,.0f} m chips)" if size_m else " around the point)"),
            "gaps are filled with the band mean unless you choose min_valid= or on_invalid= in chips()",
            pd.Series(valid[partly], index=study.units.index[[np.flatnonzero(codes == p)[0] for p in place[partly]]]),
        )


def _report_coverage(
    study: Any, name: str, size_m: float | None, codes: Any, outside: Any, empty: Any, n_places: int
) -> Iterator[Finding]:
    for places, where in ((outside, f"outside {name}"), (empty, f"where {name} has no data")):
        units = np.flatnonzero(np.isin(codes, places))
        if not len(units):
            continue
        everywhere = len(places) > 0.5 * n_places
        listed = list_names(study.units.index[units], 3)
        yield Finding(
            "error" if everywhere else "warning",
            "imagery",
            f"{len(places):,} of {n_places:,} places ({len(units):,} units, such as {listed}) lie {where}",
            "compare the CRS and the bounds of both: study.units.total_bounds and imagery.bounds"
            if everywhere
            else "leave these units out (study.subset), add imagery that covers them, or mask them: "
            "chips(..., on_invalid='mask' or 'drop')",
            list(study.units.index[units]),
        )


def _inside(source: Any, geometry: Any) -> Any:
    points = geometry.to_crs(source.crs).representative_point()
    left, bottom, right, top = source.bounds
    x, y = points.x.to_numpy(), points.y.to_numpy()
    x = source.grid.turned(x) if hasattr(source, "grid") else x
    return (x >= min(left, right)) & (x <= max(left, right)) & (y >= min(bottom, top)) & (y <= max(bottom, top))


def _swap(geometry: Any) -> Any:
    import geopandas as gpd

    points = geometry.representative_point()
    return gpd.GeoSeries(gpd.points_from_xy(points.y, points.x), crs=geometry.crs)
