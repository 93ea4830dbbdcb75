"""Items of STAC catalogues: reading them from files or an API, their days, their assets and what those state.

Links are followed downwards only (to children and items), so that a catalogue on disk whose root lies on the net asks
nothing of it. What is read is the JSON of STAC 0.9 to 1.1 itself.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlparse

from causalsat.exceptions import ImageryError, ImageryNotFoundError
from causalsat.imagery.dates import as_day
from causalsat.imagery.encoded import Stated
from causalsat.imagery.files import is_remote
from causalsat.imagery.network import check_text

__all__ = ["Asset", "Item", "read_items", "search_items"]

_MAX_ITEMS = 100_000
_NO_IMAGE = {"thumbnail", "overview", "metadata", "visual-thumbnail"}
_RASTER_TYPES = ("image/tiff", "geotiff", "image/jp2", "image/vnd.stac.geotiff", "netcdf", "vrt", "x-hdf")
_RASTER_ENDINGS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".nc")


@dataclass(frozen=True)
class Asset:
    """A file of an item.

    Attributes
    ----------
    key : str
        Its name in the item.
    href : str
        Path or address, absolute.
    is_image : bool
        Whether it seems to hold pixels to be used.
    names, common_names : tuple of (str or None)
        Names of its bands; empty where the item does not say.
    stated : tuple of Stated
        Nodata value, scale and offset of its bands; empty where the item does not say.
    crs : object or None
        CRS that the item states: what pyproj reads.
    transform, shape : tuple or None
        Transform (six numbers) and (rows, columns) that the item states.
    """

    key: str
    href: str
    is_image: bool
    names: tuple[str | None, ...] = ()
    common_names: tuple[str | None, ...] = ()
    stated: tuple[Stated, ...] = ()
    crs: Any = None
    transform: tuple[float, ...] | None = None
    shape: tuple[int, int] | None = None


@dataclass(frozen=True)
class Item:
    """An item.

    Attributes
    ----------
    id, collection : str
    moment : datetime.datetime
        When it was taken, in UTC; the end of a period.
    bbox : tuple of float or None
        West, south, east, north.
    properties : mapping
    assets : dict of str to Asset
    """

    id: str
    collection: str
    moment: datetime.datetime
    bbox: tuple[float, ...] | None
    properties: Mapping[str, Any]
    assets: Mapping[str, Asset]

    @property
    def solar_day(self) -> str:
        """ISO day at the longitude of the item's middle."""
        west, _, east, _ = self.bbox or (0.0, 0.0, 0.0, 0.0)
        return as_day((self.moment + datetime.timedelta(hours=(west + east) / 30)).date())


def search_items(address: str, collections: list[str] | None, bbox: Any, query: dict[str, Any] | None) -> list[Item]:
    """The items that an API finds."""
    try:
        import pystac_client
    except ImportError as error:
        raise ImageryError(
            f"{address} is a STAC API and pystac-client is not installed", todo="pip install causalsat[stac]"
        ) from error
    client = pystac_client.Client.open(address)
    found = client.search(collections=collections, bbox=bbox, query=query).items_as_dicts()
    return [_item(item, address, address) for item in found]


def read_items(path: str, network: bool) -> list[Item]:
    """The items of a catalogue, a collection, an item collection or a single item, and of all below it.

    Parameters
    ----------
    path : str
        A JSON file, its folder, or an address of one.
    network : bool
        Whether links on the net may be followed.

    Raises
    ------
    ImageryNotFoundError
        There is no such file.
    ImageryError
        It is no STAC, or names files on the net, which are not to be fetched.
    """
    for file in ("catalog.json", "collection.json"):
        if os.path.isfile(os.path.join(path, file)):
            path = os.path.join(path, file)
    if not is_remote(path) and not os.path.exists(path):
        raise ImageryNotFoundError(f"no such STAC catalogue: {path}", todo="check the path")
    found = []
    for content, where in _walk(path, path, network, set()):
        found.append(_item(content, where, path))
        if len(found) > _MAX_ITEMS:
            raise ImageryError(f"{path} holds more than {_MAX_ITEMS:,} items", todo="take a part of the catalogue")
    return found


