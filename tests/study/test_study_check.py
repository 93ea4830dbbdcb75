"""Study.check on studies made bad in one way each: the finding, its level, and what it says to do."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from study_worlds import check, clean

from causalsat.exceptions import DataError
from causalsat.study import Finding, Study, StudyReport
from causalsat.study.balance import standardised_differences

DATA = Path(os.environ.get("CAUSALSAT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def image(bounds=(32.0, 1.0, 33.0, 2.0), hole=None, crs="EPSG:4326"):
    import rioxarray  # noqa: F401
    import xarray as xr

    from causalsat.imagery import open_imagery

    left, bottom, right, top = bounds
    n = 200
    x = left + (np.arange(n) + 0.5) * (right - left) / n
    y = top - (np.arange(n) + 0.5) * (top - bottom) / n
    values = np.ones((1, n, n), dtype="float32")
    if hole is not None:
        values[:, (y[:, None] > hole[1]) & (y[:, None] < hole[3]) & (x > hole[0]) & (x < hole[2])] = np.nan
    array = xr.DataArray(values, dims=("band", "y", "x"), coords={"band": ["red"], "y": y, "x": x})
    return open_imagery(array.rio.write_crs(crs), name="scene")


def test_images_later_than_image_dates_says_are_told(tmp_path):
    """The files' own days decide; a source without days is not forgotten beside one that has them."""
    import rioxarray  # noqa: F401
    import xarray

    from causalsat.imagery import open_imagery

    def image(**options):
        array = xarray.DataArray(
            np.random.default_rng(0).normal(size=(1, 60, 60)), dims=("band", "y", "x"),
            coords={"y": 3.0 - 0.1 * np.arange(60), "x": 30 + 0.1 * np.arange(60)},
        )  # fmt: skip
        return open_imagery(array.rio.write_crs("EPSG:4326"), **options)

    table = pd.DataFrame({"y": np.arange(40.0), "t": np.arange(40) % 2, "lon": 32 + 0.01 * np.arange(40), "lat": 0.5})
    roles = {"outcome": "y", "treatment": "t", "lon": "lon", "lat": "lat", "treatment_date": "2010"}
    both = {"landsat": image(dates="2015-03-01"), "rain": image()}

    def said(**options):
        found = Study(table, **roles, **options).check().findings
        return [(f.level, f.what) for f in found if f.topic == "image dates"]

    late = ("error", "1 of 1 images of landsat are from 2015-03-01 or later, treatment from 2010-01-01")
    undated = ("note", "treatment began on 2010-01-01, but the date of the images of rain is missing")
    assert said(imagery=both) == [late, undated]
    stated = "image_dates= ends on 2005-12-31, and landsat says itself that it has images up to 2015-03-01"
    assert said(imagery=both, image_dates="2005") == [late, ("warning", stated)]
    assert said(imagery={"rain": image()}, image_dates="2005") == []
    assert said(imagery=image(dates="2004"), image_dates="2005") == []


def test_a_clean_study_has_no_error_or_warning():
    report = check(clean())
    assert report.ok
    assert not report.errors
    assert not report.warnings, str(report)
    assert "treatment arms" in report.passed
    assert report.raise_if_errors() is report


def _mixed(frame):
    frame.loc[frame.index[:2], "d"] = 1 - frame["d"].iloc[0]
    return frame


def _shared_points(frame):
    frame.loc[frame["village"] == 1, ["lon", "lat"]] = frame.loc[frame["village"] == 0, ["lon", "lat"]].to_numpy()[0]
    return frame


def _one(frame, column, value, row=3):
    frame[column] = frame[column].astype(float)
    frame.loc[row, column] = value
    return frame


