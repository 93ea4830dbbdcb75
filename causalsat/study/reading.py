"""Reading a table of units: CSV, Parquet, GeoParquet, Stata, and any vector file that GDAL knows."""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalsat.core.names import close_matches, list_names
from causalsat.core.vectors import read_vector
from causalsat.exceptions import DataError, DataWarning

TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".csv.zip")
PARQUET = (".parquet", ".pq", ".geoparquet")
VECTOR = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".gml", ".kml", ".gdb", ".gpx", ".zip")
MAX_DOUBLE = 2.0**53  # from which doubles do not hold every whole number
_MARKS = {
    b"PAR1": "a Parquet table",
    b"PK": "a zip archive or an Excel workbook",
    b"SQLite": "a GeoPackage or another SQLite file",
    b"<stata_dta>": "a Stata file",
    b"r\x02": "a Stata file",
    b"s\x02": "a Stata file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}
ELSEWHERE = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".sav": "in SPSS: SAVE TRANSLATE /TYPE=CSV, or Stata 14",
    ".rds": "in R: arrow::write_parquet(x, 'units.parquet') or write.csv(x, 'units.csv', row.names = FALSE)",
    ".rdata": "in R: arrow::write_parquet(x, 'units.parquet') or write.csv(x, 'units.csv', row.names = FALSE)",
    ".sas7bdat": "in SAS: PROC EXPORT DBMS=CSV",
    ".pkl": "write it as Parquet: a pickle can run code when it is opened",
}


VARIABLE_LABELS = "variable_labels"  # key of a table's attrs: column to what its variable is called


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
        Stata value labels; empty for other formats. The variables' own labels are in ``frame.attrs``.

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
            return _read_vector(file, options), {}
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
        start = opened.read(1 << 16)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what spreadsheets call Unicode text
        return _parse_text(file, {**options, "encoding": "utf-16"})
    if b"\x00" in start and not file.name.lower().endswith((".gz", ".zip")):
        kind = next((kind for mark, kind in _MARKS.items() if start.startswith(mark)), "bytes that are no text")
        raise DataError(
            f"{file} is no text file: it holds {kind}",
            expected=f"a table of text, as the ending {file.suffix} says",
            todo="rename it to what it is, or export it as CSV",
        )
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
    """The table as pandas reads it, but for what it would lose: names, labels, rows that end in a separator."""
    header = _header(file, options)
    stated = re.fullmatch(r"sep=(.)", header)  # as spreadsheets write it above the names
    if stated is not None and "skiprows" not in options:
        options = {"sep": stated[1], **options, "skiprows": 1}
        header = _header(file, options)
    if "sep" not in options and "delimiter" not in options:
        options = {**options, "sep": max((",", ";", "\t", "|"), key=header.count)}
    if not {"header", "names", "usecols"} & set(options):
        _refuse_repeated_names(file, header, str(options.get("sep", options.get("delimiter"))))
    if re.match(r"#\s", header) and not {"header", "names", "comment", "skiprows"} & set(options):
        raise DataError(
            f"{file.name} begins with {header[:60]!r}",
            expected="a first line with the names of the columns",
            todo="if lines that begin with # are remarks: read_options={'comment': '#'}",
        )
    if not {"engine", "low_memory"} & set(options):  # a column is read as one, not in parts of different types
        options = {**options, "low_memory": False}
    frame = pd.read_csv(file, **options)
    _tell_of_cut_file(file, header, options)
    if "index_col" not in options and _rows_end_in_separator(file, frame, options):
        options = {**options, "index_col": False}
        frame = pd.read_csv(file, **options)
    if not {"index_col", "header", "names", "usecols"} & set(options):
        _refuse_fields_without_name(file, frame, options)
    if not isinstance(frame, pd.DataFrame) or {"dtype", "converters"} & set(options):
        return frame
    return _with_labels_as_written(file, frame, options)


