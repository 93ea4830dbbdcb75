"""Downloads against an archive made here: a Dataverse's answers, its files, and their conversion."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalsat.catalog import load_catalog, load_study
from causalsat.catalog.convert import CONVERTERS, geokey_patches
from causalsat.catalog.fetch import converted_folder
from causalsat.catalog.patches import PatchLayout, average_blocks
from causalsat.exceptions import CatalogError

TINY = PatchLayout(source_px=12, source_m=14.25, average=3)
SITES = {1: (32.5, 1.5), 2: (32.52, 1.5), 3: (33.0, 1.2)}


def patch(site: int, band: int, px: int = 12) -> np.ndarray:
    """Values that say which site, band, row and column they are."""
    rows, cols = np.mgrid[0:px, 0:px]
    return 20 * site + 60 * (band - 1) + rows // 3 + 4 * (cols // 3)


def archive_files(px: int = 12) -> dict[str, bytes]:
    """The archive's files by name, in the formats of the replication data."""
    people = pd.DataFrame(
        {"Yobs": [0.5, np.nan, 1.5, 2.5, 0.1], "Wobs": [0, 1, 1, 0, np.nan], "geo_long": 32.5, "geo_lat": 1.5,
         "geo_long_lat_key": [1, 1, 2, 3, 3], "female": [0, 1, 1, 0, 0], "age": [20, 21, 22, 23, 24]}
    )  # fmt: skip
    keys = pd.DataFrame(
        {"key": list(SITES), "geo_long": [p[0] for p in SITES.values()], "geo_lat": [p[1] for p in SITES.values()]}
    )
    store = io.BytesIO()
    with zipfile.ZipFile(store, "w") as out:
        for site in (1, 2):  # the third has no image
            for band in (1, 2, 3):
                table = pd.DataFrame(patch(site, band, px), columns=[f"V{i + 1}" for i in range(px)])
                out.writestr(f"Uganda2000_processed/GeoKey{site}_BAND{band}.csv", table.to_csv(index=False))
        out.writestr("__MACOSX/Uganda2000_processed/._GeoKey1_BAND1.csv", "junk")
    return {
        "UgandaDataProcessed.csv": people.to_csv(index=False).encode(),
        "UgandaGeoKeyMat.csv": keys.to_csv(index=False).encode(),
        "Uganda2000_processed.zip": store.getvalue(),
        "README.md": b"read me",
    }


def write(files: dict[str, bytes], folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}


def test_average_blocks_by_hand():
    block = np.arange(36, dtype=float).reshape(1, 6, 6)
    np.testing.assert_array_equal(average_blocks(block, 3), [[[7, 10], [25, 28]]])


def test_conversion_places_every_pixel(tmp_path):
    import rasterio
    from rasterio.warp import transform

    out = tmp_path / "out"
    out.mkdir()
    geokey_patches(write(archive_files(), tmp_path / "raw"), out, layout=TINY)
    with rasterio.open(out / "landsat_geocover_2000.tif") as raster:
        assert raster.crs.to_epsg() == 32636
        assert raster.descriptions == ("swir2", "nir", "green")
        assert raster.nodata == 0
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.transform.a == 42.75
        assert raster.transform.c % 42.75 == pytest.approx(0, abs=1e-6)
        image = raster.read()
        for site in (1, 2):
            (x,), (y,) = transform("EPSG:4326", "EPSG:32636", [SITES[site][0]], [SITES[site][1]])
            row, col = raster.index(x, y)
            near = image[:, max(row - 3, 0) : row + 3, max(col - 3, 0) : col + 3]
            start = np.argwhere(near[0] == 20 * site)[0]
            found = near[:, start[0] : start[0] + 4, start[1] : start[1] + 4]
            expected = np.stack([patch(site, band)[::3, ::3] for band in (1, 2, 3)])
            np.testing.assert_array_equal(found, expected[:, : found.shape[1], : found.shape[2]])
            centre = (start + 2) - np.array([min(row, 3), min(col, 3)])
            assert np.abs(centre).max() <= 1  # the patch's centre is the site, to a pixel
        assert (image > 0).all(axis=0).sum() == 2 * 16
    units = pd.read_csv(out / "units.csv")
    assert list(units.columns[:6]) == ["unit", "site", "lon", "lat", "treatment", "outcome"]
    assert list(units["outcome"]) == [0.5, 1.5, 2.5]
    assert list(units["age"]) == [20, 22, 23]
    record = json.loads((out / "conversion.json").read_text())
    assert record == {
        "units": 3,
        "left_out": {"outcome missing": 1, "treatment missing": 1},
        "sites": 3,
        "images_placed": 2,
    }


