"""Outcomes and scores in any unit: the scaled answer, or an error that names the value; never NaN in silence."""

import numpy as np
import pandas as pd
import pytest

from causalsat import evaluation as ev
from causalsat.design import make_design
from causalsat.exceptions import CausalsatError, DataError, ParameterError
from causalsat.inference.sensitivity import sensitivity

N = 240
RNG = np.random.default_rng(0)
TAU, SITE = RNG.standard_normal(N), np.repeat(np.arange(60), 4)
T = np.arange(60)[SITE] % 2
SCORES, Y, X = TAU + RNG.standard_normal(N), TAU * T + RNG.standard_normal(N), RNG.standard_normal((N, 3))
PANEL = pd.DataFrame({"t": np.r_[T, T], "u": np.r_[np.arange(N), np.arange(N)], "w": np.repeat([0, 1], N)})


def panel(unit):
    return PANEL.assign(y=unit * np.r_[Y, Y + T + SCORES])


# what the unit of the scores multiplies, and numbers that do not depend on it
SCALED = {
    "blp": lambda u: ((f := ev.blp(u * TAU, u * SCORES, groups=SITE)), (f.ate, f.ate_se), (f.slope, f.slope_se)),
    "blp design": lambda u: ((f := ev.blp(u * TAU, u * SCORES, design=make_design(T, groups=SITE))),
                             (f.ate, f.ate_se), (f.slope, f.p_value, f.p_value_calibrated)),
    "gates": lambda u: ((f := ev.gates(TAU, u * SCORES, groups=SITE)), (*f.estimate, *f.se), (f.trend_p_value,)),
    "rate": lambda u: ((f := ev.rate(TAU, u * SCORES, groups=SITE, n_bootstrap=20)),
                       (f.estimate, f.se, *f.toc.se), (f.ratio, f.df, f.p_value)),
    "qini": lambda u: ((f := ev.rate(u * TAU, u * SCORES, method="qini", weights=1 + np.arange(N), n_bootstrap=20)),
                       (f.estimate, f.se, *f.toc.se), (f.ratio, f.df, f.p_value)),
    "policy": lambda u: ((f := ev.policy_value(TAU > 0, u * SCORES, costs=0.1 * u, groups=SITE)),
                         (f.estimate, f.se), ()),
    "gain": lambda u: ((f := ev.gain_curve(u * TAU, u * SCORES, costs=1.0, n_bootstrap=20)),
                       (*f.gain, *f.se), (f.full_spend,)),
    "sensitivity": lambda u: ((f := sensitivity(u * Y, T, X, groups=SITE)), (f.estimate, f.se, f.scale),
                              (f.partial_r2,)),
    "Lee": lambda u: ((f := ev.lee_bounds(np.where(TAU > -1, u * Y, np.nan), T, groups=SITE)),
                      (f.lower, f.upper, f.lower_se, *f.interval), ()),
    "overlap": lambda u: ((f := ev.overlap(np.full(N, 0.5), T, u * X)), (), (*f.smd_raw, *f.smd_weighted)),
    "balance": lambda u: ((f := ev.balance(u * X, T, np.full(N, 0.5))), (), (*f.raw, *f.variance_ratio)),
    "two waves": lambda u: ((f := ev.two_wave_effects(panel(u), outcome="y", treatment="t", unit="u", wave="w")),
                            (f.estimate, f.se), (f.p_value,)),
    "mean": lambda u: ((f := ev.average_effects(u * Y, T, groups=SITE).iloc[0]), (f["estimate"], f["se"]), ()),
    "measured": lambda u: ((f := ev.prediction_powered(u * SCORES, np.where(TAU > 0, u * Y, np.nan), T)),
                           (f.estimate, f.se), (f.df,)),
    "permutation": lambda u: ((f := ev.permutation_test(X, u * Y, T, groups=SITE, n_permutations=9)), (),
                              (f.statistic, *f.null)),
    "signs": lambda u: ((f := ev.priority_test(TAU, u * SCORES, n_permutations=9)), (), (f.statistic,)),
}  # fmt: skip


@pytest.mark.parametrize("unit", [1e-300, 1e-165, 1e-90, 1e-20, 1e20, 1e90, 1e150, 1e300])
@pytest.mark.parametrize("name", SCALED)
def test_the_unit_is_carried_through_or_named(name, unit):
    _, scaled, free = SCALED[name](1.0)
    try:
        _, of_unit, without = SCALED[name](unit)
    except DataError as error:
        assert not 1e-99 < unit < 1e99, "a unit that squares can hold is refused"
        assert "e-" in str(error) or "e+" in str(error)
        return
    np.testing.assert_allclose(np.array(of_unit) / unit, scaled, rtol=1e-6)
    np.testing.assert_allclose(without, free, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"weights": np.full(N, np.nan)}, DataError, "sample_weight with missing"),
        ({"weights": -np.ones(N)}, DataError, "negative"),
        ({"weights": np.ones(3)}, DataError, "sample_weight"),
        ({"weights": np.zeros(N)}, DataError, "zero"),
        ({"groups": np.ones(3)}, DataError, "groups"),
        ({"benchmarks": {"a": [7]}}, ParameterError, "benchmark 'a' of columns"),
        ({"benchmarks": {"a": ["x"]}}, ParameterError, "positions of columns, 0 to 2"),
        ({"X": np.full((N, 3), "x")}, DataError, "X that is not numbers"),
        ({"X": X * 1e200}, DataError, "column 'x0' has the value"),
    ],
)
def test_sensitivity_names_what_it_cannot_use(change, error, says):
    given = {"y": Y, "treatment": T, "X": X, **change}
    with pytest.raises(error, match=says) as raised:
        sensitivity(**given)
    assert isinstance(raised.value, CausalsatError)