def _header(file: Path, options: Mapping[str, Any]) -> str:
    """The first line that the reader looks at."""
    passed = {k: options[k] for k in ("encoding", "skiprows", "comment", "compression") if k in options}
    raw = pd.read_csv(file, sep="\x01", nrows=0, quoting=csv.QUOTE_NONE, encoding_errors="replace", **passed).columns
    return str(raw[0]) if len(raw) else ""


def _refuse_repeated_names(file: Path, header: str, separator: str) -> None:
    names = next(csv.reader([header], delimiter=separator), []) if len(separator) == 1 else []
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        numbers = sum(re.fullmatch(r"\s*[+-]?[\d.]+\s*", name) is not None for name in names) > len(names) / 2
        raise DataError(
            f"{file.name} has {names.count(repeated[0])} columns named {repeated[0]!r}",
            expected="each name once",
            todo="if the first line is no line of names: read_options={'header': None, 'names': [...]}"
            if numbers
            else "rename them in the file, so that a role names one of them",
        )


def _tell_of_cut_file(file: Path, header: str, options: Mapping[str, Any]) -> None:
    """Warn of a last line of fewer fields than there are names, and without an end: a copy that was interrupted."""
    separator = str(options.get("sep", options.get("delimiter")))
    plain = file.name.lower().endswith((".csv", ".tsv", ".txt")) and "utf-16" not in str(options.get("encoding"))
    if not plain or len(separator) != 1 or {"skipfooter", "nrows", "names", "header"} & set(options):
        return
    with open(file, "rb") as opened:
        opened.seek(0, os.SEEK_END)
        opened.seek(-min(opened.tell(), 1 << 16), os.SEEK_CUR)
        end = opened.read()
    if end.endswith((b"\n", b"\r")) or b"\n" not in end:
        return
    last = end.rsplit(b"\n", 1)[1].decode("utf-8", "replace")
    names, fields = (len(next(csv.reader([line], delimiter=separator), [])) for line in (header, last))
    if 0 < fields < names and last.count('"') % 2 == 0:
        warnings.warn(
            f"{file.name}: its last line has {fields} of {names} fields and no end: it may have been cut short, "
            "with its last number. Copy it again, or leave out its last row",
            DataWarning,
            stacklevel=6,
        )


def _rows_end_in_separator(file: Path, frame: Any, options: Mapping[str, Any]) -> bool:
    """Whether rows have more fields than the header, the last of them empty; R's row names in front are no such."""
    levels = getattr(getattr(frame, "index", None), "nlevels", 0)
    if not levels or not len(frame) or frame.shape[1] < levels or not frame.iloc[:, -levels:].isna().all(axis=None):
        return False
    return _longer_rows(file, frame, options)


def _longer_rows(file: Path, frame: Any, options: Mapping[str, Any]) -> bool:
    """Whether the first row has more fields than the table has columns: its index may be 0, 1, ... all the same."""
    skipped = options.get("skiprows", 0)
    if not isinstance(skipped, int) or {"header", "names"} & set(options):
        return False
    first = pd.read_csv(file, **{**options, "header": None, "skiprows": skipped + 1, "nrows": 1})
    return first.shape[1] == frame.shape[1] + frame.index.nlevels


def _refuse_fields_without_name(file: Path, frame: Any, options: Mapping[str, Any]) -> None:
    """Refuse rows with more fields than names, which would shift every column; tell of R's row names."""
    index = getattr(frame, "index", None)
    if (
        index is None
        or not len(index)
        or (index.equals(pd.RangeIndex(len(index))) and not _longer_rows(file, frame, options))
    ):
        return
    counts = index.nlevels == 1 and [str(v) for v in index] == [str(i) for i in range(1, len(index) + 1)]
    if counts or (index.nlevels == 1 and index.is_unique and _quoted_as_by_r(file, options)):
        warnings.warn(
            f"{file.name}: rows have one field more than the first line has names; the first field "
            f"is taken for R's row names, so that the columns are {list_names(map(repr, frame.columns), 6)}. If "
            "the last field has no name instead: read_options={'index_col': False}",
            DataWarning,
            stacklevel=6,
        )
        return
    raise DataError(
        f"{file.name}: rows have {frame.shape[1] + index.nlevels} fields, its first line {frame.shape[1]} names; it "
        "cannot be seen which field has none",
        expected="a name for each field",
        todo="complete the first line; read_options={'index_col': 0} if the first field holds names of rows, "
        "{'index_col': False} if the last one is to be left out",
    )


