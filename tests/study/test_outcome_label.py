"""What the outcome is called: by hand, by Stata, by the catalogue; and where it is shown."""

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat import Study
from causalsat.exceptions import DataError


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"inc": rng.normal(size=40), "hours": rng.normal(size=40), "arm": [0, 1] * 20, "lon": 32.0, "lat": 1.0}
    )


ROLES = {"outcome": "inc", "treatment": "arm", "lon": "lon", "lat": "lat"}


def test_without_a_label_it_is_the_column(table):
    study = Study(table, **ROLES)
    assert (study.outcome_label, study.outcome_unit) == ("inc", "")


def test_stata_labels_are_read_and_follow_the_outcome(table, tmp_path):
    labels = {"inc": "Monthly income, 2012", "hours": "Hours worked"}
    table.to_stata(tmp_path / "survey.dta", variable_labels=labels, write_index=False)
    study = Study.from_file(tmp_path / "survey.dta", **ROLES, outcome_unit="USD")
    assert study.outcome_label == "Monthly income, 2012"
    assert "Monthly income, 2012 (USD)" in study._repr_html_()
    assert study.subset(study.y > 0).outcome_label == "Monthly income, 2012"
    assert study.subset(study.y > 0).outcome_unit == "USD"
    other = study.replace(outcome="hours")
    assert (other.outcome_label, other.outcome_unit) == ("Hours worked", "")


def test_a_given_label_is_kept_until_the_outcome_changes(table):
    study = Study(table, **ROLES, outcome_label="income <b>", outcome_unit="$")
    assert study.replace(name="x").outcome_label == "income <b>"
    assert "<b>" not in study._repr_html_()
    assert study.replace(outcome="hours").outcome_label == "hours"


def test_the_catalogue_says_it(table, tmp_path):
    table.to_csv(tmp_path / "survey.csv", index=False)
    (tmp_path / "c.yaml").write_text(
        "datasets:\n  a:\n    kind: trial\n    licence: x\n    citation: x\n    units: {file: survey.csv}\n"
        "    roles: {outcome: inc, treatment: arm, lon: lon, lat: lat, outcome_label: Income, outcome_unit: USD}\n"
    )
    study = causalsat.load_study("a", catalog=tmp_path / "c.yaml")
    assert (study.outcome_label, study.outcome_unit) == ("Income", "USD")


def test_messages_end_with_one_mark():
    assert str(DataError("a.", expected="b.", todo="did you mean c?")) == (
        "a. Expected: b. What to do: did you mean c?"
    )
    assert str(DataError("a")) == "a."
