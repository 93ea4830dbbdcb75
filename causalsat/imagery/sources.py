"""One door for all sources: :func:`open_imagery`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from causalsat.exceptions import ImageryError
from causalsat.imagery.base import Imagery

__all__ = ["open_imagery"]


def open_imagery(
    source: Any,
    *,
    bands: Any = None,
    dates: Any = None,
    date_regex: str | None = None,
    crs: Any = None,
    nodata: float | None = None,
    scale: Any = 1.0,
    offset: Any = 0.0,
    mask: Any = None,
    name: str | None = None,
    **options: Any,
) -> Imagery:
    r"""Open imagery: a raster file, dated scenes, an array, a Zarr store or a STAC catalogue.

    Parameters
    ----------
    source : path, glob, list of paths, xarray.DataArray or Imagery
        A raster file that GDAL reads; a folder, glob or list of dated scenes on one grid, which become a sequence; a
        DataArray with a CRS (``rio.write_crs``); a folder ending in ``.zarr``; a STAC catalogue (``catalog.json``
        or a URL). An :class:`Imagery` is returned as it is.
    bands : sequence of str or int, or mapping, optional
        Names or numbers (from 1) to select; a mapping from new names to names or numbers; for files that name no
        band, one name for each. Default: all but alpha and quality bands.
    dates : date or sequence of dates, optional
        Day of the image, or of each file in the order of the sorted names. A month or a year stands for its last day.
    date_regex : str, optional
        How to find the date in the names of the scenes, such as ``r"_(\d{8})_"``; see
        ``causalsat.imagery.dates.day_in_name``.
    crs : str, optional
        CRS of a raster that does not say its own.
    nodata : float, optional
        Nodata value, instead of the file's.
    scale, offset : float or sequence of float, default 1.0 and 0.0
        Pixels become ``value * scale + offset``; one number or one for each band. A scale and an offset that the
        file states itself are not applied, which is warned of.
    mask : str or mapping, optional
        Pixels to leave out by a quality band: ``"sentinel2-scl"``, ``"landsat-qa"`` or a mapping such as
        ``{"band": "SCL", "invalid": [0, 1, 3, 8, 9, 10, 11]}`` or ``{"band": "QA_PIXEL", "bits": [3, 4]}``.
    name : str, optional
        What messages and results call it; default: from the path.
    **options
        For Zarr ``variable=``; for STAC those of :func:`causalsat.imagery.open_stac`.

    Returns
    -------
    Imagery

    Raises
    ------
    ImageryError
        The source cannot be used; the message says why and what to do.
    ImageryNotFoundError
        It does not exist.

    Examples
    --------
    >>> import numpy as np, rioxarray, xarray
    >>> array = xarray.DataArray(
    ...     np.zeros((2, 40, 50)),
    ...     dims=("band", "y", "x"),
    ...     coords={"band": ["red", "nir"], "y": 1e5 - 10 * np.arange(40), "x": 5e5 + 10 * np.arange(50)},
    ... ).rio.write_crs("EPSG:32636")
    >>> open_imagery(array, name="scene")
    <ArrayImagery scene: 40 x 50 pixels of 10 m, EPSG:32636, bands red, nir>
    """
    if isinstance(source, Imagery):
        return source
    settings: dict[str, Any] = {
        "bands": bands, "crs": crs, "nodata": nodata, "scale": scale, "offset": offset, "mask": mask, "name": name
    }  # fmt: skip
    kind = _kind(source)
    if kind == "zarr":
        from causalsat.imagery.arrays import open_zarr

        return open_zarr(source, dates=dates, **settings, **options)
    if kind == "stac":
        from causalsat.imagery.stac import open_stac

        return open_stac(source, dates=dates, **settings, **options)
    if options:
        raise ImageryError(
            f"open_imagery has no option {sorted(options)} for {source!r}", todo="see help(open_imagery)"
        )
    if kind == "array":
        from causalsat.imagery.arrays import open_array

        return open_array(source, dates=dates, **settings)
    if kind == "file":
        from causalsat.imagery.dates import day_in_name
        from causalsat.imagery.raster import open_raster

        if dates is None and date_regex:
            dates = day_in_name(Path(os.fspath(source)).name, date_regex)
        return open_raster(source, date=_one(dates), **settings)
    from causalsat.imagery.sequence import open_sequence

    return open_sequence(source, dates=dates, date_regex=date_regex, **settings)


def _one(dates: Any) -> Any:
    """The date of a single file."""
    if isinstance(dates, list | tuple):
        if len(dates) != 1:
            raise ImageryError(f"{len(dates)} dates for one file", expected="one date")
        return dates[0]
    return dates


def _kind(source: Any) -> str:
    if isinstance(source, list | tuple):
        return "sequence"
    if hasattr(source, "dims") and hasattr(source, "transpose"):
        if hasattr(source, "data_vars"):
            raise ImageryError("source is an xarray.Dataset", todo='pass dataset.to_dataarray("band")')
        return "array"
    if not isinstance(source, str | os.PathLike):
        raise ImageryError(
            f"source is a {type(source).__name__}",
            expected="a path, a glob, a list of paths or an xarray.DataArray",
            todo="wrap an array with xarray.DataArray and rio.write_crs",
        )
    text = os.fspath(source)
    path = Path(text)
    if text.rstrip("/").endswith(".zarr") or (path.is_dir() and any((path / key).exists() for key in _ZARR)):
        return "zarr"
    if path.suffix == ".json" or any((path / key).exists() for key in _STAC):
        return "stac"
    if text.startswith(("http://", "https://")) and not path.suffix:
        return "stac"
    if path.is_dir() or (not path.exists() and any(mark in text for mark in "*?[")):
        return "sequence"
    return "file"


_ZARR = ("zarr.json", ".zgroup", ".zmetadata")
_STAC = ("catalog.json", "collection.json")