def test_overlaps_keep_the_first(tmp_path, monkeypatch):
    import rasterio

    monkeypatch.setitem(SITES, 2, (32.5, 1.5))
    out = tmp_path / "out"
    out.mkdir()
    geokey_patches(write(archive_files(), tmp_path / "raw"), out, layout=TINY)
    with rasterio.open(out / "landsat_geocover_2000.tif") as raster:
        image = raster.read(1)
    assert set(np.unique(image[image > 0])) == set(np.unique(patch(1, 1)))


BAD_ARCHIVES = [
    ("no images", lambda f: f.pop("Uganda2000_processed.zip"), "no Uganda2000_processed"),
    ("no units", lambda f: f.pop("UgandaDataProcessed.csv"), "no UgandaDataProcessed"),
    ("no outcome", lambda f: f.update({"UgandaDataProcessed.csv": b"a,b\n1,2\n"}), "no column Yobs"),
]


@pytest.mark.parametrize(("spoil", "piece"), [row[1:] for row in BAD_ARCHIVES], ids=[row[0] for row in BAD_ARCHIVES])
def test_changed_archives_are_explained(tmp_path, spoil, piece):
    files = archive_files()
    spoil(files)
    (tmp_path / "out").mkdir()
    with pytest.raises(CatalogError, match=piece):
        geokey_patches(write(files, tmp_path / "raw"), tmp_path / "out", layout=TINY)


def test_patches_of_another_size_are_explained(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CatalogError, match=r"has 9 x 9 values.*12 rows of 12"):
        geokey_patches(write(archive_files(px=9), tmp_path / "raw"), tmp_path / "out", layout=TINY)


class Answer:
    def __init__(self, content: bytes, url: str, status: int = 200) -> None:
        self.content, self.url, self.status_code, self.headers = content, url, status, {}

    def json(self):
        return json.loads(self.content)

    def raise_for_status(self):
        if self.status_code >= 400:
            raise OSError(f"{self.status_code} for {self.url}")

    def iter_content(self, chunk_size):
        yield self.content


