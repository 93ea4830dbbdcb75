"""Checks of the design: what is said before a fit, and what analyse cannot take."""

from __future__ import annotations

import numpy as np
import pytest
from study_worlds import check, clean, only, study

from causalsat.exceptions import CausalsatError, DataError
from causalsat.study import Study


# ---------------------------------------------------------------------- arms
def test_codes_one_and_two_do_not_suggest_which_is_treated():
    finding = only(check(clean().assign(d=clean()["d"] + 1)), "treatment")
    assert "treated=2) or Study(..., treated=1); the sign of every effect" in finding.todo


def test_three_arms_are_told_first_with_the_estimator_that_takes_them():
    report = check(clean().assign(d=clean()["village"] % 3))
    finding = only(report, "treatment")
    assert (finding.level, finding.stops_analyse) == ("warning", True)
    assert "TransTEE(treatment_kind='levels')" in finding.todo
    assert "leave out the others" in finding.todo
    assert report.ok
    assert str(report).endswith("Ready to fit, though not by analyse(): see treatment.")
    assert report.raise_if_errors() is report
    with pytest.raises(DataError, match="several arms"):
        report.raise_if_errors(analyse=True)


def test_arms_are_named_by_their_labels():
    frame = clean().assign(d=clean()["village"] % 3)
    report = study(frame, value_labels={"d": {0: "Control", 1: "Cash", 2: "Goats"}}).check()
    finding = only(report, "treatment")
    assert "3 labelled arms: 0 = Control (100 units), 1 = Cash (100 units), 2 = Goats (100 units)" in finding.what


def test_doses_are_sent_to_estimators_of_doses():
    finding = only(check(clean().assign(d=np.arange(300) / 100)), "treatment")
    assert (finding.level, finding.stops_analyse) == ("note", True)
    assert "GaussianProcessEffect" in finding.todo
    assert "treated=" not in finding.todo


def test_text_covariates_stop_analyse():
    frame = clean().assign(district=np.where(clean()["lon"] > 32.5, "east", "west"))
    finding = only(check(frame, covariates=["age", "district"]), "text covariates")
    assert finding.stops_analyse


def test_missing_outcomes_name_the_estimators_of_tested_units():
    frame = clean()
    finding = only(check(frame.assign(y=frame["y"].where(frame["d"] == 1))), "missing values")
    assert finding.level == "error"
    assert "0.0 % of treated, 100.0 % of control" in finding.what
    assert "SelectiveLabelsOutcome" in finding.todo


# ---------------------------------------------------------------------- strata
STRATA = [
    ("the clusters", lambda f: f["village"], {}, "the 60 strata are the clusters themselves: each holds one arm"),
    ("text of the clusters", lambda f: "v" + f["village"].astype(str), {}, "the 60 strata are the clusters"),
    ("the units", lambda f: f.index, {"cluster": None}, "each of the 300 units is a stratum of its own"),
    ("the arms", lambda f: f["d"], {}, "2 of 2 strata have one arm only: the strata tell the arms apart"),
    (
        "some with one arm",
        lambda f: np.where(f["village"] == 0, -1, f["village"] % 2),
        {},
        "1 of 3 strata have one arm",
    ),
    ("splitting clusters", lambda f: f.index % 2, {}, "60 of 60 clusters lie in several strata"),
]


@pytest.mark.parametrize(("make", "changes", "what"), [s[1:] for s in STRATA], ids=[s[0] for s in STRATA])
def test_strata_that_hold_no_comparison_are_errors_at_once(make, changes, what):
    frame = clean()
    frame = frame.assign(s=make(frame))
    finding = only(check(frame, strata="s", **changes), "strata")
    assert finding.level == "error"
    assert what in finding.what
    with pytest.raises(CausalsatError):  # what the fit would say later
        assert study(frame, strata="s", **changes).design.probability is None


