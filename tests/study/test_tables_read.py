"""Tables: kinds of columns by formats against pandas, and any small table against what was written."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import warnings
import zipfile

import geopandas
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError
from causalsat.study import Study
from causalsat.study.building import numeric_column
from causalsat.study.dates import column_days, parse_dates
from causalsat.study.reading import read_units

N = 6
LONG = [str(12345678901234560 + k) for k in range(N - 1)]

KINDS = {
    "whole numbers": [3, 1, 4, 1, 5, 9],
    "whole numbers with a gap": [3, None, 4, 1, 5, 9],
    "fractions": [0.1, 1e-300, 1 / 3, -2.5e17, 123456.789, 1e22],
    "fractions with a gap": [0.1, None, 1 / 3, -2.5, 1e10, 7.0],
    "yes and no": [True, False, True, True, False, False],
    "text": ["a", "b c", "d, e", 'quoted "f"', "g;h", "i'j"],
    "text in scripts": ["Kyōto", "القاهرة", "Ñandú", "Łódź", "北京", "Gulu"],
    "text with gaps": ["a", None, "b", None, "c", "d"],
    "words for missing among names": ["NA", "None", "null", "x", "nan", "N/A"],
    "codes with zeros in front": ["07", "7", "007", "08", "010", "10"],
    "17 digits and a gap": [*LONG, None],
    "20 digits and a gap": ["1" * 20, "1" * 19 + "2", "2" * 20, "3" * 20, "4" * 20, None],
    "dates": ["2008-03-01", "2009-01-31", "2010-12-31", "2000-02-29", "1999-01-01", "2008-03-02"],
}


def csv(frame, folder, **options):
    frame.to_csv(folder / "t.csv", index=False, **options)
    return folder / "t.csv"


def tsv(frame, folder):
    frame.to_csv(folder / "t.tsv", index=False, sep="\t")
    return folder / "t.tsv"


def semicolons(frame, folder):
    return csv(frame, folder, sep=";", encoding="utf-16")


def gzipped(frame, folder):
    frame.to_csv(folder / "t.csv.gz", index=False)
    return folder / "t.csv.gz"


def ends_in_separators(frame, folder):
    """As some survey programs write: rows, not the header, have a separator at their end."""
    first, *rows = frame.to_csv(index=False).splitlines()
    (folder / "t.csv").write_text("\n".join([first, *(row + "," for row in rows)]) + "\n", encoding="utf-8")
    return folder / "t.csv"


def parquet(frame, folder):
    frame.to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def stata(frame, folder):
    own = frame.assign(**{c: frame[c].astype("int8") for c in frame if frame[c].dtype == bool})
    own = own.assign(**{c: own[c].fillna("") for c in own if own[c].dtype.kind == "O"})
    own.to_stata(folder / "t.dta", write_index=False, version=118)
    return folder / "t.dta"


def geopackage(frame, folder):
    points = geopandas.points_from_xy(range(len(frame)), range(len(frame)))
    geopandas.GeoDataFrame(frame, geometry=points, crs=4326).to_file(folder / "t.gpkg", driver="GPKG")
    return folder / "t.gpkg"


FORMATS = [csv, tsv, semicolons, gzipped, ends_in_separators, parquet, stata, geopackage]


def same(read: pd.Series, written: list) -> None:
    assert len(read) == len(written)
    for got, put in zip(read, written, strict=True):
        if put is None:
            assert pd.isna(got), (got, put)
        elif isinstance(put, float | int):
            assert float(got) == float(put), (got, put)
        else:
            assert got == put, (got, put)


@pytest.mark.parametrize(
    ("kind", "form"), [*itertools.product(KINDS, FORMATS)], ids=lambda v: getattr(v, "__name__", v)
)
def test_what_is_written_is_read(tmp_path, kind, form):
    values = KINDS[kind]
    path = form(pd.DataFrame({"row": np.arange(len(values)), "x": values, "y": 1.5}), tmp_path)
    words = kind.startswith("words") and form in (csv, tsv, semicolons, gzipped, ends_in_separators)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame, labels = read_units(path)
    told = [str(w.message) for w in caught if issubclass(w.category, DataWarning)]
    assert bool(told) == words, told
    assert labels == {}
    same(frame["x"], values)
    same(frame["row"], list(range(len(values))))
    same(frame["y"], [1.5] * len(values))


# ---------------------------------------------------------------------- any small table
NUMBERS = st.one_of(st.none(), st.integers(-(2**53), 2**53), st.floats(-1e300, 1e300))
WORDS = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1))
COLUMNS = st.one_of(
    st.lists(NUMBERS, min_size=4, max_size=4),
    st.lists(WORDS, min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.integers(0, 10**6).map(lambda k: f"{k:07d}")), min_size=4, max_size=4),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.lists(COLUMNS, min_size=1, max_size=3), form=st.sampled_from([csv, tsv, parquet, stata]))
def test_any_small_table_is_read_as_it_was_written(tmp_path, columns, form):
    frame = pd.DataFrame({f"c{k}": pd.Series(values, dtype=_dtype(values)) for k, values in enumerate(columns)})
    frame["id"] = np.arange(4)
    path = form(frame, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        read, _ = read_units(path)
    assert list(read.columns) == list(frame.columns)
    readers = {parquet: pd.read_parquet, stata: pd.read_stata, tsv: pd.read_table, csv: pd.read_csv}
    plain = readers[form](path)
    for name, values in zip(frame.columns, columns, strict=False):
        if frame[name].dtype.kind == "f":
            expected = plain[name].to_numpy(float)  # the same digits as pandas, to the last bit
            np.testing.assert_array_equal(read[name].to_numpy(float, na_value=np.nan), expected)
            continue
        for got, put in zip(read[name], values, strict=True):
            if put is None:
                assert pd.isna(got)
            elif isinstance(got, str):
                assert got == put
            else:  # texts that are all numbers, or yes and no, to pandas
                assert not isinstance(put, str) or _is_number(put) or pd.isna(got) or isinstance(got, bool | np.bool_)


def _dtype(values: list) -> str:
    return "object" if any(isinstance(v, str) for v in values) else "float64"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) or True
    except ValueError:
        return text.strip().lower() in ("true", "false")


# ---------------------------------------------------------------------- refused or told
def written(folder, text: str):
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return folder / "t.csv"


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = written(tmp_path, 'id,income,"income"\na,1,2\n')
    with pytest.raises(DataError, match=r"has 2 columns named 'income'.*rename them"):
        read_units(path)
    assert list(read_units(path, {"names": ["id", "a", "b"], "header": 0})[0]) == ["id", "a", "b"]


def test_a_long_column_is_read_as_one(tmp_path):
    """Whole numbers and one text near the end: parts of a file would hold 7 and "7", two labels for one cluster."""
    labels = [*map(str, np.arange(400_000) % 50), "x1"]
    pd.DataFrame({"village": labels, "y": 1.5}).to_csv(tmp_path / "t.csv", index=False)
    assert read_units(tmp_path / "t.csv")[0]["village"].nunique() == 51


def test_row_names_of_r_are_the_index_as_in_pandas(tmp_path):
    with pytest.warns(DataWarning, match="row names, so that the columns are 'a', 'b'"):
        frame, _ = read_units(written(tmp_path, '"a","b"\n"1","x",2\n"2","y",3\n'))
    pd.testing.assert_frame_equal(frame, pd.read_csv(tmp_path / "t.csv"))


def test_the_separator_that_a_spreadsheet_states(tmp_path):
    assert read_units(written(tmp_path, "sep=;\na;b\n1;2\n"))[0].to_dict("list") == {"a": [1], "b": [2]}


def test_words_stated_to_be_missing_are(tmp_path):
    path = written(tmp_path, "edu,x\nNA,1\nPrimary,NA\nNone,2\n")
    with pytest.warns(DataWarning, match=r"'NA' \('edu'\).*na_values"):
        frame, _ = read_units(path)
    assert frame["edu"].tolist() == ["NA", "Primary", "None"]
    assert frame["x"].isna().tolist() == [False, True, False]
    frame, _ = read_units(path, {"na_values": ["NA"]})
    assert frame["edu"].isna().tolist() == [True, False, True]  # pandas' own words too


@pytest.mark.parametrize("form", [parquet, geopackage])
def test_numbers_of_17_digits_beside_a_missing_one_stay_apart(tmp_path, form):
    """Both formats hold them as whole numbers, which pandas and geopandas read as doubles."""
    numbers = [12345678901234567, 12345678901234568, None]
    frame = pd.DataFrame({"id": pd.array(numbers, dtype="Int64"), "n": [1.5, None, 2.0**60]})
    if form is parquet:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"id": numbers, "n": [1.5, None, 2.0**60]}), tmp_path / "t.parquet")
        path = tmp_path / "t.parquet"
    else:
        path = form(frame, tmp_path)
    read, _ = read_units(path)
    assert read["id"].tolist() == ["12345678901234567", "12345678901234568", None]
    same(read["n"], [1.5, None, 2.0**60])


def test_an_empty_value_label_is_none(tmp_path):
    frame = pd.DataFrame({"t": [0, 1, 0, 1], "y": [1.0, 2, 3, 4]})
    frame.to_stata(tmp_path / "t.dta", write_index=False, value_labels={"t": {0: "", 1: "Treatment"}})
    assert read_units(tmp_path / "t.dta")[1] == {"t": {1: "Treatment"}}


def test_objects_in_cells_are_refused_where_they_have_a_role(tmp_path):
    """As GeoJSON may hold them; elsewhere they are let be."""
    features = [
        {"type": "Feature", "properties": {"y": k, "d": k % 2, "o": {"a": [k]}, "code": "07"},
         "geometry": {"type": "Point", "coordinates": [32, 0.1 * k, 1200.5]}} for k in range(4)
    ]  # fmt: skip
    (tmp_path / "t.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    made = Study.from_file(tmp_path / "t.geojson", outcome="y", treatment="d", cluster="code")
    assert list(made.groups) == ["07"] * 4
    assert not made.units.geometry.has_z.any()
    for roles in ({"cluster": "o"}, {"covariates": ["o"]}, {"covariates": "o*"}, {"weights": "o"}):
        with pytest.raises(ColumnError, match=r"'o' holds objects of type dict.*one number or one text"):
            Study.from_file(tmp_path / "t.geojson", outcome="y", treatment="d", **roles)


def test_a_label_of_two_codes_spares_the_other_columns(tmp_path):
    frame = pd.DataFrame({"t": [0, 1, 0, 1], "q": [1, 2, 3, 1], "y": [1.0, 2, 3, 4]})
    tables = {"t": {0: "Control", 1: "Treatment"}, "q": {1: "a", 2: "b", 3: "b"}}
    frame.to_stata(tmp_path / "t.dta", write_index=False, value_labels=tables)
    with pytest.warns(DataWarning, match="stands for two codes in q"):
        read, labels = read_units(tmp_path / "t.dta")
    assert labels == {"t": tables["t"]}
    np.testing.assert_array_equal(read.to_numpy(float), frame.to_numpy(float))


@pytest.mark.parametrize(
    ("texts", "advice"),
    [
        (["1,5", "2"], r"decimals are commas.*'decimal': ','}"),
        (["1.234,5", "2"], r"'decimal': ',', 'thousands': '.'"),
        (["1,234", "2"], r"codebook says which.*'thousands': ','} or {'decimal'"),
        (["1,234,567", "1,234"], r"between thousands.*'thousands': ','"),
        (["1,234.5", "2"], r"between thousands"),
        (["many", "2"], "code it as numbers"),
    ],
)
def test_the_advice_about_commas_fits_every_value(texts, advice):
    with pytest.raises(ColumnError, match=advice):
        numeric_column(pd.Series(texts, name="income"), "outcome")


@pytest.mark.parametrize("dtype", ["string[pyarrow]", "string[python]", "object", "category"])
def test_text_of_every_type_is_named(dtype):
    with pytest.raises(ColumnError, match=r"outcome 'income' holds 'a'"):
        numeric_column(pd.Series(["a", "1"], name="income").astype(dtype), "outcome")
    np.testing.assert_array_equal(numeric_column(pd.Series(["07", "1"]).astype(dtype), "outcome"), [7, 1])


@pytest.mark.parametrize("values", [pd.to_timedelta([1, 2], unit="D"), pd.to_datetime(["2000", "2001"])])
def test_times_are_no_numbers(values):
    with pytest.raises(ColumnError, match="holds dates"):
        numeric_column(pd.Series(values, name="income"), "outcome")


def test_addresses_in_vector_files_are_not_asked(tmp_path):
    """A virtual file under the name of a GeoJSON, which GDAL would open and fetch."""
    import http.server
    import threading

    from causalsat.mapping.grid import read_polygons

    asked = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, read in (("units", read_units), ("districts", read_polygons)):
            address = f"/vsicurl/http://127.0.0.1:{server.server_port}/{name}.geojson"
            path = tmp_path / f"{name}.json"
            path.write_text(
                f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{address}</SrcDataSource></OGRVRTLayer>'
                "</OGRVRTDataSource>"
            )
            with pytest.raises(DataError, match="is a virtual file"):
                read(path)
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
                archive.write(path, f"{name}.vrt")
            with contextlib.suppress(DataError):  # another way in: the network is not asked either
                read(tmp_path / f"{name}.zip")
        server.shutdown()
    assert asked == []


# ---------------------------------------------------------------------- labels
def study(**columns):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"y": rng.normal(size=60), "d": np.tile([0, 1], 30), "lon": 32.0, "lat": rng.uniform(size=60)}
    )
    roles = {key: key for key in columns}
    return Study(table.assign(**columns), outcome="y", treatment="d", lon="lon", lat="lat", **roles)


@pytest.mark.parametrize(
    ("labels", "level", "piece"),
    [
        (["a", "a ", "b"], "error", "'a' and 'a '; they count as 2 and not as 1"),
        (["a b", "a  b", "c"], "error", "differ only by spaces"),
        (["a", "a\u00a0", "b"], "error", "differ only by spaces"),
        ([7, "7", "b"], "error", "7 and '7'"),
        (["Gulu", "GULU", "b"], "warning", "differ only by case"),
        (["Ségou", "Segou", "b"], "warning", "case or accents"),
        (["Se\u0301gou", "S\u00e9gou", "b"], "error", "differ only by spaces"),
        ([12345678901234568.0, 2.0, 3.0], "error", "more than 15 digits"),
    ],
)
@pytest.mark.parametrize("role", ["cluster", "strata"])
def test_labels_that_are_one_but_for_their_spelling_are_told(labels, level, piece, role):
    values = np.array(labels, dtype=object if any(isinstance(v, str) for v in labels) else float)
    report = study(**{role: np.tile(values, 20)}).check()
    (found,) = report.about("labels")
    assert (found.level, piece in found.what) == (level, True), found


def test_arms_that_are_coded_by_their_words_are_one_whatever_their_case():
    table = study().units.assign(d=np.resize(["Control", "Treatment", "control ", "treatment"], 60))
    report = study().replace(units=table).check()
    assert not report.about("labels")
    assert not report.about("treatment")


def test_a_blank_cluster_is_a_missing_one():
    report = study(cluster=np.repeat([" ", "a", "b", "c"], 15)).check()
    assert any(f.topic == "missing codes" and "' ' in 15 units" in f.what for f in report.errors), report


def test_labels_in_order_are_said_to_be():
    assert "spelling of labels" in study(cluster=np.repeat(["a", "b", "c"], 20)).check().passed


# ---------------------------------------------------------------------- dates
DATES = {
    "2008-03-01": ("2008-03-01", "2008-03-01"), "20080301": ("2008-03-01", "2008-03-01"),
    "2008/3/1": ("2008-03-01", "2008-03-01"), "2008-03": ("2008-03-01", "2008-03-31"),
    "200803": ("2008-03-01", "2008-03-31"), 200511: ("2005-11-01", "2005-11-30"),
    "2008": ("2008-01-01", "2008-12-31"),
    2008: ("2008-01-01", "2008-12-31"), np.float32(2009): ("2009-01-01", "2009-12-31"),
    "2008-03-01T23:59:59Z": ("2008-03-01", "2008-03-01"),
    pd.Timestamp("2008-03-01", tz="Africa/Kampala"): ("2008-03-01", "2008-03-01"),
    pd.Period("2008Q1"): ("2008-01-01", "2008-03-31"), np.datetime64("2008-02"): ("2008-02-01", "2008-02-29"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "days"), DATES.items(), ids=map(str, DATES))
def test_dates_of_treatment_begin_and_those_of_images_end(value, days):
    """A year or a month: the earliest day that treatment can have, and the latest that an image can have."""
    from causalsat.imagery.dates import as_day, first_day

    made = study().replace(treatment_date=value, image_dates=value)
    assert str(made.treatment_date) == days[0]
    assert [str(day) for day in made.image_dates] == [days[1]]
    assert (first_day(value), as_day(value)) == days  # imagery reads them alike
    column = pd.Series([value, None], dtype=object)
    assert [str(day) for day in column_days(column)] == [days[0], "NaT"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("03/04/2008", "2008-04-03 or 2008-03-04|2008-03-04 or 2008-04-03"),
        ("13/04/2008", "write it as 2008-04-13"),
        ("01.04.2008", "in an order that nothing tells"), ("1-4-08", "two digits"),
        (2008.5, "decimal year.*2008-07-02"),
        ("2008.25", "decimal year"), (1204588800, "seconds since 1970.*2008-03-04"),
        (1204588800000, "milliseconds.*2008-03-04"), (39508, "spreadsheet.*2008-03-01"), ("4 March 2008", "digits"),
        ("2008-13-01", "is no date"), (True, "is no date"), ("soon", "is no date"), (pd.NaT, "missing"),
    ],
)  # fmt: skip
def test_dates_that_may_mean_another_day_are_refused(value, reason):
    for role in ("treatment_date", "image_dates"):
        with pytest.raises(ParameterError, match=reason):
            parse_dates([value], role)


def test_days_in_several_orders_are_an_error_of_the_check():
    dates = np.resize(["03/04/2008", "13/04/2008", "2009-01-01"], 60)
    table = study().units.assign(start=dates)
    report = study().replace(units=table, treatment_date="start", image_dates=2007).check()
    assert any("40 of 60 treatment dates" in f.what and "2008" in f.what for f in report.errors), report


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04\x00\x00", "Excel"),
        (b"PAR1\x00", "Parquet"),
        (b"s\x02\x00\x00", "Stata"),
        (b"\x01\x00", "no text"),
    ],
)
def test_another_kind_of_file_named_csv_is_said_to_be_that(tmp_path, content, what):
    path = tmp_path / "units.csv"
    path.write_bytes(content * 50)
    with pytest.raises(DataError, match=rf"units.csv is no text file: .*{what}.*rename it to what it is") as caught:
        Study.from_file(path, outcome="y", treatment="t")
    assert str(caught.value).isprintable()


def test_rows_with_more_fields_than_names_are_refused(tmp_path):
    """Pandas makes the first field an index, and every column holds the next one's values."""
    file = tmp_path / "units.csv"
    file.write_text("y,d,x\n0.5,0,7,3\n0.7,1,8,4\n")
    with pytest.raises(DataError, match=r"rows have 4 fields, its first line 3 names"):
        read_units(file)
    file.write_text('"y","d"\n"Mazda",0.5,0\n"Fiat",0.7,1\n')  # R's row names
    with pytest.warns(DataWarning, match="R's row names, so that the columns are 'y', 'd'"):
        assert read_units(file)[0]["y"].tolist() == [0.5, 0.7]


