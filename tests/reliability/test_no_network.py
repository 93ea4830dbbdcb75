"""Nothing is asked of the network unless the user asks for it, by Python, GDAL or PROJ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

JOB = """
import sys
from pathlib import Path
import numpy as np
from sklearn.pipeline import make_pipeline
import causalsat
from causalsat import ImageEncoder, RandomConvFeatures
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.evaluation import rate
from causalsat.simulate import satellite_trial

out = Path(sys.argv[1])
written = satellite_trial("smooth", n_units=120, n_sites=36, size_px=256, seed=1).write(out / "trial")
imagery = causalsat.open_imagery(next(v for k, v in written.items() if k.startswith("imagery")))
roles = {"outcome": "outcome", "treatment": "treatment", "cluster": "site", "lon": "lon", "lat": "lat"}
study = causalsat.Study.from_file(written["units"], **roles, imagery=imagery)
assert study.check(size_m=480).ok
encoder = ImageEncoder(imagery, size_m=480, encoder=RandomConvFeatures(n_features=8), n_components=2)
model = study.fit(make_pipeline(encoder, DoublyRobustEffect(random_state=0)))
causalsat.save(model, out / "m.safetensors")
model = causalsat.load(out / "m.safetensors")
causalsat.map_effects(model, imagery, None, 960, out / "e.tif", progress=False, sites=study.sites())
rate(causalsat.effect(model, study.X).mean(), study.y, n_bootstrap=5)
print("done")
"""

GUARD = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit("Python asked for the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import faults; print(faults.asked_of_the_network(sys.argv[2:]))"
    )

    def run(*command):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, str(BENCHMARKS), *command],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return eval(done.stdout.strip().splitlines()[-1], {}), done.stderr

    return run


@pytest.mark.slow
def test_study_model_map_page_and_evaluation_ask_nothing_of_the_network(asked, tmp_path):
    found, words = asked(sys.executable, "-W", "ignore", "-c", GUARD + JOB, str(tmp_path))
    assert found == (0, 0), words
    assert (tmp_path / "e.html").exists()


@pytest.mark.slow
def test_a_request_would_have_been_seen(asked):
    code = "import rasterio; rasterio.open('/vsicurl/http://192.0.2.1/x.tif')"
    (status, calls), _ = asked(sys.executable, "-c", code)
    assert status != 0
    assert calls > 0
    (status, _), words = asked(sys.executable, "-c", GUARD + "socket.create_connection(('192.0.2.1', 80))")
    assert status != 0
    assert "Python asked for the network" in words


def test_a_web_service_and_a_vrt_of_remote_files_are_refused(tmp_path):
    from causalsat.exceptions import ImageryError
    from causalsat.imagery import open_imagery

    service = tmp_path / "s.tif"
    service.write_text('<GDAL_WMS><Service name="TMS"></Service></GDAL_WMS>')
    with pytest.raises(ImageryError, match=r"s.tif describes a web service.*gdal_translate"):
        open_imagery(service)
    remote = tmp_path / "remote.vrt"
    remote.write_text(
        '<?xml version="1.0"?>\n<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32636</SRS>'
        "<GeoTransform>500000, 10, 0, 100000, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        "<SourceFilename>/vsicurl/http://192.0.2.1/x.tif</SourceFilename>"
        '<SourceBand>1</SourceBand><SourceProperties RasterXSize="8" RasterYSize="8" DataType="Byte"/>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(ImageryError, match=r"remote.vrt is a VRT of files on the net.*network=True"):
        open_imagery(remote)
    assert open_imagery(remote, network=True).unstamped() == ("/vsicurl/http://192.0.2.1/x.tif",)
