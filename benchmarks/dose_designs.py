"""Continuous treatments of TransTEE's benchmarks (arXiv 2202.01336): simu1 and continuous IHDP, drawn anew each time.

Every replication draws new noise (simu1: new units as well; IHDP: a new split).

Covariates of continuous IHDP are (x - min)/max, with minimum and maximum in the original units (grams, weeks, years),
as in the public implementations of VCNet and TransTEE, whose file holds them unstandardised. The replications of IHDP
hold six of them standardised, so RAW_RANGE brings their units back. Read on the standardised columns the same formula
puts 70 % of the doses above 0.965; the third design is the other reading, each covariate scaled to [0, 1]. The IHDP
covariates are needed: see benchmarks/ihdp.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.simulate import dose_response
from causalsat.simulate.dose_response import DoseTrial

Array = NDArray[np.float64]
RAW_RANGE = [(540, 2500), (20, 36), (2, 15), (1, 4), (17, 137), (14, 43)]  # birth weight, head, weeks preterm, ...


def simu1(rng: np.random.Generator) -> tuple[DoseTrial, int]:
    """700 units of simu1 and the number of those that train."""
    return dose_response.simu1(700, rng), 500


def ihdp_covariates(scaling: str = "original") -> Array:
    """The 25 covariates of IHDP, (x - min)/max in the original units, or scaled to [0, 1]."""
    from ihdp import data_folder

    X = pd.read_csv(data_folder() / "ihdp_npci_1.csv")[[f"x{j}" for j in range(1, 26)]].to_numpy()
    low, high = X.min(axis=0), X.max(axis=0)
    X = (X - low) / (high - low)
    if scaling == "original":
        low[:6], high[:6] = np.array(RAW_RANGE).T
        X = X * (high - low) / high
    return np.asarray(X)


def ihdp(rng: np.random.Generator, scaling: str = "original") -> tuple[DoseTrial, int]:
    """Continuous treatment over the IHDP covariates, in the order of a new split."""
    return dose_response.continuous_ihdp(ihdp_covariates(scaling), rng), 471


DESIGNS: dict[str, Callable[..., tuple[DoseTrial, int]]] = {
    "simu1": simu1,
    "ihdp": ihdp,
    "ihdp, covariates in [0, 1]": partial(ihdp, scaling="unit"),
}