@pytest.mark.parametrize("rows", ["A,3,0,7\nB,4,1,8\n", '"A",3,0,7\n"B",4,1,8\n'])
def test_text_in_front_of_unquoted_names_is_no_name_of_a_row(tmp_path, rows):
    """Village A with y 3 would be read as village 3 with y 0."""
    with pytest.raises(DataError, match=r"rows have 4 fields, its first line 3 names; it cannot be seen which"):
        read_units(written(tmp_path, "village,y,d\n" + rows))
    frame, _ = read_units(tmp_path / "t.csv", {"index_col": 0})
    assert frame["village"].tolist() == [3, 4]


def test_row_numbers_without_a_name_are_told(tmp_path):
    with pytest.warns(DataWarning, match="the columns are 'y', 'd'"):
        assert read_units(written(tmp_path, "y,d\n1,0.5,0\n2,0.7,1\n"))[0]["d"].tolist() == [0, 1]


def test_numbers_from_0_in_front_are_seen(tmp_path):
    """Pandas' index 0, 1, ... of such a file is that of any table."""
    with pytest.raises(DataError, match="rows have 3 fields, its first line 2 names"):
        read_units(written(tmp_path, "y,d\n0,0.5,0\n1,0.7,1\n"))
    assert read_units(written(tmp_path, "y,d\n0.5,0\n0.7,1\n"))[0]["d"].tolist() == [0, 1]


