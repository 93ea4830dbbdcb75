"""STAC catalogues, static on disk or behind an API, as a sequence of images."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from causalsat.core.warn import warn
from causalsat.exceptions import ImageryError, ImageryNotFoundError, ImageryWarning
from causalsat.imagery.dates import as_day, check_order, first_day
from causalsat.imagery.encoded import Stated
from causalsat.imagery.files import is_remote
from causalsat.imagery.grid import Grid, make_grid, project_bounds, union_grid
from causalsat.imagery.handles import new_operation, opened
from causalsat.imagery.layers import (
    check_stated,
    check_unique,
    dated_rows,
    per_band,
    resolve_gain,
    states_gain,
    tell_of_classes,
)
from causalsat.imagery.masks import MaskRule, mask_rule
from causalsat.imagery.mosaic import Files, open_mosaic
from causalsat.imagery.network import check_text
from causalsat.imagery.raster import RasterImagery, hidden_bands, open_raster, own_gain
from causalsat.imagery.sequence import SequenceImagery
from causalsat.imagery.stac_items import Asset, Item, read_items, search_items

__all__ = ["StacImagery", "open_stac"]


@dataclass(frozen=True, kw_only=True, repr=False)
class StacImagery(SequenceImagery):
    """Items of a STAC catalogue on one grid, one mosaic a date. Use :func:`causalsat.open_imagery` to make one."""


@dataclass(frozen=True)
class BandChoice:
    """Which band of which asset is read, and what it is called.

    Attributes
    ----------
    name, key : str
        What it is called, and its asset.
    index : int
        Its number in the file, from 1.
    position : int
        Its position among what the item states of the asset's bands.
    stated, described : str or None
        What the first item calls it, and the description of the band in its file.
    """

    name: str
    key: str
    index: int
    position: int
    stated: str | None = None
    described: str | None = None


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
    nodata: float | None = None,
    scale: Any = None,
    offset: Any = None,
    mask: Any = None,
    name: str | None = None,
    network: bool = False,
) -> StacImagery:
    """Open the items of a STAC catalogue as a sequence of images.

    Pixels are invalid where GDAL's masks of the files say so, and where they have the nodata value that the item
    states. Where items overlap, a pixel is that of the first in time that is valid. Files on other grids than the
    common one are read at the nearest pixel.

    Parameters
    ----------
    source : path or URL
        A static catalogue, collection or item collection (JSON), its folder, or the URL of an API (extra ``stac``).
    bands : sequence of str or mapping, optional
        Assets to load, or names or common names of bands; a mapping from new names to these. Default: every asset of
        pixels that all items have.
    dates : slice of dates or one date, optional
        Which items: ``slice("2015", "2016-06")`` holds both ends. An item of a period has the date of its end.
    crs, resolution : optional
        Grid to load on; default: that of the files, with the smallest of their pixels.
    collections, bbox, query : optional
        Search of an API; collections and bbox (lon, lat) also select from a static catalogue. The grid is cut to
        the bbox.
    groupby : str, default "solar_day"
        Which items are joined into an image: those of one ``"solar_day"``, of one ``"time"``, none (``"id"``), or
        those with one value of a property.
    nodata, scale, offset, mask, name, network
        As in :func:`causalsat.open_imagery`. ``scale="file"`` takes what the items state.

    Returns
    -------
    StacImagery

    Raises
    ------
    ImageryError
        The catalogue cannot be read, nothing fits, the grid is not known, or items state different scales.

    Warns
    -----
    ImageryWarning
        Items state a scale or an offset that is not applied, or are of processing baselines that differ by an offset.
    """
    new_operation()
    text = os.fspath(source)
    items = _between(_fitting(_read(text, collections, bbox, query, network), collections, bbox), dates)
    if not items:
        raise ImageryNotFoundError(f"no item of {text} fits", todo="widen dates=, bbox= or collections=")
    groups = _groups(items, groupby)
    rule = mask_rule(mask)
    if rule is not None and rule.replace is not None:
        raise ImageryError(f"{text}: mask replace= is for files", todo="name the asset of the quality band: band=")
    ordered = [item for _, group in groups for item in group]
    days = [day for day, group in groups for _ in group]
    choices = _choices(ordered, bands, network, rule)
    coded = [choice.name for choice in choices if _stated(ordered[0].assets[choice.key], choice).classes]
    tell_of_classes(coded, f"the STAC items of {text}")
    templates: dict[str, RasterImagery] = {}
    files = [_files_of(item, choices, templates, nodata, network) for item in ordered]
    files = _scaled(ordered, choices, files, days, scale, offset)
    grid = _target_grid(text, [file for own in files for file in own], crs, resolution, bbox)
    if rule is not None:
        files = [(*own, _quality(item, rule, network)) for item, own in zip(ordered, files, strict=True)]
    each = iter(files)
    label = name or "stac"
    scenes = tuple(open_mosaic([next(each) for _ in group], grid, label, (day,), rule) for day, group in groups)
    return StacImagery(
        grid=grid, bands=scenes[0].bands, days=tuple(day for day, _ in groups), name=label, scenes=scenes
    )


# ---------------------------------------------------------------------- items
def _read(
    text: str, collections: list[str] | None, bbox: Any, query: dict[str, Any] | None, network: bool
) -> list[Item]:
    check_text(text, network)
    if is_remote(text) and not text.split("?")[0].endswith((".json", ".geojson")):
        return search_items(text, collections, bbox, query)
    return read_items(text, network)


def _fitting(items: list[Item], collections: list[str] | None, bbox: Any) -> list[Item]:
    inside = [item for item in items if not collections or item.collection in collections]
    return [item for item in inside if bbox is None or item.bbox is None or _overlap(item.bbox, bbox)]


def _overlap(a: Any, b: Any) -> bool:
    return bool(a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3])


def _between(items: list[Item], dates: Any) -> list[Item]:
    if dates is None:
        return items
    start, stop = (dates.start, dates.stop) if isinstance(dates, slice) else (dates, dates)
    low = "" if start is None else first_day(start)
    high = "9999" if stop is None else as_day(stop)
    return [item for item in items if low <= item.moment.date().isoformat() <= high]


def _groups(items: list[Item], groupby: str) -> list[tuple[str, list[Item]]]:
    """The day of each image and its items, from the top, in order of time."""
    ordered = sorted(items, key=lambda item: (item.moment, item.id))

    def key(item: Item) -> str:
        if groupby == "solar_day":
            return item.solar_day
        if groupby == "time":
            return item.moment.isoformat()
        return item.id if groupby == "id" else repr(item.properties.get(groupby))

    together: dict[str, list[Item]] = {}
    for item in ordered:
        together.setdefault(key(item), []).append(item)
    if groupby == "solar_day":
        return sorted(together.items())
    days = [(max(as_day(item.moment.date()) for item in group), group) for group in together.values()]
    dated = sorted(days, key=lambda entry: entry[0])
    check_order(tuple(day for day, _ in dated), f'the STAC items, with groupby="{groupby}",')
    return dated


# ---------------------------------------------------------------------- bands and files
def _choices(items: list[Item], bands: Any, network: bool, rule: MaskRule | None) -> list[BandChoice]:
    """The bands that are read, by the first item."""
    first = items[0]
    if bands is None:
        usable = [key for key, asset in first.assets.items() if asset.is_image]
        if rule is not None and rule.band is not None:
            usable = [key for key in usable if key != _asset_of(first, str(rule.band))[0]]
        images = {key: sum(key in item.assets for item in items) for key in usable}
        partial = {key: len(items) - count for key, count in images.items() if count < len(items)}
        usable = [key for key in usable if key not in partial]
        if not usable:
            raise ImageryError(
                f"the STAC items have no asset of pixels in common; {first.id} has {sorted(first.assets)}",
                todo="name the assets with bands=, or the collection with collections=",
            )
        if partial:
            words = ", ".join(f"{key} ({count} of {len(items)} items lack it)" for key, count in partial.items())
            warn(f"bands that some STAC items do not have are left out of all dates: {words}", ImageryWarning)
        named = [choice for key in usable for choice in _bands_of(first.assets[key], network)]
        _check_descriptions(first, named)
    else:
        wanted = dict(bands) if hasattr(bands, "values") else {str(b): b for b in np.atleast_1d(bands).tolist()}
        if not wanted:
            raise ImageryError(
                "no band is left", expected=f"at least one of {sorted(first.assets)}", todo="check bands="
            )
        named = []
        for new, old in wanted.items():
            key, position = _asset_of(first, str(old))
            own = _bands_of(first.assets[key], network)
            chosen = own if position is None else [own[position]]
            if position is None or old != f"{key}.{position + 1}":  # chosen by a name
                _check_descriptions(first, own)
            single = len(chosen) == 1
            named += [replace(choice, name=str(new) if single else choice.name) for choice in chosen]
    for item in items:
        lacking = sorted({choice.key for choice in named} - set(item.assets))
        if lacking:
            raise ImageryError(
                f"the STAC item {item.id} has no asset {lacking[0]!r}",
                expected=f"one of {sorted(item.assets)}",
                todo="check bands=, or take one collection with collections=",
            )
    check_unique([choice.name for choice in named], "the STAC items")
    return named


def _check_descriptions(item: Item, bands: Sequence[BandChoice]) -> None:
    """Refuse, or warn of, files that describe a band by the name that the item gives to another.

    Raises
    ------
    ImageryError
        Another band of the same file.

    Warns
    -----
    ImageryWarning
        The band of another asset.
    """
    for band in bands:
        other = _whose_name(item, band)
        if other is None:
            continue
        key, position = other
        here = (_called(item.assets[band.key], band.position) or [band.key])[0]
        what = (
            f"the STAC item {item.id} calls band {band.position + 1} of {band.key} {here!r}, its file "
            f"{band.described!r}, which is what the item calls band {position + 1} of {key}"
        )
        if key == band.key:
            raise ImageryError(
                what,
                expected="one order of the bands",
                todo="say which is which by their numbers: "
                f'bands={{{band.described!r}: "{band.key}.{band.position + 1}"}}',
            )
        warn(
            f"{what}; the item is believed. Check which is right, and rename them: bands={{new: old}}", ImageryWarning
        )


def _whose_name(item: Item, band: BandChoice) -> tuple[str, int] | None:
    """Asset and position of the other band that the item calls as the file describes this one; None without one."""
    described = (band.described or "").casefold()
    own = {name.casefold() for name in (*_called(item.assets[band.key], band.position), band.key)}
    if not described or described in own:
        return None
    for key, asset in item.assets.items():
        for position in range(max(len(asset.names), 1)):
            if described in {name.casefold() for name in _called(asset, position)}:
                return key, position
    return None


def _called(asset: Asset, position: int) -> list[str]:
    """What an item calls a band of an asset."""
    stated = [names[position] for names in (asset.names, asset.common_names) if position < len(names)]
    own = [name for name in stated if name]
    return own if len(asset.names) > 1 else [*own, asset.key]


def _asset_of(item: Item, name: str) -> tuple[str, int | None]:
    """The asset that a name means, and the position of its band; None for all of its bands.

    Raises
    ------
    ImageryError
    """
    if name in item.assets:
        return name, None
    for key, asset in item.assets.items():
        for position in range(len(asset.names)):
            if name == f"{key}.{position + 1}":
                return key, position
    for attribute in ("names", "common_names"):
        found = [
            (key, position)
            for key, asset in item.assets.items()
            if asset.is_image
            for position, own in enumerate(getattr(asset, attribute))
            if own == name
        ]
        if len(found) == 1:
            key, position = found[0]
            return key, None if len(getattr(item.assets[key], attribute)) == 1 else position
        if found:
            keys = sorted({key for key, _ in found})
            raise ImageryError(
                f"several assets of {item.id} have a band {name!r}: {keys}", todo="name one of these assets in bands="
            )
    raise ImageryError(
        f"the STAC item {item.id} has no asset and no band {name!r}",
        expected=f"one of {sorted(item.assets)}",
        todo="check bands=",
    )


def _bands_of(asset: Asset, network: bool) -> list[BandChoice]:
    """The bands of an asset's file but alpha, by its key where it is one."""
    handle = opened(asset.href, network).handle
    described = handle.descriptions
    visible = tuple(i for i in range(1, handle.count + 1) if i not in hidden_bands(handle))
    if len(visible) == 1:
        index = visible[0]
        stated = asset.names[0] if len(asset.names) == 1 else None
        return [BandChoice(asset.key, asset.key, index, 0, stated, described[index - 1])]
    own = asset.names if len(asset.names) >= len(visible) else ()
    names = [own[k] if own and own[k] else f"{asset.key}.{k + 1}" for k in range(len(visible))]
    return [
        BandChoice(str(name), asset.key, index, k, own[k] if own else None, described[index - 1])
        for k, (name, index) in enumerate(zip(names, visible, strict=True))
    ]


