"""Pictures of risks show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalsat.evaluation import risk_calibration
from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import plot_decision_against_risk, plot_risk_calibration, plot_testing_policy
from causalsat.posterior import EffectPosterior


def test_reliability_curves_of_two_groups():
    rng = np.random.default_rng(0)
    p = rng.beta(2, 4, 3000)
    happened = rng.random(3000)
    curves = {"tested": risk_calibration(p, happened < p), "untested": risk_calibration(p, happened < p / 2)}
    ax = plot_risk_calibration(curves)
    labels = ax.get_legend_handles_labels()[1]
    assert [label.split(",")[0] for label in labels] == ["tested", "untested"]
    drawn = [line.lines[0].get_xydata() for line in ax.containers]
    np.testing.assert_allclose(drawn[0], np.column_stack([curves["tested"].predicted, curves["tested"].observed]))
    assert (drawn[1][:, 1] < drawn[1][:, 0]).all()
    diagonal = ax.get_lines()[-1].get_xydata()
    np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])


def test_no_curve_is_refused():
    with pytest.raises(DataError, match="no curve"):
        plot_risk_calibration({})


def posterior(draws, kind):
    return EffectPosterior(draws, index=np.arange(draws.shape[1]), kind=kind, treatment=None, baseline=None)


def test_testing_policy_shows_a_group_tested_less_at_the_same_risk():
    rng = np.random.default_rng(0)
    p, far = rng.uniform(0.05, 0.6, 400), np.arange(400) % 2
    noise = 0.02 * rng.standard_normal((500, 1))
    risk, decision = posterior(p + noise, "risk"), posterior(p + 0.3 - 0.2 * far + noise, "decision")
    ax = plot_testing_policy(risk, decision, np.where(far, "far", "near"), bins=5)
    assert ax.get_legend_handles_labels()[1] == ["far", "near"]
    lines = [line.get_xydata() for line in ax.get_lines()]
    for line, shift in zip(lines, (0.1, 0.3), strict=True):
        assert line.shape == (5, 2)
        np.testing.assert_allclose(line[:, 1], line[:, 0] + shift, atol=0.005)
    band = ax.collections[0].get_paths()[0].vertices
    assert np.ptp(band[np.isclose(band[:, 0], lines[0][0, 0]), 1]) == pytest.approx(2 * 1.645 * 0.02, rel=0.15)
    assert plot_testing_policy(risk, decision).get_legend() is None
    ordered = pd.Categorical(np.where(far, "far", "near"), ["near", "far"])
    assert plot_testing_policy(risk, decision, ordered).get_legend_handles_labels()[1] == ["near", "far"]
    with pytest.raises(DataError, match="200 units without a group"):
        plot_testing_policy(risk, decision, np.where(far, "far", None))
    with pytest.raises(DataError, match="same units"):
        plot_testing_policy(risk, decision, far[:3])
    with pytest.raises(ParameterError, match="bins"):
        plot_testing_policy(risk, decision, bins=0)


def risk_file(path, names=("risk", "sd", "lower", "upper", "decision", "support")):
    import rasterio

    values = {name: np.full((6, 8), 0.5, np.float32) for name in names}
    first = names[0]
    values[first] = np.linspace(0, 0.4, 48, dtype=np.float32).reshape(6, 8)
    values["decision" if first == "risk" else "prob_positive"] = values[first][:, ::-1] * 2  # most in the west
    values[first][0, 0] = np.nan
    values["support"][3:, :2] = 0.01
    shape = {"height": 6, "width": 8, "count": 6, "dtype": "float32", "crs": "EPSG:32636", "nodata": np.nan}
    with rasterio.open(path, "w", transform=rasterio.transform.from_origin(4e5, 1e5, 500, 500), **shape) as raster:
        for band, name in enumerate(names, start=1):
            raster.write(values[name], band)
            raster.set_band_description(band, name)
    return path, values


def test_the_map_of_decision_against_risk_is_a_difference_of_ranks(tmp_path):
    from scipy.stats import rankdata

    path, values = risk_file(tmp_path / "risk.tif")
    ax = plot_decision_against_risk(path)
    drawn = np.ma.filled(ax.get_images()[0].get_array(), np.nan)
    known = np.isfinite(values["risk"])
    expected = (rankdata(values["risk"][known]) - 1) / 46
    decided = (rankdata(values["decision"].ravel()) - 1).reshape(6, 8) / 47
    np.testing.assert_allclose(drawn[known], expected - decided[known], atol=1e-6)
    assert np.isnan(drawn[0, 0])
    assert drawn[2, 7] > 0 > drawn[2, 0]  # risk rises eastwards, officials go west
    low, high = ax.get_images()[0].get_clim()
    assert low == -high
    effects = risk_file(tmp_path / "cate.tif", ("cate", "sd", "lower", "upper", "prob_positive", "support"))[0]
    with pytest.raises(DataError, match="map of risk"):
        plot_decision_against_risk(effects)
