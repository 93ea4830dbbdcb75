"""Study: roles, reading of files, and fitting with the roles where they belong."""

from __future__ import annotations

import copy
import pickle

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError, TreatmentError
from causalsat.study import Study

ROLES = {"outcome": "income", "treatment": "arm", "cluster": "village", "lon": "lon", "lat": "lat"}


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "person": [11, 12, 13, 14, 15, 16],
            "income": [1.0, 2.0, 3.0, 4.0, 5.0, 9.0],
            "arm": ["Control", "Control", "Treatment", "Treatment", "Control", "Treatment"],
            "village": ["a", "a", "b", "b", "c", "d"],
            "age": [20, 30, 40, 50, 60, 70],
            "x1": [0.0, 1.0, np.nan, 1.0, 0.0, 1.0],
            "x2": [5.0, 4.0, 3.0, 2.0, 1.0, 0.0],
            "w": [1.0, 1.0, 2.0, 2.0, 1.0, 1.0],
            "lon": [32.0, 32.0, 32.1, 32.1, 32.2, 32.3],
            "lat": [1.0, 1.0, 1.1, 1.1, 1.2, 1.3],
        }
    )


def test_roles_are_the_columns(table):
    study = Study(table, **ROLES, covariates=["age", "x1"], weights="w", propensity=0.5, unit="person")
    assert list(study.X.columns) == ["age", "x1", "geometry"]
    assert list(study.X.index) == [11, 12, 13, 14, 15, 16]
    assert study.X.crs.to_epsg() == 4326
    np.testing.assert_array_equal(study.y, table["income"])
    np.testing.assert_array_equal(study.treatment, [0, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(study.groups, table["village"])
    np.testing.assert_array_equal(study.weights, table["w"])
    np.testing.assert_array_equal(study.propensity, np.full(6, 0.5))
    assert study.strata is None
    assert (study.n_units, len(study), study.n_clusters) == (6, 6, 4)
    assert "3 treated and 3 control" in repr(study)
    assert "<table>" in study._repr_html_()


def test_no_covariate_unless_named_and_patterns_spare_roles(table):
    assert Study(table, **ROLES).covariates == ()
    assert Study(table, **ROLES, covariates="x*").covariates == ("x1", "x2")
    assert Study(
        table.rename(columns={"income": "x0"}), **{**ROLES, "outcome": "x0"}, covariates="x*"
    ).covariates == (
        "x1",
        "x2",
    )


@pytest.mark.parametrize(
    ("values", "options", "coded"),
    [
        ([0, 1, 1], {}, [0, 1, 1]),
        ([True, False, True], {}, [1, 0, 1]),
        (["0", "1", "1"], {}, [0, 1, 1]),
        (["no", "Yes", "no"], {}, [0, 1, 0]),
        (["placebo", "treated", None], {}, [0, 1, np.nan]),
        (pd.Categorical(["Treatment", "Control", "Control"]), {}, [1, 0, 0]),
        ([1, 2, 1], {"treated": 2}, [0, 1, 0]),
        (["cash", "none", "cash"], {"treated": "cash"}, [1, 0, 1]),
        ([1.0, 2.0, np.nan], {"treated": 1}, [1, 0, np.nan]),
        ([0.0, 0.5, 2.0], {}, [0, 0.5, 2]),
    ],
)
def test_treatment_is_coded_by_the_rule(values, options, coded):
    frame = pd.DataFrame({"y": [1.0, 2.0, 3.0], "d": values, "lon": 32.0, "lat": [1.0, 2.0, 3.0]})
    study = Study(frame, outcome="y", treatment="d", lon="lon", lat="lat", **options)
    np.testing.assert_array_equal(study.treatment, coded)


@pytest.mark.parametrize(
    ("values", "options", "piece"),
    [
        (["cash", "none", "cash"], {}, "treated='none'"),
        (["cash", "goat", "none"], {}, "keep the two arms"),
        (["cash", "goat", "none"], {"treated": "cash"}, "isin"),
        ([1, 2, 1], {"treated": "2"}, "2 is not '2'"),
    ],
)
def test_unclear_treatments_are_refused_with_the_remedy(values, options, piece):
    frame = pd.DataFrame({"y": [1.0, 2.0, 3.0], "d": values, "lon": 32.0, "lat": [1.0, 2.0, 3.0]})
    study = Study(frame, outcome="y", treatment="d", lon="lon", lat="lat", **options)
    with pytest.raises(TreatmentError, match=piece.replace("(", r"\(")):
        _ = study.treatment


def test_the_place_is_no_covariate(table):
    roles = {k: v for k, v in ROLES.items() if k not in ("lon", "lat")}
    points = gpd.points_from_xy(table.lon, table.lat)
    frame = gpd.GeoDataFrame(table.assign(gap=1.0), geometry=points, crs=4326)
    for named in (frame, frame.rename_geometry("geom")):
        assert Study(named, **roles, covariates="g*").covariates == ("gap",)
        with pytest.raises(ColumnError, match="is the place and a covariate"):
            Study(named, **roles, covariates=[named.geometry.name])


def test_subset_replace_copy_and_immutability(table):
    study = Study(table, **ROLES, covariates="x*", unit="person", weights="w", propensity=0.4, name="toy")
    small = study.subset(study.y > 2.5)
    assert list(small.X.index) == [13, 14, 15, 16]
    assert small.covariates == ("x1", "x2")
    np.testing.assert_array_equal(small.propensity, np.full(4, 0.4))
    np.testing.assert_array_equal(study.subset([3, 0]).y, [4.0, 1.0])
    assert study.replace(name="other", weights=None).weights is None
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(study)).y, study.y)
    np.testing.assert_array_equal(copy.deepcopy(study).y, study.y)
    with pytest.raises(AttributeError, match="use study"):
        study.name = "changed"
    with pytest.raises(DataError, match="mask of shape"):
        study.subset([True, False])
    with pytest.raises(DataError, match=r"2 missing values.*fillna"):
        study.subset(pd.Series([True, None, False, None, True, True], dtype="boolean"))
    with pytest.raises(DataError, match="repeat the first two units"):
        study.subset(np.array([0, 1, 1, 0, 0, 1]))
    assert list(study.replace(units=table.assign(person=range(6))).X.index) == list(range(6))
    with pytest.raises(ParameterError, match="outcom"):
        study.replace(outcom="income")
    table.loc[0, "income"] = 99.0
    assert study.y[0] == 1.0


