"""One way in for all sources: :func:`open_imagery`."""

from __future__ import annotations

import os
from numbers import Real
from pathlib import Path
from typing import Any

from causalsat.exceptions import ImageryError, ParameterError
from causalsat.imagery.arrays import open_array, open_zarr
from causalsat.imagery.base import Imagery
from causalsat.imagery.dates import day_in_name
from causalsat.imagery.raster import open_raster
from causalsat.imagery.sequence import open_mosaics, open_sequence
from causalsat.imagery.stac import open_stac

__all__ = ["kind_of", "open_imagery", "single_date"]


def open_imagery(
    source: Any,
    *,
    bands: Any = None,
    dates: Any = None,
    date_regex: str | None = None,
    crs: Any = None,
    nodata: float | None = None,
    scale: Any = None,
    offset: Any = None,
    mask: Any = None,
    name: str | None = None,
    mosaic: bool = False,
    network: bool = False,
    **options: Any,
) -> Imagery:
    r"""Open imagery: a raster file, dated scenes, an array, a Zarr store or a STAC catalogue.

    Parameters
    ----------
    source : path, glob, list of paths, xarray.DataArray, xarray.Dataset or Imagery
        A raster file that GDAL reads, also a subdataset by its name; a folder, glob or list of dated scenes on one
        grid, which become a sequence; a DataArray, or a Dataset of one variable for each band, with a CRS
        (``rio.write_crs``); a folder ending in ``.zarr``; a STAC catalogue (``catalog.json`` or a URL). An
        :class:`Imagery` is returned as it is.
    bands : sequence of str or int, or mapping, optional
        Names or numbers (from 1) to select; a mapping from new names to names or numbers; for files that name no
        band, one name for each. Default: all but alpha and quality bands.
    dates : date or sequence of dates, optional
        Day of the image, or of each file in the order of the sorted names. A month or a year stands for its last
        day; days and months are in ISO's order (2016-07-03).
    date_regex : str, optional
        How to find the date in the names of the scenes, such as ``r"_(\d{8})_"``; see
        ``causalsat.imagery.dates.day_in_name``.
    crs : str, optional
        CRS of a raster that does not say its own.
    nodata : float, optional
        Nodata value, instead of the file's. Without it, pixels are invalid where GDAL's masks say so: by a mask or
        alpha band, by a mask of each band, or by the nodata value of each band.
    scale, offset : float or sequence of float, optional
        Pixels become ``value * scale + offset``: one number, one for each band, one row of these a date, or a mapping
        from the day on which one begins to hold. ``scale="file"`` takes what the file states itself. Without them, a
        scale or an offset that the file states is not applied, which is warned of; ``scale=1`` says that this is
        meant. Others than those that the file states are refused.
    mask : str or mapping, optional
        Pixels to leave out by a quality band: ``"sentinel2-scl"``, ``"landsat-qa"`` or a mapping such as
        ``{"band": "SCL", "invalid": [0, 1, 3, 8, 9, 10, 11]}`` or ``{"band": "QA_PIXEL", "bits": [3, 4]}``.
    name : str, optional
        What messages and results call it; default: from the path.
    mosaic : bool, default False
        Join adjacent files, whose pixels coincide, into one image, or into one for each date: where they overlap, the
        first in the order of their names that is valid.
    network : bool, default False
        Whether an address on the net, or one that a file names, may be asked. Nothing is fetched without it.
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
    if nodata is not None and (isinstance(nodata, bool) or not isinstance(nodata, Real)):
        raise ParameterError(f"nodata={nodata!r}", expected="a number")
    settings: dict[str, Any] = {
        "bands": bands, "crs": crs, "nodata": nodata, "scale": scale, "offset": offset, "mask": mask, "name": name
    }  # fmt: skip
    kind = kind_of(source)
    if mosaic and kind not in ("file", "sequence"):
        raise ImageryError(f"mosaic=True for {source!r}"[:200], expected="raster files")
    if kind == "zarr":
        return open_zarr(source, dates=dates, network=network, **settings, **options)
    if kind == "stac":
        return open_stac(source, dates=dates, network=network, **settings, **options)
    if options:
        raise ImageryError(
            f"open_imagery has no option {sorted(options)} for {source!r}", todo="see help(open_imagery)"
        )
    if kind == "array":
        return open_array(source, dates=dates, **settings)
    if kind == "file" and not mosaic:
        if dates is None and date_regex:
            dates = day_in_name(Path(os.fspath(source)).name, date_regex)
        return open_raster(source, date=single_date(dates), network=network, **settings)
    open_files = open_mosaics if mosaic else open_sequence
    files = [source] if kind == "file" else source
    return open_files(files, dates=dates, date_regex=date_regex, network=network, **settings)


def single_date(dates: Any) -> Any:
    """The date of a single file."""
    if isinstance(dates, list | tuple):
        if len(dates) != 1:
            raise ImageryError(f"{len(dates)} dates for one file", expected="one date")
        return dates[0]
    return dates


def kind_of(source: Any) -> str:
    """What a source is: "zarr", "stac", "array", "sequence" or "file".

    Raises
    ------
    ImageryError
        It is none of these.
    """
    if isinstance(source, list | tuple):
        other = next((item for item in source if not isinstance(item, str | os.PathLike)), None)
        if other is not None:
            raise ImageryError(
                f"source is a list with a {type(other).__name__}",
                expected="a list of paths",
                todo="STAC items: write them to a file (pystac.ItemCollection(items).save_object) and pass its path",
            )
        return "sequence"
    if hasattr(source, "dims") and (hasattr(source, "transpose") or hasattr(source, "data_vars")):
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


_ZARR = ("zarr.json", ".zgroup", ".zmetadata", ".zarray")
_STAC = ("catalog.json", "collection.json")
