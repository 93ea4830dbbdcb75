"""A study from a survey file: by options, by asking, and what is refused; the entry then runs."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import causalsat
from causalsat.catalog.extend import add_entry
from causalsat.cli import app
from causalsat.cli.new import ask_roles
from causalsat.exceptions import CatalogError, ParameterError

RUN = CliRunner()
GIVEN = ["--file", "survey.csv", "--outcome", "income", "--treatment", "arm", "--lon", "lon", "--lat", "lat"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a survey."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    survey = pd.DataFrame({"income": rng.normal(size=40), "arm": ["a", "b"] * 20, "village": np.repeat(range(20), 2)})
    survey = survey.assign(age=30.0, lon=32.0 + rng.random(40), lat=1.0 + rng.random(40))
    survey.to_csv("survey.csv", index=False)
    return tmp_path


def test_options_write_an_entry_and_a_pipeline_that_load(here):
    more = ["--cluster", "village", "--covariates", "age", "--treated", "b", "--outcome-unit", "USD"]
    done = RUN.invoke(app, ["new", "my_study", *GIVEN, *more, "--size-m", "900"])
    assert done.exit_code == 0, done.output
    assert "causalsat run my_study" in done.output
    study = causalsat.load_study("my_study")
    assert (study.n_units, study.n_clusters, study.outcome_unit, study.chip_size_m) == (40, 20, "USD", 900)
    assert study.treatment.tolist() == [0, 1] * 20
    compile((here / "pipelines" / "my_study.py").read_text(), "my_study.py", "exec")
    assert RUN.invoke(app, ["check", "my_study"]).exit_code in (0, 1)


def test_roles_of_experiments_are_options_and_keys_of_the_entry(here):
    table = pd.read_csv("survey.csv").assign(took=[0, 1] * 20, before=1.5, town=["U", "R"] * 20)
    table["measured"] = np.where(np.arange(40) % 4 < 2, table["income"], np.nan)
    table.to_csv("survey.csv", index=False)
    more = ["--treated", "b", "--take-up", "took", "--baseline-outcome", "before", "--outcome-labelled", "measured"]
    more += ["--location-error", "dhs", "--urban", "town"]
    done = RUN.invoke(app, ["new", "moved", *GIVEN, *more])
    assert done.exit_code == 0, done.output
    study = causalsat.load_study("moved")
    assert study.take_up.tolist() == [0, 1] * 20
    assert (study.location_error, study.roles["urban"], study.roles["baseline_outcome"]) == ("dhs", "town", "before")
    assert study.outcome_predicted
    assert int(np.isfinite(study.labelled).sum()) == 20
    done = RUN.invoke(app, ["check", "survey.csv", *GIVEN[2:], "--treated", "b", "--location-error", "2000"])
    assert done.exit_code in (0, 1), done.output
    entry = yaml.safe_load((here / "data_catalog.yaml").read_text())
    entry["datasets"]["moved"]["roles"]["missing_outcome"] = "guess"
    (here / "data_catalog.yaml").write_text(yaml.safe_dump(entry))
    with pytest.raises(CatalogError, match="missing_outcome"):
        causalsat.load_study("moved")


def test_a_second_entry_leaves_the_lines_of_the_first(here):
    text = "# mine\nversion: 1\ndatasets:\n    old:  # four spaces\n        kind: simulated\n        licence: x\n"
    text += "        citation: x\n        simulate: {seed: 3}\n"
    (here / "data_catalog.yaml").write_text(text)
    assert RUN.invoke(app, ["new", "second", *GIVEN, "--treated", "b"]).exit_code == 0
    after = (here / "data_catalog.yaml").read_text()
    assert after.startswith(text.rstrip())
    assert list(yaml.safe_load(after)["datasets"]) == ["old", "second"]


def test_what_is_refused_leaves_nothing(here):
    for arguments, words in (
        (["new", "a-b", *GIVEN], "letters, digits and underscores"),
        (["new", "x", "--file", "survey.csv"], "--outcome"),
        (["new", "x"], "--file"),
        (["new", "x", *GIVEN[:-1], "latt"], "latt"),
        (["new", "x", "--file", "absent.csv", *GIVEN[2:]], "absent.csv"),
    ):
        done = RUN.invoke(app, arguments)
        assert done.exit_code == 2, (arguments, done.output)
        assert words in done.output
    assert sorted(p.name for p in here.iterdir()) == ["survey.csv"]


def test_a_taken_name_and_a_catalogue_in_braces_are_refused(here):
    assert RUN.invoke(app, ["new", "x", *GIVEN, "--treated", "b"]).exit_code == 0
    before = (here / "data_catalog.yaml").read_text()
    (here / "pipelines" / "x.py").unlink()
    again = RUN.invoke(app, ["new", "x", *GIVEN, "--treated", "b"])
    assert again.exit_code == 2
    assert "has a data set 'x'" in again.output
    assert (here / "data_catalog.yaml").read_text() == before
    content = yaml.safe_load(before)["datasets"]["x"]
    (here / "braces.yaml").write_text("datasets: {}\nversion: 1\n")
    with pytest.raises(CatalogError, match="paste this below"):
        add_entry(here / "braces.yaml", "y", content)
    assert (here / "braces.yaml").read_text() == "datasets: {}\nversion: 1\n"


def test_asking_proposes_corrects_and_asks_which_arm_is_treated(here):
    answers = iter(["incom", "income", "arm", "lon", "lat", "village", "", "", "age", "c", "b"])
    asked = []

    def ask(question, proposal):
        asked.append((question, proposal))
        return next(answers)

    roles = ask_roles(here / "survey.csv", {}, ask)
    assert roles == {
        "outcome": "income", "treatment": "arm", "lon": "lon", "lat": "lat", "cluster": "village",
        "covariates": ["age"], "treated": "b",
    }  # fmt: skip
    assert "did you mean income?" in asked[1][0]
    assert [proposal for _, proposal in asked[2:6]] == ["arm", "lon", "lat", "village"]
    with pytest.raises(ParameterError, match="--outcome"):
        ask_roles(here / "survey.csv", {}, None)


def test_names_with_markup_stay_words(here):
    survey = pd.read_csv("survey.csv").rename(columns={"income": "in: come #1"})
    survey.to_csv("survey.csv", index=False)
    arguments = ["new", "x", *GIVEN, "--treated", "b", "--json"]
    arguments[arguments.index("income")] = "in: come #1"
    done = RUN.invoke(app, arguments)
    assert json.loads(done.stdout)["result"]["entry"]["roles"]["outcome"] == "in: come #1"
    assert causalsat.load_study("x").roles["outcome"] == "in: come #1"


def test_the_catalogue_fits_100_columns(here):
    listed = RUN.invoke(app, ["catalog"]).output
    assert max(map(len, listed.splitlines())) <= 100
    assert "uganda_yop" in listed


def test_a_new_study_with_imagery_is_ready_from_a_terminal(here):
    trial = causalsat.simulate.satellite_trial(n_units=200, n_sites=40, size_px=320, seed=1)
    written = trial.write(here / "data")
    imagery = next(v for k, v in written.items() if k.startswith("imagery"))
    roles = ["--outcome", "outcome", "--treatment", "treatment", "--cluster", "site", "--lon", "lon", "--lat", "lat"]
    program = [sys.executable, "-m", "causalsat.cli"]
    made = [*program, "new", "mine", "--file", str(written["units"]), *roles, "--imagery", str(imagery)]
    subprocess.run([*made, "--size-m", "960"], check=True)
    found = subprocess.run([*program, "check", "mine", "--json"], check=True, capture_output=True, text=True)
    assert json.loads(found.stdout)["result"]["ok"] is True
