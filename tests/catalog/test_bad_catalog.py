"""A table of bad catalogues: the message names file, line, entry and key, and what to do."""

from __future__ import annotations

import pytest

from causalsat.catalog import load_catalog, load_study
from causalsat.exceptions import CatalogError

GOOD = """\
version: 1
datasets:
  toy:
    kind: trial
    licence: CC0
    citation: none
    units:
      file: units.csv
    roles:
      outcome: y
      treatment: d
      lon: lon
      lat: lat
    imagery:
      scene:
        path: scene.tif
"""

ENTRY = [
    (
        "unknown key",
        ("    kind:", "    kinds: trial\n    kind:"),
        ["line 4", "'toy'", "'kinds'", "did you mean kind"],
    ),
    (
        "unknown role",
        ("lon: lon", "lon: lon\n      outcomes: y"),
        ["line 13", "roles.outcomes", "did you mean outcome"],
    ),
    (
        "unknown imagery key",
        ("path: scene.tif", "path: s.tif\n        no_data: 0"),
        ["line 17", "did you mean nodata"],
    ),
    ("missing role", ("      outcome: y\n", ""), ["roles.outcome", "add outcome"]),
    ("missing licence", ("    licence: CC0\n", ""), ["'licence'", "line 3", "add licence"]),
    ("wrong kind", ("kind: trial", "kind: rct"), ["line 4", "'rct'", "'trial', 'imagery' or 'simulated'"]),
    ("roles forgotten", ("    roles:\n", "    download:\n"), ["download", "line 10"]),
    ("list for text", ("outcome: y", "outcome: [y]"), ["line 10", "roles.outcome", "string"]),
    ("text for list", ("lon: lon", "lon: lon\n      covariates: x1"), ["line 13", "roles.covariates", "list"]),
    ("text for number", ("path: scene.tif", "path: s.tif\n        nodata: none"), ["line 17", "nodata", "number"]),
    ("bad bands", ("path: scene.tif", "path: s.tif\n        bands: 3"), ["line 17", "bands"]),
    ("bad regex", ("path: scene.tif", "path: s.tif\n        date_regex: '(\\d'"), ["line 17", "regular expression"]),
    ("bad checksum", ("file: units.csv", "file: units.csv\n      sha256: abc"), ["line 9", "64 hexadecimal"]),
    ("checksum of digits", ("file: units.csv", "file: units.csv\n      sha256: 123"), ["line 9", "put it in quotes"]),
    ("bad kind of imagery", ("path: scene.tif", "path: s.tif\n        kind: tiff"), ["line 17", "'raster'"]),
    ("quoted bool", ("    units:", "    randomised: 'maybe'\n    units:"), ["line 7", "randomised", "boolean"]),
    ("trial without units", ("    units:\n      file: units.csv\n", ""), ["'toy'", "units, because kind is trial"]),
    ("no source", ("    units:", "    download: {convert: x}\n    units:"), ["line 7", "either doi or urls"]),
    (
        "url without checksum",
        ("    units:", "    download: {urls: {a: 'https://b'}}\n    units:"),
        ["sha256 for each"],
    ),
    ("key twice", ("outcome: y", "outcome: y\n      outcome: z"), ["line 11", "second time (first on line 10)"]),
    ("tab", ("      outcome: y", "\toutcome: y"), ["line 10", "tab", "spaces"]),
    ("no colon", ("kind: trial", "kind trial"), ["line 5", "not valid YAML"]),
    ("open bracket", ("lon: lon", "lon: [lon"), ["not valid YAML", "bracket"]),
    ("python object", ("licence: CC0", "licence: !!python/name:os.system"), ["line 5", "holds no code"]),
    ("own tag", ("licence: CC0", "licence: !env CC0"), ["line 5", "remove the tag"]),
    ("entry is text", ("  toy:\n", "  other: x\n  toy:\n"), ["line 3", "'other'", "indent"]),
    ("key at the top", ("version: 1", "version: 1\nfolder: x"), ["line 2", "'folder'", "below datasets"]),
    ("other version", ("version: 1", "version: 7"), ["line 1", "version: 1"]),
    ("no datasets", ("datasets:", "data:"), ["has no datasets"]),
]


@pytest.mark.parametrize(("change", "pieces"), [row[1:] for row in ENTRY], ids=[row[0] for row in ENTRY])
def test_bad_entries(tmp_path, change, pieces):
    file = tmp_path / "catalog.yaml"
    assert change[0] in GOOD
    file.write_text(GOOD.replace(*change, 1))
    with pytest.raises(CatalogError) as caught:
        load_catalog(file)
    message = str(caught.value)
    assert str(file) in message
    for piece in pieces:
        assert piece in message, message


def test_the_good_one_is_good(tmp_path):
    (tmp_path / "c.yaml").write_text(GOOD)
    assert load_catalog(tmp_path / "c.yaml")["toy"].roles.outcome == "y"


def test_several_problems_are_told_at_once(tmp_path):
    (tmp_path / "c.yaml").write_text(GOOD.replace("kind: trial", "kind: rct").replace("outcome: y", "outcomes: y"))
    with pytest.raises(CatalogError, match="more"):
        load_catalog(tmp_path / "c.yaml")


USE = [
    ("missing units", {}, ["line 8", "units.csv does not exist"]),
    ("misspelt units", {"unit.csv": "y\n"}, ["line 8", "did you mean unit.csv"]),
    ("missing raster", {"units.csv": "y,d,lon,lat\n1,0,1,1\n"}, ["line 16", "scene.tif does not exist"]),
]


@pytest.mark.parametrize(("files", "pieces"), [row[1:] for row in USE], ids=[row[0] for row in USE])
def test_missing_files(tmp_path, files, pieces):
    (tmp_path / "c.yaml").write_text(GOOD)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError) as caught:
        load_study("toy", tmp_path / "c.yaml")
    for piece in pieces:
        assert piece in str(caught.value)


def test_no_folder_glob_and_checksum(tmp_path):
    (tmp_path / "units.csv").write_text("y,d,lon,lat\n1,0,1,1\n")
    file = tmp_path / "c.yaml"
    file.write_text(GOOD.replace("scene.tif", "scene_*.tif"))
    with pytest.raises(CatalogError, match=r"no file matches .*scene_\*.tif"):
        load_study("toy", file)
    file.write_text(GOOD.replace("    units:", "    folder: nowhere\n    units:"))
    with pytest.raises(CatalogError, match="there is no folder"):
        load_study("toy", file)
    file.write_text(GOOD.replace("file: units.csv", f"file: units.csv\n      sha256: '{'0' * 64}'"))
    with pytest.raises(CatalogError, match=r"line 9.*checksum.*get it again"):
        load_study("toy", file)


def test_unknown_names_and_files(tmp_path):
    with pytest.raises(CatalogError, match="did you mean uganda_yop"):
        load_study("uganda_yob")
    with pytest.raises(CatalogError, match="does not exist"):
        load_catalog(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("datasets: é".encode("latin-1"))
    with pytest.raises(CatalogError, match="UTF-8"):
        load_catalog(tmp_path / "latin.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(CatalogError, match="has no datasets"):
        load_catalog(tmp_path / "empty.yaml")
