"""The command line in process and as a program: outputs, JSON, errors and exit codes."""

import json
import os
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


def reply(arguments, *, status="ok", code=0):
    """What a command says with --json: one line, always with the same keys."""
    done = RUN.invoke(app, arguments)
    assert done.exit_code == code, done.output
    (line,) = done.stdout.strip().splitlines()
    told = json.loads(line)
    assert list(told) == ["schema", "version", "command", "status", "result", "warnings", "error"]
    assert (told["schema"], told["version"], told["command"]) == (1, __version__, arguments[0])
    assert told["status"] == status
    assert (told["error"] is None) == (status != "error")
    return told


def test_version_and_help():
    assert RUN.invoke(app, ["--version"]).output.strip() == __version__
    text = RUN.invoke(app, ["--help"]).output
    assert all(command in text for command in ("run", "check", "catalog", "map"))


def test_catalog_lists_and_shows():
    listed = RUN.invoke(app, ["catalog"])
    assert listed.exit_code == 0
    assert "simulated_trial" in listed.output
    assert "uganda_yop" in listed.output
    names = [row["name"] for row in reply(["catalog", "--json"])["result"]["datasets"]]
    assert "simulated_trial" in names
    shown = json.loads(RUN.invoke(app, ["catalog", "uganda_yop"]).output)
    assert shown["chip_size_m"] == 5000
    assert reply(["catalog", "uganda_yop", "--json"])["result"] == {"name": "uganda_yop", "entry": shown}


def test_check_of_a_file_prints_and_gives_json(files):
    done = RUN.invoke(app, ["check", *roles(files)])
    assert done.exit_code == 0, done.output
    assert "Ready to fit" in done.output
    found = reply(["check", *roles(files), "--json"])["result"]
    assert found["ok"] is True
    assert found["study"] == "units"
    assert all({"level", "topic", "what", "todo"} <= set(row) for row in found["findings"])


def test_check_exits_with_1_where_the_study_has_errors(files, tmp_path):
    table = pd.read_csv(files["units"]).assign(treatment=1)
    table.to_csv(tmp_path / "units.csv")
    arguments = roles(files)
    arguments[0] = str(tmp_path / "units.csv")
    done = RUN.invoke(app, ["check", *arguments])
    assert done.exit_code == 1
    assert "treatment" in done.output
    told = reply(["check", *arguments, "--json"], status="findings", code=1)
    assert told["result"]["ok"] is False
    assert "treatment" in json.dumps(told["result"]["findings"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "no_such_entry"], "no_such_entry"),
        (["check", "units.csv"], "--outcome"),
        (["check", "absent.csv", "--outcome", "y", "--treatment", "t"], "absent.csv"),
        (["map", "absent.safetensors", "--imagery", "absent.tif"], "absent"),
        (["map", "m.safetensors", "--imagery", "i.tif", "--districts", "absent.gpkg"], "absent.gpkg does not exist"),
        (["map", "m.safetensors", "--imagery", "i.tif", "--district-name", "name"], "--districts"),
        (["check", "simulated_trial", "--outcome", "absent"], "outcome='absent'"),
        (["check", "simulated_trial", "--imagery", "absent.tif"], "absent.tif"),
        (["check", "units.csv", "--catalog", "absent.yaml"], "--catalog"),
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


def test_roles_given_beside_a_catalogue_entry_replace_its_own(tmp_path):
    (tmp_path / "units.csv").write_text("y,z,t,x,lon,lat\n" + "".join(f"{i},{-i},{i % 2},1,32,1\n" for i in range(9)))
    (tmp_path / "c.yaml").write_text(
        "datasets: {toy: {kind: trial, licence: x, citation: x, units: {file: units.csv}, "
        "roles: {outcome: y, treatment: t, lon: lon, lat: lat}}}"
    )
    arguments = ["check", "toy", "--catalog", str(tmp_path / "c.yaml"), "--json"]
    plain = reply(arguments)["result"]["findings"]
    chosen = reply([*arguments, "--outcome", "x", "--covariates", "z"], status="findings", code=1)
    assert "constant" not in json.dumps(plain)
    assert "the outcome is constant" in json.dumps(chosen["result"]["findings"])


