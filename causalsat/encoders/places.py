"""Places of units on imagery: distinct windows, and their features, chip by chip or wall to wall.

Units are checked here for geometry, coordinate reference system and kept columns; their coordinates, and smooth
functions of those, may stand among the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.base import feature_array
from causalsat.encoders.chips import Float32Array
from causalsat.encoders.dense.boxes import true_shares, valid_shares
from causalsat.encoders.dense.window import LinearHead
from causalsat.encoders.scale import familiar_pixels, familiar_shares, known_scale
from causalsat.exceptions import ColumnError, DataError

__all__ = [
    "Encoded",
    "Places",
    "as_chips",
    "check_keep",
    "check_units",
    "distinct_places",
    "centres_of",
    "encode_places",
    "learn_margin",
    "looks_beyond",
    "of_places",
    "read_chips",
    "valid_share",
]


FloatArray = NDArray[np.float64]

COORDINATES = ("east", "north")
MARGIN = 0.1  # of the extent of the training places, around them
HALF_WAVES = {f"wave_e{i}n{s - i}": (i, s - i) for s in (2, 3) for i in range(s + 1)}
WAVES = tuple(HALF_WAVES)
PLACE = COORDINATES + WAVES


def names_of(coordinates: bool | str) -> tuple[str, ...]:
    """Names of the columns that a setting of ``coordinates`` adds."""
    if coordinates == "smooth":
        return PLACE
    return COORDINATES if coordinates else ()


def learn_box(east: FloatArray, north: FloatArray) -> FloatArray:
    """Corner and extent, shape (2, 2), of the box around places, with a margin; an extent of zero becomes one."""
    low = np.array([east.min(), north.min()])
    extent = np.array([np.ptp(east), np.ptp(north)])
    return np.array([low - MARGIN * extent, np.where(extent > 0, (1 + 2 * MARGIN) * extent, 1.0)])


def waves(east: FloatArray, north: FloatArray, box: FloatArray) -> dict[str, FloatArray]:
    """Products of cosines with two or three half waves across the box, of about unit variance over it.

    They are the eigenfunctions of the Laplace operator on the box with free edges, after the constant and the first
    ones, which the coordinates stand for. Outside the box they keep the value of its nearest point.

    Examples
    --------
    >>> box = learn_box(np.array([0.0, 10.0]), np.array([0.0, 10.0]))
    >>> {name: round(float(v[0]), 2) for name, v in waves(np.array([5.0]), np.array([5.0]), box).items()}
    {'wave_e0n2': -1.41, 'wave_e1n1': 0.0, 'wave_e2n0': -1.41, 'wave_e0n3': -0.0, 'wave_e1n2': -0.0, \
'wave_e2n1': -0.0, 'wave_e3n0': -0.0}
    """
    x, y = (np.clip((v - box[0, k]) / box[1, k], 0, 1) for k, v in enumerate((east, north)))
    return {name: np.sqrt(2) * np.cos(np.pi * i * x) * np.cos(np.pi * j * y) for name, (i, j) in HALF_WAVES.items()}


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


_CHIP_BYTES = 64 << 20  # chips read at a time
_WINDOW_BYTES = 64 << 20  # pixels of a dense window
_WINDOW_SIDE = 1536
_WIDE_BYTES = 128 << 20  # the same for encoders that look beyond their chips, surroundings included
_WIDE_SIDE = 2368  # without the surroundings
_WIDE_LEAST = 512
_MARGIN_TRIED, _MARGIN_AREAS = 8, 4  # areas around training places that are read, and on which margins are measured
_DENSE_GAIN = 1.3  # chips' area over the window's from which encoding the window is cheaper


@dataclass(frozen=True)
class Places:
    """Distinct windows of a table of units.

    Attributes
    ----------
    geometry : GeoSeries
        One geometry a place.
    windows : tuple of ndarray of shape (places, 2)
        Upper-left pixel of each place, for each source.
    unit_place : ndarray of shape (units,)
        The place of each unit.
    """

    geometry: Any
    windows: tuple[NDArray[np.int64], ...]
    unit_place: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of places."""
        return len(self.geometry)


