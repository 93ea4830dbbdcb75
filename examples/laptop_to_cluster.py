# %% [markdown]
# # The map takes all night: how do I use more machines?
#
# On a laptop a map is made tile by tile, in one process. The same call with `client=` sends the tiles to a dask
# cluster. A cluster on this machine shows how, and that the map is the same to the last bit; on a real one only the
# address changes. A job that was killed continues where it stopped, on either.

# %%
import shutil
import time
from pathlib import Path

import numpy as np
import rasterio
from distributed import Client
from distributed.deploy.subprocess import SubprocessCluster

import causalsat
from causalsat.report import Figure, Page, Section, Table

out = Path("outputs/laptop_to_cluster")
shutil.rmtree(out, ignore_errors=True)

# %% [markdown]
# Workers read the imagery themselves: it must be a file that all of them see, as must the folder of the map.

# %%
trial = causalsat.simulate.satellite_trial("smooth", n_units=1200, n_sites=150, size_px=512)
files = trial.write(out / "data")
raster = next(path for name, path in files.items() if name.startswith("imagery"))
study = trial.study().replace(imagery=causalsat.open_imagery(raster))
model = study.fit(causalsat.image_model(study, causalsat.DoublyRobustEffect(modifiers="img*"), n_components=8))
quiet = {"resolution": 150, "tile_px": 40, "progress": False, "png": False, "html": False}

# %% [markdown]
# ## On the laptop

# %%
start = time.perf_counter()
local = causalsat.map_effects(model, study.imagery, out=out / "local.tif", **quiet)
seconds = {"one process": time.perf_counter() - start}
print(f"{local.n_mapped:,} cells of {local.resolution_m:.0f} m")

# %% [markdown]
# ## On a cluster
# Two workers in processes of their own. In a notebook `distributed.LocalCluster(n_workers=2)` does the same. On a
# real cluster, start `dask scheduler` on one machine and `dask worker tcp://scheduler:8786` on the others, and pass
# `Client("tcp://scheduler:8786")`; `dask_jobqueue.SLURMCluster` asks a queue for the workers.

# %%
with (
    SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    Client(cluster) as client,
):
    start = time.perf_counter()
    mapped = causalsat.map_effects(model, study.imagery, out=out / "cluster.tif", client=client, **quiet)
    seconds["two workers, the first tiles with their imports"] = time.perf_counter() - start
    start = time.perf_counter()
    causalsat.map_effects(model, study.imagery, out=out / "again.tif", client=client, **quiet)
    seconds["two workers, warm"] = time.perf_counter() - start

# %% [markdown]
# The same map?

# %%
with rasterio.open(local.path) as one, rasterio.open(mapped.path) as other:
    same = np.array_equal(one.read(), other.read(), equal_nan=True)
print(f"the same pixels: {same}")

# %% [markdown]
# One page with the map, drawn on the laptop. A small map gains nothing from a cluster: starting workers and their
# imports cost seconds, which a map of a country hides and this one does not.

# %%
causalsat.plots.save_map(local.path, out / "effects.png")
rows = [[name, f"{value:.1f}"] for name, value in seconds.items()]
page = Page(
    "The map takes all night: how do I use more machines?",
    [f"{local.n_mapped:,} cells; the cluster's pixels are those of one process: {same}."],
    [
        Section(
            "Wall seconds",
            tables=[Table(["where", "s"], rows, "Seconds of the map")],
            figures=[Figure(out / "effects.png", "Map of the effect")],
        )
    ],
)
print("\n".join(f"{name}: {value} s" for name, value in rows))
print(f"wrote {page.write(out / 'report.html')}")
