"""What a study is made of: columns of the table, its rows, the geometry of units and places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import align_rows, one_name_each
from causalsat.core.names import close_matches, list_names, shown
from causalsat.core.warn import warn
from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError


def require_column(frame: pd.DataFrame, name: Any, role: str, what: str = "units") -> str:
    """The column's name if the frame has it, once; otherwise a ColumnError with close matches."""
    if not isinstance(name, str):
        raise ColumnError(
            f"{role}={name!r} is a {type(name).__name__}",
            expected=f"the name of a column, one of {list_names(frame.columns)}",
            todo=f"add the values to the table as a column and pass its name as {role}",
        )
    if name not in frame.columns:
        near = close_matches(name, frame.columns)
        raise ColumnError(
            f"{role}={name!r} is not a column of the {what}",
            expected=f"one of {list_names(frame.columns)}",
            todo=f"did you mean {' or '.join(repr(n) for n in near)}?" if near else "check the spelling",
        )
    values = frame[name]
    if isinstance(values, pd.Series) and values.dtype == object:
        nested = next((v for v in values if isinstance(v, list | dict | set | np.ndarray)), None)
        if nested is not None:
            raise ColumnError(
                f"{role} {name!r} holds objects of type {type(nested).__name__}, such as {str(nested)[:60]}",
                expected="one number or one text in a cell",
                todo="take what is needed out of them, such as units[name].str[0], before",
            )
    return name


def resolve_covariates(frame: pd.DataFrame, covariates: Any, roles: Mapping[str, str]) -> tuple[str, ...]:
    """Names of covariates; ``*`` and ``?`` are patterns, which never match a column that has another role."""
    if covariates is None:
        return ()
    wanted: Sequence[Any] = [covariates] if isinstance(covariates, str) else list(covariates)
    taken = {column: role for role, column in roles.items()}
    taken |= dict.fromkeys(("geometry", getattr(frame, "active_geometry_name", None) or "geometry"), "place")
    found: list[str] = []
    for name in wanted:
        if isinstance(name, str) and ("*" in name or "?" in name) and name not in frame.columns:
            matches = [c for c in frame.columns if fnmatchcase(str(c), name) and c not in taken]
            if not matches:
                raise ColumnError(
                    f"the pattern {name!r} in covariates matches no column of the units",
                    expected=f"a pattern for some of {list_names(frame.columns)}",
                    todo="check the pattern, or list the columns",
                )
            found += [require_column(frame, c, "covariates") if isinstance(c, str) else c for c in matches]
            continue
        column = require_column(frame, name, "covariates")
        if column in taken and taken[column] in ("outcome", "treatment", "place", "outcome_labelled", "take_up"):
            raise ColumnError(
                f"column {column!r} is the {taken[column].replace('_', ' ')} and a covariate",
                expected="covariates measured before treatment, none of them the outcome, the treatment or the place",
                todo=f"leave {column!r} out of covariates",
            )
        found.append(column)
    return tuple(dict.fromkeys(found))


