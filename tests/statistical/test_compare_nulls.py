"""P-values of comparisons reject at most at their level where nothing differs, at a size for continuous integration.

Trials of ``benchmarks/compare_nulls.py``. Of 60 trials, a test of level .10 rejects more than 14 with a probability
of .001, and one that rejects a quarter of the time does so in every second run.
"""

from __future__ import annotations

import compare_nulls
import numpy as np
import pytest

pytestmark = [pytest.mark.statistical, pytest.mark.slow]


@pytest.mark.parametrize("design", [compare_nulls.DESIGNS[0], compare_nulls.DESIGNS[2]], ids=lambda d: d.label)
def test_differences_and_drivers_of_one_study_reject_at_their_level(design):
    found = compare_nulls.run(60, [design], first_seed=100)[design.label]
    assert found.shape == (60, 16)
    assert found.notna().all(axis=None)
    rejected = (found < 0.1).sum()
    assert (rejected <= 14).all(), rejected[rejected > 14]
    assert rejected.sum() > 15  # of 960 p-values: they are no constants


def test_over_studies_p_values_are_uniform():
    """Studies whose cells are normal: a t-test of the studies' own differences."""
    import pandas as pd

    from causalsat.analysis.drivers import regress

    rng = np.random.default_rng(0)
    levels = pd.MultiIndex.from_product([range(10), list("abc"), list("MN")], names=["study", "source", "model"])
    rows = levels.to_frame(index=False).assign(seed=0)
    rows["study"] = "s" + rows["study"].astype(str)
    p = []
    for _ in range(400):
        study, cell = rng.standard_normal(10), rng.standard_normal((10, 6))
        rows["value"] = (study[:, None] + cell @ np.linalg.cholesky(np.full((6, 6), 0.5) + 0.5 * np.eye(6)).T).ravel()
        p.append(regress(rows, {}, {})["p_value"].iloc[1:4].to_numpy())
    shares = (np.array(p) < 0.1).mean(axis=0)
    assert (np.abs(shares - 0.1) < 3.3 * np.sqrt(0.09 / 400)).all(), shares
