"""Reading a table of units: CSV, Parquet, GeoParquet, Stata, and any vector file that GDAL knows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from causalsat.exceptions import DataError, DataWarning
from causalsat.study.columns import close_matches

TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".csv.zip")
PARQUET = (".parquet", ".pq", ".geoparquet")
VECTOR = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".gml", ".kml", ".gdb", ".gpx", ".zip")
ELSEWHERE = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".sav": "in SPSS: SAVE TRANSLATE /TYPE=CSV, or Stata 14",
    ".rds": "in R: arrow::write_parquet(x, 'units.parquet') or write.csv(x, 'units.csv', row.names = FALSE)",
    ".rdata": "in R: arrow::write_parquet(x, 'units.parquet') or write.csv(x, 'units.csv', row.names = FALSE)",
    ".sas7bdat": "in SAS: PROC EXPORT DBMS=CSV",
    ".pkl": "write it as Parquet: a pickle can run code when it is opened",
}


class StudyFileNotFoundError(DataError, FileNotFoundError):
    """A table of units that does not exist."""

    __str__ = Exception.__str__  # OSError would print its errno fields


def read_units(
    path: str | PathLike[str], read_options: Mapping[str, Any] | None = None
) -> tuple[pd.DataFrame, dict[str, dict[Any, str]]]:
    """Read a table of units.

    Parameters
    ----------
    path : path
        CSV or TSV (also gzipped), Parquet, GeoParquet, Stata .dta, or GeoPackage, GeoJSON, Shapefile,
        FlatGeobuf and whatever else pyogrio reads.
    read_options : mapping, optional
        Passed to the reader: ``{"sep": ";", "decimal": ","}``, ``{"layer": "villages"}``, ...

    Returns
    -------
    frame : DataFrame or GeoDataFrame
        The units. Labelled Stata variables keep their numbers.
    value_labels : dict of column to {code: label}
        Stata value labels; empty for other formats.

    Raises
    ------
    DataError
        If the file does not exist, is of an unknown kind or cannot be read as what its name says.
    """
    file, options = Path(path).expanduser(), dict(read_options or {})
    if not file.exists():
        raise _not_found(file)
    name = file.name.lower()
    try:
        if name.endswith(TEXT):
            return _read_text(file, options), {}
        if name.endswith(PARQUET):
            return _read_parquet(file, options), {}
        if name.endswith(".dta"):
            return _read_stata(file, options)
        if name.endswith(VECTOR):
            import geopandas as gpd

            return gpd.read_file(file, **options), {}
    except DataError:
        raise
    except Exception as error:  # each reader has its own errors; the user needs one that names the file
        raise DataError(
            f"{file} cannot be read as {file.suffix}: {type(error).__name__}: {_first_line(error)}",
            expected="a table with one row for each unit",
            todo="open it in another program to see whether it is whole, or pass read_options= for the reader",
        ) from error
    raise DataError(
        f"{file.name} is of a kind that is not read here ({file.suffix or 'no suffix'})",
        expected=f"one of {', '.join((*TEXT[:3], '.dta', *PARQUET, *VECTOR[:5]))}",
        todo=ELSEWHERE.get(file.suffix.lower(), "convert it, or read it yourself and pass the data frame to Study"),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _not_found(file: Path) -> StudyFileNotFoundError:
    folder = file.parent
    if not folder.is_dir():
        return StudyFileNotFoundError(f"{file} does not exist: there is no folder {folder}", todo="check the path")
    near = close_matches(file.name, (p.name for p in folder.iterdir()))
    return StudyFileNotFoundError(
        f"{file} does not exist",
        expected="a table of units",
        todo=f"did you mean {' or '.join(near)}?" if near else f"check the path; the folder is {folder.resolve()}",
    )


def _read_text(file: Path, options: dict[str, Any]) -> pd.DataFrame:
    if "encoding" in options:
        return _parse_text(file, options)
    with open(file, "rb") as opened:
        if opened.read(2) in (b"\xff\xfe", b"\xfe\xff"):  # what spreadsheets call Unicode text
            return _parse_text(file, {**options, "encoding": "utf-16"})
    try:
        return _parse_text(file, {**options, "encoding": "utf-8-sig"})
    except UnicodeDecodeError:
        frame = _parse_text(file, {**options, "encoding": "cp1252", "encoding_errors": "replace"})
        warnings.warn(
            f"{file.name} is not UTF-8; it was read as Windows-1252. If names look wrong, pass "
            "read_options={'encoding': ...}",
            DataWarning,
            stacklevel=5,
        )
        return frame


def _parse_text(file: Path, options: dict[str, Any]) -> pd.DataFrame:
    if "sep" not in options and "delimiter" not in options:
        options = {**options, "sep": _separator(file, options)}
    return pd.read_csv(file, **options)


def _separator(file: Path, options: Mapping[str, Any]) -> str:
    """The separator that is most frequent in the first line that the reader looks at."""
    passed = {k: options[k] for k in ("encoding", "skiprows", "comment", "compression") if k in options}
    header = pd.read_csv(file, sep="\x01", nrows=0, encoding_errors="replace", **passed).columns
    line = str(header[0]) if len(header) else ""
    return max((",", ";", "\t", "|"), key=line.count)


def _read_parquet(file: Path, options: dict[str, Any]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    if b"geo" in (pq.read_schema(file).metadata or {}):
        import geopandas as gpd

        return gpd.read_parquet(file, **options)
    return pd.read_parquet(file, **options)


def _read_stata(file: Path, options: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, dict[Any, str]]]:
    frame = pd.read_stata(file, convert_categoricals=False, **options)
    try:
        labelled = pd.read_stata(file, convert_categoricals=True, **options)
    except ValueError:  # one label for two codes
        warnings.warn(
            f"{file.name}: a value label stands for two codes, so all value labels were left out",
            DataWarning,
            stacklevel=5,
        )
        labelled = frame
    tables: dict[str, dict[Any, str]] = {}
    for column in frame.columns:
        if isinstance(labelled[column].dtype, pd.CategoricalDtype):
            pairs = pd.DataFrame({"code": frame[column], "label": labelled[column].astype(object)})
            pairs = pairs.dropna().drop_duplicates()
            tables[str(column)] = {c: str(v) for c, v in zip(pairs["code"], pairs["label"], strict=True) if c != v}
    empty = [c for c in frame.columns if frame[c].dtype.kind == "O" and (frame[c] == "").any()]
    frame[empty] = frame[empty].replace("", None)
    return frame, tables