CASES = [
    ("missing outcome", lambda f: _one(f, "y", np.nan), {}, "error", "missing values", "'y' misses 1 of 300"),
    ("missing treatment", lambda f: _one(f, "d", np.nan), {}, "error", "missing values", "treatment 'd' misses"),
    ("missing cluster", lambda f: _one(f, "village", np.nan), {}, "error", "missing values", "cluster 'village'"),
    ("missing covariate", lambda f: _one(f, "age", np.nan), {}, "note", "missing values", "age 0.3 %"),
    ("half missing", lambda f: f.assign(age=f["age"].where(f.index % 2 == 0)), {}, "warning", "missing values", "5"),
    ("infinite covariate", lambda f: _one(f, "age", np.inf), {}, "error", "infinite values", "age (1)"),
    ("infinite outcome", lambda f: _one(f, "y", -np.inf), {}, "error", "infinite values", "y (1)"),
    ("constant covariate", lambda f: f.assign(female=1), {}, "warning", "constant columns", "female"),
    ("text covariate", lambda f: f.assign(female="f"), {}, "warning", "text covariates", "female"),
    ("missing code", lambda f: _one(f, "age", -99), {}, "warning", "missing codes", "-99 in 1 units"),
    ("constant outcome", lambda f: f.assign(y=1.0), {}, "error", "outcome", "constant"),
    ("text outcome", lambda f: f.assign(y="high"), {}, "error", "outcome", "not numbers"),
    ("binary outcome", lambda f: f.assign(y=(f["y"] > 0).astype(int)), {}, "note", "outcome", "binary"),
    ("outlier", lambda f: _one(f, "y", 1e4), {}, "note", "outcome", "8 standard deviations"),
    ("one arm", lambda f: f.assign(d=1), {}, "error", "treatment", "one value only (1)"),
    ("coded 1 and 2", lambda f: f.assign(d=f["d"] + 1), {}, "error", "treatment", "coded 1"),
    ("unclear labels", lambda f: f.assign(d=np.where(f["d"] == 1, "A", "B")), {}, "error", "treatment", "labels"),
    ("a dose", lambda f: f.assign(d=f["d"] * f["age"]), {"covariates": None}, "note", "treatment", "dose"),
    ("small arm", lambda f: f.assign(d=(f["village"] < 3).astype(int)), {}, "warning", "arms", "15 treated"),
    ("treated clusters", lambda f: f.assign(d=(f["village"] < 8).astype(int)), {}, "warning", "arms", "8 clusters"),
    ("few clusters", lambda f: f[f["village"] < 20], {}, "warning", "clusters", "20 clusters"),
    ("one cluster", lambda f: f.assign(village=1), {}, "error", "clusters", "1 cluster"),
    ("mixed cluster", _mixed, {}, "warning", "mixed clusters", "1 of 60"),
    ("index twice", lambda f: f, {"unit": "village"}, "error", "identity", "60 unit labels"),
    ("negative weight", lambda f: f.assign(w=-1.0), {"weights": "w"}, "error", "weights", "300 weights"),
    ("zero weights", lambda f: f.assign(w=0.0), {"weights": "w"}, "error", "weights", "zero"),
    ("uneven", lambda f: f.assign(w=np.where(f.index < 9, 99, 1)), {"weights": "w"}, "note", "weights", "300"),
    ("stratum with one arm", lambda f: f.assign(s=f["d"]), {"strata": "s"}, "error", "strata", "2 of 2 strata"),
    ("split cluster", lambda f: f.assign(s=f.index % 2), {"strata": "s"}, "error", "strata", "60 of 60 clusters"),
    ("propensity of 1", lambda f: f.assign(e=1.0), {"propensity": "e"}, "error", "propensity", "1 to 1"),
    ("propensity of control", lambda f: f, {"propensity": 0.2}, "warning", "propensity", "0.200"),
    ("predicted", lambda f: f.assign(age=f["age"] + 40 * f["d"]), {}, "warning", "propensity", "AUC 1.0"),
    ("unbalanced", lambda f: f.assign(age=f["age"] + 8 * f["d"]), {}, "warning", "balance", "age +"),
    ("treatment leak", lambda f: f.assign(age=f["age"] * f["d"]), {}, "error", "treatment leak", "0 for all 150"),
    ("treatment copied", lambda f: f.assign(age=f["d"]), {}, "error", "treatment leak", "the treatment itself"),
    ("0 to 360", lambda f: f.assign(lon=f["lon"] + 200), {}, "error", "coordinates", "off the globe"),
    ("swapped", lambda f: f.assign(lat=f["lon"] + 70, lon=f["lat"]), {}, "error", "coordinates", "off the globe"),
    ("metres", lambda f: f.assign(lon=f["lon"] * 1e4, lat=f["lat"] * 1e5), {}, "error", "coordinates", "in degrees"),
    ("degrees as metres", lambda f: f, {"crs": "EPSG:32636"}, "error", "coordinates", "in metres"),
    ("at zero", lambda f: f.assign(lon=0.0, lat=0.0), {}, "error", "coordinates", "Atlantic"),
    ("lost minus", lambda f: _one(f, "lat", -40.0), {}, "warning", "coordinates", "1 unit lies"),
    ("no place", lambda f: _one(f, "lat", np.nan), {}, "error", "coordinates", "1 of 300 units have no place"),
    ("two villages, one point", _shared_points, {}, "warning", "shared places", "1 points are shared"),
    ("no cluster named", lambda f: f, {"cluster": None}, "warning", "shared places", "no cluster is named"),
    ("shared points", lambda f: f, {}, "note", "shared places", "300 units at 60 distinct places"),
    ("few units", lambda f: f.iloc[::80], {}, "warning", "lengths", "4 units for 2 covariates"),
    ("late image", lambda f: f, {"treatment_date": "2008", "image_dates": "2009"}, "error", "image dates", "1 of 1"),
    ("years", lambda f: f.assign(start=2008.0), {"treatment_date": "start", "image_dates": "2009"}, "error",
     "image dates", "treatment from 2008-01-01"),
    ("dates in two ways", lambda f: f.assign(start=np.where(f.index < 9, "1/2/1999", "2008-03-01")),
     {"treatment_date": "start", "image_dates": "2000"}, "error", "image dates",
     "write it as 1999-01-02 or 1999-02-01"),
    ("unread dates", lambda f: f.assign(start=np.where(f.index < 9, "unknown", "2008-03-01")),
     {"treatment_date": "start", "image_dates": "2000"}, "warning", "image dates", "9 of 300 treatment dates"),
    ("leak among objects", lambda f: f.assign(age=(f["age"] * f["d"]).astype(object)), {}, "error",
     "treatment leak", "age is 0 for all 150"),
    ("leak in single precision", lambda f: f.assign(b=-f["age"] / 3, age=(-f["age"] / 3 * f["d"]).astype("float32")),
     {"covariates": ["age", "b"]}, "error", "treatment leak", "age = b x treatment"),
    ("one late image", lambda f: f, {"treatment_date": "2008", "image_dates": ["2001", "2009"]}, "warning",
     "image dates", "1 of 2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "changes", "level", "topic", "piece"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_each_defect_is_found(make, changes, level, topic, piece):
    report = check(make(clean()), **changes)
    hits = [f for f in report.about(topic) if piece in f.what]
    assert hits, str(report)
    assert hits[0].level == level
    assert len(hits[0].todo) > 10
    assert report.ok == (not report.errors)


def test_years_before_the_treatment_are_in_order():
    years = clean().assign(start=np.where(clean().index < 9, 2008, 2010))
    report = check(years, treatment_date="start", image_dates=2007)
    assert "image dates" in report.passed, str(report)


def test_both_sides_of_180_degrees_are_near():
    x = np.where(clean().index < 15, -179.9, 179.9)
    report = check(clean().assign(lon=x + clean()["lon"] * 1e-3, lat=-17 + clean()["lat"] * 1e-3))
    assert not report.about("coordinates"), str(report)


def test_missing_crs_is_an_error_that_guesses():
    frame = clean()
    geo = gpd.GeoDataFrame(
        frame.drop(columns=["lon", "lat"]), geometry=gpd.points_from_xy(frame["lon"], frame["lat"])
    )
    report = Study(geo, outcome="y", treatment="d", cluster="village").check()
    (finding,) = report.about("coordinates")
    assert finding.level == "error"
    assert "EPSG:4326" in finding.todo
    with pytest.raises(DataError, match="no coordinate reference system"):
        report.raise_if_errors()


def test_imagery_covers_all():
    assert "imagery" in check(clean(), imagery=image(bounds=(31.9, 0.9, 33.1, 2.1))).passed


def test_places_outside_and_on_nodata_are_counted_once_each():
    frame = clean()
    villages = frame.drop_duplicates("village")
    report = check(frame, imagery=image(bounds=(32.2, 1.0, 33.0, 2.0), hole=(32.8, 1.0, 33.0, 2.0)))
    outside, empty = int((villages["lon"] < 32.2).sum()), int((villages["lon"] > 32.815).sum())
    found = {f.what.split(" lie ")[1]: f for f in report.about("imagery") if " lie " in f.what}
    assert found["outside scene"].what.startswith(f"{outside} of 60 places ({5 * outside} units")
    assert int(found["where scene has no data"].what.split()[0]) == pytest.approx(empty, abs=2)
    assert all(f.level == "warning" for f in found.values())
    assert set(found["outside scene"].data) == set(frame.index[frame["lon"] < 32.2])


def test_further_places_outside_are_noted():
    places = pd.DataFrame({"lon": [32.5, 40.0], "lat": [1.5, 1.5]})
    report = check(clean(), imagery=image(bounds=(31.9, 0.9, 33.1, 2.1)), places=places)
    assert report.about("imagery")[0].what == "1 of 2 further places lie outside scene"


def test_all_outside_is_an_error_and_swapped_is_recognised():
    far = check(clean(), imagery=image(bounds=(10.0, 40.0, 11.0, 41.0)))
    assert "60 of 60 places" in far.about("imagery")[0].what
    assert far.about("imagery")[0].level == "error"
    swapped = check(clean().rename(columns={"lon": "lat", "lat": "lon"}), imagery=image())
    assert "exchange lon= and lat=" in swapped.about("imagery")[0].todo


def test_imagery_that_fails_becomes_a_finding():
    class Broken:
        bounds, crs, dates, name = (0.0, 0.0, 90.0, 60.0), "EPSG:4326", (), "broken"

        def iter_chips(self, geometry, size_px):
            raise OSError("truncated file")

    (finding,) = check(clean(), imagery=Broken()).about("imagery")
    assert finding.level == "error"
    assert "truncated file" in finding.what


def test_standardised_differences_by_hand():
    x = pd.DataFrame({"a": [0.0, 2.0, 4.0, 6.0, np.nan]})
    table = standardised_differences(x, np.array([0.0, 0.0, 1.0, 1.0, 1.0]))
    assert table.loc["a", "difference"] == pytest.approx((5 - 1) / np.sqrt(2.0))


@pytest.mark.statistical
def test_randomised_trials_are_rarely_called_confounded():
    flagged = sum(bool(check(clean(seed=s)).about("propensity")) for s in range(20))
    assert flagged <= 1


def test_report_prints_and_converts():
    report = StudyReport("toy <b>", (Finding("error", "outcome", "y misses 1", "drop it"),), ("weights",))
    text = str(report)
    assert "ERROR    outcome  y misses 1" in text
    assert "-> drop it" in text
    assert "In order: weights." in text
    assert "1 error, 0 warnings, 0 notes. Repair" in text
    assert max(map(len, str(check(clean())).splitlines())) <= 100
    assert list(report.to_dataframe().iloc[0]) == ["error", "outcome", "y misses 1", "drop it"]
    assert "toy &lt;b&gt;" in report._repr_html_()


@pytest.mark.skipif(not (DATA / "uganda_yop").is_dir(), reason=f"the Uganda data are not in {DATA}")
def test_uganda_leaks_are_found_and_the_rest_is_in_order():
    folder = DATA / "uganda_yop"
    roles = {"outcome": "outcome", "treatment": "treatment", "cluster": "site", "lon": "lon", "lat": "lat"}
    study = Study.from_file(folder / "units.csv", **roles, covariates="x*", unit="unit", treatment_date="2008")
    (leak,) = study.check().about("treatment leak")
    assert leak.level == "error"
    assert set(leak.data) == {"x2", "x4", "x6"}
    assert "x2 = x1 x treatment" in leak.what
    honest = study.replace(covariates=["x1", "x3", "x5"]).check()
    assert not honest.errors
    assert not honest.warnings, str(honest)
    assert "49 of 327 clusters" in honest.about("mixed clusters")[0].what


# ---------------------------------------------------------------------- projected places
def _projected(crs: str, north: float = 0.0) -> pd.DataFrame:
    frame = clean()
    points = gpd.GeoSeries.from_xy(frame["lon"], frame["lat"] + north, crs=4326).to_crs(crs)
    return frame.assign(lon=points.x, lat=points.y)


def _first_at_zero(frame):
    frame.loc[frame.index[:9], ["lon", "lat"]] = 0.0
    return frame


@pytest.mark.parametrize(
    ("change", "piece", "todo"),
    [
        (lambda f: f.assign(lon=f["lat"], lat=f["lon"]), "300 of 300 places lie outside the area", "look swapped"),
        (lambda f: f.assign(lon=f["lon"] / 1e3, lat=f["lat"] / 1e3), "300 of 300 places", "multiply them by 1000"),
        (lambda f: f.assign(lon=f["lon"] * 1e3, lat=f["lat"] * 1e3), "300 of 300 places", "divide them"),
        (lambda f: f.assign(lon=f["lon"] / 0.3048, lat=f["lat"] / 0.3048), "300 of 300 places", "look like feet"),
        (_first_at_zero, "9 units at x 0, y 0 of WGS 84 / UTM zone 36N", "empty cells"),
        (lambda f: _one(f, "lon", 9e6), "1 of 300 places lie outside", "check that crs="),
    ],
)
def test_projected_places_that_are_none_are_found(change, piece, todo):
    report = check(change(_projected("EPSG:32636", north=40.0)), crs="EPSG:32636")
    found = report.about("coordinates")
    assert found, str(report)
    assert piece in found[0].what
    assert todo in found[0].todo


@pytest.mark.parametrize("crs", ["EPSG:32636", "EPSG:32635", "EPSG:3857", "EPSG:21096", "ESRI:102022"])
def test_projected_places_in_order(crs):
    assert not check(_projected(crs), crs=crs).about("coordinates")


def test_altitudes_make_no_places():
    frame = clean()
    points = gpd.points_from_xy(frame["lon"], frame["lat"], np.arange(len(frame)) * 1.0)
    high = gpd.GeoDataFrame(frame.drop(columns=["lon", "lat"]), geometry=points, crs=4326)
    found = check(high, lon=None, lat=None)
    assert "300 units at 60 distinct places" in found.about("shared places")[0].what
