"""How a study looks: its counts in words, its table in a notebook, its sites."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from causalsat.exceptions import ColumnError, DataError
from causalsat.study.building import imagery_names

__all__ = ["facts_of", "html_of", "sites_of"]


def facts_of(study: Any) -> list[str]:
    """Counts in words."""
    clusters = "" if study.n_clusters is None else f" in {study.n_clusters:,} clusters"
    facts = [f"{len(study):,} units{clusters}"]
    try:
        t = study.treatment
        if np.isin(t[~np.isnan(t)], (0.0, 1.0)).all():
            facts.append(f"{int((t == 1).sum()):,} treated and {int((t == 0).sum()):,} control")
        else:
            facts.append(f"treatment from {np.nanmin(t):g} to {np.nanmax(t):g}")
    except (DataError, ColumnError):
        facts.append("treatment not coded")
    facts.append(f"{len(study.covariates)} covariate{'s' if len(study.covariates) != 1 else ''}")
    if study.places is not None:
        facts.append(f"{len(study.places):,} further places")
    facts.append("no imagery" if study.imagery is None else f"imagery {imagery_names(study.imagery)}")
    return facts


def html_of(study: Any) -> str:
    """Table of facts, roles and sources."""
    rows = {"units": ", ".join(study.facts()), **{k: str(v) for k, v in study.roles.items()}}
    rows["covariates"] = ", ".join(study.covariates) or "none"
    rows |= {k: str(getattr(study, k)) for k in ("description", "citation", "licence") if getattr(study, k)}
    body = "".join(f"<tr><th style='text-align:left'>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<strong>Study {escape(study.name)}</strong><table>{body}</table>"


def sites_of(study: Any) -> Any:
    """GeoDataFrame of the clusters, or of the distinct places: counts, mean outcome, mean place."""
    import geopandas as gpd

    units = study.units
    points = units.geometry.representative_point() if (units.geom_type != "Point").any() else units.geometry
    table = pd.DataFrame(
        {"x": points.x, "y": points.y, "treated": study.treatment, "outcome": study.y}, index=units.index
    )
    label = study.groups if study.groups is not None else [f"{x:.7g}, {y:.7g}" for x, y in table[["x", "y"]].values]
    lost = pd.isna(np.asarray(label, dtype=object))
    if lost.any():
        raise DataError(
            f"{int(lost.sum())} units without a cluster, the first at {units.index[lost][0]!r}",
            expected=f"a value of {study.roles['cluster']!r} for each unit",
            todo="name their clusters, or leave them out: study.subset(...)",
        )
    summary = table.groupby(np.asarray(label), sort=True).agg(
        n_units=("x", "size"),
        n_treated=("treated", "sum"),
        mean_outcome=("outcome", "mean"),
        x=("x", "mean"),
        y=("y", "mean"),
    )
    geometry = gpd.points_from_xy(summary["x"], summary["y"])
    summary.index.name = study.roles.get("cluster", "place")
    return gpd.GeoDataFrame(summary.drop(columns=["x", "y"]), geometry=geometry, crs=study.crs)