def _quoted_as_by_r(file: Path, options: Mapping[str, Any]) -> bool:
    """Whether all names and the rows' first fields are in quotes, as write.table of R writes names of rows."""
    separator = str(options.get("sep", options.get("delimiter")))
    header = _header(file, options).split(separator)
    if not all(name[:1] == name[-1:] == '"' for name in header):
        return False
    passed = {k: options[k] for k in ("encoding", "skiprows", "comment", "compression") if k in options}
    lines = pd.read_csv(file, sep="\x01", nrows=1000, quoting=csv.QUOTE_NONE, encoding_errors="replace", **passed)
    return all(str(line).startswith('"') for line in lines.iloc[:, 0])


def _with_labels_as_written(file: Path, frame: pd.DataFrame, options: dict[str, Any]) -> pd.DataFrame:
    """Columns whose numbers lose what was written, such as 07 or 17 digits beside an empty cell, as text instead.

    Words for missing values (NA, None) in a column of text are kept as well, and told: they may be names.
    """
    whole = [c for c in frame.columns if _may_be_labels(frame[c])]
    words = [c for c in frame.columns if _is_text(frame[c]) and (frame[c].isna() | (frame[c] == "")).any()]
    if {"na_values", "keep_default_na", "na_filter"} & set(options):
        words = []
    if not whole and not words:
        return frame
    texts = dict.fromkeys([*whole, *words], str)
    raw = pd.read_csv(file, **{**options, "dtype": texts, "keep_default_na": False, "na_values": [""]})
    for column in whole:
        kinds = [text.strip() for text in raw[column].dropna().unique()]
        inexact = frame[column].dtype.kind in "fO"
        long = inexact and any(len(text) > 15 and text.lstrip("+-").isdigit() for text in kinds)
        codes = _are_codes(kinds)
        if long or codes or any(text.isdigit() and text[0] == "0" and len(text) > 1 for text in kinds):
            frame[column] = raw[column].str.strip().where(frame[column].notna(), None)
    kept: dict[str, str] = {}
    for column in words:
        lost = frame[column].isna() & raw[column].notna()
        if lost.any():
            kept[str(column)] = str(raw[column][lost].iloc[0])
        frame[column] = raw[column]
    if kept:
        column, word = next(iter(kept.items()))
        warnings.warn(
            f"{file.name}: columns of text hold words such as {word!r} ({list_names(map(repr, kept), 6)}), which are "
            f"read as they stand. If they mean that the value is missing: read_options={{'na_values': [{word!r}]}}",
            DataWarning,
            stacklevel=6,
        )
    return frame


def _are_codes(texts: list[str]) -> bool:
    """Whether a column's texts are codes such as 12E3, 1E4 and 1E-1, which are no amounts."""
    if not any(re.fullmatch(r"\d+[eE]\d+", text) for text in texts):
        return False
    return all(re.fullmatch(r"[+-]?\d+([eE][+-]?\d+)?", text) for text in texts)


def _may_be_labels(values: pd.Series) -> bool:
    """Whether a column holds whole numbers only, or a number that 1E1 may have been beside fractions."""
    if _is_whole(values):
        return True
    if values.dtype.kind != "f":
        return False
    known = values.dropna().to_numpy(dtype=float)
    powers = np.isfinite(known) & (known != 0) & (known == np.floor(known))
    return bool(powers.any())


def _is_whole(values: pd.Series) -> bool:
    """Whether a column holds whole numbers only."""
    if values.dtype.kind in "iu":
        return True
    if values.dtype.kind == "O":  # beyond 64 bits
        return bool(values.notna().any()) and all(type(value) is int for value in values.dropna())
    if values.dtype.kind != "f":
        return False
    known = values.dropna().to_numpy(dtype=float)
    return bool(len(known)) and bool((known == np.floor(known)).all())