def _open(asset: Asset, network: bool, **options: Any) -> RasterImagery:
    try:
        return open_raster(asset.href, crs=None, scale=1, network=network, **options)
    except ImageryError as error:
        if asset.crs is None or "no coordinate reference system" not in error.what:
            raise
        return open_raster(asset.href, crs=asset.crs, scale=1, network=network, **options)


def _files_of(
    item: Item, choices: list[BandChoice], templates: dict[str, RasterImagery], nodata: float | None, network: bool
) -> Files:
    """The files of an item that hold the bands, in the bands' order."""
    files = []
    for key, run in itertools.groupby(choices, key=lambda choice: choice.key):
        own, asset = list(run), item.assets[key]
        says = [_stated(asset, choice) for choice in own]
        _check_names(item, [asset.names[c.position] if c.position < len(asset.names) else None for c in own], own)
        file = _not_opened(asset, own, templates.get(key), nodata)
        if file is None:
            bands = {choice.name: choice.index for choice in own}
            file = templates[key] = _open(asset, network, bands=bands, nodata=nodata)
            described = opened(file.path, network).handle.descriptions
            _check_names(item, [described[choice.index - 1] for choice in own], own, "described")
        files.append(file if nodata is not None else _with_nodata(file, says))
    return tuple(files)


def _check_names(
    item: Item, names: Sequence[str | None], choices: Sequence[BandChoice], what: str = "stated"
) -> None:
    """Refuse an item whose bands, by their number, are others than those of the first item.

    Raises
    ------
    ImageryError
    """
    for name, choice in zip(names, choices, strict=True):
        first = getattr(choice, what)
        if None not in (name, first) and name != first:
            raise ImageryError(
                f"band {choice.position + 1} of {choice.key} is {name!r} in the STAC item {item.id}"
                + (" (its file says so)" if what == "described" else "")
                + f" and {first!r} in the first item",
                expected="bands in one order in all items",
                todo="take one collection or period with collections= or dates=, or one asset a band",
            )


