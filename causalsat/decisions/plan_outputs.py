"""The files of a plan: table, pictures, page, words, and the map of its rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat import plots
from causalsat.core.files import whole_file, writing
from causalsat.core.tables import markdown_text, write_csv
from causalsat.decisions.policy_map import PolicyMap, map_policy
from causalsat.decisions.prices import known_of_cells, values_of
from causalsat.mapping import map_effects
from causalsat.mapping.grid import grid_over
from causalsat.mapping.result import page_wanted

__all__ = ["rule_map", "write_plan"]

FloatArray = NDArray[np.float64]

CELLS = 65_000  # of the map of a rule, unless its resolution is given


def write_plan(plan: Any, folder: Path, *, resolution: float | None, with_map: bool, progress: bool) -> list[Path]:
    """Write everything; see :meth:`causalsat.decisions.TargetingPlan.write`."""
    table = plan.table.copy()
    if plan.geometry is not None:
        points = plan.geometry.representative_point().to_crs("EPSG:4326").reindex(table.index)
        table["lon"], table["lat"] = points.x, points.y
    write_csv(table, folder / "targeting.csv")
    paths = [folder / "targeting.csv"]
    drawn: dict[str, Callable[[], Any]] = {"gain_curve.png": plan.plot}
    if plan.geometry is not None:
        drawn["targeting.png"] = lambda: plots.plot_plan(plan)
    words, cells = [plan.paragraph()], None
    if with_map and plan.source is not None:
        mapped, cells, about = rule_map(plan, folder, resolution, progress=progress)
        paths += [folder / "effects.tif", mapped.path]
        drawn["policy.png"] = lambda: plots.plot_policy(mapped, sites=plan.source.sites)
        words.append(about)
    paths += [_picture(folder / name, draw) for name, draw in drawn.items()]
    if plan.geometry is not None and page_wanted("auto"):
        from causalsat.decisions.plan_page import write_plan_page

        effects = None if cells is None else folder / "effects.tif"
        paths.append(write_plan_page(plan, folder / "targeting.html", effects=effects, cells=cells, words=words[1:]))
    with writing(folder / "targeting.md"), whole_file(folder / "targeting.md") as temporary:
        value = plan.value.to_markdown(caption="Value a head")
        temporary.write_text(
            "# Whom to treat\n\n" + "\n\n".join([*map(markdown_text, words), value]) + "\n", encoding="utf-8"
        )
    return [*paths, folder / "targeting.md"]


def _picture(path: Path, draw: Callable[[], Any]) -> Path:
    import matplotlib.pyplot as plt

    figure = draw().figure
    with writing(path), whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png", bbox_inches="tight")
    plt.close(figure)
    return path


def rule_map(
    plan: Any, folder: Path, resolution: float | None, *, progress: bool
) -> tuple[PolicyMap, FloatArray, str]:
    """``effects.tif`` and ``policy.tif`` of a plan, the cost a head of each cell (y, x), and what the map shows."""
    source = plan.source
    resolution = _resolution(source.imagery) if resolution is None else resolution
    effects = map_effects(
        source.model, source.imagery, None, resolution, folder / "effects.tif", progress=progress, png=False,
        html=False, units=plan.units,
    )  # fmt: skip
    a_head, note = cell_costs(source, effects.path, plan.geometry)
    mapped = map_policy(
        effects, folder / "policy.tif", cost=a_head, people=np.where(np.isfinite(a_head), 1.0, np.nan),
        cost_per="person", cutoff=source.cutoff, worth=source.worth, overwrite=True,
    )  # fmt: skip
    share = mapped.n_treated / max(mapped.n_cells, 1)
    about = (
        f"policy.tif and policy.png show where the rule would treat a place: in {share:.0%} of "
        f"{mapped.n_cells:,} cells of {effects.resolution_m:,.6g} m. {note}"
    )
    return mapped, a_head, about.rstrip()


def _resolution(imagery: Any) -> float:
    """Side of a cell in metres such that the map has at most ``CELLS`` cells."""
    grid = grid_over(imagery, None, None)
    return float(grid.resolution_m * max(1.0, np.ceil(np.sqrt(grid.height * grid.width / CELLS))))


def cell_costs(source: Any, effects: Path, geometry: Any) -> tuple[FloatArray, str]:
    """Cost a head in each cell of a map, NaN where it is unknown or nobody lives, and where that comes from."""
    import geopandas as gpd
    import rasterio

    with rasterio.open(effects) as raster:
        shape, crs = raster.shape, raster.crs
        rows, cols = np.indices(shape)
        x, y = raster.xy(rows.ravel(), cols.ravel())
        known = np.isfinite(raster.read(1)).ravel()
    by_place = np.full(shape, source.mean_cost), "Cells have the mean cost a head of the places."
    if not (known_of_cells(source.cost) and (source.people is None or known_of_cells(source.people))):
        return by_place
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(np.asarray(x)[known], np.asarray(y)[known]), crs=crs)
    if geometry is not None and geometry.crs is not None:
        points = points.to_crs(geometry.crs)
    try:
        price = values_of(source.cost, points, "cells", "cost")
        heads = np.ones(len(points))
        if source.people is not None:
            heads = values_of(source.people, points, "cells", "people")
    except (KeyError, AttributeError) as error:  # a function of columns, which only the places have
        return by_place[0], f"{by_place[1]} The function of places asks what cells do not have ({error})."
    a_head = price if source.cost_per == "person" else price / np.where(heads > 0, heads, np.nan)
    out = np.full(shape, np.nan)
    out.ravel()[known] = np.where((a_head > 0) & (heads > 0), a_head, np.nan)
    return out, ""