def test_codes_with_an_e_stay_apart_beside_fractions(tmp_path):
    frame, _ = read_units(written(tmp_path, "id,z\n1E4,0.5\n10E3,1E3\n1E-1,2.5\n"))
    assert frame["id"].tolist() == ["1E4", "10E3", "1E-1"]
    assert frame["z"].tolist() == [0.5, 1000.0, 2.5]  # amounts


def test_a_table_without_rows_is_read_and_a_remark_above_the_names_refused(tmp_path):
    frame, _ = read_units(written(tmp_path, "a,b\n"))
    assert frame.shape == (0, 2)
    path = written(tmp_path, "# made in May\na,b\n1,2\n")
    with pytest.raises(DataError, match=r"begins with '# made in May'.*'comment': '#'"):
        read_units(path)
    assert read_units(path, {"comment": "#"})[0].to_dict("list") == {"a": [1], "b": [2]}
    assert read_units(written(tmp_path, "#id,b\n1,2\n"))[0].columns.tolist() == ["#id", "b"]


def test_codes_with_an_e_stay_apart(tmp_path):
    file = tmp_path / "units.csv"
    codes = ["12E3", "1E4", "10E3", "7E2", "70E1", "8"]
    file.write_text(
        "id,z\n" + "".join(f"{code},{z}\n" for code, z in zip(codes, ["1e+05", "2e-3", *"3456"], strict=True))
    )
    frame = read_units(file)[0]
    assert frame["id"].tolist() == codes
    assert frame["z"].tolist() == [1e5, 2e-3, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("end", "told"), [("c,3\n", False), ("c,3,1", False), ("c,3", True), ('"c', False), ("", False)]
)
def test_a_file_that_was_cut_short_is_told(tmp_path, end, told):
    """As pandas reads it, with the last cell missing."""
    path = written(tmp_path, "id,x,y\na,1,2\nb,12,2\n" + end)
    if end == '"c':
        with pytest.raises(DataError, match="cannot be read"):
            read_units(path)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame, _ = read_units(path)
    said = [str(w.message) for w in caught if issubclass(w.category, DataWarning)]
    assert bool(said) == told
    if told:
        assert said[0].startswith("t.csv: its last line has 2 of 3 fields and no end: it may")
    pd.testing.assert_frame_equal(frame, pd.read_csv(path))


