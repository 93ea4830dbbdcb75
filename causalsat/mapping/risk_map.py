"""From a fitted risk model and imagery to a map of risk, of its uncertainty and of the decision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from causalsat import base
from causalsat.exceptions import ParameterError
from causalsat.mapping.effects_map import make_map
from causalsat.mapping.result import MapResult

__all__ = ["map_risk"]


def map_risk(
    model: Any,
    imagery: Any,
    region: Any = None,
    resolution: float | None = None,
    out: str | os.PathLike[str] = "risk.tif",
    *,
    given: str | None = None,
    region_crs: Any = None,
    covariates: Mapping[str, float] | None = None,
    size_m: float | None = None,
    level: float = 0.9,
    min_valid: float | None = None,
    tile_px: int = 128,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    png: bool | str | os.PathLike[str] = True,
    html: bool | str | os.PathLike[str] = "auto",
    sites: Any = None,
    title: str = "",
    note: str = "",
    citation: str = "",
) -> MapResult:
    """Map the risk of every cell of a region, and how likely it is to be tested.

    What :func:`map_effects` is to effects: the same grid, tiles, restart, cluster and files, with the bands risk, sd,
    lower, upper, decision and support. High risk with a low probability
    of testing marks cells that are overlooked.

    Parameters
    ----------
    model : RiskEstimator or Pipeline
        Fitted on a GeoDataFrame (a Pipeline with an ImageEncoder), or on chips (then pass ``size_m``).
    imagery, region, resolution, region_crs, covariates, size_m, min_valid, tile_px, client, progress, overwrite
        As for :func:`map_effects`.
    out : path-like
        The GeoTIFF to write.
    given : {None, "tested", "untested"}
        What is taken as known of the decision, as in ``model.risk``; the sd and the interval are those of that risk.
    level : float
        Level of the intervals.
    png, html : bool or path-like
        Also draw a picture and an interactive page, as for :func:`map_effects`.
    sites : GeoDataFrame, optional
        Units of the fit, drawn on picture and page.
    title, note, citation : str
        Words for the picture and the metadata.

    Returns
    -------
    MapResult
        Paths, and what was mapped.

    Raises
    ------
    ParameterError
        If the model has no risk, or a setting cannot be used; the others as for :func:`map_effects`.
    """
    _, estimator = base.final_estimator(model)
    if not hasattr(estimator, "risk"):
        raise ParameterError(
            f"a model that ends in {type(estimator).__name__}, which has no risk()",
            expected="a risk model, such as SelectiveLabelsRisk, or a Pipeline that ends in one",
            todo="map effects with map_effects",
        )
    if given not in (None, "tested", "untested"):
        raise ParameterError(f"given={given!r}", expected="None, 'tested' or 'untested'")
    return make_map(
        "risk", given, model, imagery, region, resolution, out, region_crs=region_crs, covariates=covariates,
        size_m=size_m, level=level, min_valid=min_valid, tile_px=tile_px, client=client, progress=progress,
        overwrite=overwrite, png=png, html=html, sites=sites, title=title, note=note, citation=citation,
    )  # fmt: skip