def test_an_error_is_json_too():
    told = reply(["check", "units.csv", "--json"], status="error", code=2)
    assert told["result"] is None
    assert told["error"]["kind"] == "ParameterError"
    assert "--outcome" in told["error"]["expected"]
    assert told["error"]["todo"].startswith("causalsat check units.csv")


def test_a_defect_is_told_with_code_70(monkeypatch):
    import causalsat

    monkeypatch.setattr(causalsat, "load_catalog", lambda path: 1 / 0)
    told = reply(["catalog", "--json"], status="error", code=70)
    assert told["error"]["kind"] == "ZeroDivisionError"
    done = RUN.invoke(app, ["catalog"])
    assert done.exit_code == 70
    assert "a defect of the program" in done.stderr
    assert "--verbose" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in RUN.invoke(app, ["catalog", "--verbose"]).stderr


def test_an_interruption_exits_with_130(monkeypatch):
    import causalsat

    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(causalsat, "load_catalog", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(["catalog"])
    assert stop.value.code == 130


def test_warnings_and_log_go_to_standard_error_as_far_as_asked():
    from causalsat.cli import commands as cli
    from causalsat.exceptions import ImageryWarning

    def warn(*args):
        import logging
        import warnings

        warnings.warn("half of it is cloudy", ImageryWarning, stacklevel=1)
        logging.getLogger("causalsat.imagery").info("reading")
        raise cli.typer.Exit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_study", lambda *a: warn())
        plain = RUN.invoke(app, ["check", "x.csv"])
        assert plain.stderr == "causalsat: ImageryWarning: half of it is cloudy\n"
        assert plain.stdout == ""
        assert RUN.invoke(app, ["check", "x.csv", "--quiet"]).stderr == ""
        assert "causalsat.imagery: reading" in RUN.invoke(app, ["check", "x.csv", "-v"]).stderr


def test_warnings_are_in_the_json(monkeypatch):
    import warnings

    import causalsat
    from causalsat.exceptions import DataWarning

    known = causalsat.load_catalog()

    def load(path):
        warnings.warn("something", DataWarning, stacklevel=1)
        return known

    monkeypatch.setattr(causalsat, "load_catalog", load)
    assert reply(["catalog", "--json", "--quiet"])["warnings"] == [{"kind": "DataWarning", "message": "something"}]


def complete(line):
    """What bash would offer at the end of a line."""
    words = line.split(" ")
    environment = {**os.environ, "_CAUSALSAT_COMPLETE": "complete_bash", "COMP_WORDS": line,
                   "COMP_CWORD": str(len(words) - 1)}  # fmt: skip
    command = [sys.executable, "-c", "from causalsat.cli import app; app(prog_name='causalsat')"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("causalsat c", {"check", "catalog"}),
        ("causalsat catalog uga", {"uganda_yop"}),
        ("causalsat map --qu", {"--quiet"}),
    ],
)
def test_the_shell_completes_commands_options_and_data_sets(line, offers):
    assert offers <= set(complete(line))


def test_help_says_exit_codes_and_an_example():
    text = " ".join(RUN.invoke(app, ["--help"]).output.replace("│", " ").split())
    for words in (
        "Exit codes: 0 done",
        "1 the check of a study found errors",
        "130 interrupted",
        "--install-completion",
    ):
        assert words in text
    for command in ("check", "run", "map", "catalog"):
        told = " ".join(RUN.invoke(app, [command, "--help"]).output.replace("│", " ").split())
        assert f"causalsat {command} " in told
        assert all(option in told for option in ("--json", "--verbose", "--quiet"))


def test_wrong_usage_exits_with_2():
    assert RUN.invoke(app, ["run"]).exit_code == 2
    assert RUN.invoke(app, ["nonsense"]).exit_code == 2


