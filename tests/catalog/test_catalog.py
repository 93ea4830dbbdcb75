"""The catalogue: the package's own, one in the working folder, and studies made from entries."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.catalog import Catalog, load_catalog, load_imagery, load_study
from causalsat.exceptions import CatalogError

DATA = Path(os.environ.get("CAUSALSAT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def write_trial(folder: Path) -> dict[str, str]:
    """Units, places and a raster in a folder; returns checksums."""
    import rasterio
    from rasterio.transform import from_origin

    folder.mkdir(parents=True, exist_ok=True)
    units = pd.DataFrame(
        {"id": [1, 2, 3, 4], "y": [1.0, 2.0, 3.0, 4.0], "arm": ["no", "no", "yes", "yes"], "age": [20, 30, 40, 50],
         "lon": [32.1, 32.2, 32.3, 32.4], "lat": [1.1, 1.2, 1.3, 1.4]}
    )  # fmt: skip
    units.to_csv(folder / "units.csv", index=False)
    units[["lon", "lat"]].to_csv(folder / "places.csv", index=False)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 2, "height": 100, "width": 100, "crs": "EPSG:4326"}
    for year in (2001, 2003):
        with rasterio.open(
            folder / f"scene_{year}0101.tif", "w", transform=from_origin(32, 2, 0.01, 0.01), **profile
        ) as out:
            out.write(np.full((2, 100, 100), year - 2000, dtype="uint8"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


TRIAL = """\
version: 1
datasets:
  toy:
    kind: trial
    licence: CC0
    citation: none
    folder: {folder}
    units:
      file: units.csv
      sha256: {sha}
    places: {{file: places.csv}}
    roles: &roles
      outcome: y
      treatment: arm
      covariates: [age]
      unit: id
      lon: lon
      lat: lat
    treatment_date: 2005-06-01
    imagery:
      scenes:
        kind: sequence
        path: scene_*.tif
        bands: [red, nir]
        date_regex: '_(\\d{{8}})'
        scale: 0.5
  copy:
    kind: trial
    licence: CC0
    citation: none
    folder: {folder}
    units: {{file: units.csv}}
    roles:
      <<: *roles
      covariates: []
