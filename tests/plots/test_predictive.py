"""Predictive checks: the bands hold the data where the model is right, and the bins count what they say."""

from __future__ import annotations

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from causalsat import EffectPosterior  # noqa: E402
from causalsat.exceptions import DataError, ParameterError  # noqa: E402
from causalsat.plots import plot_predictive  # noqa: E402
from causalsat.plots.predictive import _edges, _shares  # noqa: E402


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


def normal_draws(n=400, seed=0):
    rng = np.random.default_rng(seed)
    t = (np.arange(n) % 2).astype(float)
    return EffectPosterior(rng.standard_normal((300, n)) + 2 * t, kind="outcome"), rng.standard_normal(n) + 2 * t, t


def bands(ax):
    """Lower and upper edge of each arm's band."""
    filled = [p for p in ax.patches if p.get_fill()]
    return [(p.get_data().baseline, p.get_data().values) for p in filled]


def test_bands_hold_the_data_of_the_true_model_and_not_those_of_another():
    predictive, y, t = normal_draws()
    right = plot_predictive(predictive, y, treatment=t)
    wrong = plot_predictive(predictive, 1.6 * y, treatment=t)
    shares = []
    for ax in (right, wrong):
        inside = []
        for (lower, upper), line in zip(bands(ax), ax.lines, strict=True):
            points = line.get_ydata()
            inside.append(((lower <= points) & (points <= upper)).mean())
        shares.append(np.mean(inside))
    assert shares[0] > 0.85  # 90 % of draws lie in the band of each bin
    assert shares[1] < 0.7
    assert [text.get_text() for text in right.get_legend().get_texts()][-2:] == ["treated, model", "treated, data"]


def test_shares_count_values_in_bins():
    draws = np.array([[0.0, 0.5, 1.0, 5.0], [0.1, 0.1, 0.9, 2.0]])
    edges = np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(_shares(draws, edges), [[0.5, 0.25], [0.75, 0.25]])


def test_counts_have_a_bin_each_and_densities_integrate_to_the_share_shown():
    rng = np.random.default_rng(1)
    counts = EffectPosterior(rng.poisson(2.0, (200, 500)).astype(float), kind="outcome")
    ax = plot_predictive(counts, rng.poisson(2.0, 500))
    assert ax.get_ylabel() == "share"
    np.testing.assert_allclose(ax.lines[0].get_xdata(), np.round(ax.lines[0].get_xdata()))
    assert ax.lines[0].get_ydata().sum() == pytest.approx(1.0)
    predictive, y, _ = normal_draws()
    ax = plot_predictive(predictive, y, units="sd")
    edges, counted = _edges(np.asarray(predictive.draws), y, log=False)
    assert not counted
    assert (ax.lines[0].get_ydata() * np.diff(edges)).sum() == pytest.approx(1.0)
    assert ax.get_xlabel() == "outcome (sd)"


def test_a_logarithmic_axis_and_no_data():
    draws = EffectPosterior(np.random.default_rng(2).lognormal(size=(100, 50)), kind="outcome")
    ax = plot_predictive(draws, log=True)
    assert ax.get_xscale() == "log"
    assert len(ax.lines) == 0
    assert len(bands(ax)) == 1


def test_a_wide_prior_leaves_the_data_readable():
    draws = EffectPosterior(50.0 * np.random.default_rng(0).standard_t(2, (200, 60)), kind="outcome")
    y = np.linspace(-1, 1, 60)
    assert plot_predictive(draws, y).get_xlim() == pytest.approx((-5, 5))  # twice the range on either side
    wide = EffectPosterior(np.exp(np.asarray(draws.draws).clip(-200, 200)), kind="outcome")
    assert plot_predictive(wide, np.exp(y), log=True).get_xlim() == pytest.approx((np.exp(-5), np.exp(5)))


def test_refusals():
    predictive, y, _ = normal_draws(n=40)
    with pytest.raises(DataError, match="y of shape"):
        plot_predictive(predictive, y[:10])
    with pytest.raises(DataError, match="logarithmic"):
        plot_predictive(predictive, y, log=True)
    with pytest.raises(ParameterError, match="40 levels"):
        plot_predictive(predictive, y, treatment=np.arange(40.0))
    with pytest.raises(ParameterError, match="level"):
        plot_predictive(predictive, y, level=1.0)
    constant = EffectPosterior(np.full((5, 3), 2.5), kind="outcome")
    assert plot_predictive(constant, np.full(3, 2.5)).get_xlim() == (2.0, 3.0)
