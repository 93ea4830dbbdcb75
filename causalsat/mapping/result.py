"""What a map job hands back: where the map lies, what it shows, and its pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalsat.core.notebook import fragment, html_facts, paragraph, thumbnail
from causalsat.core.optional import is_installed, require
from causalsat.core.warn import warn
from causalsat.exceptions import IgnoredWarning
from causalsat.mapping.compute import BANDS
from causalsat.plots.maps import save_map

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MapResult", "draw", "page_wanted"]


@dataclass(frozen=True)
class MapResult:
    """What :func:`map_effects` or :func:`map_risk` wrote.

    Attributes
    ----------
    path : Path
        Cloud-Optimised GeoTIFF with the bands cate, sd, lower, upper, prob_positive, support, and where asked for
        learned_error and disagreement; of a risk model risk, sd, lower, upper, decision, support.
    png : Path or None
        Picture of the map.
    html : Path or None
        Interactive map: one file that opens without a network.
    resolution_m : float
        Side of a cell in metres.
    shape : (int, int)
        Height and width in cells.
    n_mapped : int
        Cells with an effect; the others are nodata.
    level : float
        Level of the intervals.
    note : str
        What the reader must know, such as heterogeneity not being distinguishable from zero.
    job : str
        Hash of all that the map depends on.
    bands : tuple of str
        Names of the bands.
    """

    path: Path
    png: Path | None
    html: Path | None
    resolution_m: float
    shape: tuple[int, int]
    n_mapped: int
    level: float
    note: str
    job: str
    bands: tuple[str, ...] = BANDS

    def to_xarray(self) -> xr.DataArray:
        """The map in memory, dimensions (band, y, x), with its coordinate system."""
        import xarray as xr

        with xr.open_dataarray(self.path, engine="rasterio", masked=True) as raster:
            return raster.load().assign_coords(band=list(self.bands)).rename(self._what)

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        imagery: Any = None,
        *,
        sites: Any = None,
        districts: Any = None,
        units: str = "",
        title: str = "",
    ) -> Path:
        """Write the interactive map: one file that opens without a network; needs the extra ``maps``.

        Parameters
        ----------
        path : path-like, optional
            The file; beside the GeoTIFF by default.
        imagery : Imagery, optional
            Backdrop.
        sites : GeoDataFrame, optional
            Places of the trial.
        districts : DistrictEffects, optional
            What :func:`causalsat.district_effects` gave: a layer of their mean effects, borders and a table.
        units, title : str
            Words; those of the map by default.

        Returns
        -------
        Path
            The file.
        """
        require("bokeh", "maps", "an interactive map")
        from causalsat.mapping.page import write_page

        target = self.path.with_suffix(".html") if path is None else Path(path)
        options = {"units": units, "title": title, "note": self.note}
        return write_page(self.path, target, imagery, sites=sites, districts=districts, **options)

    @property
    def _what(self) -> str:
        return "effects" if self.bands[: len(BANDS)] == BANDS else "risks"

    def _repr_png_(self) -> bytes | None:
        return self.png.read_bytes() if self.png is not None and self.png.exists() else None

    def _repr_html_(self) -> str:
        """The picture, made small, and where the files are, for notebooks."""
        height, width = self.shape
        facts = {
            "cells": f"{self.n_mapped:,} of {height:,} x {width:,}, of {self.resolution_m:g} m",
            "bands": ", ".join(self.bands),
            **{path.suffix.lstrip("."): str(path) for path in (self.path, self.png, self.html) if path is not None},
        }
        drawn = self._repr_png_()
        image = "" if drawn is None else thumbnail(drawn, f"Map of {self._what} and their uncertainty")
        note = paragraph(f"Note: {self.note}") if self.note else ""
        return fragment(image, html_facts(facts, f"Map of {self._what}"), note)

    def __str__(self) -> str:
        """What was written, in a few lines."""
        height, width = self.shape
        lines = [
            f"{self._what.capitalize()} on {self.n_mapped:,} of {height:,} x {width:,} cells of "
            f"{self.resolution_m:g} m; the others are nodata",
            *([f"Note: {self.note}"] if self.note else []),
            *(f"  {path}" for path in (self.path, self.png, self.html) if path is not None),
        ]
        return "\n".join(lines)

    __repr__ = __str__


def draw(result: MapResult, imagery: Any, *, png: Any, html: Any, sites: Any, units: str, title: str) -> MapResult:
    """Draw the picture and the page (see ``page_wanted``); returns the result with their paths."""
    if png is not False and png is not None:
        target = result.path.with_suffix(".png") if png is True else Path(png)
        save_map(result.path, target, sites=sites, units=units, title=title, note=result.note)
        result = replace(result, png=target)
    html = page_wanted(html)
    if html is False:
        return result
    from causalsat.mapping.page import write_page

    target = result.path.with_suffix(".html") if html is True or html == "auto" else Path(html)
    write_page(result.path, target, imagery, sites=sites, units=units, title=title, note=result.note)
    return replace(result, html=target)


def page_wanted(html: Any) -> Any:
    """Where the interactive page goes, or False where there is none; asked before the map is computed.

    Raises
    ------
    MissingExtraError
        If the page was asked for and bokeh is not installed.

    Warns
    -----
    IgnoredWarning
        If the page is left out for that reason.
    """
    if html is False or html is None:
        return False
    if html != "auto":
        require("bokeh", "maps", "an interactive map", "pass html=False")
    elif not is_installed("bokeh"):
        warn(
            "the interactive map is not drawn, because bokeh is not installed: pip install 'causalsat[maps]'",
            IgnoredWarning,
        )
        return False
    return html