def _not_opened(
    asset: Asset, own: list[BandChoice], like: RasterImagery | None, nodata: float | None
) -> RasterImagery | None:
    """A file on the net that the item describes, like another item's; None where it has to be opened."""
    if like is None or not is_remote(asset.href) or None in (asset.crs, asset.transform, asset.shape):
        return None
    return replace(
        like,
        grid=make_grid(asset.crs, asset.transform, asset.shape or (0, 0), asset.href),
        path=asset.href,
        nodata=nodata,
        band_nodata=None,
        gdal_masks=None,
        validity=None,
        indexes=tuple(choice.index for choice in own),
    )


def _stated(asset: Asset, choice: BandChoice) -> Stated:
    """What the item states of a band."""
    position = choice.position if len(asset.stated) > 1 else 0
    return asset.stated[position] if position < len(asset.stated) else Stated()


def _with_nodata(file: RasterImagery, says: Sequence[Stated]) -> RasterImagery:
    """The file, with what the item states as nodata beside what GDAL's masks say."""
    values = tuple(one.nodata[0] if one.nodata else None for one in says)
    if all(value is None for value in values):
        return file
    own = file.band_nodata or (file.nodata,) * len(values)
    masks = file.gdal_masks and tuple(
        flag or (mine is not None and value is not None and mine != value)
        for flag, mine, value in zip(file.gdal_masks, own, values, strict=True)
    )
    kept = tuple(mine if value is None else value for mine, value in zip(own, values, strict=True))
    return replace(file, nodata=None, band_nodata=kept, gdal_masks=masks)


