"""Difference in differences of two waves against the dummy regression of statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalsat.evaluation import two_wave_effects
from causalsat.exceptions import ColumnError, DataError, TreatmentError

ROLES = {"outcome": "y", "treatment": "d", "unit": "hh", "wave": "year"}


def panel(n=60, seed=0):
    """Households in villages of three, fixed effects, a common change of 2 and an effect of 1."""
    rng = np.random.default_rng(seed)
    village = np.repeat(np.arange(n // 3), 3)
    arm = (rng.permutation(n // 3) % 2)[village]
    level, shared = 3 * rng.standard_normal(n) + 2 * arm, 0.5 * rng.standard_normal(n // 3)[village]
    rows = []
    for year in (2010, 2014):
        post = year == 2014
        y = level + 2 * post + arm * post + shared * post + rng.standard_normal(n)
        rows.append(pd.DataFrame({"hh": np.arange(n), "year": year, "d": arm * post, "arm": arm, "y": y}))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(village=np.tile(village, 2), x=rng.standard_normal(2 * n), w=np.tile(rng.uniform(1, 3, n), 2))


def test_it_is_the_regression_with_unit_and_wave_dummies():
    import statsmodels.formula.api as smf

    table = panel()
    found = two_wave_effects(table, **ROLES, covariates=["x"], weights="w", cluster="village")
    fit = smf.wls("y ~ d + x + C(hh) + C(year)", table, weights=table["w"]).fit()
    np.testing.assert_allclose(found.estimate, fit.params["d"], rtol=1e-9)
    change = (
        table[table.year == 2014].set_index("hh")[["y", "d", "x"]]
        - table[table.year == 2010].set_index("hh")[["y", "d", "x"]]
    )
    first = table[table.year == 2010]
    robust = smf.wls("y ~ d + x", change, weights=first["w"].to_numpy()).fit(
        cov_type="cluster", cov_kwds={"groups": first["village"].to_numpy()}
    )
    assert 0.9 < found.se / robust.bse["d"] < 1.2  # CR2 against CR1
    assert found.clusters == 20
    assert found.df < 20


def test_without_covariates_it_is_the_double_difference_of_the_means():
    table = panel(seed=1)
    found = two_wave_effects(table, **ROLES)
    m = table.groupby(["arm", "year"])["y"].mean()
    assert found.estimate == pytest.approx((m[1, 2014] - m[1, 2010]) - (m[0, 2014] - m[0, 2010]))
    assert found.means.loc["treated", 2014] == pytest.approx(m[1, 2014])
    by_arm = two_wave_effects(table, **{**ROLES, "treatment": "arm"})
    assert by_arm.estimate == pytest.approx(found.estimate)
    assert by_arm.se == pytest.approx(found.se)


def test_rows_in_another_order_and_units_with_one_wave():
    table = panel(seed=2)
    found = two_wave_effects(table, **ROLES, cluster="village")
    shuffled = two_wave_effects(table.sample(frac=1, random_state=0), **ROLES, cluster="village")
    assert shuffled.estimate == pytest.approx(found.estimate)
    assert shuffled.se == pytest.approx(found.se)
    lost = table.drop(index=[0, 61]).copy()
    lost.loc[2, "y"] = np.nan
    part = two_wave_effects(lost, **ROLES)
    assert part.left_out == 3
    assert part.n_units == 57
    complete = two_wave_effects(table[~table["hh"].isin([0, 1, 2])], **ROLES)
    assert part.estimate == pytest.approx(complete.estimate)


def test_refusals_name_the_tool():
    table = panel()
    three = pd.concat([table, table[table.year == 2014].assign(year=2018)])
    with pytest.raises(DataError, match=r"3 waves.*pyfixest.*did2s"):
        two_wave_effects(three, **ROLES)
    early = table.assign(d=np.where((table["hh"] < 5), 1, table["d"]))
    with pytest.raises(TreatmentError, match=r"treated in the first wave.*csdid"):
        two_wave_effects(early, **ROLES)
    with pytest.raises(DataError, match="repeat a unit and wave"):
        two_wave_effects(pd.concat([table, table.iloc[:2]]), **ROLES)
    with pytest.raises(ColumnError, match="did you mean 'year'"):
        two_wave_effects(table, **{**ROLES, "wave": "yea"})
    with pytest.raises(TreatmentError, match="no units were treated"):
        two_wave_effects(table.assign(d=0), **ROLES)
    with pytest.raises(DataError, match="have both waves"):
        two_wave_effects(table.assign(hh=np.arange(len(table))), **ROLES)


@pytest.mark.statistical
def test_intervals_cover():
    inside = []
    for seed in range(200):
        found = two_wave_effects(panel(seed=seed), **ROLES, cluster="village")
        inside.append(found.lower < 1 < found.upper)
    assert 0.91 <= np.mean(inside) <= 0.985