@dataclass(frozen=True)
class Encoded:
    """Features of places (places, features), NaN where a place has no valid pixel, and shares of pixels.

    Attributes
    ----------
    features : ndarray of shape (places, features)
    valid : ndarray of shape (places,)
        Shares of valid pixels.
    familiar : ndarray of shape (places,) or None
        Shares of valid pixels like those of the fit, where the encoder knows them.
    """

    features: FloatArray
    valid: FloatArray
    familiar: FloatArray | None = None


def distinct_places(geometry: Any, sources: list[tuple[Any, int]]) -> Places:
    """Find the distinct windows of units on all sources.

    Parameters
    ----------
    geometry : GeoSeries
        One geometry a unit.
    sources : list of (imagery, size in pixels)
    """
    corners = [np.column_stack(imagery.windows(geometry, size)) for imagery, size in sources]
    _, first, inverse = np.unique(np.hstack(corners), axis=0, return_index=True, return_inverse=True)
    return Places(geometry.iloc[first], tuple(c[first].astype(np.int64) for c in corners), inverse.ravel())


def looks_beyond(encoder: Any) -> bool:
    """Whether an encoder's features of a place depend on pixels outside its chip."""
    return bool(getattr(encoder, "halo_px", 0) or getattr(encoder, "looks_beyond", False))