class Dataverse:
    """Answers as a Dataverse does: a DOI that leads to it, a list of files, and files by number.

    The table of people was ingested: listed as .tab with the checksum of the original, which is only sent when
    the original format is asked for.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = files, []

    def get(self, url, params=None, **_):
        self.asked.append(url)
        if url.startswith("https://doi.org/"):
            return Answer(b"", "https://dataverse.example/dataset")
        if "/api/datasets/" in url:
            return Answer(json.dumps({"data": {"latestVersion": {"files": self.listing()}}}).encode(), url)
        name = list(self.files)[int(url.rsplit("/", 1)[-1])]
        ingested = name == "UgandaDataProcessed.csv" and (params or {}).get("format") != "original"
        return Answer(self.files[name].replace(b",", b"\t") if ingested else self.files[name], url)

    def listing(self):
        shown = {"UgandaDataProcessed.csv": "UgandaDataProcessed.tab"}
        return [
            {"dataFile": {"id": i, "filename": shown.get(name, name), "md5": hashlib.md5(content).hexdigest()}}
            for i, (name, content) in enumerate(self.files.items())
        ]


@pytest.fixture
def dataverse(monkeypatch, tmp_path):
    import requests

    from causalsat.catalog import convert

    server = Dataverse(archive_files())
    monkeypatch.setattr(requests, "get", server.get)
    monkeypatch.setenv("CAUSALSAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CAUSALSAT_DATA", raising=False)
    tiny = {"geokey_patches": lambda raw, out: geokey_patches(raw, out, layout=TINY)}
    monkeypatch.setattr(convert, "CONVERTERS", tiny)
    return server


def test_download_of_the_uganda_entry(dataverse):
    with pytest.raises(CatalogError, match="download=True"):
        load_study("uganda_yop")
    assert not dataverse.asked
    study = load_study("uganda_yop", download=True)
    np.testing.assert_array_equal(study.y, [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(study.treatment, [0, 1, 0])
    assert study.covariates == ("female", "age")
    assert len(study.places) == 3
    assert study.imagery.bands == ("swir2", "nir", "green")
    assert not any(url.endswith("/3") for url in dataverse.asked)  # README.md was not wanted
    asked = len(dataverse.asked)
    assert len(load_study("uganda_yop")) == 3  # from the cache, without asking
    assert len(dataverse.asked) == asked
    assert load_catalog().status("uganda_yop") == "here"


def test_a_damaged_download_is_refused(dataverse):
    honest = dataverse.listing()
    dataverse.files = {**dataverse.files, "UgandaGeoKeyMat.csv": b"key,geo_long,geo_lat\n9,0,0\n"}
    dataverse.listing = lambda: honest
    with pytest.raises(CatalogError, match=r"failed: ValueError.*hash"):
        load_study("uganda_yop", download=True)
    assert not converted_folder("uganda_yop").exists()


def test_no_network_is_explained(monkeypatch, dataverse):
    import requests

    def unreachable(*_, **__):
        raise requests.ConnectionError("name resolution failed")

    monkeypatch.setattr(requests, "get", unreachable)
    with pytest.raises(CatalogError, match=r"ConnectionError.*try again later, or fetch the files by hand"):
        load_study("uganda_yop", download=True)


def test_an_archive_without_the_files_is_explained(dataverse):
    dataverse.files.pop("Uganda2000_processed.zip")
    with pytest.raises(CatalogError, match="no file like 'Uganda2000_processed"):
        load_study("uganda_yop", download=True)


def test_the_converters_are_a_fixed_list(tmp_path, monkeypatch):
    assert set(CONVERTERS) == {"geokey_patches"}
    with pytest.raises(TypeError):
        CONVERTERS["mine"] = print
    monkeypatch.setenv("CAUSALSAT_CACHE", str(tmp_path / "cache"))
    text = Path(load_catalog.__globals__["packaged_catalog"]()).read_text()
    (tmp_path / "c.yaml").write_text(text.replace("convert: geokey_patches", "convert: geokey_patch"))
    monkeypatch.delenv("CAUSALSAT_DATA", raising=False)
    with pytest.raises(CatalogError, match="did you mean geokey_patches"):
        load_study("uganda_yop", tmp_path / "c.yaml", download=True)


def test_download_by_address_checks_the_checksum(tmp_path, monkeypatch):
    import http.server
    import threading

    source = tmp_path / "served"
    source.mkdir()
    content = b"y,d,lon,lat\n1,0,32,1\n2,1,32.1,1\n"
    (source / "units.csv").write_bytes(content)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(source))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CAUSALSAT_CACHE", str(tmp_path / "cache"))
    entry = (
        "datasets:\n  toy:\n    kind: trial\n    licence: CC0\n    citation: none\n    folder: nowhere\n"
        "    units: {file: units.csv}\n    roles: {outcome: y, treatment: d, lon: lon, lat: lat}\n    download:\n"
        "      urls: {units.csv: 'http://127.0.0.1:%d/units.csv'}\n      sha256: {units.csv: '%s'}\n"
    )
    file = tmp_path / "c.yaml"
    try:
        file.write_text(entry % (server.server_port, "0" * 64))
        with pytest.raises(CatalogError, match="hash"):
            load_study("toy", file, download=True)
        file.write_text(entry % (server.server_port, hashlib.sha256(content).hexdigest()))
        np.testing.assert_array_equal(load_study("toy", file, download=True).y, [1.0, 2.0])
    finally:
        server.shutdown()
        server.server_close()