def test_sites_are_the_clusters(table):
    sites = Study(table, **ROLES).sites()
    assert list(sites.index) == ["a", "b", "c", "d"]
    assert list(sites["n_units"]) == [2, 2, 1, 1]
    assert list(sites["n_treated"]) == [0, 2, 0, 1]
    assert list(sites["mean_outcome"]) == [1.5, 3.5, 5.0, 9.0]
    assert sites.geometry.iloc[1].coords[0] == pytest.approx((32.1, 1.1))
    without = Study(table, **{k: v for k, v in ROLES.items() if k != "cluster"}).sites()
    assert list(without["n_units"]) == [2, 2, 1, 1]
    unknown = table.assign(**{ROLES["cluster"]: [None, *table[ROLES["cluster"]].iloc[1:]]})
    with pytest.raises(DataError, match="1 units without a cluster, the first at"):
        Study(unknown, **ROLES).sites()


def test_units_with_a_geometry_beside_places_with_columns(table, tmp_path):
    points = gpd.points_from_xy(table["lon"], table["lat"])
    frame = gpd.GeoDataFrame(table.drop(columns=["lon", "lat"]), geometry=points, crs="EPSG:4326").to_crs(32636)
    frame.to_file(tmp_path / "u.gpkg", driver="GPKG")
    pd.DataFrame({"lon": [33.0, 33.1], "lat": [2.0, 2.1]}).to_csv(tmp_path / "places.csv", index=False)
    study = Study.from_file(tmp_path / "u.gpkg", places=tmp_path / "places.csv", **ROLES)
    assert study.crs.to_epsg() == 32636
    assert study.places.crs.to_epsg() == 4326
    assert list(study.places.geometry.x) == [33.0, 33.1]
    part = study.subset([0, 2])
    np.testing.assert_allclose(part.units.to_crs("EPSG:4326").geometry.x, table["lon"].iloc[[0, 2]])
    with pytest.raises(ColumnError, match="lon"):
        Study(frame, **ROLES)  # no table has the columns