def _is_text(values: pd.Series) -> bool:
    return values.dtype.kind == "O" and all(isinstance(value, str) for value in values.dropna().head(100))


def _read_parquet(file: Path, options: dict[str, Any]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    if b"geo" in (pq.read_schema(file).metadata or {}):
        import geopandas as gpd

        return gpd.read_parquet(file, **options)
    frame = pd.read_parquet(file, **options)
    return frame if "dtype_backend" in options else _with_whole_numbers(file, frame)


def _with_whole_numbers(file: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers of a Parquet file beside missing values that doubles do not hold, such as 17 digits, as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = pq.read_schema(file)
    whole = [c for c in frame.columns if frame[c].dtype.kind == "f" and c in types.names]
    far = [c for c in whole if pa.types.is_integer(types.field(c).type) and frame[c].abs().max() >= MAX_DOUBLE]
    for column in far:
        exact = pq.read_table(file, columns=[column]).column(column).to_pylist()
        frame[column] = pd.Series([None if v is None else str(v) for v in exact], index=frame.index, dtype=object)
    return frame


def _read_vector(file: Path, options: dict[str, Any]) -> Any:
    """The table of a vector file; whole numbers beside missing values that doubles do not hold as text."""
    frame = read_vector(file, **options)
    far = [c for c in frame.columns if frame[c].dtype.kind == "f" and frame[c].abs().max() >= MAX_DOUBLE]
    if not far or {"rows", "bbox", "mask", "where", "sql", "columns", "engine"} & set(options):
        return frame
    import pyarrow as pa
    from pyogrio.raw import read_arrow

    passed = {"layer": options["layer"]} if "layer" in options else {}
    exact = read_arrow(file, columns=far, read_geometry=False, **passed)[1]
    for column in (c for c in far if pa.types.is_integer(exact.schema.field(c).type)):
        values = [None if v is None else str(v) for v in exact.column(column).to_pylist()]
        frame[column] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _read_stata(file: Path, options: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, dict[Any, str]]]:
    frame = pd.read_stata(file, convert_categoricals=False, **options)
    repeated: tuple[str, ...] = ()
    try:
        labelled = pd.read_stata(file, convert_categoricals=True, **options)
    except ValueError:  # one label for two codes
        labelled, repeated = _labels_column_by_column(file, frame, options)
    tables: dict[str, dict[Any, str]] = {}
    for column in frame.columns:
        if isinstance(labelled[column].dtype, pd.CategoricalDtype):
            pairs = pd.DataFrame({"code": frame[column], "label": labelled[column].astype(object)})
            pairs = pairs.dropna().drop_duplicates()
            tables[str(column)] = {
                c: str(v) for c, v in zip(pairs["code"], pairs["label"], strict=True) if c != v and str(v)
            }
    if repeated:
        warnings.warn(
            f"{file.name}: one value label stands for two codes in {list_names(repeated, 6)}, whose value labels "
            "were left out. In Stata: label list, and label define with a word for each code",
            DataWarning,
            stacklevel=5,
        )
    empty = [c for c in frame.columns if frame[c].dtype.kind == "O" and (frame[c] == "").any()]
    frame[empty] = frame[empty].replace("", None)
    with pd.io.stata.StataReader(file) as reader:
        labels = {name: label.strip() for name, label in reader.variable_labels().items() if label.strip()}
    frame.attrs[VARIABLE_LABELS] = labels
    return frame, tables


def _labels_column_by_column(
    file: Path, frame: pd.DataFrame, options: dict[str, Any]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table with its labels, but for the columns where one label stands for two codes, and their names."""
    labelled, repeated = frame.copy(), []
    for column in frame.columns:
        try:
            only = {**options, "columns": [column], "convert_categoricals": True}
            labelled[column] = pd.read_stata(file, **only)[column]
        except ValueError:
            repeated.append(str(column))
    return labelled, tuple(repeated)