def numeric_column(values: pd.Series, role: str) -> NDArray[np.float64]:
    """The column as floats, NaN where missing; ColumnError naming the first value that is no number."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if values.dtype.kind in "mM":
        raise ColumnError(
            f"{role} {values.name!r} holds dates ({values.dtype})",
            expected="numbers",
            todo="turn it into a number, such as days since a date",
        )
    if values.dtype.kind == "c" or (values.dtype.kind == "O" and any(isinstance(v, complex) for v in values)):
        raise ColumnError(f"{role} {values.name!r} holds complex numbers", expected="real numbers")
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    bad = numbers.isna() & values.notna()
    if bad.any():
        text = values[bad].iloc[0]
        raise ColumnError(
            f"{role} {values.name!r} holds {text!r} ({int(bad.sum())} of {len(values)} values are not numbers)",
            expected="numbers",
            todo=_about_commas([str(value).strip() for value in values[bad].unique()]),
        )
    return np.asarray(numbers.to_numpy(dtype=float), dtype=np.float64)


def _about_commas(texts: Sequence[str]) -> str:
    """What to do about texts that are no numbers: commas as decimals, between thousands, or as either."""
    if all(re.fullmatch(r"[+-]?\d+,\d+|[+-]?\d{1,3}(\.\d{3})+(,\d+)?", text) for text in texts):
        thousands = any("." in text for text in texts)
        if thousands or not all(re.fullmatch(r"[+-]?\d{1,3},\d{3}", text) for text in texts):
            more = ", 'thousands': '.'" if thousands else ""
            return f"the decimals are commas: read the file with read_options={{'decimal': ','{more}}}"
        return (
            "the commas stand between thousands or before decimals, and the codebook says which: read the file with "
            "read_options={'thousands': ','} or {'decimal': ','}"
        )
    if all(re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d+,\d{3}", text) for text in texts):
        return "the commas stand between thousands: read the file with read_options={'thousands': ','}"
    return "code it as numbers, and missing values as empty cells"


def check_table(units: Any, what: str = "units") -> Any:
    """A table with rows and distinct column names, or an error that says what arrived."""
    if not isinstance(units, pd.DataFrame):
        raise DataError(
            f"{what} of type {type(units).__name__}",
            expected="a pandas DataFrame or a GeoDataFrame",
            todo="read a file with Study.from_file(path, ...)"
            if isinstance(units, str | PathLike)
            else "make it a DataFrame with named columns",
        )
    if not len(units):
        raise DataError(f"the {what} have no rows", expected="one row for each unit", todo="check the filter or file")
    one_name_each(units, what)
    return units


def resolve_roles(frame: Any, **roles: str | None) -> dict[str, str]:
    """Columns of the roles that were given, each of them in the table."""
    found = {
        role: require_column(frame, column, role)
        for role, column in roles.items()
        if column is not None or role in ("outcome", "treatment")
    }
    if found["outcome"] == found["treatment"]:
        raise ColumnError(f"{found['outcome']!r} is both outcome and treatment", expected="two different columns")
    return found


def one_probability(value: Any) -> float:
    """A probability of treatment that holds for all units, strictly between 0 and 1."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ColumnError(
            f"propensity of type {type(value).__name__}",
            expected="the name of a column, or one number",
            todo="add the values to the table as a column",
        ) from None
    if not 0 < number < 1:
        raise ParameterError(f"propensity={number:g}", expected="a probability strictly between 0 and 1")
    return number


def imagery_names(imagery: Any) -> str:
    """Names of the imagery's sources, for messages."""
    if isinstance(imagery, Mapping):
        return ", ".join(map(str, imagery))
    return str(getattr(imagery, "name", None) or type(imagery).__name__)


def check_imagery(imagery: Any) -> Any:
    """The imagery, or dict of them, if each can be asked for its bounds and chips."""
    for source in imagery.values() if isinstance(imagery, Mapping) else [imagery]:
        if imagery is None or all(hasattr(source, name) for name in ("iter_chips", "bounds", "crs")):
            continue
        raise ParameterError(
            f"imagery of type {type(source).__name__}",
            expected="an imagery, or a dict of them",
            todo=f"open it first: imagery=causalsat.open_imagery({source!r})"
            if isinstance(source, str | PathLike)
            else "open it first with causalsat.open_imagery(...)",
        )
    return imagery


def chosen_rows(mask: ArrayLike, units: pd.Index) -> NDArray[Any]:
    """Positions of the units that a boolean mask, by its labels where it has any, or positions select."""
    n = len(units)
    chosen = np.asarray(mask)
    if chosen.dtype == object and pd.isna(chosen).any():
        raise DataError(
            f"a mask with {int(pd.isna(chosen).sum())} missing values",
            expected="True or False for each unit",
            todo="say where missing values belong, such as (study.units['age'] > 30).fillna(False)",
        )
    if chosen.dtype.kind in "iuf" and len(chosen) == n > 2 and np.isin(chosen, (0, 1)).all():
        raise DataError(
            f"{n} numbers 0 and 1 for {n} units, which as positions repeat the first two units",
            expected="a boolean mask, or positions",
            todo="make it a mask: study.subset(study.units['female'] == 1)",
        )
    if chosen.dtype == bool and chosen.shape != (n,):
        raise DataError(
            f"a mask of shape {chosen.shape} for {n} units",
            expected=f"a boolean array of {n}",
            todo="make the mask from this study's own columns, such as study.units['age'] > 30",
        )
    if chosen.dtype != bool:
        return chosen
    return np.flatnonzero(np.asarray(align_rows(units, mask, "the mask", "the study"), dtype=bool))


LON_WORDS = ("lon", "long", "longitude", "lng", "easting", "gps_longitude", "geo_long", "x_coord")
LAT_WORDS = ("lat", "latitude", "northing", "gps_latitude", "geo_lat", "y_coord")
DEFAULT_CRS = "EPSG:4326"
SAME_PLACE_M, ROUNDED_M = 1.0, 100.0  # how far apart two positions of a unit are one, or one that was rounded