def test_every_format_gives_the_same_study(table, tmp_path):
    frame = gpd.GeoDataFrame(table, geometry=gpd.points_from_xy(table["lon"], table["lat"]), crs="EPSG:4326")
    table.to_csv(tmp_path / "u.csv", index=False)
    table.to_csv(tmp_path / "u.csv.gz", index=False)
    table.to_csv(tmp_path / "u.tsv", index=False, sep="\t")
    table.to_csv(tmp_path / "semicolon.csv", index=False, sep=";")
    table.to_parquet(tmp_path / "u.parquet")
    table.to_stata(tmp_path / "u.dta", write_index=False)
    frame.drop(columns=["lon", "lat"]).to_parquet(tmp_path / "geo.parquet")
    frame.drop(columns=["lon", "lat"]).to_file(tmp_path / "u.gpkg", driver="GPKG")
    frame.drop(columns=["lon", "lat"]).to_file(tmp_path / "u.geojson", driver="GeoJSON")
    expected = Study(table, **ROLES, covariates="x*")
    files = [
        "u.csv",
        "u.csv.gz",
        "u.tsv",
        "semicolon.csv",
        "u.parquet",
        "u.dta",
        "geo.parquet",
        "u.gpkg",
        "u.geojson",
    ]
    for file in files:
        geo = file in ("geo.parquet", "u.gpkg", "u.geojson")
        roles = {k: v for k, v in ROLES.items() if not geo or k not in ("lon", "lat")}
        study = Study.from_file(tmp_path / file, **roles, covariates="x*")
        np.testing.assert_allclose(study.y, expected.y, err_msg=file)
        np.testing.assert_array_equal(study.treatment, expected.treatment, err_msg=file)
        np.testing.assert_allclose(study.X[["x1", "x2"]], expected.X[["x1", "x2"]], err_msg=file)
        np.testing.assert_allclose(study.units.total_bounds, expected.units.total_bounds, atol=1e-6, err_msg=file)