"""


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    sums = write_trial(tmp_path / "data")
    file = tmp_path / "catalog.yaml"
    file.write_text(TRIAL.format(folder="data", sha=sums["units.csv"]))
    return load_catalog(file)


def test_packaged_entries_are_there():
    names = set(load_catalog())
    assert {"simulated_trial", "uganda_yop", "example_stac", "example_zarr"} <= names
    table = load_catalog().list()
    assert list(table.columns) == ["name", "kind", "data", "title", "licence"]
    assert (table["licence"].str.len() > 0).all()
    assert table.set_index("name").loc["simulated_trial", "data"] == "made on demand"


def test_relative_paths_roles_and_imagery(catalog):
    study = load_study("toy", catalog)
    np.testing.assert_array_equal(study.treatment, [0, 0, 1, 1])
    assert list(study.X.columns) == ["age", "geometry"]
    assert list(study.X.index) == [1, 2, 3, 4]
    assert (len(study.places), study.name, study.licence) == (4, "toy", "CC0")
    assert study.imagery.bands == ("red", "nir")
    assert [str(d) for d in study.imagery.dates] == ["2001-01-01", "2003-01-01"]
    window = study.imagery.read_window(10, 10, 2, 2)
    np.testing.assert_array_equal(np.unique(window), [0.5, 1.5])
    report = study.check(size_m=3000)
    assert report.ok, str(report)


def test_options_replace_what_the_entry_says(catalog):
    study = load_study("toy", catalog, covariates=None, imagery=None, licence="mine")
    assert (study.covariates, study.imagery, study.licence) == ((), None, "mine")
    assert load_study("copy", catalog).covariates == ()
    assert load_imagery("toy", catalog).name == "scenes"


def test_environment_variables_and_defaults(tmp_path, monkeypatch):
    sums = write_trial(tmp_path / "elsewhere")
    file = tmp_path / "c.yaml"
    file.write_text(TRIAL.format(folder="${TOY_DATA}", sha=sums["units.csv"]))
    monkeypatch.delenv("TOY_DATA", raising=False)
    assert load_catalog(file).status("toy") == "set TOY_DATA"
    with pytest.raises(CatalogError, match=r"c.yaml, line 7.*TOY_DATA.*export TOY_DATA="):
        load_study("toy", file)
    monkeypatch.setenv("TOY_DATA", str(tmp_path / "elsewhere"))
    assert load_catalog(file).status("toy") == "here"
    assert len(load_study("toy", file)) == 4
    file.write_text(TRIAL.format(folder="${NOT_SET:-elsewhere}", sha=sums["units.csv"]))
    assert len(load_study("toy", file)) == 4


def test_own_catalogue_comes_first_and_the_packaged_stays(tmp_path, monkeypatch):
    write_trial(tmp_path / "data")
    text = TRIAL.replace("toy:", "uganda_yop:").replace("      sha256: {sha}\n", "")
    (tmp_path / "data_catalog.yaml").write_text(text.format(folder="data"))
    monkeypatch.chdir(tmp_path)
    found = load_catalog()
    assert found["uganda_yop"].licence == "CC0"
    assert "simulated_trial" in found
    assert len(load_study("uganda_yop")) == 4


def test_simulated_entry_passes_settings_on():
    study = load_study("simulated_trial", n_units=120, n_sites=24, size_px=256, seed=3, licence="mine")
    assert (study.n_units, study.n_clusters, study.licence) == (120, 24, "mine")
    assert not study.check().errors


def test_imagery_is_no_trial():
    with pytest.raises(CatalogError, match="load_imagery"):
        load_study("example_zarr")


def test_absent_data_name_the_variable_and_the_flag(monkeypatch, tmp_path):
    monkeypatch.delenv("CAUSALSAT_DATA", raising=False)
    monkeypatch.setenv("CAUSALSAT_CACHE", str(tmp_path))
    with pytest.raises(CatalogError) as caught:
        causalsat.load_study("uganda_yop")
    for piece in ("CAUSALSAT_DATA", "download=True", "10.7910/DVN/O8XOSF", "data_catalog.yaml, line"):
        assert piece in str(caught.value)
    assert load_catalog().status("uganda_yop") == "download"


def test_catalogue_import_is_light():
    heavy = "'torch', 'pymc', 'rasterio', 'matplotlib', 'pooch'"
    code = f"import sys, causalsat.catalog; print([m for m in ({heavy}) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not (DATA / "uganda_yop").is_dir(), reason=f"the Uganda data are not in {DATA}")
def test_uganda(monkeypatch):
    monkeypatch.setenv("CAUSALSAT_DATA", str(DATA))
    study = causalsat.load_study("uganda_yop")
    assert (study.n_units, study.n_clusters, len(study.places)) == (2082, 327, 1318)
    assert study.covariates == ("x1", "x3", "x5")
    assert study.imagery.bands == ("swir2", "nir", "green")
    difference = study.y[study.treatment == 1].mean() - study.y[study.treatment == 0].mean()
    assert difference == pytest.approx(0.741, abs=5e-4)
    report = study.check(size_m=5000)
    assert not report.errors
    assert not report.warnings, str(report)
    assert "imagery" in report.passed
    assert "image dates" in report.passed


def test_the_zarr_pattern_opens_a_store(tmp_path, monkeypatch):
    pytest.importorskip("zarr", reason="the [zarr] extra is not installed")
    import rioxarray  # noqa: F401
    import xarray as xr

    y, x = 2 - 0.01 * (np.arange(20) + 0.5), 32 + 0.01 * (np.arange(30) + 0.5)
    values = np.full((2, 1, 20, 30), 7.0, dtype="float32")
    coords = {"time": pd.to_datetime(["2001-01-01", "2003-01-01"]), "band": ["red"], "y": y, "x": x}
    cube = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords, name="reflectance")
    cube.rio.write_crs("EPSG:4326").to_dataset().to_zarr(tmp_path / "cube.zarr")
    monkeypatch.setenv("CAUSALSAT_DATA", str(tmp_path))
    imagery = load_imagery("example_zarr")
    assert [str(d) for d in imagery.dates] == ["2001-01-01", "2003-01-01"]
    np.testing.assert_array_equal(imagery.read_window(0, 0, 2, 2), np.full((2, 1, 2, 2), 7.0))


def test_the_catalogue_is_data_of_the_package():
    """So that every way of installing brings it: the file in the package is that of the checkout."""
    packaged = Path(causalsat.__file__).parent / "catalog" / "data_catalog.yaml"
    assert packaged.read_bytes() == (Path(causalsat.__file__).parents[1] / "data_catalog.yaml").read_bytes()
