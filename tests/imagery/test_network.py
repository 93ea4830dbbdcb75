"""Nothing is fetched unless it is asked for: a local server counts what reaches it, from Python and from GDAL."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from causalsat.catalog import load_imagery, load_study
from causalsat.exceptions import CausalsatError
from causalsat.imagery import open_embeddings, open_imagery
from causalsat.imagery.files import container, gdal_path, is_remote, local_file
from causalsat.imagery.network import sources_of_vrt

TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 100000)
DATA = np.arange(64, dtype="uint8").reshape(1, 8, 8)
KNOWN = (
    '<SourceProperties RasterXSize="8" RasterYSize="8" DataType="Byte" BlockXSize="8" BlockYSize="8"/>'
    '<SrcRect xOff="0" yOff="0" xSize="8" ySize="8"/><DstRect xOff="0" yOff="0" xSize="8" ySize="8"/>'
)


SERVER = """
import http.server, sys
class Counting(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path): return sys.argv[1] + "/" + path.rsplit("/", 1)[-1]
    def log_message(self, *args): open(sys.argv[2], "a").write(self.path + chr(10))
running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
print(running.server_address[1], flush=True)
running.serve_forever()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of one raster in a process of its own, since GDAL holds Python's lock; its log and its address."""
    folder = tmp_path_factory.mktemp("served")
    log = tmp_path_factory.mktemp("log") / "requests"
    tif(folder / "a.tif")
    running = subprocess.Popen([sys.executable, "-c", SERVER, folder, log], stdout=subprocess.PIPE, text=True)
    yield log, f"http://127.0.0.1:{int(running.stdout.readline())}"
    running.kill()
    running.wait()


@pytest.fixture
def asked(server):
    """What tells the requests so far, and an address that GDAL does not know from another test."""
    log, address = server
    log.write_text("")
    return lambda: log.read_text().split(), f"{address}/{uuid.uuid4().hex}"


def tif(path: Path, data: np.ndarray = DATA) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=8, width=8, count=1, dtype="uint8", crs="EPSG:32636", transform=TRANSFORM
    ) as sink:
        sink.write(data)
    return path


def vrt(path: Path, source: str, inside: str = KNOWN, relative: int = 0) -> Path:
    path.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32636</SRS><GeoTransform>500000,10,0,100000,0,-10'
        '</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>1</SourceBand>{inside}'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def tms(path: Path, address: str) -> Path:
    path.write_text(
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{address}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
        "<DataWindow><UpperLeftX>500000</UpperLeftX><UpperLeftY>100000</UpperLeftY><LowerRightX>500080</LowerRightX>"
        "<LowerRightY>99920</LowerRightY><SizeX>8</SizeX><SizeY>8</SizeY></DataWindow>"
        "<Projection>EPSG:32636</Projection><BandsCount>1</BandsCount></GDAL_WMS>"
    )
    return path


def hidden(text: str) -> str:
    """Every character as an XML entity."""
    return "".join(f"&#{ord(c)};" for c in text)


def zipped(folder: Path, file: Path) -> str:
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.write(file, "in/x.vrt")
    return f"zip://{folder}/z.zip!in/x.vrt"


def stac(folder: Path, href: str) -> Path:
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "bbox": [33, 0.8, 33.1, 0.91],
        "properties": {"datetime": "2015-01-01T00:00:00Z"}, "links": [{"rel": "root", "href": "http://192.0.2.1/c.json"}],
        "assets": {"red": {"href": href, "type": "image/tiff; application=geotiff"}},
    }  # fmt: skip
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    return folder / "items.json"


def beside(folder: Path, ending: str, source: str) -> Path:
    """A local raster with a VRT of an address beside it."""
    file = tif(folder / "x.tif")
    if ending.startswith(".vrt"):
        file, ending = vrt(folder / "x.vrt", str(file)), ending.removeprefix(".vrt")
    vrt(file.with_name(file.name + ending), source)
    return file


def statistics(folder: Path, source: str) -> Path:
    file = tif(folder / "x.tif")
    file.with_name("x.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{source}</MDI></Metadata></PAMDataset>'
    )
    return file


