"""A folder of dated scenes on one grid: a sequence of images."""

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
from causalsat.imagery.raster import RasterImagery, open_raster

__all__ = ["SUFFIXES", "SequenceImagery", "find_files", "open_sequence"]

SUFFIXES = (".tif", ".tiff", ".vrt", ".img", ".jp2")


@dataclass(frozen=True, kw_only=True, repr=False)
class SequenceImagery(Imagery):
    """Dated scenes on one grid, ordered in time. Use :func:`causalsat.open_imagery` to make one.

    Attributes
    ----------
    scenes : tuple of RasterImagery
        One for each day.
    """

    scenes: tuple[RasterImagery, ...] = ()

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
        A file without a date, two of one day, or files on different grids or of different bands or types.
    """
    files = find_files(source)
    days = _days(files, dates, date_regex)
    ordered = sorted(zip(days, files, strict=True))
    for (day, file), (next_day, next_file) in itertools.pairwise(ordered):
        if day == next_day:
            raise ImageryError(
                f"two files of {day}: {Path(file).name} and {Path(next_file).name}",
                expected="one file a date",
                todo="join the tiles of a date with gdalbuildvrt, or its bands with gdalbuildvrt -separate",
            )
    scenes = tuple(open_scene(file, date=day, **options) for day, file in ordered)
    for scene in scenes[1:]:
        _check_same(scenes[0], scene)
    label = name or (Path(os.fspath(source)).stem if isinstance(source, str | os.PathLike) else "sequence")
    return SequenceImagery(
        grid=scenes[0].grid, bands=scenes[0].bands, days=tuple(sorted(days)), name=label, scenes=scenes
    )


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
            "undated tiles of one image are joined with gdalbuildvrt",
        )
    return [day for day in found if day is not None]


def _check_same(first: RasterImagery, other: RasterImagery) -> None:
    """Refuse a scene that does not fit the first one, and name it."""
    names = f"{Path(other.path).name} does not fit {Path(first.path).name}"
    difference = first.grid.same_as(other.grid)
    if difference:
        raise ImageryError(
            f"{names}: {difference}",
            expected="all scenes on one grid",
            todo="warp it to the first scene's grid (gdalwarp -t_srs -te -tr), or remove it from the folder",
        )
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
