"""Codes for missing values in every role: what is certain is an error, what is in doubt a warning with its counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from study_worlds import ROLES, check, clean, only, study

from causalsat import DoublyRobustEffect
from causalsat.study import Study
from causalsat.study.missing_codes import is_missing_word, numeric_codes


def with_code(column: str, code: object, rows: object) -> pd.DataFrame:
    frame = clean()
    frame[column] = frame[column].astype(object)
    frame.loc[rows, column] = code
    return frame.infer_objects()


FEW = list(range(0, 300, 25))  # 12 units
CERTAIN = [
    ("outcome", "y", -99, {}, "outcome 'y' holds codes for missing values: -99 in 12 units; the others run from"),
    ("outcome, large", "y", 9999, {}, "9999 in 12 units"),
    ("outcome, of a type", "y", -3.4e38, {}, "-3.4e+38 in 12 units"),
    ("outcome, largest integer", "y", 2147483647, {}, "2147483647 in 12 units"),
    ("treatment", "d", -99, {}, "treatment 'd' holds codes for missing values: -99 in 12 units"),
    ("treatment, one digit", "d", 9, {}, "9 in 12 units; the others run from 0 to 1"),
    ("cluster", "village", -99, {}, "cluster 'village' holds codes for missing values: -99 in 12 units"),
    ("cluster, words", "village", "Don't know", {}, '"Don\'t know" in 12 units'),
    ("cluster, blank", "village", " ", {}, "' ' in 12 units"),
    ("strata, words", "s", "refused", {"strata": "s"}, "strata 's' holds codes for missing values: 'refused'"),
    ("weights", "w", 9999, {"weights": "w"}, "weights 'w' holds codes for missing values: 9999 in 12 units"),
    ("weights, negative", "w", -9, {"weights": "w"}, "-9 in 12 units"),
    ("propensity", "e", -99, {"propensity": "e"}, "propensity 'e' holds codes for missing values: -99 in 12 units"),
    ("covariate", "age", -98, {}, "covariates hold codes for missing values: age (-98 in 12 units)"),
]
IN_DOUBT = [
    ("outcome, once", "y", -99, [3], {}, "outcome 'y' has values that may be codes for missing ones: -99 in 1 units"),
    ("cluster, positive", "village", 9999, FEW, {}, "9999 in 12 units; the others run from 0 to 59"),
    ("covariate, near", "age", 88, FEW, {}, "values that look like codes for missing: age (88 in 12 units)"),
]


def made(column: str, code: object, rows: object) -> pd.DataFrame:
    frame = clean().assign(w=1.0 + np.arange(300) % 3, e=0.5, s="north")
    frame["s"] = np.where(frame["village"] < 30, "north", "south")
    frame[column] = frame[column].astype(object)
    frame.loc[rows, column] = code
    return frame.infer_objects()


@pytest.mark.parametrize(("column", "code", "changes", "what"), [c[1:] for c in CERTAIN], ids=[c[0] for c in CERTAIN])
def test_codes_that_are_certain_are_errors(column, code, changes, what):
    finding = only(check(made(column, code, FEW), **changes), "missing codes")
    assert finding.level == "error"
    assert what in finding.what
    assert f"units[{column!r}] = units[{column!r}].replace([" in finding.todo


@pytest.mark.parametrize(
    ("column", "code", "rows", "changes", "what"), [c[1:] for c in IN_DOUBT], ids=[c[0] for c in IN_DOUBT]
)
def test_codes_in_doubt_are_warnings(column, code, rows, changes, what):
    finding = only(check(made(column, code, rows), **changes), "missing codes")
    assert finding.level == "warning"
    assert what in finding.what
    assert finding.todo.startswith("if ")


def test_the_remedy_gives_the_effect_that_the_codes_hid():
    """2,082 units, 41 of them at -99 in the outcome, most of those treated; the effect is 0.7."""
    rng = np.random.default_rng(5)
    n = 2082
    d = rng.permutation(n) % 2
    frame = pd.DataFrame(
        {"y": 0.7 * d + rng.normal(size=n), "d": d, "x": rng.normal(size=n), "lon": 32.0, "lat": 1.0}
    )
    frame.loc[np.flatnonzero(d == 1)[:41], "y"] = -99.0
    made = Study(frame, outcome="y", treatment="d", covariates=["x"], lon="lon", lat="lat")
    report = made.check()
    assert not report.ok
    assert "-99 in 41 units" in only(report, "missing codes").what
    wrong = frame["y"][d == 1].mean() - frame["y"][d == 0].mean()
    assert wrong < -2
    units = frame.assign(y=frame["y"].replace([-99], float("nan")))
    mended = made.replace(units=units)
    kept = mended.subset(~np.isnan(mended.y))
    assert len(kept) == n - 41
    assert kept.check().ok
    fit = kept.fit(DoublyRobustEffect(random_state=0))
    assert float(fit.effect(kept.X).ate()) == pytest.approx(0.7, abs=0.15)


def test_codes_of_the_treatment_are_no_arm():
    report = check(with_code("d", -99, FEW))
    assert not report.about("treatment")  # not "three arms": the rest are two
    assert "whose arm nobody knows" in only(report, "missing codes").todo


def test_value_labels_are_certain_whatever_the_value(tmp_path):
    frame = clean().assign(health=np.arange(300) % 4, arm=clean()["d"])
    labels = {"health": {3: "Refused to answer", 0: "poor"}, "arm": {0: "Control", 1: "Treatment", 8: "Missing"}}
    frame.loc[0, "arm"] = 8
    frame.to_stata(tmp_path / "u.dta", write_index=False, value_labels=labels)
    roles = {**ROLES, "treatment": "arm", "covariates": ["age", "health"]}
    report = Study.from_file(tmp_path / "u.dta", **roles).check()
    covariate, treatment = sorted(report.about("missing codes"), key=lambda f: f.what)
    assert (covariate.level, treatment.level) == ("error", "error")
    assert "health (3 = Refused to answer in 75 units)" in covariate.what
    assert "8 = Missing in 1 units" in treatment.what
    assert not report.about("treatment")


HONEST = [
    ("ages to 99", np.r_[np.arange(18, 100), 99, 98]),
    ("ten point scale", np.arange(300) % 11),
    ("eight point scale", np.arange(300) % 8),
    ("years", np.arange(300) % 40 + 1970),
    ("temperatures", np.arange(300) % 60 - 20),
    ("household size", np.random.default_rng(0).poisson(4, 300) + 1),
    ("incomes in hundreds", np.round(np.exp(np.random.default_rng(0).normal(8, 1, 300)), -2)),
    ("a normal score", np.random.default_rng(0).normal(size=300)),
    ("yes and no", np.arange(300) % 2),
    ("profits and losses", np.random.default_rng(0).normal(0, 300, 300).round()),
    ("one value", np.full(300, 9.0)),
    ("ids", np.arange(1000)),
]


@pytest.mark.parametrize("values", [h[1] for h in HONEST], ids=[h[0] for h in HONEST])
def test_honest_columns_have_no_codes(values):
    assert numeric_codes(np.asarray(values, dtype=float)) == ()
    assert numeric_codes(np.asarray(values, dtype=float), "cluster") == ()


def test_prices_are_only_doubted_as_doses():
    prices = np.tile([0.0, 49.0, 99.0], 40)
    assert [code.certain for code in numeric_codes(prices, "treatment")] == [False]


def test_a_spike_of_codes_within_the_others_is_doubted():
    rng = np.random.default_rng(0)
    income = np.exp(rng.normal(10, 1, 2000))
    income[:41] = 9999
    (code,) = numeric_codes(income)
    assert (str(code), code.certain) == ("9999 in 41 units", False)


@pytest.mark.parametrize(
    "word", ["Refused", "DON'T KNOW", "Don\u2019t know", "Not applicable", "n/a", ".", "", "Unknown"]
)
def test_words_for_missing(word):
    assert is_missing_word(word)


@pytest.mark.parametrize("word", ["Control", "Refugee camp", "Missionary", "no", "Nairobi", "none"])
def test_words_that_are_values(word):
    assert not is_missing_word(word)
    assert "missing codes" not in {f.topic for f in study(clean().assign(village=word)).check().findings}