WAYS = {
    "an address": lambda t, a: f"{a}/a.tif",
    "vsicurl": lambda t, a: f"/vsicurl/{a}/a.tif",
    "vsicurl with options": lambda t, a: f"/vsicurl?url={a}/a.tif",
    "streaming": lambda t, a: f"/vsicurl_streaming/{a}/a.tif",
    "a zip on the net": lambda t, a: f"/vsizip//vsicurl/{a}/a.zip/b.tif",
    "a scheme of rasterio": lambda t, a: f"zip+{a}/a.zip!b.tif",
    "netCDF": lambda t, a: f'NETCDF:"{a}/a.nc":v',
    "Zarr by GDAL": lambda t, a: f'ZARR:"/vsicurl/{a}/a.zarr":/v',
    "a WMS by name": lambda t, a: f"WMS:{a}/wms?layers=x",
    "a WCS by name": lambda t, a: f"WCS:{a}/wcs?coverage=x",
    "a WMTS by name": lambda t, a: f"WMTS:{a}/wmts",
    "an XML text": lambda t, a: vrt(t / "x.vrt", f"/vsicurl/{a}/a.tif").read_text(),
    "a VRT": lambda t, a: vrt(t / "x.vrt", f"/vsicurl/{a}/a.tif"),
    "a VRT that is opened at once": lambda t, a: vrt(t / "x.vrt", f"/vsicurl/{a}/a.tif", ""),
    "a VRT of an address": lambda t, a: vrt(t / "x.vrt", f"{a}/a.tif", ""),
    "a VRT with entities": lambda t, a: vrt(t / "x.vrt", hidden(f"/vsicurl/{a}/a.tif")),
    "a VRT with a prolog": lambda t, a: _prolog(vrt(t / "x.vrt", f"/vsicurl/{a}/a.tif")),
    "a VRT of a VRT": lambda t, a: vrt(t / "y.vrt", str(vrt(t / "x.vrt", hidden(f"/vsicurl/{a}/a.tif")))),
    "a VRT of a relative VRT": lambda t, a: (vrt(t / "x.vrt", f"{a}/a.tif"), vrt(t / "y.vrt", "x.vrt", "", 1))[1],
    "a VRT of netCDF": lambda t, a: vrt(t / "x.vrt", f"NETCDF:&quot;{a}/a.nc&quot;:v", ""),
    "a VRT of a WMS file": lambda t, a: vrt(t / "x.vrt", str(tms(t / "w.xml", a))),
    "a VRT of an inner VRT": lambda t, a: vrt(
        t / "x.vrt", vrt(t / "y.vrt", f"/vsicurl/{a}/a.tif").read_text().replace("&", "&amp;").replace("<", "&lt;")
    ),
    "a VRT in a zip": lambda t, a: zipped(t, vrt(t / "x.vrt", f"/vsicurl/{a}/a.tif")),
    "a VRT of a zip with a VRT": lambda t, a: vrt(
        t / "o.vrt", gdal_path(zipped(t, vrt(t / "x.vrt", hidden(f"{a}/a.tif"), "")))
    ),
    "a VRT of a list of tiles": lambda t, a: vrt(t / "x.vrt", f"STACIT:&quot;{a}/c.json&quot;", ""),
    "a VRT of a STAC file": lambda t, a: vrt(t / "x.vrt", str(stac(t, f"{a}/a.tif")), ""),
    "a WMS file": lambda t, a: tms(t / "w.xml", a),
    "a WMS file named .tif": lambda t, a: tms(t / "w.tif", a),
    "overviews beside a file": lambda t, a: beside(t, ".ovr", f"/vsicurl/{a}/a.tif"),
    "a mask beside a file": lambda t, a: beside(t, ".msk", f"/vsicurl/{a}/a.tif"),
    "overviews beside a VRT": lambda t, a: beside(t, ".vrt.ovr", hidden(f"/vsicurl/{a}/a.tif")),
    "statistics that name overviews": lambda t, a: statistics(t, f"/vsicurl/{a}/a.tif"),
    "a quality file": lambda t, a: vrt(t / "x_QA.vrt", f"/vsicurl/{a}/a.tif"),
    "a STAC item": lambda t, a: stac(t, f"{a}/a.tif"),
    "a STAC item of a VRT": lambda t, a: stac(t, str(vrt(t / "x.vrt", hidden(f"/vsicurl/{a}/a.tif")))),
    "a STAC address": lambda t, a: f"{a}/catalog.json",
    "a STAC API": lambda t, a: f"{a}/api",
    "a Zarr store": lambda t, a: f"{a}/a.zarr",
}


def _prolog(path: Path) -> Path:
    path.write_text("\n \n" + path.read_text())
    return path


@pytest.mark.parametrize("ending", [".ovr", ".msk"])
def test_local_files_beside_a_raster_are_read(tmp_path, ending):
    """An overview or a mask that is a VRT of a local file is no way to the net."""
    other = tif(tmp_path / "other.tif")
    vrt(tmp_path / f"x.tif{ending}", str(other))
    np.testing.assert_array_equal(open_imagery(tif(tmp_path / "x.tif")).bounds, open_imagery(other).bounds)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore")
def test_nothing_is_fetched_unless_it_is_asked_for(tmp_path, asked, way):
    requests, address = asked
    source = WAYS[way](tmp_path, address)
    mask = None
    if way == "a quality file":
        mask, source = {"replace": [".tif", "_QA.vrt"], "bits": [0]}, tif(tmp_path / "x.tif")
    others = {open_imagery: {"mask": mask}, open_embeddings: {"scales": tmp_path / "x_QA.vrt"} if mask else {}}
    for opener, options in others.items():
        with pytest.raises(CausalsatError):
            opener(source, **options).read_window(0, 0, 8, 8)
    assert requests() == []


REACHED = [
    "an address", "vsicurl", "a VRT", "a VRT of an address", "a VRT with entities", "a VRT of a VRT", "a STAC item"
]  # fmt: skip


