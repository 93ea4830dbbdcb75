"""The command line in process and as a program: outputs, JSON, errors and exit codes."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from causalsat import __version__
from causalsat.cli import app, main

RUN = CliRunner()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small simulated trial on disk: units file and imagery."""
    from causalsat.simulate import satellite_trial

    trial = satellite_trial("smooth", n_units=400, n_sites=80, size_px=448, seed=1)
    written = trial.write(tmp_path_factory.mktemp("trial"))
    return {"units": written["units"], "imagery": next(v for k, v in written.items() if k.startswith("imagery"))}


def roles(files, *more):
    return [
        str(files["units"]), "--outcome", "outcome", "--treatment", "treatment", "--cluster", "site", "--lon", "lon",
        "--lat", "lat", "--imagery", str(files["imagery"]), "--size-m", "960", *more,
    ]  # fmt: skip


def test_version_and_help():
    assert RUN.invoke(app, ["--version"]).output.strip() == __version__
    text = RUN.invoke(app, ["--help"]).output
    assert all(command in text for command in ("run", "check", "catalog", "map"))


def test_catalog_lists_and_shows():
    listed = RUN.invoke(app, ["catalog"])
    assert listed.exit_code == 0
    assert "simulated_trial" in listed.output
    assert "uganda_yop" in listed.output
    names = [row["name"] for row in json.loads(RUN.invoke(app, ["catalog", "--json"]).output)]
    assert "simulated_trial" in names
    shown = json.loads(RUN.invoke(app, ["catalog", "uganda_yop"]).output)
    assert shown["chip_size_m"] == 5000


def test_check_of_a_file_prints_and_gives_json(files):
    done = RUN.invoke(app, ["check", *roles(files)])
    assert done.exit_code == 0, done.output
    assert "Ready to fit" in done.output
    found = json.loads(RUN.invoke(app, ["check", *roles(files), "--json"]).output)
    assert all({"level", "topic", "what", "todo"} <= set(row) for row in found)


def test_check_exits_with_1_where_the_study_has_errors(files, tmp_path):
    table = pd.read_csv(files["units"]).assign(treatment=1)
    table.to_csv(tmp_path / "units.csv")
    arguments = roles(files)
    arguments[0] = str(tmp_path / "units.csv")
    done = RUN.invoke(app, ["check", *arguments])
    assert done.exit_code == 1
    assert "treatment" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "no_such_entry"], "no_such_entry"),
        (["check", "units.csv"], "--outcome"),
        (["check", "absent.csv", "--outcome", "y", "--treatment", "t"], "absent.csv"),
        (["map", "absent.safetensors", "--imagery", "absent.tif"], "absent"),
        (["catalog", "--catalog", "absent.yaml"], "absent.yaml"),
        (["run", "uganda_yop", "--catalog", "absent.yaml"], "absent.yaml"),
    ],
)
def test_unusable_input_is_one_message_and_exit_code_2(arguments, says, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("causalsat: ")
    assert says in error
    assert "Traceback" not in error


def test_wrong_usage_exits_with_2():
    assert RUN.invoke(app, ["run"]).exit_code == 2
    assert RUN.invoke(app, ["nonsense"]).exit_code == 2


@pytest.mark.slow
def test_run_then_map_of_the_saved_model(files, tmp_path):
    out = tmp_path / "out"
    done = RUN.invoke(app, ["run", *roles(files), "--out", str(out), "--resolution", "480", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    written = json.loads(done.stdout.strip().splitlines()[-1])
    assert {"report.html", "effects.tif", "effects.png", "toc.png", "map.html", "metrics.json"} <= set(written)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["study.n_units"] == 400
    assert np.isfinite(metrics["ate.difference_in_means.estimate"])
    again = subprocess.run(
        [sys.executable, "-m", "causalsat.cli", "map", str(out / "model.safetensors"), "--imagery",
         str(files["imagery"]), "--resolution", "480", "--out", str(tmp_path / "again.tif"), "--quiet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    import rasterio

    with rasterio.open(out / "effects.tif") as a, rasterio.open(tmp_path / "again.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())
