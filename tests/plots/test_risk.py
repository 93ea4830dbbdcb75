"""The reliability curve shows the numbers that it is given."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.evaluation import risk_calibration
from causalsat.exceptions import DataError
from causalsat.plots import plot_risk_calibration


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