@pytest.mark.parametrize("way", REACHED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_asked_for_is_fetched(tmp_path, asked, way):
    requests, address = asked
    imagery = open_imagery(WAYS[way](tmp_path, address), network=True)
    got = imagery.read_window(0, 0, 8, 8)
    np.testing.assert_array_equal(got.reshape(DATA.shape), DATA)
    assert requests()
    assert imagery.unstamped()


@pytest.mark.filterwarnings("ignore")
def test_reading_in_threads_asks_nothing(tmp_path, asked, monkeypatch):
    """Even where the look into the file finds nothing, GDAL asks nothing: the second guard alone."""
    requests, address = asked
    monkeypatch.setattr("causalsat.imagery.handles.sources_of_vrt", lambda path, network: ())
    place = vrt(tmp_path / "x.vrt", f"/vsicurl/{address}/a.tif?{tmp_path.name}")
    imagery = open_imagery(place)
    out = np.empty((3, 1, 4, 4), "float32")
    with pytest.raises(CausalsatError, match="cannot be read"):
        imagery.fill_windows(out, np.array([0, 2, 4]), np.array([0, 1, 2]), threads=2)
    assert requests() == []


CATALOG = """\
version: 1
datasets:
  toy:
    kind: imagery
    licence: CC0
    citation: none
    imagery:
      scene:
        path: {path}
        network: {network}
"""


@pytest.mark.filterwarnings("ignore")
def test_a_catalogue_sends_nothing_unless_asked(tmp_path, asked, monkeypatch):
    requests, address = asked
    monkeypatch.setenv("TOKEN", "a")
    file = tmp_path / "catalog.yaml"
    plain, secret, host = f"{address}/a.tif", f"{address}/${{TOKEN}}.tif", "${HOST}/a.tif"
    monkeypatch.setenv("HOST", address)
    for path, network, message in [
        (plain, "false", r"line 9.*lies on the net.*network=True"),
        (secret, "false", "lies on the net"),
        (host, "false", "lies on the net"),
        (secret, "true", r"would send the environment variable TOKEN over the net.*if you trust"),
        (host, "true", "would send the environment variable HOST"),
        (f"zip+{address}/${{TOKEN}}.zip!a.tif", "true", "would send"),
        (f"/vsicurl/{address}/${{TOKEN}}.tif", "true", "would send"),
        (str(vrt(tmp_path / "x.vrt", hidden(f"/vsicurl/{plain}"))), "false", "a VRT of files on the net"),
    ]:
        file.write_text(CATALOG.format(path=path, network=network))
        with pytest.raises(CausalsatError, match=message):
            load_imagery("toy", file)
    assert requests() == []
    asking = {"network": True}
    for path, network, options in [(plain, "true", {}), (plain, "false", asking), (secret, "true", asking)]:
        file.write_text(CATALOG.format(path=path, network=network))
        np.testing.assert_array_equal(load_imagery("toy", file, **options).read_window(0, 0, 8, 8), DATA)
    assert requests()


def test_a_study_of_a_catalogue_sends_nothing(tmp_path, asked, monkeypatch):
    requests, address = asked
    monkeypatch.setenv("TOKEN", "a")
    (tmp_path / "units.csv").write_text("y,d,lon,lat\n1,0,33,0.9\n2,1,33,0.9\n")
    trial = CATALOG.format(path=f"{address}/${{TOKEN}}.tif", network="true").replace(
        "kind: imagery",
        "kind: trial\n    units: {file: units.csv}\n    roles: {outcome: y, treatment: d, lon: lon, lat: lat}",
    )
    (tmp_path / "catalog.yaml").write_text(trial)
    with pytest.raises(CausalsatError, match="would send the environment variable TOKEN"):
        load_study("toy", tmp_path / "catalog.yaml")
    assert requests() == []


def test_sources_of_a_vrt_are_found_in_all_of_them(tmp_path):
    first, second = tif(tmp_path / "a.tif"), vrt(tmp_path / "x.vrt", "a.tif", KNOWN, 1)
    outer = vrt(tmp_path / "y.vrt", str(second))
    assert sources_of_vrt(str(outer), network=False) == (str(second), str(first))
    assert sources_of_vrt(str(first), network=False) == ()
    itself = vrt(tmp_path / "i.vrt", "i.vrt", KNOWN, 1)
    assert sources_of_vrt(str(itself), network=False) == ()


def test_paths_of_local_files(tmp_path):
    nc = tmp_path / "a b:c.nc"
    nc.write_bytes(b"x")
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"x")
    for path, held in [
        (f'NETCDF:"{nc}":v', nc), (f"netcdf:{nc}:v", nc), (f"HDF5:{nc}://grid/v", nc), (str(nc), nc),
        (f"GPKG:{nc}:layer", nc), (f"zip://{archive}!in/b.tif", archive), (f"/vsizip/{archive}/b.tif", archive),
        (f"/vsigzip//vsitar/{archive}/b.tif", archive), (f"file://{nc}", nc),
    ]:  # fmt: skip
        assert local_file(gdal_path(path)) == str(held)
        assert not is_remote(gdal_path(path))
    assert container(f'NETCDF:"{tmp_path}/none.nc":v') is None
    assert local_file("/vsimem/a.tif") is None
