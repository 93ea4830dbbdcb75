"""A table of bad input to Study: what arrives, which error it gets, and the piece of the message that helps."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from causalsat.exceptions import CausalsatError, ColumnError, DataError, ParameterError, TreatmentError
from causalsat.study import Study, StudyFileNotFoundError

ROLES = {"outcome": "income", "treatment": "arm", "cluster": "village", "lon": "lon", "lat": "lat"}


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "income": [1.0, 2.0, 3.0, 4.0],
            "arm": [0, 0, 1, 1],
            "village": ["a", "a", "b", "b"],
            "age": [20, 30, 40, 50],
            "lon": [32.0, 32.0, 32.1, 32.1],
            "lat": [1.0, 1.0, 1.1, 1.1],
        }
    )


def geo(crs: str | None = "EPSG:32636") -> gpd.GeoDataFrame:
    points = gpd.points_from_xy([5e5, 5.1e5, 5.2e5, 5.3e5], [1e5] * 4)
    return gpd.GeoDataFrame(table().drop(columns=["lon", "lat"]), geometry=points, crs=crs)


BAD_CONSTRUCTOR = [
    ("outcome misspelt", {"outcome": "incom"}, ColumnError, "did you mean 'income'"),
    ("case and spaces", {"cluster": "Village "}, ColumnError, "did you mean 'village'"),
    ("nothing similar", {"treatment": "zzz"}, ColumnError, "check the spelling"),
    ("outcome None", {"outcome": None}, ColumnError, "name of a column"),
    ("covariate misspelt", {"covariates": ["agee"]}, ColumnError, "did you mean 'age'"),
    ("pattern without match", {"covariates": "z*"}, ColumnError, "matches no column"),
    ("outcome is covariate", {"covariates": ["income"]}, ColumnError, "leave 'income' out"),
    ("treatment is covariate", {"covariates": ["arm", "age"]}, ColumnError, "leave 'arm' out"),
    ("outcome is treatment", {"outcome": "arm"}, ColumnError, "two different columns"),
    ("array for a role", {"weights": np.ones(4)}, ColumnError, "add the values to the table"),
    ("lon without lat", {"lat": None}, ColumnError, "name the column that holds lat"),
    ("no place at all", {"lon": None, "lat": None}, ColumnError, "pass lon='lon', lat='lat'"),
    ("unknown CRS", {"crs": "EPSG:999999"}, DataError, "an EPSG code"),
    ("CRS no text", {"crs": "utm"}, DataError, "EPSG:4326"),
    ("propensity above 1", {"propensity": 1.5}, ParameterError, "strictly between 0 and 1"),
    ("propensity array", {"propensity": np.ones(4)}, ColumnError, "add the values to the table"),
    ("propensity misspelt", {"propensity": "prob"}, ColumnError, "check the spelling"),
    ("date that is none", {"treatment_date": "soon"}, ParameterError, "such as '2008-03-01'"),
    ("image date that is none", {"image_dates": ["2000", "x"]}, ParameterError, "is no date"),
    ("imagery as a path", {"imagery": "image.tif"}, ParameterError, "open_imagery('image.tif')"),
    ("imagery of another kind", {"imagery": np.zeros(3)}, ParameterError, "open_imagery"),
    ("unit misspelt", {"unit": "person"}, ColumnError, "unit='person'"),
    ("places without lon", {"places": pd.DataFrame({"x": [1.0], "lat": [2.0]})}, ColumnError, "of the places"),
    ("places empty", {"places": pd.DataFrame({"lon": [], "lat": []})}, DataError, "places have no rows"),
]


@pytest.mark.parametrize(
    ("changes", "error", "piece"), [row[1:] for row in BAD_CONSTRUCTOR], ids=[row[0] for row in BAD_CONSTRUCTOR]
)
def test_bad_arguments(changes, error, piece):
    with pytest.raises(error) as caught:
        Study(table(), **{**ROLES, **changes})
    assert isinstance(caught.value, CausalsatError)
    assert piece in str(caught.value)


BAD_TABLES = [
    ("a path", "units.csv", DataError, "Study.from_file"),
    ("an array", np.zeros((3, 3)), DataError, "named columns"),
    ("no rows", table().iloc[:0], DataError, "no rows"),
    ("a name twice", pd.concat([table(), table()["age"]], axis=1), DataError, "'age'"),
    ("text for lon", table().assign(lon="32 E"), ColumnError, "lon 'lon' holds '32 E'"),
    ("decimal commas", table().assign(lat="1,5"), ColumnError, "decimal"),
    ("dates for lat", table().assign(lat=pd.Timestamp("2000-01-01")), ColumnError, "holds dates"),
]


@pytest.mark.parametrize(("units", "error", "piece"), [r[1:] for r in BAD_TABLES], ids=[r[0] for r in BAD_TABLES])
def test_bad_tables(units, error, piece):
    with pytest.raises(error) as caught:
        Study(units, **ROLES)
    assert piece in str(caught.value)


def test_geometry_contradicts_crs():
    roles = {k: v for k, v in ROLES.items() if k not in ("lon", "lat")}
    with pytest.raises(DataError, match="one coordinate reference system"):
        Study(geo(), **roles, crs="EPSG:4326")
    assert Study(geo(None), **roles, crs="EPSG:32636").crs.to_epsg() == 32636


BAD_VALUES = [
    ("outcome text", {"income": ["low", "high", "low", "low"]}, "y", ColumnError, "not numbers"),
    ("outcome dates", {"income": pd.Timestamp("2001-01-01")}, "y", ColumnError, "number"),
    ("treatment words", {"arm": ["cash", "goats", "cash", "goats"]}, "treatment", TreatmentError, "treated="),
    ("treatment dates", {"arm": pd.Timestamp("2001-01-01")}, "treatment", TreatmentError, "0 and 1"),
]


@pytest.mark.parametrize(
    ("columns", "name", "error", "piece"), [r[1:] for r in BAD_VALUES], ids=[r[0] for r in BAD_VALUES]
)
def test_bad_values_are_refused_when_used(columns, name, error, piece):
    study = Study(table().assign(**columns), **ROLES)
    with pytest.raises(error) as caught:
        getattr(study, name)
    assert piece in str(caught.value)


def _write_bad_files(folder):
    table().to_csv(folder / "units.csv", index=False)
    (folder / "empty.csv").write_text("")
    (folder / "not.parquet").write_bytes(b"PAR?")
    (folder / "not.dta").write_bytes(b"\x00" * 40)
    (folder / "not.gpkg").write_bytes(b"SQLite?")
    (folder / "sheet.xlsx").write_bytes(b"PK")
    (folder / "model.rds").write_bytes(b"X")
    (folder / "frame.pkl").write_bytes(b"X")
    (folder / "notes.doc").write_bytes(b"X")
    table().drop(columns="lon").to_csv(folder / "nolon.csv", index=False)
    (folder / "short.csv").write_text("income,arm\n1,2\n3,4,5,6\n")


BAD_FILES = [
    ("unit.csv", StudyFileNotFoundError, "did you mean units.csv"),
    ("nowhere/units.csv", StudyFileNotFoundError, "there is no folder"),
    ("empty.csv", DataError, "cannot be read as .csv"),
    ("short.csv", DataError, "read_options"),
    ("not.parquet", DataError, "cannot be read as .parquet"),
    ("not.dta", DataError, "cannot be read as .dta"),
    ("not.gpkg", DataError, "cannot be read as .gpkg"),
    ("sheet.xlsx", DataError, "save the sheet as CSV"),
    ("model.rds", DataError, "write_parquet"),
    ("frame.pkl", DataError, "can run code"),
    ("notes.doc", DataError, "convert it"),
    ("nolon.csv", ColumnError, "lon='lon'"),
]


@pytest.mark.parametrize(("file", "error", "piece"), BAD_FILES, ids=[r[0] for r in BAD_FILES])
def test_bad_files(tmp_path, file, error, piece):
    _write_bad_files(tmp_path)
    with pytest.raises(error) as caught:
        Study.from_file(tmp_path / file, **ROLES)
    assert piece in str(caught.value)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Study.from_file(tmp_path / "units.csv", **ROLES)