def parse_crs(crs: Any) -> Any:
    """A pyproj CRS from whatever names one; DataError where nothing does."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise DataError(
            f"crs={crs!r} is no coordinate reference system that PROJ knows",
            expected="an EPSG code such as 'EPSG:4326' (lon/lat) or 'EPSG:32636' (UTM 36N), or WKT",
            todo="look the code up in the documentation of the data",
        ) from error


def to_geoframe(frame: pd.DataFrame, lon: str | None, lat: str | None, crs: Any, what: str = "units") -> Any:
    """GeoDataFrame of the table's places: points from lon/lat, or the geometry that it has.

    A place with a missing coordinate gets no geometry (None); Study.check reports it.
    """
    import geopandas as gpd

    if (lon is None) != (lat is None):
        given, other = ("lon", "lat") if lat is None else ("lat", "lon")
        raise ColumnError(
            f"{given}={lon or lat!r} without {other}",
            expected="both lon and lat, or a geometry column",
            todo=f"name the column that holds {other}",
        )
    if lon is not None and lat is not None:
        x = numeric_column(frame[require_column(frame, lon, "lon", what)], "lon")
        y = numeric_column(frame[require_column(frame, lat, "lat", what)], "lat")
        points = np.full(len(frame), None, dtype=object)
        there = np.isfinite(x) & np.isfinite(y)
        points[there] = gpd.points_from_xy(x[there], y[there])
        if "geometry" in frame.columns and getattr(frame, "active_geometry_name", None) != "geometry":
            warn(
                f"the column 'geometry' of the {what} gives way to points of {lon} and {lat}; rename it to keep it",
                DataWarning,
            )
        table = pd.DataFrame(frame).drop(columns="geometry", errors="ignore")
        found = gpd.GeoDataFrame(table, geometry=points, crs=parse_crs(DEFAULT_CRS if crs is None else crs))
        _check_other_geometry(frame, found, (lon, lat), what)
        return found
    if isinstance(frame, gpd.GeoDataFrame) and frame.active_geometry_name is not None:
        return _with_crs(frame, crs)
    raise ColumnError(
        f"the {what} have no place: neither lon and lat nor a geometry",
        expected="lon= and lat= naming columns, or a GeoDataFrame",
        todo=_suggest_places(frame),
    )


def _check_other_geometry(frame: Any, found: Any, columns: tuple[str, str], what: str) -> None:
    """Refuse a table whose own geometry lies elsewhere than the columns say that are used in its place.

    Raises
    ------
    DataError
        Somewhere the two are more than 100 m apart; names the unit and both positions.

    Warns
    -----
    DataWarning
        They are within 100 m, as rounded coordinates are, or the geometry has no system to compare them in.
    """
    if getattr(frame, "active_geometry_name", None) is None:
        return
    used = " and ".join(columns)
    if frame.crs is None:
        if frame.geometry.notna().any():
            warn(
                f"the geometry of the {what} has no coordinate reference system and gives way to points of {used}, "
                f"with which it cannot be compared; leave it out: {what}.drop(columns={frame.geometry.name!r})",
                DataWarning,
            )
        return
    apart, own, said = _metres_apart(frame.geometry, found.geometry)
    if not (apart > SAME_PLACE_M).any():
        return
    n, worst = int((apart > SAME_PLACE_M).sum()), int(np.nanargmax(apart))
    text = (
        f"the geometry of {n:,} of {len(frame):,} {what} lies elsewhere than {used} say: of "
        f"{shown(frame.index[worst])} at {_place(own[worst])}, and by the columns at {_place(said[worst])}, "
        f"{_distance(apart[worst])} apart"
    )
    if apart[worst] <= ROUNDED_M:
        warn(f"{text}; the columns are used. To use the geometry, leave lon= and lat= out", DataWarning)
        return
    swapped = _metres_apart(frame.geometry, _exchanged(found.geometry))[0]
    raise DataError(
        text,
        expected=f"one place for each, or two within {ROUNDED_M:g} m",
        todo=f"longitude and latitude look swapped: exchange lon={columns[0]!r} and lat={columns[1]!r}"
        if (swapped[~np.isnan(apart)] <= ROUNDED_M).all()
        else "leave lon= and lat= out to use the geometry, or the geometry to use the columns: "
        f"pandas.DataFrame({what}).drop(columns={frame.geometry.name!r})",
    )


def _metres_apart(first: Any, second: Any) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[Any]]:
    """Metres between two GeoSeries row by row, NaN where one is missing, and the nearest (lon, lat) of each."""
    import shapely
    from pyproj import Geod

    own, used = (series.to_crs(DEFAULT_CRS).to_numpy() for series in (first, second))
    ends = np.full((len(own), 2, 2), np.nan)
    lines = shapely.shortest_line(own, used)
    there = ~(shapely.is_missing(lines) | shapely.is_empty(lines))
    ends[there] = shapely.get_coordinates(lines[there]).reshape(-1, 2, 2)
    apart = np.full(len(own), np.nan)
    there &= np.isfinite(ends).all(axis=(1, 2))
    apart[there] = Geod(ellps="WGS84").inv(*ends[there][:, 0].T, *ends[there][:, 1].T)[2]
    apart[there & shapely.intersects(own, used)] = 0.0
    return apart, ends[:, 0], ends[:, 1]


def _exchanged(points: Any) -> Any:
    """Points with their two coordinates exchanged."""
    import geopandas as gpd
    import shapely

    there = points.notna() & ~points.is_empty
    turned = np.full(len(points), None, dtype=object)
    turned[there] = shapely.points(points[there].y, points[there].x)
    return gpd.GeoSeries(turned, index=points.index, crs=points.crs)


def _place(lonlat: NDArray[Any]) -> str:
    return f"longitude {lonlat[0]:.6g}, latitude {lonlat[1]:.6g}"


def _distance(metres: float) -> str:
    return f"{metres:,.0f} m" if metres < 10_000 else f"{metres / 1000:,.0f} km"


def units_frame(frame: pd.DataFrame, places: Any, lon: str | None, lat: str | None, crs: Any) -> Any:
    """The units' places; by their own geometry where the columns named are those of the further places only."""
    if getattr(frame, "active_geometry_name", None) is not None and lon and lat:
        elsewhere = {lon, lat} <= set(getattr(places, "columns", ()))
        if elsewhere and not {lon, lat} & set(frame.columns):
            return _with_crs(frame, None if frame.crs is not None else crs)
    return to_geoframe(frame, lon, lat, crs)