def centres_of(imagery: Any, windows: NDArray[np.int64], size_px: int) -> FloatArray:
    """Longitude and latitude of the centre of each window's middle pixel, shape (n, 2)."""
    import geopandas as gpd

    row, col = (windows + int(size_px) // 2 + 0.5).T
    a, b, c, d, e, f = tuple(imagery.transform)[:6]
    x, y = a * col + b * row + c, d * col + e * row + f
    points = gpd.GeoSeries(gpd.points_from_xy(x, y), crs=imagery.crs).to_crs(4326)
    return np.column_stack([(points.x.to_numpy() + 180) % 360 - 180, points.y.to_numpy()])


def as_chips(imagery: Any, chips: Float32Array, lonlat: FloatArray | None = None) -> Any:
    """Chips (k, [time,] band, y, x) as a DataArray that names bands, days, the pixels' metres and places."""
    import xarray as xr

    dims = ("unit", "band", "y", "x") if chips.ndim == 4 else ("unit", "time", "band", "y", "x")
    coords: dict[str, Any] = {"band": [str(b) for b in imagery.bands]}
    if chips.ndim == 5 and len(imagery.dates) == chips.shape[1]:
        coords["time"] = np.array(imagery.dates, dtype="datetime64[ns]")
    elif chips.ndim == 4 and len(imagery.dates) == 1:
        coords["time"] = np.datetime64(imagery.dates[0], "ns")
    if lonlat is not None:
        coords |= {"lon": ("unit", lonlat[:, 0]), "lat": ("unit", lonlat[:, 1])}
    return xr.DataArray(chips, dims=dims, coords=coords, attrs={"resolution_m": float(imagery.resolution_m)})


def valid_share(chips: Float32Array) -> FloatArray:
    """Share of each chip's pixels (over all dates) that are valid in all bands."""
    valid = np.isfinite(chips).all(axis=-3)
    return valid.reshape(len(chips), -1).mean(axis=1, dtype=np.float64)


def of_places(roles: dict[str, Any], chosen: NDArray[np.int64]) -> dict[str, Any]:
    """Outcome and roles of the units that live at some of the places, ``unit_place`` counted among these."""
    position = np.full(int(max(roles["unit_place"].max(), chosen.max())) + 1, -1, dtype=np.int64)
    position[chosen] = np.arange(len(chosen))
    place = position[roles["unit_place"]]
    units = place >= 0
    values = {name: None if v is None else np.asarray(v)[units] for name, v in roles.items() if name != "unit_place"}
    return {**values, "unit_place": place[units]}


def read_chips(imagery: Any, geometry: Any, size_px: int) -> Iterator[tuple[NDArray[np.int64], Float32Array]]:
    """Chips of places in batches of bounded size, in the order in which the imagery is best read."""
    layers = len(imagery.bands) * max(len(imagery.dates), 1)
    batch = int(np.clip(_CHIP_BYTES // (4 * layers * size_px**2), 1, 256))
    read = getattr(imagery, "iter_chips_ahead", imagery.iter_chips)
    yield from read(geometry, size_px, batch_size=batch)


def encode_places(
    imagery: Any,
    encoder: Any,
    geometry: Any,
    windows: NDArray[np.int64],
    size_px: int,
    *,
    dense: bool | str,
    bar: Any,
    head: Any = None,
    reduction: Any = None,
) -> Encoded:
    """Encode places with a fitted encoder.

    Where windows overlap so much that encoding their surroundings once is cheaper, and the encoder has a method
    ``dense``, the surroundings are read and encoded once and pooled over each window; elsewhere chips are read and
    encoded. Both give the same features. Memory is bounded by tiles and batches, not by the number of places. An
    encoder that looks beyond its chips (``halo_px``) is always given windows with their surroundings.

    Parameters
    ----------
    imagery : Imagery
    encoder : transformer of chips
    geometry : GeoSeries
        One geometry a place.
    windows : ndarray of shape (places, 2)
        Upper-left pixels of the places.
    size_px : int
    dense : {"auto", True, False}
        Whether to take the dense form.
    bar : tqdm
        Progress bar, advanced by places.
    head : LinearHead, optional
        Linear map of the features, for encoders that look beyond their chips: applied before pooling.
    reduction : Reduction, optional
        The same for encoders that apply it before pooling where they are dense; chips' features are reduced after.
    """
    n, halo = len(windows), int(getattr(encoder, "halo_px", 0))
    lonlat = centres_of(imagery, windows, size_px) if getattr(encoder, "reads_places", False) else None
    features: FloatArray | None = None
    valid, familiar, scale = np.zeros(n), np.zeros(n), known_scale(encoder)
    alone = np.ones(n, dtype=bool)

    def store(index: NDArray[np.int64], part: Any, share: FloatArray, known: FloatArray) -> None:
        nonlocal features
        part = feature_array(part)
        if features is None:
            features = np.full((n, part.shape[1]), np.nan)
        features[index], valid[index], familiar[index] = part, share, known
        bar.update(len(index))

    if looks_beyond(encoder):
        for index in _wide_tiles(windows, imagery, size_px, halo):
            store(index, *_encode_window(imagery, encoder, windows[index], size_px, halo, head))
        alone[:] = False
    elif dense and hasattr(encoder, "dense"):
        for index in _tiles(windows, _tile_side(imagery, size_px)):
            if dense == "auto" and not _worthwhile(windows[index], size_px):
                continue
            alone[index] = False
            where = None if lonlat is None else lonlat[index]
            own = None if reduction is None else LinearHead(reduction.mean, reduction.weight)
            store(index, *_encode_window(imagery, encoder, windows[index], size_px, head=own, lonlat=where))
    if alone.any():
        rest = np.flatnonzero(alone)
        for position, chips in read_chips(imagery, geometry.iloc[rest], size_px):
            where = None if lonlat is None else lonlat[rest[position]]
            part, share = feature_array(encoder.transform(as_chips(imagery, chips, where))), valid_share(chips)
            part = part if reduction is None else reduction.apply_known(part)
            store(rest[position], part, share, share if scale is None else familiar_shares(scale, chips))
    if features is None:
        raise DataError("no places to encode", expected="at least one unit")
    return Encoded(features, valid, None if scale is None else familiar)


def learn_margin(imagery: Any, encoder: Any, windows: NDArray[np.int64], size_px: int) -> None:
    """Let an encoder of overlapping windows measure its margin around a few of the training places.

    The areas are one and a half windows wide, around places that are spread over all; those with the most valid
    pixels count.
    """
    if not encoder.margin_window_px:
        return
    side = int(encoder.margin_window_px) * 3 // 2
    spread = np.unique(np.linspace(0, len(windows) - 1, _MARGIN_TRIED).astype(np.int64))
    corners = windows[spread] + int(size_px) // 2 - side // 2
    areas = [np.asarray(imagery.read_window(int(r), int(c), side, side)) for r, c in corners]
    valid = np.array([np.isfinite(area).all(axis=-3).mean() for area in areas])
    best = np.argsort(-valid, kind="stable")[:_MARGIN_AREAS]
    encoder.learn_margin(np.stack([areas[k] for k in np.sort(best)]))


def _tile_side(imagery: Any, size_px: int) -> int:
    """Side of tiles such that a tile's window stays within its memory."""
    layers = len(imagery.bands) * max(len(imagery.dates), 1)
    window = min(_WINDOW_SIDE, int(np.sqrt(_WINDOW_BYTES / (4 * layers))))
    return max(window - size_px, size_px)


def _tiles(windows: NDArray[np.int64], side: int | NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Groups of places whose upper-left pixels lie in the same tile."""
    tile = (windows - windows.min(axis=0)) // side
    _, label = np.unique(tile, axis=0, return_inverse=True)
    order = np.argsort(label.ravel(), kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(label.ravel()[order])) + 1)


def _wide_tiles(windows: NDArray[np.int64], imagery: Any, size_px: int, halo: int) -> Iterator[NDArray[np.int64]]:
    """Groups of places to encode together with their surroundings: tiles of even size, lone places by themselves."""
    layers = len(imagery.bands) * max(len(imagery.dates), 1)
    most = min(_WIDE_SIDE, int(np.sqrt(_WIDE_BYTES / (4 * layers))) - 2 * halo)
    extent = np.ptp(windows, axis=0) + size_px
    side = -(-extent // -(-extent // max(most, size_px, _WIDE_LEAST)))
    for index in _tiles(windows, side):
        if _worthwhile(windows[index], size_px + 2 * halo):
            yield index
        else:
            yield from index[:, None]


def _worthwhile(windows: NDArray[np.int64], size_px: int) -> bool:
    """Whether the chips cover much more than the window that holds them all."""
    height, width = windows.max(axis=0) - windows.min(axis=0) + size_px
    return len(windows) * size_px**2 > _DENSE_GAIN * float(height) * float(width)


def _encode_window(
    imagery: Any,
    encoder: Any,
    windows: NDArray[np.int64],
    size_px: int,
    halo: int = 0,
    head: Any = None,
    lonlat: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Features and shares of valid and of familiar pixels of places, from a window of them and their surroundings."""
    lattice = int(getattr(encoder, "lattice_px", 1))
    corner = windows.min(axis=0) // lattice * lattice - halo
    end = -(-(windows.max(axis=0) + size_px) // lattice) * lattice + halo
    pixels = imagery.read_window(*(int(v) for v in (*corner, *(end - corner))))
    rows, cols = (windows - corner).T
    share = valid_shares(pixels, rows, cols, size_px)
    window = as_chips(imagery, pixels[None])[0] if getattr(encoder, "reads_dates", False) else pixels
    more = {name: value for name, value in (("head", head), ("lonlat", lonlat)) if value is not None}
    known, scale = share, known_scale(encoder)
    if scale is not None:
        known = true_shares(familiar_pixels(scale, pixels), rows, cols, size_px)
    return encoder.dense(window, rows, cols, size_px, **more), share, known