def test_codes_of_classes_among_the_covariates_are_said(tmp_path):
    """A region of 1 north, 2 south, 3 east is no amount; yes and no, an ordered scale and a plain number are."""
    n = 12
    region = np.arange(n) % 3 + 1
    frame = pd.DataFrame({"y": np.arange(n) * 1.0, "t": np.arange(n) % 2, "lon": 32.0 + np.arange(n), "lat": 1.0})
    frame["region"] = pd.Categorical.from_codes(region - 1, ["north", "south", "east"])
    frame["poor"] = pd.Categorical.from_codes(region % 2, ["no", "yes"])
    frame["age"] = region
    frame.to_stata(tmp_path / "t.dta", write_index=False)
    roles = {**ROLES, "covariates": ["region", "poor", "age"]}
    found = [f for f in Study.from_file(tmp_path / "t.dta", **roles).check().findings if f.topic == "classes"]
    assert [(f.level, f.what) for f in found] == [
        (
            "note",
            "region (0 north, 1 south, ...) holds codes that value labels name, which estimators take for amounts",
        )
    ]
    codes = frame.assign(
        region=pd.Categorical(region), poor=pd.Categorical(region % 2), age=pd.Categorical(region, ordered=True)
    )
    found = [f for f in Study(codes, **roles).check().findings if f.topic == "classes"]
    assert [(f.level, f.what[:36]) for f in found] == [("warning", "region holds codes of categories, wh")]