def _scaled(
    items: list[Item],
    choices: list[BandChoice],
    files: list[Files],
    days: list[str],
    scale: Any,
    offset: Any,
) -> list[Files]:
    """The files with the scale and offset of their item and date."""
    owns = [_own_gain(item, choices, own) for item, own in zip(items, files, strict=True)]
    (scales, by_scale), (offsets, by_offset) = _by_day(scale, days), _by_day(offset, days)
    if not (by_scale or by_offset):
        check_stated([item.id for item in items], owns, scale)
        _tell_of_baselines(items, owns, scale, offset)
    result = []
    for item, own, files_of, given_scale, given_offset in zip(items, owns, files, scales, offsets, strict=True):
        applied = resolve_gain(own, given_scale, given_offset, item.id)
        gains = [
            np.broadcast_to(per_band(value, len(choices), what), len(choices))
            for value, what in zip(applied, ("scale", "offset"), strict=True)
        ]
        start, scaled = 0, []
        for file in files_of:
            stop = start + len(file.bands)
            parts = [tuple(float(v) for v in gain[start:stop]) for gain in gains]
            scaled.append(replace(file, scale=parts[0], offset=parts[1]))
            start = stop
        result.append(tuple(scaled))
    return result


def _by_day(value: Any, days: list[str]) -> tuple[list[Any], bool]:
    """Like ``dated_rows``, one row for each day, of which several items may be."""
    distinct = sorted(set(days))
    rows, dated = dated_rows(value, distinct)
    return [rows[distinct.index(day)] for day in days], dated


