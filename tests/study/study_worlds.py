"""A clean clustered trial, made bad in one way by each test of the checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from causalsat.study import Finding, Study, StudyReport

ROLES = {"outcome": "y", "treatment": "d", "cluster": "village", "lon": "lon", "lat": "lat"}


def clean(seed: int = 1, n_villages: int = 60, size: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    village = np.repeat(np.arange(n_villages), size)
    n = len(village)
    lon, lat = rng.uniform(32, 33, n_villages), rng.uniform(1, 2, n_villages)
    d = rng.permutation(np.arange(n_villages) % 2)[village]
    return pd.DataFrame(
        {
            "y": rng.normal(size=n) + 0.5 * d,
            "d": d,
            "village": village,
            "age": rng.integers(18, 60, n),
            "female": rng.integers(0, 2, n),
            "lon": lon[village],
            "lat": lat[village],
        }
    )


def study(frame: pd.DataFrame, **changes: Any) -> Study:
    return Study(frame, **{**ROLES, "covariates": ["age", "female"], **changes})


def check(frame: pd.DataFrame, **changes: Any) -> StudyReport:
    return study(frame, **changes).check()


def only(report: StudyReport, topic: str) -> Finding:
    (finding,) = report.about(topic)
    return finding