@pytest.mark.parametrize("dtype", [complex, object])
def test_complex_outcomes_are_refused(dtype):
    frame = pd.DataFrame({"y": np.array([1 + 2j, 1, 2, 3], dtype=dtype), "t": [0, 1, 0, 1], "lon": 32.0, "lat": 1.0})
    with pytest.raises(ColumnError, match="outcome 'y' holds complex numbers"):
        numeric_column(frame["y"], "outcome")


def two_positions(shapes, lon, lat, crs=4326):
    """A table whose geometry and whose columns both say where its two units are."""
    table = {"lon": lon, "lat": lat, "y": [1.0, 2.0], "t": [0, 1]}
    return geopandas.GeoDataFrame(table, geometry=shapes, crs=crs, index=["u1", "u2"])


ROLES = {"outcome": "y", "treatment": "t", "lon": "lon", "lat": "lat"}


def test_a_geometry_elsewhere_than_lon_and_lat_is_refused():
    points = geopandas.points_from_xy([32, 10], [1, 10])
    with pytest.raises(
        DataError,
        match=r"geometry of 1 of 2 units.*of 'u1' at longitude 32, latitude 1, and by the columns at longitude 10, "
        r"latitude 10, 2,6\d\d km apart.*leave lon= and lat= out",
    ):
        Study(two_positions(points, [10.0] * 2, [10.0] * 2), **ROLES)
    with pytest.raises(DataError, match="look swapped: exchange lon='lon' and lat='lat'"):
        Study(two_positions(points, [1.0, 10.0], [32.0, 10.0]), **ROLES)
    utm = two_positions(points, [32.0, 10.0], [1.0, 10.0]).to_crs(32636)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        study = Study(utm, **ROLES)
        study.subset([0, 1])
    np.testing.assert_array_equal(study.units.geometry.x, [32.0, 10.0])
    with pytest.raises(DataError, match="places lies elsewhere"):
        Study(
            pd.DataFrame(two_positions(points, [32.0, 10.0], [1.0, 10.0]).drop(columns="geometry")),
            places=two_positions(points, [32.0, 11.0], [1.0, 10.0]),
            **ROLES,
        )