def test_stata_labels_code_the_treatment_and_leave_numbers(table, tmp_path):
    frame = table.assign(arm=[1, 1, 2, 2, 1, 2], female=[1, 2, 1, 2, 1, 2], health=[1, 2, -98, 3, 2, 1])
    labels = {
        "arm": {1: "Control", 2: "Treatment"},
        "female": {1: "male", 2: "female"},
        "health": {-98: "Refused to answer", 1: "good"},
    }
    frame.to_stata(tmp_path / "u.dta", write_index=False, value_labels=labels)
    study = Study.from_file(tmp_path / "u.dta", **ROLES, covariates=["female", "health"])
    np.testing.assert_array_equal(study.treatment, [0, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(study.units["female"], [1, 2, 1, 2, 1, 2])
    assert study.value_labels["health"][-98] == "Refused to answer"
    (finding,) = study.check().about("missing codes")
    assert "-98 = Refused to answer" in finding.what


def test_empty_text_of_stata_is_missing(table, tmp_path):
    table.assign(village=["", "a", "b", "b", "c", ""]).to_stata(tmp_path / "u.dta", write_index=False)
    study = Study.from_file(tmp_path / "u.dta", **ROLES)
    assert study.n_clusters == 3
    assert "cluster 'village' misses 2 of 6" in str(study.check())


def test_the_separator_is_that_of_the_lines_that_are_read(table, tmp_path):
    text = table.to_csv(index=False, sep=";")
    (tmp_path / "u.csv").write_text("# made, by hand, in 2010\n# for, us\n" + text)
    for options in ({"skiprows": 2}, {"comment": "#"}):
        study = Study.from_file(tmp_path / "u.csv", **ROLES, read_options=options)
        np.testing.assert_array_equal(study.y, table["income"])
    (tmp_path / "sheet.txt").write_text(text.replace(";", "\t"), encoding="utf-16")
    np.testing.assert_array_equal(Study.from_file(tmp_path / "sheet.txt", **ROLES).y, table["income"])


def test_other_encodings_are_read_with_a_warning(table, tmp_path):
    named = table.assign(village=["Arúa", "Arúa", "b", "b", "c", "d"])
    named.to_csv(tmp_path / "u.csv", index=False, encoding="cp1252")
    with pytest.warns(DataWarning, match="encoding"):
        study = Study.from_file(tmp_path / "u.csv", **ROLES)
    assert study.groups[0] == "Arúa"
    named.to_csv(tmp_path / "bom.csv", index=False, encoding="utf-8-sig")
    assert Study.from_file(tmp_path / "bom.csv", **{**ROLES, "outcome": "person"}).y[0] == 11


def test_places_by_columns_geometry_or_file(table, tmp_path):
    places = pd.DataFrame({"lon": [31.0, 31.5], "lat": [0.5, 0.6]})
    places.to_csv(tmp_path / "places.csv", index=False)
    table.to_csv(tmp_path / "u.csv", index=False)
    geo = gpd.GeoDataFrame(geometry=gpd.points_from_xy([31.0], [0.5]), crs="EPSG:4326").to_crs("EPSG:32636")
    assert len(Study(table, **ROLES, places=places).places) == 2
    assert Study(table, **ROLES, places=geo).places.crs.to_epsg() == 32636
    study = Study.from_file(tmp_path / "u.csv", **ROLES, places=tmp_path / "places.csv")
    assert study.places.geometry.iloc[1].coords[0] == (31.5, 0.6)


class Recorder(BaseEstimator):
    def fit(self, X, y, *, treatment, groups=None, sample_weight=None, propensity=None):
        self.seen_ = {"X": X, "y": y, "treatment": treatment, "groups": groups, "sample_weight": sample_weight,
                      "propensity": propensity}  # fmt: skip
        return self


class Numbers(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None, sample_weight=None):
        return self

    def transform(self, X):
        return X.drop(columns="geometry").to_numpy()


class Plain(BaseEstimator):
    def fit(self, X, y):
        return self


class NoWeights(BaseEstimator):
    def fit(self, X, y, *, treatment, groups=None, propensity=None):
        return self


@pytest.mark.parametrize("routing", [False, True])
def test_fit_puts_every_role_where_it_belongs(table, routing):
    from sklearn import config_context

    study = Study(table, **ROLES, covariates=["age"], weights="w", propensity=0.5)
    with config_context(enable_metadata_routing=routing):
        for model in (Recorder(), make_pipeline(Numbers(), Recorder())):
            fitted = study.fit(model)
            seen = (fitted[-1] if hasattr(fitted, "steps") else fitted).seen_
            np.testing.assert_array_equal(seen["treatment"], study.treatment)
            np.testing.assert_array_equal(seen["groups"], study.groups)
            np.testing.assert_array_equal(seen["sample_weight"], table["w"])
            np.testing.assert_array_equal(seen["propensity"], np.full(6, 0.5))
            np.testing.assert_array_equal(seen["y"], study.y)


def test_fit_refuses_and_warns(table):
    study = Study(table, **ROLES, weights="w")
    with pytest.raises(ParameterError, match="takes no treatment"):
        study.fit(Plain())
    with pytest.warns(DataWarning, match="sample_weight"):
        study.fit(NoWeights())


def test_dates_are_parsed_or_a_column(table):
    study = Study(table.assign(start="2008-02-03"), **ROLES, treatment_date="start")
    assert study.roles["treatment_date"] == "start"
    assert study.replace(treatment_date=2009).treatment_date == np.datetime64("2009-01-01")
    assert Study(table, **ROLES, image_dates=["2000", "2001-05-01"]).image_dates == (
        np.datetime64("2000-12-31"),
        np.datetime64("2001-05-01"),
    )


def test_columns_must_be_names(table):
    with pytest.raises(ColumnError, match="add the values to the table"):
        Study(table, **{**ROLES, "treatment": np.zeros(6)})


def test_stata_labels_decide_which_arm_is_treated(table, tmp_path):
    """The effect is 2 for code 0, labelled Treatment: the codes alone would turn its sign."""
    frame = table.assign(arm=[0, 1, 0, 1, 0, 1], income=[3.0, 1.0, 3.0, 1.0, 3.0, 1.0])
    labels = {"arm": {0: "Treatment", 1: "Control"}}
    frame.to_stata(tmp_path / "u.dta", write_index=False, value_labels=labels)
    study = Study.from_file(tmp_path / "u.dta", **ROLES)
    assert study.y[study.treatment == 1].mean() - study.y[study.treatment == 0].mean() == 2.0
    assert "3 treated and 3 control" in repr(study)
    np.testing.assert_array_equal(study.subset(frame["arm"] == 0).treatment, [1.0, 1.0, 1.0])


def test_arms_that_stata_labels_name_are_not_fitted_as_amounts(tmp_path):
    from causalsat import BayesianLinearEffect, DoublyRobustEffect, TransTEE

    rng = np.random.default_rng(0)
    arm = np.arange(90) % 3
    frame = pd.DataFrame(
        {"y": np.array([0.0, 5.0, -5.0])[arm] + rng.normal(size=90), "d": arm, "x": rng.normal(size=90)}
    )
    frame = frame.assign(lon=32.0, lat=rng.uniform(size=90))
    labels = {"d": {0: "Control", 1: "Cash", 2: "Goats"}}
    frame.to_stata(tmp_path / "u.dta", write_index=False, value_labels=labels)
    study = Study.from_file(tmp_path / "u.dta", outcome="y", treatment="d", covariates=["x"], lon="lon", lat="lat")
    assert study.arms == labels["d"]
    for model in (BayesianLinearEffect(), DoublyRobustEffect(), make_pipeline(Numbers(), BayesianLinearEffect())):
        with pytest.raises(
            TreatmentError, match=r"0 = Control, 1 = Cash, 2 = Goats.*TransTEE\(treatment_kind='levels'\)"
        ):
            study.fit(model)
    levels = study.fit(TransTEE(treatment_kind="levels", n_members=2, max_epochs=2, random_state=0))
    assert levels.coding_.levels == (0.0, 1.0, 2.0)
    two = study.subset(study.units["d"].isin([0, 2])).replace(treated=2)
    assert two.arms == {}
    assert float(two.fit(DoublyRobustEffect(random_state=0)).effect(two.X).ate()) == pytest.approx(-5, abs=0.8)
    amounts = study.replace(value_labels=None)
    assert amounts.arms == {}


def test_control_names_the_arm_that_treated_leaves(table):
    table = table.assign(arm=[2, 1, 1, 2, 2, 1])
    by_control = Study(table, control=2, **ROLES)
    np.testing.assert_array_equal(by_control.treatment, [0, 1, 1, 0, 0, 1])
    np.testing.assert_array_equal(Study(table, treated=1, **ROLES).treatment, by_control.treatment)
    np.testing.assert_array_equal(by_control.replace(name="again").treatment, by_control.treatment)
    np.testing.assert_array_equal(Study(table, control=2, treated=1, **ROLES).treatment, by_control.treatment)
    with pytest.raises(TreatmentError, match="are the same arm"):
        _ = Study(table, control=1, treated=1, **ROLES).treatment
    with pytest.raises(TreatmentError, match="control=3 is no value"):
        _ = Study(table, control=3, **ROLES).treatment


def test_the_design_of_a_study_has_all_its_parts(table):
    study = Study(table.assign(block=["n", "n", "n", "n", "s", "s"]), strata="block", weights="w", **ROLES)
    design = study.design
    np.testing.assert_array_equal(design.probability, [0.5] * 6)
    np.testing.assert_array_equal(design.strata, [0, 0, 0, 0, 1, 1])
    assert design.is_paired
    np.testing.assert_allclose(design.weights, table["w"] / table["w"].mean())
    assert study.replace(randomised=False).design.probability is None
