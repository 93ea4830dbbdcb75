"""Figures of observational studies show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from causalsat.evaluation import Sensitivity, balance
from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import plot_balance, plot_propensity_salience, plot_sensitivity


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_balance_shows_absolute_differences_the_largest_on_top():
    rng = np.random.default_rng(0)
    t = np.arange(200) % 2
    X = rng.standard_normal((200, 3)) + np.outer(t, [0.2, -1.0, 0.0])
    found = balance(X, t, np.full(200, 0.5), names=("a", "b", "c"))
    ax = plot_balance(found)
    assert ax.get_yticklabels()[-1].get_text() == "b"
    np.testing.assert_allclose(ax.lines[0].get_xdata()[-1], abs(found.raw[1]))
    assert len(plot_balance(found, most=2).get_yticks()) == 2


def test_the_zero_contour_goes_through_the_robustness_value():
    found = Sensitivity(
        0.0973, 0.02326, 783, 0.02326 * np.sqrt(783), {"female": (0.00908, 0.1091), "no": (1e-6, 0.0)}
    )
    ax = plot_sensitivity(found, times=(1, 3), units="points")
    value = found.robustness_value()
    paths = [path for c in ax.collections for path in c.get_paths() if len(path.vertices)]
    nearest = min(np.hypot(*(path.vertices - value).T).min() for path in paths)
    assert nearest < 0.005
    texts = [text.get_text() for text in ax.texts]
    assert {"female", "3 x female"} <= set(texts)
    assert not any(text.endswith("no") for text in texts)  # moves nothing
    assert "(points)" in ax.get_title(loc="left")
    with pytest.raises(ParameterError, match="benchmark 'male'"):
        plot_sensitivity(found, benchmarks=["male"])
    with pytest.raises(DataError, match="residual variance"):
        plot_sensitivity(Sensitivity(1.0, 0.0, 10, 0.0))


def test_salience_is_drawn_beside_each_picture_with_one_symmetric_scale():
    values = np.zeros((2, 4, 4))
    values[1, 2, 3] = -3.0
    figure = plot_propensity_salience(np.random.default_rng(0).random((2, 1, 4, 4)), values, labels=["x", "y"])
    below = [ax.images[0] for ax in figure.axes[2:4]]
    np.testing.assert_array_equal(below[1].get_array(), values[1])
    assert below[0].get_clim() == (-3.0, 3.0)
    assert figure.axes[1].get_title() == "y"
    with pytest.raises(DataError, match="salience of shape"):
        plot_propensity_salience(np.zeros((2, 1, 4, 4)), values[:1])
