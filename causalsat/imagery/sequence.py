"""A folder of dated scenes on one grid: a sequence of images; or of adjacent scenes: mosaics."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from causalsat.exceptions import ImageryError, ImageryNotFoundError
from causalsat.imagery.base import Imagery, Layer
from causalsat.imagery.dates import as_day, day_in_name
from causalsat.imagery.grid import Grid, union_grid
from causalsat.imagery.handles import opened
from causalsat.imagery.layers import LayerImagery, check_stated, dated_rows
from causalsat.imagery.mosaic import MosaicImagery, open_mosaic
from causalsat.imagery.raster import RasterImagery, open_raster, own_gain

__all__ = ["SUFFIXES", "SequenceImagery", "find_files", "open_mosaics", "open_sequence"]

SUFFIXES = (".tif", ".tiff", ".vrt", ".img", ".jp2")


@dataclass(frozen=True, kw_only=True, repr=False)
class SequenceImagery(Imagery):
    """Dated scenes on one grid, ordered in time. Use :func:`causalsat.open_imagery` to make one.

    Attributes
    ----------
    scenes : tuple of RasterImagery or MosaicImagery
        One for each day.
    """

    scenes: tuple[LayerImagery, ...] = ()

    @property
    def has_time(self) -> bool:
        """Always: also one scene has a time dimension."""
        return True

    @property
    def nodata(self) -> float | None:
        """Nodata value of the first scene."""
        return self.scenes[0].nodata

    def layers(self) -> list[Layer]:
        """The scenes."""
        return [((t,), scene) for t, scene in enumerate(self.scenes)]

    def stamps(self) -> tuple[Any, ...]:
        """Those of the scenes."""
        return tuple(stamp for scene in self.scenes for stamp in scene.stamps())

    def unstamped(self) -> tuple[str, ...]:
        """What of the scenes cannot be looked at."""
        return tuple(name for scene in self.scenes for name in scene.unstamped())

    def fingerprint(self) -> dict[str, Any]:
        """Those of the scenes."""
        return {"kind": "SequenceImagery", "scenes": [scene.fingerprint() for scene in self.scenes]}

    def _select_days(self, positions: list[int]) -> Self:
        scenes = tuple(self.scenes[i] for i in positions)
        return replace(self, scenes=scenes, days=tuple(scene.days[0] for scene in scenes))

    def _select_bands(self, positions: list[int]) -> Self:
        scenes = tuple(scene._select_bands(positions) for scene in self.scenes)
        return replace(self, scenes=scenes, bands=scenes[0].bands)


def open_sequence(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    dates: Any = None,
    date_regex: str | None = None,
    name: str | None = None,
    open_scene: Callable[..., RasterImagery] = open_raster,
    **options: Any,
) -> SequenceImagery:
    """A :class:`SequenceImagery`; the parameters are those of :func:`causalsat.open_imagery`.

    Raises
    ------
    ImageryNotFoundError
        No such folder, or no raster in it.
    ImageryError
        A file without a date, two of one day, or files on different grids, of different bands or types, or whose
        numbers are not to be scaled alike.
    """
    files = find_files(source)
    days = _days(files, dates, date_regex)
    ordered = sorted(zip(days, files, strict=True))
    for (day, file), (next_day, next_file) in itertools.pairwise(ordered):
        if day == next_day:
            raise ImageryError(
                f"two files of {day}: {Path(file).name} and {Path(next_file).name}",
                expected="one file a date",
                todo="join adjacent scenes of a date with mosaic=True (or gdalbuildvrt), or the bands of a date with "
                "gdalbuildvrt -separate",
            )
    scenes = _open_scenes(ordered, open_scene, options)
    for scene in scenes[1:]:
        _check_same(scenes[0], scene)
    if open_scene is open_raster:
        _check_gains(scenes, options)
    return SequenceImagery(
        grid=scenes[0].grid,
        bands=scenes[0].bands,
        days=tuple(sorted(days)),
        name=name or _name_of(source, "sequence"),
        scenes=tuple(scenes),
    )


def open_mosaics(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    dates: Any = None,
    date_regex: str | None = None,
    name: str | None = None,
    **options: Any,
) -> MosaicImagery | SequenceImagery:
    """Adjacent scenes as one image, or as one for each date; the parameters are those of ``open_imagery``.

    Raises
    ------
    ImageryNotFoundError
        No such folder, or no raster in it.
    ImageryError
        Files whose pixels do not coincide, of different bands or types, or of which some have a date and some none.
    """
    files = find_files(source)
    label = name or _name_of(source, "mosaic")
    days: list[str | None]
    if dates is None:
        days = [day_in_name(Path(file).name, date_regex) for file in files]
        missing = [Path(file).name for file, day in zip(files, days, strict=True) if day is None]
        if missing and (date_regex or len(missing) < len(files)):
            _days(files, None, date_regex)
    elif isinstance(dates, str | int) or not hasattr(dates, "__iter__"):
        days = [as_day(dates)] * len(files)
    else:
        days = [*_days(files, dates, date_regex)]
    ordered = sorted(zip(days, files, strict=True), key=lambda pair: (pair[0] or "", pair[1]))
    scenes = _open_scenes(ordered, open_raster, options)
    grid = _lattice(scenes)
    for scene in scenes[1:]:
        _check_kind(scenes[0], scene)
    _check_gains(scenes, options)
    by_date = [(day, [(scene,) for scene in group]) for day, group in itertools.groupby(scenes, lambda s: s.days[:1])]
    mosaics = [open_mosaic(group, grid, label, day) for day, group in by_date]
    if len(mosaics) == 1:
        return mosaics[0]
    return SequenceImagery(
        grid=grid,
        bands=mosaics[0].bands,
        days=tuple(mosaic.days[0] for mosaic in mosaics),
        name=label,
        scenes=tuple(mosaics),
    )


def _name_of(source: Any, otherwise: str) -> str:
    return Path(os.fspath(source)).stem if isinstance(source, str | os.PathLike) else otherwise


def _lattice(scenes: Sequence[RasterImagery]) -> Grid:
    """The grid of all scenes together."""
    grid = union_grid([scene.grid for scene in scenes])
    if grid is not None:
        return grid
    first = scenes[0]
    other = next(scene for scene in scenes if scene.grid.offset_in(first.grid) is None)
    raise ImageryError(
        f"the pixels of {Path(other.path).name} do not coincide with those of {Path(first.path).name}",
        expected="adjacent scenes of one CRS and pixel size, shifted by whole pixels",
        todo="warp them to one grid (gdalwarp -t_srs -tr -tap)",
    )


def _open_scenes(
    ordered: Sequence[tuple[str | None, str]], open_scene: Callable[..., RasterImagery], options: dict[str, Any]
) -> list[RasterImagery]:
    """The scenes in their order, each with the scale and offset of its date."""
    options = dict(options)
    given = {key: options.pop(key) for key in ("scale", "offset") if options.get(key) is not None}
    days = [day or "" for day, _ in ordered]
    rows = {key: dated_rows(value, days) for key, value in given.items()}
    return [
        open_scene(file, date=day or None, **options, **{key: values[t] for key, (values, _) in rows.items()})
        for t, (day, file) in enumerate(ordered)
    ]


def _check_gains(scenes: Sequence[RasterImagery], options: dict[str, Any]) -> None:
    """Refuse scenes that state different scales where one is taken for all of them."""
    days = [day for scene in scenes for day in scene.days or ("",)]
    if any(dated_rows(options.get(key), days)[1] for key in ("scale", "offset")):
        return
    own = [own_gain(opened(scene.path, scene.network).handle, scene.indexes) for scene in scenes]
    check_stated([Path(scene.path).name for scene in scenes], own, options.get("scale"))


def find_files(source: Any) -> list[str]:
    """The raster files of a folder, a glob or a list, sorted.

    Raises
    ------
    ImageryNotFoundError
        There is none.
    """
    if not isinstance(source, str | os.PathLike):
        files = [os.fspath(path) for path in source]
        if not files:
            raise ImageryNotFoundError("an empty list of files", expected="at least one raster")
        return files
    text = os.fspath(source)
    if os.path.isdir(text):
        files = sorted(str(path) for path in Path(text).iterdir() if path.suffix.lower() in SUFFIXES)
        if not files:
            raise ImageryNotFoundError(
                f"the folder {text} holds no raster",
                expected=f"files ending in {', '.join(SUFFIXES)}",
                todo='check the folder, or name other endings with a glob such as "folder/*.nc"',
            )
        return files
    files = sorted(glob.glob(text, recursive=True))
    if not files:
        raise ImageryNotFoundError(f"no file matches {text}", todo="check the folder and the pattern")
    return files


def _days(files: list[str], dates: Any, regex: str | None) -> list[str]:
    if dates is not None:
        given = [dates] if isinstance(dates, str | int) else list(dates)
        if len(given) != len(files):
            raise ImageryError(
                f"{len(given)} dates for {len(files)} files",
                expected="one date a file, in the order of the sorted names",
                todo="leave dates= out where the names hold the dates, or give date_regex=",
            )
        return [as_day(value) for value in given]
    found = [day_in_name(Path(file).name, regex) for file in files]
    missing = [Path(file).name for file, day in zip(files, found, strict=True) if day is None]
    if missing:
        raise ImageryError(
            f"no date in the name of {len(missing)} of {len(files)} files, the first {missing[0]}"
            + (f", by date_regex={regex!r}" if regex else ""),
            todo=r'pass date_regex= with the date in its first group (r"_(\d{8})_"), or dates=; '
            "undated adjacent scenes of one image are joined with mosaic=True",
        )
    return [day for day in found if day is not None]


def _check_same(first: RasterImagery, other: RasterImagery) -> None:
    """Refuse a scene that does not fit the first one, and name it."""
    difference = first.grid.same_as(other.grid)
    if difference:
        raise ImageryError(
            f"{Path(other.path).name} does not fit {Path(first.path).name}: {difference}",
            expected="all scenes on one grid",
            todo="warp it to the first scene's grid (gdalwarp -t_srs -te -tr), or remove it from the folder",
        )
    _check_kind(first, other)


def _check_kind(first: RasterImagery, other: RasterImagery) -> None:
    """Refuse a scene of other bands or another data type than the first one."""
    names = f"{Path(other.path).name} does not fit {Path(first.path).name}"
    if first.bands != other.bands:
        raise ImageryError(
            f"{names}: its bands are {list(other.bands)} and not {list(first.bands)}",
            todo="pass bands= with those that all scenes have",
        )
    if first.dtype != other.dtype:
        raise ImageryError(
            f"{names}: its data type is {other.dtype} and not {first.dtype}",
            todo="convert it with gdal_translate -ot, with the same scale for all scenes",
        )