def test_rounded_coordinates_and_areas_around_them_are_used():
    """0.0004 degrees are 44 m: told. A village's area that holds its point is no contradiction."""
    points = geopandas.points_from_xy([32, 10], [1, 10])
    with pytest.warns(DataWarning, match=r"of 'u1' at longitude 32, latitude 1, .* 44 m apart; the columns are used"):
        study = Study(two_positions(points, [32.0, 10.0], [1.0004, 10.0]), **ROLES)
    np.testing.assert_array_equal(study.units.geometry.y, [1.0004, 10.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        Study(two_positions([p.buffer(0.1) for p in points], [32.05, 10.0], [1.0, 10.0]), **ROLES)
        Study(two_positions([None, points[1]], [32.05, 10.0], [1.0, 10.0]), **ROLES)
    with pytest.warns(DataWarning, match=r"no coordinate reference system and gives way to points of lon and lat"):
        Study(two_positions(points, [32.0, 10.0], [1.0, 10.0], crs=None), **ROLES)


@pytest.mark.parametrize("estimator", ["BayesianLinearEffect", "DoublyRobustEffect"])
def test_columns_of_one_name_are_refused_by_estimators(estimator):
    import causalsat

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 3)), columns=["age", "income", "age"])
    model = getattr(causalsat, estimator)()
    treatment = np.arange(20) % 2
    with pytest.raises(DataError, match=r"X has 2 columns named 'age'.*X\.loc\[:, ~X\.columns\.duplicated"):
        model.fit(frame, np.arange(20.0), treatment=treatment)
    fitted = model.fit(frame.iloc[:, :2], np.arange(20.0), treatment=treatment)
    with pytest.raises(DataError, match="X has 2 columns named 'age'"):
        fitted.predict(frame)
    frame.columns = ["arm", "income", "arm"]
    with pytest.raises(DataError, match="X has 2 columns named 'arm'"):
        model.fit(frame, np.arange(20.0), treatment="arm")
    with pytest.raises(DataError, match=r"the units have 2 columns named 'arm'"):
        Study(frame.assign(y=1.0), outcome="y", treatment="arm")