def test_single_armed_strata_may_stay_with_the_designs_probability():
    frame = clean()
    frame = frame.assign(s=np.where(frame["village"] == 0, -1, frame["village"] % 2))
    assert only(check(frame, strata="s", propensity=0.5), "strata").level == "warning"


def test_villages_as_strata_of_units_assigned_within_them():
    frame = clean().assign(d=np.arange(300) % 2)
    assert check(frame, strata="village", cluster=None).ok
    finding = only(check(frame.assign(s=frame["village"]), strata="s"), "strata")
    assert "keep them as strata and leave cluster out" in finding.todo


def test_good_strata_pass():
    frame = clean(n_villages=61)
    villages = frame.drop_duplicates("village").sort_values("d")["village"].to_numpy()
    stratum = np.empty(61, dtype=int)
    stratum[villages] = np.arange(61) % 5
    report = check(frame.assign(s=stratum[frame["village"]]), strata="s")
    assert report.ok
    assert "strata" in report.passed


# ---------------------------------------------------------------------- weights
WEIGHTS = [
    ("zero in an arm", lambda f: f["d"], "error", "all control units have weight zero"),
    ("one with all", lambda f: np.where(f.index == 7, 1e6, 1.0), "error", "one unit holds 100% of the weight"),
    ("one with much", lambda f: np.where(f.index == 7, 100.0, 1.0), "warning", "of the weight of"),
    ("zeros", lambda f: (f["village"] % 3 > 0) * 1.0, "note",
     "100 of 300 units have weight zero and count for nothing, and 20 of 60 clusters with them"),
    ("all zero", lambda f: 0.0 * f["d"], "error", "all weights are zero"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "level", "what"), [w[1:] for w in WEIGHTS], ids=[w[0] for w in WEIGHTS])
def test_weights(make, level, what):
    frame = clean()
    found = check(frame.assign(w=make(frame)), weights="w").about("weights")
    assert any(f.level == level and what in f.what for f in found), found


# ---------------------------------------------------------------------- covariates far from zero
def test_a_covariate_around_a_large_number_is_found():
    finding = only(check(clean().assign(age=clean()["age"] + 1e8)), "covariates")
    assert finding.level == "warning"
    assert "age from 100000018 to 100000059" in finding.what
    assert "units['age'] -= 100000018" in finding.todo
    assert not check(clean().assign(age=clean()["age"] + 2000)).about("covariates")


def test_an_empty_covariate_is_an_error_and_a_constant_one_a_warning():
    frame = clean().assign(empty=np.nan, one=1)
    report = check(frame, covariates=["age", "empty", "one"])
    assert {f.level: f.data for f in report.about("constant columns")} == {"error": ["empty"], "warning": ["one"]}


def test_what_the_design_refuses_is_an_error_of_the_check():
    """Whatever keeps the roles from being one design is said by the check, also if no single check knows it."""
    frame = clean().assign(e=0.5)
    made = study(frame, propensity="e")

    class Refusing(Study):
        @property
        def design(self):
            raise DataError("a design of another kind", todo="mend it")

    refused = Refusing(made.units, **{**made.roles, "covariates": ["age"], "lon": "lon", "lat": "lat"})
    finding = only(refused.check(), "design")
    assert (finding.level, finding.what, finding.todo) == ("error", "a design of another kind", "mend it")


@pytest.mark.parametrize(
    "frame", [clean().assign(d=clean()["village"] % 3), clean().assign(d=np.arange(300) / 100)], ids=["arms", "doses"]
)
def test_analyse_says_so_before_it_fits(frame):
    from causalsat import analyse

    class Untouched:
        def fit(self, *arguments, **options):
            raise AssertionError("fitted before the check")

    with pytest.raises(DataError, match=r"a study that analyse\(\) can take"):
        analyse(study(frame), Untouched(), progress=False)


def test_strata_of_an_observational_study_are_said_to_be_unused():
    frame = clean().assign(block=clean()["village"] // 10)
    finding = only(check(frame, strata="block", randomised=False), "strata")
    assert (finding.level, "no estimate uses them" in finding.what) == ("note", True)