def _own_gain(item: Item, choices: list[BandChoice], files: Files) -> tuple[list[float], list[float]]:
    """Scales and offsets that an item states for the bands, or else its files.

    Raises
    ------
    ImageryError
        The item and its file state different ones.
    """
    scales: list[float] = []
    offsets: list[float] = []
    position = 0
    for file in files:
        in_file = ([1.0] * len(file.bands), [0.0] * len(file.bands))
        if file.gdal_masks is not None:  # it was opened
            in_file = own_gain(opened(file.path, file.network).handle, file.indexes)
        for k in range(len(file.bands)):
            choice = choices[position]
            says = _stated(item.assets[choice.key], choice)
            mine, theirs = (says.scale, says.offset), (in_file[0][k], in_file[1][k])
            if states_gain(([mine[0]], [mine[1]])) and states_gain(([theirs[0]], [theirs[1]])) and mine != theirs:
                raise ImageryError(
                    f"the STAC item {item.id} states scale={mine[0]:g}, offset={mine[1]:g} for {choice.name} and its "
                    f"file scale={theirs[0]:g}, offset={theirs[1]:g}",
                    todo="correct one of the two",
                )
            chosen = mine if mine != (1.0, 0.0) else theirs
            scales.append(chosen[0])
            offsets.append(chosen[1])
            position += 1
    return scales, offsets


def _tell_of_baselines(items: list[Item], owns: Sequence[Any], scale: Any, offset: Any) -> None:
    """Warn of Sentinel-2 items of baselines before and from 04.00 on: their numbers differ by 1000."""
    late = set()
    for item in items:
        version = item.properties.get("s2:processing_baseline") or item.properties.get("processing:version")
        platform = str(item.properties.get("platform") or item.collection).lower()
        if "sentinel-2" not in platform or item.properties.get("earthsearch:boa_offset_applied"):
            continue
        try:
            late.add(float(str(version)) >= 4)
        except ValueError:
            continue
    if len(late) > 1 and not any(states_gain(own) for own in owns):
        warn(
            "Sentinel-2 items of processing baselines before and from 04.00 on, whose numbers differ by 1000 for one "
            "reflectance, and the items state no offset: pass offset= by date, such as "
            'scale=1e-4, offset={"2015": 0, "2022-01-25": -0.1}, after checking what the provider has done',
            ImageryWarning,
        )