def _walk(where: str, origin: str, network: bool, seen: set[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Items as JSON, each with the path that its relative addresses start from."""
    if where in seen:
        return
    seen.add(where)
    content = _json(where, origin, network)
    kind = content.get("type")
    if kind == "FeatureCollection" or "features" in content:
        for feature in content.get("features") or []:
            yield feature, where
    elif kind == "Feature" or ("assets" in content and "properties" in content):
        yield content, where
    elif kind in ("Catalog", "Collection") or (kind is None and "links" in content and "id" in content):
        for link in content.get("links") or []:
            if isinstance(link, dict) and link.get("rel") in ("child", "item") and link.get("href"):
                yield from _walk(_absolute(link["href"], where), origin, network, seen)
    else:
        raise ImageryError(
            f"{where} cannot be read as STAC (its type is {kind!r})", expected="a catalogue, collection or items"
        )


def _json(where: str, origin: str, network: bool) -> dict[str, Any]:
    if is_remote(where) and not network and where != origin:
        raise ImageryError(
            f"{origin} names catalogues or items on the net ({where[:200]})",
            expected="local files: nothing is fetched unless it is asked for",
            todo="pass network=True to read them from there",
        )
    check_text(where, network)
    try:
        if is_remote(where):
            from urllib.request import urlopen

            with urlopen(where, timeout=60) as answer:
                content = json.loads(answer.read())
        else:
            with open(where, encoding="utf-8") as opened:
                content = json.load(opened)
    except (OSError, ValueError) as error:
        raise ImageryError(
            f"{where} cannot be read as STAC ({error})" + ("" if where == origin else f"; {origin} names it"),
            expected="a catalogue, collection or items",
        ) from error
    if not isinstance(content, dict):
        raise ImageryError(f"{where} cannot be read as STAC", expected="a catalogue, collection or items")
    return content


def _absolute(href: str, where: str) -> str:
    """A path or address as seen from the file that holds it."""
    if is_remote(href) or href.startswith("/"):
        return href
    if href.lower().startswith("file://"):
        return unquote(urlparse(href).path)
    if is_remote(where):
        return urljoin(where, href)
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(where)), href))


def _item(content: Any, where: str, origin: str) -> Item:
    """An item of its JSON."""
    try:
        properties = content["properties"] or {}
        name = str(content["id"])
        assets = {key: _asset(key, asset, properties, where) for key, asset in (content.get("assets") or {}).items()}
        bbox = content.get("bbox")
        if bbox is not None:
            bbox = tuple(float(v) for v in (bbox if len(bbox) == 4 else (bbox[0], bbox[1], bbox[3], bbox[4])))
        return Item(name, str(content.get("collection") or ""), _moment(properties, name), bbox, properties, assets)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ImageryError(
            f"an item in {where} cannot be read as STAC ({type(error).__name__}: {error})",
            expected="an item with id, properties and assets",
        ) from error


def _moment(properties: Mapping[str, Any], name: str) -> datetime.datetime:
    """The end of the period that an item shows."""
    texts = [properties.get(key) for key in ("end_datetime", "datetime", "start_datetime")]
    moments = [_utc(text) for text in texts if text]
    if not moments:
        raise ImageryError(
            f"the STAC item {name} has no date", expected="datetime, or start_datetime and end_datetime"
        )
    return max(moments)


def _utc(text: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
    return (
        moment.replace(tzinfo=None) if moment.tzinfo is None else moment.astimezone(datetime.UTC).replace(tzinfo=None)
    )


def _asset(key: str, asset: Mapping[str, Any], properties: Mapping[str, Any], where: str) -> Asset:
    bands = _bands(asset)
    media, roles = str(asset.get("type") or "").lower(), set(asset.get("roles") or ())
    href = _absolute(str(asset["href"]), where)
    raster = any(word in media for word in _RASTER_TYPES) if media else href.lower().endswith(_RASTER_ENDINGS)
    projection = {k: asset.get(k, properties.get(k)) for k in _PROJECTION}
    transform, shape = projection["proj:transform"], projection["proj:shape"]
    return Asset(
        key,
        href,
        raster and not roles & _NO_IMAGE,
        tuple(_text(band.get("name")) for band in bands),
        tuple(_text(band.get("eo:common_name") or band.get("common_name")) for band in bands),
        _stated(asset, bands),
        _crs(projection),
        None if transform is None else tuple(float(v) for v in transform[:6]),
        None if shape is None else (int(shape[0]), int(shape[1])),
    )


_CLASSES = ("classification:classes", "classification:bitfields")
_PROJECTION = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson", "proj:transform", "proj:shape")


def _crs(projection: Mapping[str, Any]) -> Any:
    if projection["proj:code"]:
        return projection["proj:code"]
    if projection["proj:epsg"]:
        return f"EPSG:{projection['proj:epsg']}"
    return projection["proj:wkt2"] or projection["proj:projjson"]


def _bands(asset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everything that an asset says of each of its bands: of STAC 1.1, or of the extensions eo and raster."""
    lists = [asset.get(key) for key in ("bands", "eo:bands", "raster:bands")]
    usable = [[band for band in entry if isinstance(band, dict)] for entry in lists if isinstance(entry, list)]
    count = max((len(entry) for entry in usable), default=0)
    merged: list[dict[str, Any]] = [{} for _ in range(count)]
    for entry in usable:
        if len(entry) == count:
            for band, said in zip(merged, entry, strict=True):
                band.update(said)
    return merged


def _stated(asset: Mapping[str, Any], bands: list[dict[str, Any]]) -> tuple[Stated, ...]:
    keys = ("nodata", "scale", "offset", "raster:scale", "raster:offset", *_CLASSES)
    common = {key: asset[key] for key in keys if asset.get(key) is not None}
    each = [{**common, **band} for band in bands] or ([common] if common else [])
    return tuple(
        Stated(
            _nodata(band.get("nodata")),
            scale=float(band.get("raster:scale", band.get("scale")) or 1.0),
            offset=float(band.get("raster:offset", band.get("offset")) or 0.0),
            classes=any(band.get(key) for key in _CLASSES),
        )
        for band in each
    )


def _nodata(value: Any) -> tuple[float, ...]:
    """A nodata value, which STAC also writes as a text: "nan", "inf", "-inf"."""
    if value is None:
        return ()
    number = float(value)
    return () if number != number else (number,)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
