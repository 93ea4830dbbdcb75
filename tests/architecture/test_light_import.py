"""`import causalsat` stays light, and the public names all resolve."""

import json
import subprocess
import sys

import causalsat

HEAVY = (
    "torch",
    "pymc",
    "rasterio",
    "matplotlib",
    "pandas",
    "geopandas",
    "xarray",
    "sklearn",
    "scipy",
    "nutpie",
    "bokeh",
)
PROGRAM = """
import json, sys, time
start = time.process_time()
import causalsat
used = time.process_time() - start
print(json.dumps({"used": used, "modules": sorted(m for m in sys.modules if "." not in m)}))
"""


def test_import_loads_nothing_heavy_and_takes_little_cpu():
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert not set(HEAVY) & set(runs[0]["modules"])
    assert min(run["used"] for run in runs) < 0.3


def test_every_public_name_resolves_and_is_listed():
    for name in causalsat.__all__:
        assert getattr(causalsat, name) is not None
    assert set(causalsat.__all__) - {"__version__"} <= set(dir(causalsat))


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(causalsat, "no_such_thing")
