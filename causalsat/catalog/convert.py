"""From the files of an archive to the layout of the catalogue; a catalogue names a converter, it never holds code."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from causalsat.catalog.patches import PatchLayout, write_mosaic
from causalsat.exceptions import CatalogError

Files = Mapping[str, Path]
MAX_UNPACKED = 64 << 20  # bytes of one member of an archive


def copy_files(raw: Files, out: Path) -> None:
    """Copy the files as they are."""
    for name, path in raw.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)


def geokey_patches(raw: Files, out: Path, *, layout: PatchLayout | None = None) -> None:
    """Convert the replication archive of Jerzak, Johansson and Daoud (2023) to units, sites and one raster.

    Source: ``UgandaDataProcessed`` (one row a person: ``Yobs`` outcome, ``Wobs`` treatment, ``geo_long``,
    ``geo_lat``, ``geo_long_lat_key`` image key, many further columns), ``UgandaGeoKeyMat`` (``key``, ``geo_long``,
    ``geo_lat`` of all images), ``Uganda2000_processed*.zip`` with one file ``GeoKey<key>_BAND<1..3>.csv`` for each
    image and band: a header row, then 351 rows of 351 values. Result: ``units.csv``, ``sites.csv``,
    ``landsat_geocover_2000.tif`` (3 x 3 pixels averaged, EPSG:32636, Cloud-Optimised) and ``conversion.json``,
    which says how many rows were left out and why.
    """
    layout = layout or PatchLayout()
    people = _read_table(raw, "UgandaDataProcessed*", ("Yobs", "Wobs", "geo_long", "geo_lat", "geo_long_lat_key"))
    keys = _read_table(raw, "UgandaGeoKeyMat*", ("key", "geo_long", "geo_lat"))
    units, left_out = _units(people)
    sites = pd.DataFrame({"site": keys["key"], "lon": keys["geo_long"], "lat": keys["geo_lat"]}).dropna()
    sites["site"] = sites["site"].astype(int)
    sites["in_experiment"] = sites["site"].isin(units["site"]).astype(int)
    archives = [zipfile.ZipFile(path) for name, path in raw.items() if fnmatchcase(name, "Uganda2000_processed*.zip")]
    if not archives:
        raise _no_file(raw, "Uganda2000_processed*.zip")
    try:
        members = {Path(m).name: (z, m) for z in archives for m in z.namelist() if not m.startswith("__MACOSX")}
        placed = write_mosaic(
            out / "landsat_geocover_2000.tif", sites, lambda site: _patch(members, site, layout), layout
        )
    finally:
        for archive in archives:
            archive.close()
    units.to_csv(out / "units.csv", index=False)
    sites.to_csv(out / "sites.csv", index=False)
    record = {"units": len(units), "left_out": left_out, "sites": len(sites), "images_placed": placed}
    (out / "conversion.json").write_text(json.dumps(record, indent=1) + "\n")


def _units(people: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    names = {"Yobs": "outcome", "Wobs": "treatment", "geo_long": "lon", "geo_lat": "lat", "geo_long_lat_key": "site"}
    clash = [c for c in ("unit", *names.values()) if c in people.columns]
    units = people.drop(columns=clash).rename(columns=names)
    left_out = {}
    for column in names.values():
        gone = units[column].isna()
        if gone.any():
            left_out[f"{column} missing"] = int(gone.sum())
            units = units[~gone]
    units = units.astype({"site": int, "treatment": int})
    units.insert(0, "unit", np.arange(1, len(units) + 1))
    first = ["unit", "site", "lon", "lat", "treatment", "outcome"]
    return units[first + [c for c in units.columns if c not in first]], left_out


def _read_table(raw: Files, pattern: str, columns: tuple[str, ...]) -> pd.DataFrame:
    path = next((p for name, p in raw.items() if fnmatchcase(name, pattern)), None)
    if path is None:
        raise _no_file(raw, pattern)
    head = path.open(encoding="utf-8", errors="replace").readline()
    table = pd.read_csv(path, sep="\t" if head.count("\t") > head.count(",") else ",", low_memory=False)
    if "key" in columns and "key" not in table.columns:  # an unnamed first column is how R writes row names
        table = table.rename(columns={table.columns[0]: "key"})
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise CatalogError(
            f"{path.name} has no column {', '.join(missing)}",
            expected=f"the columns {', '.join(columns)}",
            todo="the archive's format changed: convert it by hand to the layout that the catalogue describes",
        )
    return table


def _patch(members: Mapping[str, Any], site: int, layout: PatchLayout) -> Any:
    """Image (band, row, col) of a site, or None where the archive has none of its bands."""
    names = [f"GeoKey{site}_BAND{band}.csv" for band in range(1, len(layout.bands) + 1)]
    there = [name for name in names if name in members]
    if not there:
        return None
    if len(there) < len(names):
        raise CatalogError(f"the images of site {site} lack {', '.join(set(names) - set(there))}")
    bands = []
    for name in names:
        archive, member = members[name]
        if (size := archive.getinfo(member).file_size) > MAX_UNPACKED:
            raise CatalogError(
                f"{name} unpacks to {size:,} bytes",
                expected=f"{layout.source_px} rows of {layout.source_px} numbers",
                todo="the archive is damaged or not what it says: get it again from its page",
            )
        with archive.open(member) as stream:
            values = pd.read_csv(stream, header=0).to_numpy(dtype=float)
        if values.shape != (layout.source_px, layout.source_px):
            raise CatalogError(
                f"{name} has {values.shape[0]} x {values.shape[1]} values",
                expected=f"a header row, then {layout.source_px} rows of {layout.source_px} values",
                todo="the archive's format changed: convert it by hand to the layout that the catalogue describes",
            )
        bands.append(values)
    return np.stack(bands)


def _no_file(raw: Files, pattern: str) -> CatalogError:
    return CatalogError(
        f"the archive has no {pattern}",
        expected=f"it among {', '.join(raw)}",
        todo="the archive may have changed: compare with its page",
    )


CONVERTERS: Mapping[str, Callable[..., None]] = MappingProxyType({"geokey_patches": geokey_patches})
