"""Small standardised designs and points at which densities are compared."""

from __future__ import annotations

import numpy as np

from causalsat.estimators.linear.data import LinearDesign

EXACT = 1e-8  # relative; both sides are closed forms in double precision


def small_design(k=1, *, n=60, p=4, j=3, binary=True, seed=0, strata=0, family="gaussian") -> LinearDesign:
    rng = np.random.default_rng(seed)
    group = np.unique(rng.integers(0, 12, n), return_inverse=True)[1]
    treatment = (rng.random(n) < 0.4).astype(float) if binary else rng.uniform(0, 3, n)
    Z, t = rng.standard_normal((n, p)), treatment - treatment.mean()
    y = 0.3 * Z[:, 0] + t * (0.5 + 0.4 * Z[:, 1]) + rng.standard_normal(n)
    arm = treatment.astype(np.int64) if binary else np.zeros(n, dtype=np.int64)
    stratum = rng.permutation(np.arange(n) % strata) if strata else None
    offset = 0.7 if family in ("negative_binomial", "gamma") else 0.0
    if family == "bernoulli":
        y = (y > 0).astype(float)
    elif family == "negative_binomial":
        y = rng.poisson(np.exp(offset + 0.5 * y)).astype(float)
    elif family == "gamma":
        y = np.exp(offset + 0.5 * y)
    weight = rng.uniform(0.5, 1.5, n)
    return LinearDesign(Z, t[:, None] * Z[:, :j], t, y, weight, arm, group if k else None, k, stratum, offset)


def phis(layout, count=3):
    rng = np.random.default_rng(1)
    return [rng.normal(-0.5, 0.6, layout.n_scales) for _ in range(count)]
