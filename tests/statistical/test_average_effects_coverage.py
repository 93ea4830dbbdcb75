"""Coverage and standard errors of average effects over designs, at a size for continuous integration.

Designs of ``benchmarks/designs.py`` with 30 and 40 uneven clusters, with and without weights. Coverage is pooled over
them: 600 trials a row, of which nominal 95 % leaves .92 to .975 with a probability below .003. A second test draws
many outcomes of one design, so that means of variances are known to a few percent.
"""

from __future__ import annotations

import designs
import numpy as np
import pytest

from causalsat.inference.robust import least_squares

pytestmark = [pytest.mark.statistical, pytest.mark.slow]

CELLS = [
    {"design": design, "n_clusters": n_clusters, "uneven": True, "weighted": weighted}
    for design in designs.DESIGNS
    for n_clusters, weighted in ((30, False), (40, True))
]


def test_intervals_cover_in_every_design():
    rng = np.random.default_rng(20)
    answers: dict[str, list] = {}
    for cell in CELLS:
        for _ in range(100):
            for name, answer in designs.array_rows(designs.draw_trial(rng, **cell)).items():
                answers.setdefault(name, []).append(answer)
    assert len(answers) == 7
    for name, found in answers.items():
        row = designs.summarise(found)
        assert 0.92 <= row["coverage"] <= 0.975, (name, row)
        assert abs(row["bias_sd"]) < 3 / np.sqrt(len(found)), (name, row)
        assert 0.88 < row["se_over_sd"] < 1.2, (name, row)


@pytest.mark.parametrize("icc", [0.0, 0.4])
def test_variances_are_unbiased_under_the_working_model(icc):
    """16 clusters of 2 to 60 units: the mean of V over 600 outcomes is the estimate's variance; CR1's is not."""
    rng = np.random.default_rng(1)
    size = np.array([60, 45, 30, 20, 15, 12, 10, 8, 7, 6, 5, 5, 4, 3, 2, 2])
    cluster = np.repeat(np.arange(16), size)
    t = (np.arange(16) % 2)[cluster].astype(float)[:, None]
    estimates, variances, conventional = [], [], []
    for _ in range(600):
        y = np.sqrt(icc) * rng.standard_normal(16)[cluster] + np.sqrt(1 - icc) * rng.standard_normal(len(cluster))
        fit = least_squares(y, t, clusters=cluster, absorb=np.zeros(len(y)), icc=icc)
        estimates.append(fit.estimate[0])
        variances.append(fit.cov[0, 0])
        conventional.append(least_squares(y, t, clusters=cluster, absorb=np.zeros(len(y)), kind="CR1").cov[0, 0])
    share = np.array([size[k::2] / size[k::2].sum() for k in (0, 1)])
    truth = (share**2).sum() * icc + (1 - icc) * (1 / size[::2].sum() + 1 / size[1::2].sum())
    error = np.std(variances) / np.sqrt(600)
    assert np.var(estimates) == pytest.approx(truth, rel=4 * np.sqrt(2 / 600))
    assert np.mean(variances) == pytest.approx(truth, abs=4 * error)
    assert np.mean(conventional) < truth - 4 * error
