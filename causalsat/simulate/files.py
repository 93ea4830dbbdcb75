"""A simulated trial as files, and as a Study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.core.tables import write_csv
from causalsat.simulate.landscape import SCALE
from causalsat.simulate.moderators import COVARIATES

if TYPE_CHECKING:
    from causalsat.study import Study

QA_RULE = {"band": "qa", "valid": [1]}
TRUTH_COLUMNS = ["tau", "mu0", "baseline", "scene"]


def make_study(trial: Any) -> Study:
    """Study of the trial; imagery in memory, scaled to reflectance 0..1."""
    from causalsat.imagery import open_imagery
    from causalsat.study import Study

    observational = trial.settings.variant == "confounded"
    rule = QA_RULE if trial.clouds == "qa" else None
    return Study(
        trial.units.drop(columns=TRUTH_COLUMNS + (["propensity"] if observational else [])),
        outcome="outcome", treatment="treatment", cluster="site", covariates=list(COVARIATES),
        strata=None if observational else "district", propensity=None if observational else "propensity",
        imagery=open_imagery(trial.imagery, scale=SCALE, mask=rule, name="simulated"),
        places=trial.places[["geometry"]], treatment_date=str(trial.landscape.dates[-1] + np.timedelta64(30, "D")),
        chip_size_m=trial.truth["chip_m"], randomised=not observational,
        name=f"simulated trial ({trial.settings.variant})",
        description="Rendered landscape with a known effect for every unit and every pixel.",
    )  # fmt: skip


def write_trial(trial: Any, folder: Path) -> dict[str, Path]:
    """Write everything below ``folder``; returns what is where."""
    folder.mkdir(parents=True, exist_ok=True)
    written = _write_imagery(trial, folder / "imagery")
    truth_map = trial.tau_map.astype("float32")
    truth_map.attrs["long_name"] = "tau"
    written["tau"] = folder / "tau.tif"
    truth_map.rio.to_raster(written["tau"], driver="COG", compress="deflate")
    for name, frame in (("units", trial.units.drop(columns=TRUTH_COLUMNS)), ("places", trial.places[["geometry"]])):
        written[name] = folder / f"{name}.csv"
        write_csv(_with_lonlat(frame), written[name], float_format="%.10g")
    written["units_truth"] = folder / "units_truth.csv"
    write_csv(trial.units[TRUTH_COLUMNS], written["units_truth"], float_format="%.17g")
    written["places_truth"] = folder / "places_truth.csv"
    write_csv(trial.places[["tau", "scene"]], written["places_truth"], float_format="%.17g")
    written["region"] = folder / "region.gpkg"
    _region_frame(trial).to_file(written["region"], driver="GPKG")
    written["truth"] = folder / "truth.json"
    written["truth"].write_text(json.dumps(trial.truth, indent=2) + "\n")
    return written


def _write_imagery(trial: Any, folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    frames = trial.imagery if "time" in trial.imagery.dims else trial.imagery.expand_dims("time")
    written = {}
    for position, date in enumerate(trial.landscape.dates):
        frame = frames.isel(time=position).drop_vars("time")
        path = folder / f"simulated_{str(date).replace('-', '')}.tif"
        frame.rio.to_raster(path, driver="COG", compress="deflate", blocksize=256, overview_resampling="nearest")
        written[f"imagery_{date}"] = path
    return written


def _with_lonlat(frame: Any) -> Any:
    """Table with ``lon`` and ``lat`` (degrees, EPSG:4326) in place of the geometry."""
    import pandas as pd

    degrees = frame.geometry.to_crs("EPSG:4326")
    return pd.DataFrame(frame.drop(columns="geometry")).assign(lon=degrees.x, lat=degrees.y)


def _region_frame(trial: Any) -> Any:
    import geopandas as gpd

    return gpd.GeoDataFrame({"name": ["trial region"]}, geometry=[trial.region], crs=trial.landscape.crs)