def places_frame(places: Any, lon: str | None, lat: str | None, crs: Any) -> Any:
    """Further places: by the units' lon and lat columns, or by their own geometry where they lack those."""
    frame = check_table(places, "places")
    if getattr(frame, "active_geometry_name", None) is not None and not {lon, lat} <= set(frame.columns):
        return _with_crs(frame, None if frame.crs is not None else crs)
    return to_geoframe(frame, lon, lat, crs, "places")


def _with_crs(frame: Any, crs: Any) -> Any:
    own = frame.copy()
    if own.active_geometry_name != "geometry":
        own = own.drop(columns="geometry", errors="ignore").rename_geometry("geometry")
    own["geometry"] = own.geometry.force_2d()  # altitudes tell no places apart
    if crs is None:
        return own
    wanted = parse_crs(crs)
    if own.crs is None:
        return own.set_crs(wanted)
    if own.crs != wanted:
        raise DataError(
            f"crs={wanted.to_string()[:60]} was passed, but the geometry says {own.crs.to_string()[:60]}",
            expected="one coordinate reference system",
            todo="leave crs out if the geometry is right; frame.set_crs(..., allow_override=True) if it is wrong",
        )
    return own


def _suggest_places(frame: pd.DataFrame) -> str:
    def find(words: tuple[str, ...]) -> list[str]:
        return [str(c) for c in frame.columns if str(c).strip().casefold() in words]

    wkt = [c for c in frame.columns if _is_wkt(frame[c])]
    if wkt:
        return (
            f"make {str(wkt[0])!r} a geometry: geopandas.GeoDataFrame(t, geometry=geopandas.GeoSeries.from_wkt("
            f"t[{str(wkt[0])!r}]), crs='EPSG:4326'), with the system that it is in"
        )
    lons, lats = find(LON_WORDS), find(LAT_WORDS)
    if lons and lats:
        return f"pass lon={lons[0]!r}, lat={lats[0]!r}"
    return f"name the columns with the coordinates (columns: {list_names(frame.columns)})"


def _is_wkt(values: pd.Series) -> bool:
    """Whether a column holds geometries as text, such as POINT (32.1 1.2)."""
    first = next((v for v in values.dropna().head(5) if isinstance(v, str)), "")
    return re.match(r"\s*(SRID=\d+;)?\s*(MULTI)?(POINT|POLYGON|LINESTRING)\s*Z?M?\s*\(", first, re.I) is not None