def _quality(item: Item, rule: MaskRule, network: bool) -> RasterImagery:
    """The item's quality band."""
    key, position = _asset_of(item, str(rule.band))
    file = _open(item.assets[key], network)
    if np.dtype(file.dtype).kind in "iu" and np.dtype(file.dtype).itemsize > 2:
        raise ImageryError(f"the quality band {key} of {item.id} is of type {file.dtype}", expected="at most 16 bits")
    return file._select_bands([position or 0])


# ---------------------------------------------------------------------- grid
def _target_grid(text: str, files: list[RasterImagery], crs: Any, resolution: float | None, bbox: Any) -> Grid:
    """The grid of the images: that of the files with the smallest pixels, or of the CRS and resolution given."""
    try:
        wanted = None if crs is None else CRS.from_user_input(crs)
    except CRSError as error:
        raise ImageryError(f"crs={crs!r} cannot be read", todo='pass an EPSG code such as "EPSG:32636"') from error
    grids = list(dict.fromkeys(file.grid for file in files))
    systems = list(dict.fromkeys(grid.crs_wkt for grid in grids))
    if wanted is None and len(systems) > 1:
        names = sorted({grid.crs.name for grid in grids})
        raise ImageryError(
            f"the STAC items of {text} cannot be put on one grid: their CRSs are {', '.join(names[:4])}",
            expected="one CRS",
            todo='pass crs= and resolution= (for example crs="EPSG:32636", resolution=10)',
        )
    same_crs = wanted is None or all(grid.crs == wanted for grid in grids)
    finest = min(grids, key=lambda grid: grid.affine[0])
    native = None
    if same_crs and resolution in (None, finest.affine[0]):
        alike = [grid for grid in grids if np.isclose(grid.affine[0], finest.affine[0])]
        native = union_grid(alike)
    if native is None:
        native = _regular_grid(text, grids, wanted or finest.crs, resolution, finest if same_crs else None)
    return native if bbox is None else _cut(native, bbox, text)


def _regular_grid(text: str, grids: list[Grid], crs: CRS, resolution: float | None, like: Grid | None) -> Grid:
    """A grid over all files, its pixels' edges at multiples of their size."""
    if resolution is None and like is None:
        raise ImageryError(
            f"the STAC items of {text} are in another CRS than {crs.name}", todo="pass resolution= as well as crs="
        )
    width, height = (resolution, resolution) if resolution else (like.affine[0], -like.affine[4])  # type: ignore[union-attr]
    if not width > 0:
        raise ImageryError(f"resolution={resolution!r}", expected="a positive number, in units of the CRS")
    bounds = np.array([project_bounds(grid.bounds, grid.crs_wkt, crs.to_wkt()) for grid in grids])
    if not np.isfinite(bounds).all():
        raise ImageryError(f"the STAC items of {text} cannot be projected to {crs.name}", todo="pass another crs=")
    left, bottom = np.floor(bounds[:, :2].min(axis=0) / (width, height) + 1e-6)
    right, top = np.ceil(bounds[:, 2:].max(axis=0) / (width, height) - 1e-6)
    affine = (width, 0.0, float(left * width), 0.0, -height, float(top * height))
    return make_grid(crs, affine, (int(top - bottom), int(right - left)), text)


def _cut(grid: Grid, bbox: Any, text: str) -> Grid:
    """The part of a grid that touches a bounding box in longitude and latitude."""
    left, bottom, right, top = project_bounds(tuple(bbox), CRS.from_epsg(4326).to_wkt(), grid.crs_wkt)
    a, _, c, _, e, f = grid.affine
    rows = [max(0, int(np.floor((top - f) / e + 1e-6))), min(grid.shape[0], int(np.ceil((bottom - f) / e - 1e-6)))]
    cols = [max(0, int(np.floor((left - c) / a + 1e-6))), min(grid.shape[1], int(np.ceil((right - c) / a - 1e-6)))]
    if rows[0] >= rows[1] or cols[0] >= cols[1]:
        raise ImageryNotFoundError(f"no item of {text} fits", todo="widen dates=, bbox= or collections=")
    corner = (a, 0.0, c + cols[0] * a, 0.0, e, f + rows[0] * e)
    return Grid(grid.crs_wkt, corner, (rows[1] - rows[0], cols[1] - cols[0]))