@pytest.mark.slow
def test_imagery_of_a_catalogue_entry_has_its_settings(files, tmp_path):
    import rasterio

    from causalsat.cli.commands import opened_imagery
    from causalsat.imagery import open_imagery

    with rasterio.open(files["imagery"]) as source:
        profile, pixels, names = source.profile, source.read(), source.descriptions
    with rasterio.open(tmp_path / "stored.tif", "w", **(profile | {"dtype": "float64", "nodata": None})) as target:
        target.write(10 * pixels.astype(float))
        target.descriptions = names
    (tmp_path / "data.yaml").write_text(
        "version: 1\ndatasets:\n  later_scene:\n    kind: imagery\n    title: stored in tenths\n    licence: mine\n"
        "    citation: mine\n    folder: .\n    imagery:\n      scene:\n        kind: raster\n"
        "        path: stored.tif\n        scale: 0.1\n"
    )
    found = opened_imagery("later_scene", tmp_path / "data.yaml")
    plain = open_imagery(files["imagery"])
    middle = [(v[0] + v[1]) / 2 for v in zip(plain.bounds[:2], plain.bounds[2:], strict=True)]
    import geopandas

    place = geopandas.GeoSeries(geopandas.points_from_xy([middle[0]], [middle[1]]), crs=plain.crs)
    np.testing.assert_allclose(found.chips(place, size_px=9), plain.chips(place, size_px=9), rtol=1e-5)
    refused = reply(["check", *roles(files)[:-4], "--imagery", "later_scen", "--json"], status="error", code=2)
    assert "later_scen" in refused["error"]["what"]  # neither a path nor an entry
    entry = ["--imagery", "later_scene", "--catalog", str(tmp_path / "data.yaml")]
    checked = RUN.invoke(app, ["check", *roles(files)[:-4], *entry])
    assert checked.exit_code == 0, checked.output
    assert "imagery scene" in " ".join(checked.output.split())


def test_run_then_map_of_the_saved_model(files, tmp_path):
    out = tmp_path / "out"
    done = RUN.invoke(app, ["run", *roles(files), "--out", str(out), "--resolution", "480", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    written = json.loads(done.stdout.strip())["result"]["files"]
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


def test_power_of_a_file_of_villages(tmp_path):
    import pandas as pd

    table = pd.DataFrame(np.random.default_rng(0).standard_normal((40, 3)), columns=["a", "b", "c"])
    table.to_csv(tmp_path / "villages.csv", index=False)
    arguments = ["power", str(tmp_path / "villages.csv"), "--villages", "20,30", "--people", "10"]
    arguments += ["--simulations", "4", "--out", str(tmp_path / "power.csv"), "--json", "-q"]
    told = reply(arguments)["result"]
    assert [row["n_villages"] for row in told["power"]] == [20, 30]
    assert pd.read_csv(tmp_path / "power.csv")["average_effect"].between(0, 1).all()
    assert (tmp_path / "power.png").exists()


def test_missing_and_baseline_outcomes_are_named_by_options(files, tmp_path):
    import pandas as pd

    table = pd.read_csv(files["units"])
    outcome = roles(files)[roles(files).index("--outcome") + 1]
    table["before"] = table[outcome] + np.random.default_rng(0).standard_normal(len(table))
    table.loc[::7, outcome] = float("nan")
    table.to_csv(tmp_path / "lost.csv", index=False)
    arguments = ["check", str(tmp_path / "lost.csv"), *roles(files)[1:], "--baseline-outcome", "before", "--json"]
    found = reply(arguments, code=1, status="findings")["result"]["findings"]
    assert any("missing_outcome='weight'" in one["todo"] for one in found if one["level"] == "error")
    found = reply([*arguments, "--missing-outcome", "weight"])["result"]["findings"]
    assert not [one for one in found if one["level"] == "error"]
    assert any(one["topic"] == "baseline outcome" for one in found)


def test_a_plan_for_a_budget(files, tmp_path):
    out = tmp_path / "plan"
    asked = ["--budget", "50", "--cost", "2", "--out", str(out), "--resolution", "960", "--json", "-q"]
    done = RUN.invoke(app, ["target", *roles(files), *asked])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.strip())["result"]
    names = {"targeting.csv", "gain_curve.png", "targeting.png", "targeting.md", "targeting.html"}
    assert set(found["files"]) == names | {"effects.tif", "policy.tif", "policy.png"}
    assert found["value"]["spent"] <= 50 + 1e-9
    assert found["value"]["treated"] <= 25
    refused = RUN.invoke(app, ["target", *roles(files), "--budget", "-5", "-q"])
    assert refused.exit_code == 2
