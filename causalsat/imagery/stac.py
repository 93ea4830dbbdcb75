"""STAC catalogues, static on disk or behind an API (extra ``stac``)."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causalsat.exceptions import ImageryError, ImageryNotFoundError
from causalsat.imagery.arrays import GriddedImagery, canonical, describe
from causalsat.imagery.dates import as_day, first_day
from causalsat.imagery.masks import mask_rule

if TYPE_CHECKING:
    import xarray

__all__ = ["StacImagery", "open_stac"]

_LOADED: dict[Any, Any] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class StacImagery(GriddedImagery):
    """Items of a STAC catalogue on one grid. Use :func:`causalsat.open_imagery` or :func:`open_stac` to make one.

    Attributes
    ----------
    items : tuple of str
        The items as JSON, with absolute addresses.
    load_options : str
        Options of ``odc.stac.load`` as JSON.
    """

    items: tuple[str, ...] = ()
    load_options: str = "{}"

    def array(self) -> xarray.DataArray:
        """The lazy array, made once in each process."""
        key = (os.getpid(), self.items, self.load_options)
        with _LOCK:
            if key not in _LOADED:
                _LOADED[key] = _load(self.items, self.load_options)
            return _LOADED[key]  # type: ignore[no-any-return]

    def fingerprint(self) -> dict[str, Any]:
        """Settings and a hash of the items."""
        digest = hashlib.sha256("".join(self.items).encode()).hexdigest()
        return {**self._settings(), "items": digest, "load": self.load_options}


def open_stac(
    source: str | os.PathLike[str],
    *,
    bands: Any = None,
    dates: Any = None,
    crs: Any = None,
    resolution: float | None = None,
    collections: list[str] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    query: dict[str, Any] | None = None,
    groupby: str = "solar_day",
    chunk_px: int = 1024,
    nodata: float | None = None,
    scale: Any = 1.0,
    offset: Any = 0.0,
    mask: Any = None,
    name: str | None = None,
) -> StacImagery:
    """Open the items of a STAC catalogue as a sequence of images.

    Parameters
    ----------
    source : path or URL
        A static catalogue, collection or item collection (JSON), its folder, or the URL of an API.
    bands : sequence of str or mapping, optional
        Assets to load.
    dates : slice of dates or one date, optional
        Which items: ``slice("2015", "2016-06")`` holds both ends.
    crs, resolution : optional
        Grid to load on; default: that of the items, which then must say it (projection extension).
    collections, bbox, query : optional
        Search of an API; collections and bbox (lon, lat) also select from a static catalogue.
    groupby : str, default "solar_day"
        How items are joined into images; see ``odc.stac.load``.
    chunk_px : int, default 1024
        Side of what is read at a time.
    nodata, scale, offset, mask, name
        As in :func:`causalsat.open_imagery`.

    Returns
    -------
    StacImagery

    Raises
    ------
    ImageryError
        The catalogue cannot be read, nothing fits, or the grid is not known.
    """
    text = os.fspath(source)
    items = _search(text, collections, bbox, query)
    items = _between(items, dates)
    if not items:
        raise ImageryNotFoundError(f"no item of {text} fits", todo="widen dates=, bbox= or collections=")
    rule = mask_rule(mask)
    wanted = list(bands.values()) if hasattr(bands, "values") else ([bands] if isinstance(bands, str) else bands)
    if wanted is not None and rule is not None and rule.band not in wanted:
        wanted = [*wanted, rule.band]
    options = {
        "bands": wanted,
        "crs": None if crs is None else str(crs),
        "resolution": resolution,
        "groupby": groupby,
        "chunks": {"x": chunk_px, "y": chunk_px},
        "bbox": None if bbox is None else list(bbox),
        "nodata": nodata,
    }
    encoded = tuple(json.dumps(item.to_dict(), sort_keys=True, default=str) for item in items)
    settings = json.dumps({key: value for key, value in options.items() if value is not None}, sort_keys=True)
    data = _load(encoded, settings)
    described = describe(data, text, bands, None, crs, nodata, scale, offset, rule)
    return StacImagery(name=name or "stac", items=encoded, load_options=settings, **described)


def _search(text: str, collections: list[str] | None, bbox: Any, query: dict[str, Any] | None) -> list[Any]:
    """The items of a static catalogue or an API."""
    try:
        import odc.stac  # noqa: F401
        import pystac
    except ImportError as error:
        raise ImageryError(
            f"{text} is a STAC catalogue and odc-stac is not installed", todo="pip install causalsat[stac]"
        ) from error
    if text.startswith(("http://", "https://")) and not text.endswith(".json"):
        import pystac_client

        client = pystac_client.Client.open(text)
        return list(client.search(collections=collections, bbox=bbox, query=query).items())
    for file in ("catalog.json", "collection.json"):
        if os.path.isfile(os.path.join(text, file)):
            text = os.path.join(text, file)
    if "://" not in text and not os.path.exists(text):
        raise ImageryNotFoundError(f"no such STAC catalogue: {text}", todo="check the path")
    try:
        with open(text, encoding="utf-8") as opened:
            kind = json.load(opened).get("type")
        if kind == "FeatureCollection":
            items = list(pystac.ItemCollection.from_file(text))
        elif kind == "Feature":
            items = [pystac.Item.from_file(text)]
        else:
            items = list(pystac.Catalog.from_file(text).get_items(recursive=True))
    except (ValueError, TypeError, AttributeError, KeyError, pystac.STACError, pystac.STACTypeError) as error:
        raise ImageryError(
            f"{text} cannot be read as STAC ({error})", expected="a catalogue, collection or items"
        ) from error
    for item in items:
        item.make_asset_hrefs_absolute()
    inside = [item for item in items if not collections or item.collection_id in collections]
    return [item for item in inside if bbox is None or item.bbox is None or _overlap(item.bbox, bbox)]


def _overlap(a: Any, b: Any) -> bool:
    return bool(a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3])


def _between(items: list[Any], dates: Any) -> list[Any]:
    if dates is None:
        return items
    start, stop = (dates.start, dates.stop) if isinstance(dates, slice) else (dates, dates)
    low = "" if start is None else first_day(start)
    high = "9999" if stop is None else as_day(stop)
    return [item for item in items if item.datetime is not None and low <= item.datetime.date().isoformat() <= high]


def _load(items: tuple[str, ...], options: str) -> xarray.DataArray:
    """The canonical lazy array of the items."""
    import odc.stac
    import pystac

    parsed = [pystac.Item.from_dict(json.loads(text)) for text in items]
    try:
        data = odc.stac.load(parsed, **json.loads(options))
    except ValueError as error:
        raise ImageryError(
            f"the STAC items cannot be put on a grid ({error})",
            expected="items that say their CRS and resolution, or bands among their assets",
            todo='pass crs= and resolution= (for example crs="EPSG:32636", resolution=10), and check bands=',
        ) from error
    names = [str(key) for key in data.data_vars]
    fills = {data[key].attrs.get("nodata") for key in names}
    array = data[names].to_dataarray("band")
    if len(fills) == 1 and None not in fills:
        array = array.rio.write_nodata(fills.pop())
    return canonical(array, "stac")
